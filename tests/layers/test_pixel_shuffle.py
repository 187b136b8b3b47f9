import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, witness


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["two", "three", "one"])
def test_agrees_with_torch(name, dtype):
    """Only the layout differs: channels last here, first there."""
    factor, shape = {"two": (2, (2, 3, 4, 8)), "three": (3, (2, 2, 1, 9)), "one": (1, (2, 3, 2, 5))}[name]
    batch, height, width, channels = shape
    x, g = floats(*shape), floats(batch, height * factor, width * factor, channels // factor**2, seed=1)

    def compute():
        import torch

        t = torch.tensor(np.moveaxis(x, -1, 1)).requires_grad_()
        y = torch.nn.PixelShuffle(factor)(t)
        y.backward(torch.tensor(np.moveaxis(g, -1, 1)))
        return {"y": np.moveaxis(y.detach().numpy(), 1, -1), "dx": np.moveaxis(np.asarray(t.grad), 1, -1)}

    expected = witness(f"layers/pixel_shuffle_{name}", compute)
    with jax.enable_x64(dtype is np.float64):
        out = pull(jn.pixel_shuffle(factor), {}, {}, x.astype(dtype), g.astype(dtype))
        assert out["y"].dtype == out["dx"].dtype == dtype
        near(out, {**expected, "state": {}}, 0)


def test_bfloat16_stays():
    x = jnp.asarray(floats(2, 3, 4, 8)).astype(jnp.bfloat16)
    y, _ = jn.pixel_shuffle(2).apply({}, {}, x)
    assert y.dtype == jnp.bfloat16
    near(np.sort(np.asarray(y, np.float32), None), np.sort(np.asarray(x, np.float32), None), 0)


X = jnp.ones((2, 3, 4, 8))
MISTAKES = {
    "factor": (lambda: jn.pixel_shuffle(0), r"^pixel_shuffle\(0\) expects factor ≥ 1, got 0$"),
    "no integer": (
        lambda: jn.pixel_shuffle(1.5),  # type: ignore[arg-type]
        r"^pixel_shuffle\(1.5\) expects an integer for factor, got float 1.5$",
    ),
    "channels": (
        lambda: jn.pixel_shuffle(3).apply({}, {}, X),
        r"^pixel_shuffle\(3\) expects channels divisible by factor² = 9, got 8 in \(2, 3, 4, 8\); give the layer "
        r"before it 9 times the channels wanted$",
    ),
    "rank": (
        lambda: jn.pixel_shuffle(2).apply({}, {}, X[:, 0]),
        r"^pixel_shuffle\(2\) expects \(batch, height, width, channels\), got \(2, 4, 8\); add the missing axis, "
        r"x\[None\] for the batch or x\[..., None\] for the channels$",
    ),
    "integers": (
        lambda: jn.pixel_shuffle(2).apply({}, {}, X.astype(jnp.uint8)),
        r"^pixel_shuffle\(2\) expects floating input, got uint8 \(2, 3, 4, 8\); convert it, x.astype\(jnp.float32\) / "
        r"255 for images, or use jn.embed for indices$",
    ),
    "padded": (
        lambda: jn.pixel_shuffle(2).apply({}, {}, jn.Padded(X, jnp.array([1, 3]))),
        r"^pixel_shuffle\(2\) takes no Padded sequences: its windows would mix in the padding$",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
