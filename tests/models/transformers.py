"""Vision transformers. Parameters are torchvision's and timm's; multiply-adds follow from the sizes of the products."""

from functools import partial

from jaxnets import models
from tests.models.row import Row, image


def products(tokens: int, features: int, blocks: int, patch: int) -> int:
    """Return the multiply-adds on an image of three channels: patches, 12 t f² + 2 t² f for each block, the output."""
    within = 12 * tokens * features**2 + 2 * tokens**2 * features
    return (tokens - 1) * patch**2 * 3 * features + blocks * within + features * 1000


ROWS = [
    Row("vit_b_16", models.vit_b_16, image(), 86_567_656, products(197, 768, 12, 16)),
    Row("vit_b_16_scan", partial(models.vit_b_16, scan=True), image(), 86_567_656, products(197, 768, 12, 16)),
    Row("vit_b_32", models.vit_b_32, image(), 88_224_232, products(50, 768, 12, 32)),
    Row("vit_l_16", models.vit_l_16, image(), 304_326_632, products(197, 1024, 24, 16)),
    Row("deit_tiny", models.deit_tiny, image(), 5_717_416, products(197, 192, 12, 16)),
]
