"""Every model of the gallery, of small images and few features, with parameters as training might leave them."""

from functools import partial
from typing import Any

import jax
import numpy as np

from jaxnets import Net, models
from tests.cases.case import Case
from tests.oracle import floats, integers


def images(size: int, channels: int = 3) -> np.ndarray:
    return floats(3, size, size, channels)


BITS = integers(4, 6, high=2).astype(np.float32)
STEPS, TOKENS = floats(3, 5, 2), integers(3, 5, high=7)

CASES = [
    Case("alexnet", partial(models.alexnet, 5, hidden=8), images(63)),
    Case("alexnet_2012", partial(models.alexnet_2012, 5, hidden=8), images(67)),
    Case("autoencoder", lambda: models.autoencoder((4, 4, 1), (6,), 2), images(4, 1)),
    Case(
        "bert_words",
        lambda: models.bert("base", "words", vocabulary=7, length=5, layers=1, heads=2, features=4),
        TOKENS,
    ),
    Case("cnn_volume", lambda: models.cnn((3,), 2, spatial_axes=3, hidden=()), floats(3, 4, 5, 4, 2)),
    Case("conv_autoencoder", lambda: models.conv_autoencoder((8, 8, 1), (3, 4), 2), images(8, 1)),
    Case("conv_vae", lambda: models.conv_vae((8, 8, 1), (3, 4), 2), images(8, 1)),
    Case("convnext_tiny", partial(models.convnext_tiny, 5), images(32)),
    Case("dbm", lambda: models.dbm((4, 3)), BITS),
    Case("dbn", lambda: models.dbn((5, 4), 3), BITS),
    Case("deit_tiny", partial(models.deit_tiny, 5, image_size=32, scan=True), images(32)),
    Case("densenet121", partial(models.densenet121, 5), images(32)),
    Case("efficientnet_b0", partial(models.efficientnet_b0, 5), images(32)),
    Case("attentive_encoder_decoder", lambda: models.attentive_encoder_decoder(7, 7, 4), (TOKENS, TOKENS)),
    Case("pointer_generator", lambda: models.pointer_generator(7, 4, copies=2, unknown=1), (TOKENS, TOKENS)),
    Case("encoder_decoder", lambda: models.encoder_decoder(7, 7, 3), (TOKENS, TOKENS)),
    Case("fcn", partial(models.fcn, features=4), images(64)),
    Case("googlenet_2014", partial(models.googlenet_2014, 5), images(224)[:1]),
    Case("gpt2", lambda: models.gpt2(vocabulary=7, length=5, layers=2, heads=2, features=4), TOKENS),
    Case("inception_v3", partial(models.inception_v3, 5), images(75)),
    Case("landmarks", partial(models.landmarks, 5), images(32, 1)),
    Case("lenet5", models.lenet5, images(28, 1)),
    Case("lenet5_1998", models.lenet5_1998, images(32, 1)),
    Case("linear", partial(models.linear, 5), images(4)),
    Case("llama", lambda: models.llama(7, 8, 2, 4, kv_heads=2, hidden=6), TOKENS),
    Case("lstm", lambda: models.lstm(4, 3, layers=2, bidirectional=True), STEPS),
    Case("gru", lambda: models.gru(4, num_outputs=1, vocabulary=7, embedding=3), TOKENS),
    Case("rnn", lambda: models.rnn(4, 3), STEPS),
    Case("language_model", lambda: models.language_model(7, 4, layers=2), TOKENS),
    Case("mlp", partial(models.mlp, (8, 6), 3, norm="layer"), images(4)),
    Case("mobilenet_v2", partial(models.mobilenet_v2, 5), images(32)),
    Case("perceptron", models.perceptron, images(4)),
    Case("rbm", lambda: models.rbm(3), BITS),
    Case("resnet18", partial(models.resnet18, 5), images(32)),
    Case("resnet50", partial(models.resnet50, 5, scan=True), images(32)),
    Case("resnet18_v2", partial(models.resnet18_v2, 5), images(32)),
    Case("resnet_cifar", lambda: models.resnet_cifar(8), images(32)),
    Case("plain_cifar", lambda: models.plain_cifar(8), images(32)),
    Case("transformer", lambda: models.transformer(7, features=4, layers=1, heads=2), (TOKENS, TOKENS)),
    Case("unet", lambda: models.unet(2, widths=(4, 8, 8)), images(16, 1)),
    Case("unet_volume", lambda: models.unet(2, widths=(4, 8), spatial_axes=3), floats(3, 4, 4, 4, 1)),
    Case("vae", lambda: models.vae((4, 4, 1), (6,), 2), images(4, 1)),
    Case("vgg11", partial(models.vgg11, 5, batch_norm=True, hidden=8), images(32)),
]


def trained(net: Net, x: Any) -> Any:
    """Return parameters and state of which none is zero or one, and outputs neither vanish nor explode."""
    rng = np.random.default_rng(0)

    def one(path: Any, leaf: Any) -> np.ndarray:
        name, normal = jax.tree_util.keystr(path, simple=True), rng.standard_normal(leaf.shape).astype(leaf.dtype)
        if "var" in name:
            return 0.5 + normal * normal
        if leaf.ndim > 1:
            # Kernels, stacked ones too: by the root of what each output reads, more or less
            return normal * np.float32(np.prod(leaf.shape[-4:-1]) ** -0.5)
        return 1 + 0.1 * normal if "scale" in name else 0.1 * normal

    return jax.tree_util.tree_map_with_path(one, jax.eval_shape(net.init, jax.random.key(0), x))
