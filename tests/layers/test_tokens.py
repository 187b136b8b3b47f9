"""Patches of images and the class token, against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near, pull
from tests.oracle import floats, witness

KEY = jax.random.key(0)
both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def torch_patches(x, kernel, bias, g):
    import torch

    size, _, channels, features = kernel.shape
    layer = torch.nn.Conv2d(channels, features, size, stride=size, bias=bias is not None).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.transpose(3, 2, 0, 1)))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    x = torch.tensor(np.moveaxis(x, -1, 1), dtype=torch.float64, requires_grad=True)
    y = layer(x).flatten(2).transpose(1, 2)
    y.backward(torch.tensor(g, dtype=torch.float64))
    found = {
        "y": y.detach().numpy(),
        "dx": np.moveaxis(np.asarray(x.grad), 1, -1),
        "dkernel": np.asarray(layer.weight.grad).transpose(2, 3, 1, 0),
    }
    return found if layer.bias is None else found | {"dbias": np.asarray(layer.bias.grad)}


@both_precisions
@pytest.mark.parametrize("name", ["square", "wide", "single"])
@pytest.mark.slow_cases("square-float64", "wide-float32", "single-float32")
def test_patch_embed_agrees_with_torch(name, dtype):
    """A square of four patches, unequal sides without a bias, and patches of one pixel."""
    shape, size = {"square": ((2, 6, 6, 3), 3), "wide": ((2, 4, 6, 2), 2), "single": ((2, 2, 3, 3), 1)}[name]
    x, kernel = floats(*shape), floats(size, size, shape[-1], 5, seed=2)
    bias = None if name == "wide" else floats(5, seed=3)
    g = floats(shape[0], shape[1] // size * (shape[2] // size), 5, seed=1)
    expected = witness(f"layers/patch_embed_{name}", lambda: torch_patches(x, kernel, bias, g))
    with jax.enable_x64(dtype is np.float64):
        params = {"kernel": jnp.asarray(kernel, dtype)}
        params |= {} if bias is None else {"bias": jnp.asarray(bias, dtype)}
        out = pull(jn.patch_embed(5, size, use_bias=bias is not None), params, {}, x.astype(dtype), g.astype(dtype))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(out))
        near(out, {**expected, "state": {}}, 2e-6 if dtype is np.float32 else 1e-14)


def test_patches_are_in_row_major_order():
    """With the identity for a kernel, a token holds the pixels of its patch."""
    x = floats(2, 4, 6, 1)
    kernel = jnp.eye(4).reshape(2, 2, 1, 4)
    y, _ = jn.patch_embed(4, 2, use_bias=False).apply({"kernel": kernel}, {}, x)
    patches = [x[:, i : i + 2, j : j + 2].reshape(2, 4) for i in (0, 2) for j in (0, 2, 4)]
    near(y, np.stack(patches, 1), 1e-6)


def test_the_fan_in_is_that_of_a_patch():
    kernel = np.asarray(jn.patch_embed(200, 5).init(KEY, jnp.ones((1, 5, 5, 4)))[0]["kernel"])
    assert abs(kernel.std() - 0.1) < 5 * 0.1 / (2 * kernel.size) ** 0.5


@both_precisions
def test_class_token_agrees_with_torch(dtype):
    x, token, g = floats(3, 4, 2), floats(1, 2, seed=1), floats(3, 5, 2, seed=2)

    def compute():
        import torch

        tx, tt = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (x, token))
        y = torch.cat([tt.expand(3, 1, 2), tx], 1)
        y.backward(torch.tensor(g, dtype=torch.float64))
        return {"y": y.detach().numpy(), "dx": np.asarray(tx.grad), "dtoken": np.asarray(tt.grad)}

    expected = witness("layers/class_token", compute)
    with jax.enable_x64(dtype is np.float64):
        params = {"token": jnp.asarray(token, dtype)}
        out = pull(jn.class_token(), params, {}, x.astype(dtype), g.astype(dtype))
        assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(out))
        near(out, {**expected, "state": {}}, 1e-6 if dtype is np.float32 else 1e-14)


@pytest.mark.parametrize("kind", [np.int32, np.uint8])
def test_the_class_token_lengthens_padded_sequences(kind):
    """An empty sequence becomes the token; padding, even NaN, stays behind the end."""
    lengths, net = np.array([2, 0, 255], kind), jn.class_token()
    x, real = floats(3, 255, 2), np.arange(255)[None] < lengths[:, None]
    token = {"token": jnp.asarray([[5.0, 6.0]])}

    @jax.jit
    def run(token, values):
        def outputs(token, values):
            y, _ = net.apply(token, {}, jn.Padded(values, jnp.asarray(lengths)))
            return y.zeroed(), y.lengths

        y, back, after = jax.vjp(outputs, token, values, has_aux=True)
        return y, after, back(jnp.ones_like(y))

    y, after, (dtoken, dx) = run(token, np.where(real[..., None], x, np.nan))
    assert after.tolist() == [3, 1, 256]
    near(y[:, 0], [[5, 6]] * 3, 0)
    near(y[:, 1:], np.where(real[..., None], x, 0), 0)
    near(dtoken["token"], [[3, 3]], 0)
    near(dx, np.broadcast_to(real[..., None], x.shape), 0)


def test_bfloat16_stays():
    for net, shape in ((jn.patch_embed(3, 2), (2, 4, 4, 3)), (jn.class_token(), (2, 4, 3))):
        x = jnp.ones(shape, jnp.bfloat16)
        params, state = net.init(KEY, x)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
        assert net.apply(params, state, x)[0].dtype == jnp.bfloat16


def test_the_token_starts_at_zero_or_as_told():
    x = jnp.ones((2, 3, 4))
    assert not jn.class_token().init(KEY, x)[0]["token"].any()
    drawn = jn.class_token(token_init=jax.nn.initializers.normal(0.02)).init(KEY, x)[0]["token"]
    assert drawn.shape == (1, 4)
    assert drawn.any()


IMAGE, STEPS = jnp.ones((2, 6, 8, 3)), jnp.ones((2, 3, 4))
MISTAKES = {
    "size": (
        lambda: jn.patch_embed(5, 4).init(KEY, IMAGE),
        r"^patch_embed\(5, 4\) expects height and width divisible by the size 4, got height 6 and width 8; resize, "
        r"crop or pad the images, or use another size$",
    ),
    "size of zero": (lambda: jn.patch_embed(5, 0), r"^patch_embed\(5, 0\) expects size ≥ 1, got 0$"),
    "two sizes": (
        lambda: jn.patch_embed(5, (2, 2)),  # type: ignore[arg-type]
        r"^patch_embed\(5, \(2, 2\)\) expects an integer for size, got tuple \(2, 2\)$",
    ),
    "features": (lambda: jn.patch_embed(0, 2), r"^patch_embed\(0, 2\) expects features ≥ 1, got 0$"),
    "sequences": (
        lambda: jn.patch_embed(5, 2).init(KEY, STEPS),
        r"^patch_embed\(5, 2\) expects \(batch, height, width, channels\), got \(2, 3, 4\); add the missing axis, "
        r"x\[None\] for the batch or x\[..., None\] for the channels$",
    ),
    "integers": (
        lambda: jn.patch_embed(5, 2).init(KEY, IMAGE.astype(jnp.uint8)),
        r"^patch_embed\(5, 2\) expects floating input, got uint8 \(2, 6, 8, 3\); convert it, x.astype\(jnp.float32\) / "
        r"255 for images, or use jn.embed for indices$",
    ),
    "channels": (
        lambda: jn.patch_embed(5, 2).apply(jn.patch_embed(5, 2).init(KEY, IMAGE)[0], {}, IMAGE[..., :1]),
        r"^patch_embed\(5, 2\) has kernel \(2, 2, 3, 5\), but input \(2, 6, 8, 1\) needs kernel \(2, 2, 1, 5\); pass "
        r"input of the shape it was initialized for, or call init again$",
    ),
    "padded images": (
        lambda: jn.patch_embed(5, 2).apply({}, {}, jn.Padded(IMAGE, jnp.array([1, 2]))),
        r"^patch_embed\(5, 2\) takes no Padded sequences: its windows would mix in the padding$",
    ),
    "token of a vector": (
        lambda: jn.class_token().init(KEY, STEPS[0]),
        r"^class_token\(\) expects \(batch, time, features\), got \(3, 4\); add a batch axis with x\[None\]$",
    ),
    "token of an image": (
        lambda: jn.class_token().init(KEY, IMAGE),
        r"^class_token\(\) expects \(batch, time, features\), got \(2, 6, 8, 3\); join its axes of positions "
        r"with x.reshape$",
    ),
    "token of integers": (
        lambda: jn.class_token().apply({"token": jnp.ones((1, 4))}, {}, STEPS.astype(int)),
        r"^class_token\(\) expects floating input, got int32 \(2, 3, 4\); convert it, x.astype\(jnp.float32\) / 255 "
        r"for images, or use jn.embed for indices$",
    ),
    "token of another width": (
        lambda: jn.class_token().apply({"token": jnp.ones((1, 5))}, {}, STEPS),
        r"^class_token\(\) has token \(1, 5\), but input \(2, 3, 4\) needs token \(1, 4\); pass input of the shape it "
        r"was initialized for, or call init again$",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
