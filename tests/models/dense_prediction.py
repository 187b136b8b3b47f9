"""FCN, U-Net and landmarks; multiply-adds are of convolutions, transposed ones and dense layers, by hand."""

import jax
import jax.numpy as jnp

import jaxnets as jn
from tests.models.row import Row, image

models = jn.models


def _fcn8s() -> jn.Net:
    return models.fcn(21, models.vgg16()["features"], skips=("23", "16"), features=4096, kernel_size=7)


QUESTIONS = image(32), jax.ShapeDtypeStruct((1, 20, 11), jnp.float32)

ROWS = [
    # The paper's, 388 places of 572: figure 1 with one channel and two classes.
    Row(
        "unet_2015",
        lambda: models.unet(2, padding="VALID", batch_norm=False),
        image(572, 1),
        31_030_658,
        150_428_424_448,
    ),
    # 5,888 features are normed in both convolutions of a level: scales in addition, biases as before.
    Row("unet", models.unet, image(256, 1), 31_030_658 + 5_888, 48_096_083_968),
    # VGG-16's convolutions, 14,714,688 and 15,346,630,656; behind them, at 7², 14² and 28² places:
    # fc6 and fc7 119,545,856; three scores 102,207; transposed convolutions 21² · (4² + 4² + 16²).
    Row("fcn8s_vgg16", _fcn8s, image(), 134_489_759, 21_304_752_336),
    Row("fcn", models.fcn, image(64), 742_463, 27_243_328),
    Row("landmarks", lambda: models.landmarks(68), image(64, 1), 565_368, 10_568_704),
    # Means over places are sums of plain products, which are not counted; a matrix product would be.
    Row("landmarks_heatmap", lambda: models.landmarks(68, head="heatmap"), image(64, 1), 27_828, 10_305_536),
    # Convolutions 16² · 25 · 3 · 16 and 8² · 25 · 16 · 32. 20 questions; each of two steps: queries and results
    # 2 · 20 · 64², keys and values 2 · 8² · 34 · 64, products 2 · 20 · 8² · 64, F 20 · 2 · 64 · 128. 64² + 64 · 10.
    Row(
        "visual_questions",
        lambda: models.visual_questions(10),
        QUESTIONS,
        1_216 + 12_832 + 768 + 2 * 29_632 + 128 + 4_160 + 650,
        307_200 + 819_200 + 20 * 704 + 2 * (163_840 + 278_528 + 163_840 + 327_680) + 20 * (4_096 + 640),
    ),
    Row(
        "unet_volume",
        lambda: models.unet(2, widths=(4, 8), spatial_axes=3),
        jax.ShapeDtypeStruct((1, 8, 8, 8, 1), jnp.float32),
        # 27-place windows 1·4, 4·4, 4·8, 8·8, 8·4, 4·4; norms 2·(4+4+8+8+4+4); upconv 8·8·4 + 4; conv 4·2 + 2
        27 * (4 + 16 + 32 + 64 + 32 + 16) + 64 + 260 + 10,
    ),
]
