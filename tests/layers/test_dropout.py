import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from tests.layers.near import call, near, pull
from tests.oracle import floats, witness

KEY = jax.random.key(3)


def drop(net, x, key=KEY):
    return np.asarray(call(net, {}, {}, x, key=key, train=True)[0])


def surviving(rate):
    """Return the probability to survive: a float32 rate rounded to a multiple of 2⁻²⁴."""
    return 1 - round(float(np.float32(rate)) * 2**24) / 2**24


def assert_binomial(kept, n, p):
    """Assert that `kept` of `n` lies within 5 standard deviations of n · p."""
    assert abs(kept - n * p) < 5 * (n * p * (1 - p)) ** 0.5 + 1


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.5, 0.9])
def test_the_share_kept_and_the_scale(rate):
    """Survivors are x over the probability to survive, which is that of the float32 rate to within 2⁻²⁵."""
    x = np.abs(floats(50, 40, 31)) + 1
    y = drop(jn.dropout(rate), x)
    kept = y != 0
    assert_binomial(kept.sum(), x.size, 1 - rate)
    true_keep = surviving(rate)
    assert abs(true_keep - (1 - float(np.float32(rate)))) <= 2**-25
    near(y[kept], x[kept] / true_keep, 1e-6)


@jax.enable_x64(True)
def test_the_scale_is_exact_in_float64():
    y = drop(jn.dropout(0.1), np.ones((100, 7)))
    assert set(y.ravel()) == {0.0, 1 / surviving(0.1)}


def test_the_mean_over_keys_is_the_input():
    x = floats(3, 5) + 2
    net = jn.dropout(0.4)
    many = jax.jit(jax.vmap(lambda key: net.apply({}, {}, jnp.asarray(x), key=key, train=True)[0]))
    y = np.asarray(many(jax.random.split(KEY, 20_000)), np.float64)
    deviation = np.abs(x) * (0.4 / 0.6 / 20_000) ** 0.5
    assert (np.abs(y.mean(0) - x) < 5 * deviation).all()


def test_draws_are_independent():
    """Neighbors share a random word, examples a call, steps a key: none of them is correlated."""
    kept = np.stack([drop(jn.dropout(0.5), np.ones((200, 9)), key) for key in jax.random.split(KEY, 8)]) != 0
    for a, b in ((kept[..., 1:], kept[..., :-1]), (kept[:, 1:], kept[:, :-1]), (kept[1:], kept[:-1])):
        assert_binomial((a == b).sum(), a.size, 0.5)


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    data=st.data(),
    rate=st.floats(0.0, 0.999),
)
@pytest.mark.slow
def test_values_shared_along_axes(shape, data, rate):
    axes = data.draw(st.lists(st.integers(-len(shape), len(shape) - 1), max_size=3))
    x = np.abs(floats(*shape)) + 1
    y = drop(jn.dropout(rate, broadcast_axes=axes), x)
    ratio = y / x
    for axis in axes:
        near(ratio, np.broadcast_to(np.take(ratio, [0], axis), ratio.shape), 1e-6)
    true_keep = surviving(rate)
    assert (np.isclose(ratio, 0) | np.isclose(ratio, 1 / true_keep, rtol=1e-6)).all()


def test_axes_that_are_not_shared_differ():
    y = drop(jn.dropout(0.5, broadcast_axes=(1,)), np.ones((20, 3, 21)))
    assert (y == y[:, :1]).all()
    assert_binomial((y[:, 0] != 0).sum(), 20 * 21, 0.5)
    assert (y != y[:1]).any()
    assert (y != y[..., :1]).any()


@pytest.mark.parametrize("places", [(5,), (3, 4), (2, 2, 2)])
def test_whole_channels(places):
    x = np.abs(floats(40, *places, 30)) + 1
    y = drop(jn.spatial_dropout(0.3), x)
    kept = (y != 0).reshape(40, -1, 30)
    assert (kept == kept[:, :1]).all()
    assert_binomial(kept[:, 0].sum(), 40 * 30, 0.7)
    true_keep = surviving(0.3)
    near(y, np.where(y == 0, 0, x / true_keep), 1e-6)


@pytest.mark.parametrize("places", [(), (5,), (3, 2, 2)])
def test_whole_examples(places):
    x = np.abs(floats(2000, *places)) + 1
    y = drop(jn.drop_path(0.3), x)
    kept = (y != 0).reshape(2000, -1)
    assert (kept == kept[:, :1]).all()
    assert_binomial(kept[:, 0].sum(), 2000, 0.7)
    near(y, np.where(y == 0, 0, x / surviving(0.3)), 1e-6)


def test_whole_examples_agree_with_torch():
    """Values and gradients, with our mask in place of the draws of torchvision's `stochastic_depth`."""
    x, g = floats(8, 3, 2), floats(8, 3, 2, seed=1)
    ours = pull(jn.drop_path(0.25), {}, {}, x, g, key=KEY, train=True)
    mask = (np.asarray(ours["y"]) != 0).all((1, 2), keepdims=True)
    assert 0 < mask.sum() < 8

    def compute():
        import torch

        t = torch.tensor(x, requires_grad=True)
        # The body of `stochastic_depth(t, 0.25, "row")` in training.
        noise = torch.tensor(mask.astype(np.float32)).div_(1 - 0.25)
        y = t * noise
        y.backward(torch.tensor(g))
        return {"y": y.detach().numpy(), "dx": np.asarray(t.grad)}

    near(ours, {**witness("layers/drop_path", compute), "state": {}}, 1e-6)


def test_a_block_dropped_is_its_shortcut():
    block = jn.residual(jn.serial(double=lambda x: 2 * x, drop=jn.drop_path(0.5)))
    y = np.asarray(block.apply({}, {}, jnp.ones((16, 3)), key=KEY, train=True)[0])
    assert set(y.ravel()) == {1.0, 5.0}
    near(block.apply({}, {}, jnp.ones((16, 3)))[0], np.full((16, 3), 3.0), 0)


@pytest.mark.parametrize("make", [jn.dropout, jn.spatial_dropout, jn.drop_path])
def test_rates_may_be_traced_and_mapped_over(make):
    """A member of a sweep draws what it draws alone, and what a rate written in the code draws."""
    x = jnp.asarray(floats(4, 6, 3))
    rates, keys = jnp.array([0.0, 0.25, 0.1, 0.9]), jax.random.split(KEY, 4)

    def member(rate, key):
        return make(rate).apply({}, {}, x, key=key, train=True)[0]

    def alone(keys):
        return [member(rate, key) for rate, key in zip([0.0, 0.25, 0.1, 0.9], keys, strict=True)]

    together, members = jax.jit(lambda rates, keys: (jax.vmap(member)(rates, keys), alone(keys)))(rates, keys)
    near(together[0], x, 0)
    for one, other in zip(together, members, strict=True):
        near(one, other, 1e-6)


def test_the_gradient_is_the_mask_times_the_scale():
    x, g = floats(6, 7), floats(6, 7, seed=1)
    for net, train in ((jn.dropout(0.4), True), (jn.dropout(0.4), False), (jn.dropout(0.0), True)):
        out = pull(net, {}, {}, x, g, key=KEY, train=train)
        near(out["dx"], g * np.asarray(out["y"]) / x, 1e-6)
        assert (out["y"] == 0).any() == (train and net.label == "dropout(0.4)")


@pytest.mark.parametrize("net", [jn.dropout(0.5), jn.spatial_dropout(0.5), jn.drop_path(0.5)], ids=str)
def test_evaluation_and_rate_zero_leave_the_input_alone(net):
    x = jnp.asarray(floats(2, 3, 4))
    near(net.apply({}, {}, x)[0], x, 0)
    for off in (jn.dropout(0.0), jn.dropout(0), jn.spatial_dropout(0.0), jn.drop_path(0.0)):
        near(off.apply({}, {}, x, train=True)[0], x, 0)
        assert "random_bits" not in str(
            jax.make_jaxpr(lambda x, off=off: off.apply({}, {}, x, key=KEY, train=True)[0])(x)
        )


def test_bfloat16_is_scaled_before_it_is_rounded():
    x = jnp.asarray(floats(40, 25)).astype(jnp.bfloat16)
    y = drop(jn.dropout(0.1), x)
    exact = (x.astype(jnp.float32) / surviving(0.1)).astype(jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    assert (y == np.where(y == 0, 0, exact)).all()


def test_bfloat16_examples_stay_bfloat16():
    x = jnp.asarray(floats(40, 25)).astype(jnp.bfloat16)
    y = drop(jn.drop_path(0.1), x)
    assert y.dtype == jnp.bfloat16
    assert (y == np.where(y == 0, 0, (x.astype(jnp.float32) / surviving(0.1)).astype(jnp.bfloat16))).all()


def test_padded_sequences_are_dropped_as_a_whole():
    lengths = jnp.array([1, 3] * 20, jnp.int32)
    y, _ = jn.drop_path(0.5).apply({}, {}, jn.Padded(jnp.ones((40, 3, 4)), lengths), key=KEY, train=True)
    near(y.lengths, lengths, 0)
    whole = np.asarray(y.values).reshape(40, -1)
    assert {tuple(np.unique(row)) for row in whole} == {(0.0,), (2.0,)}


def test_padded_sequences_and_numbers_that_are_none():
    lengths = jnp.array([1, 3], jnp.int32)
    values = np.where(np.arange(3)[None, :, None] < np.asarray(lengths)[:, None, None], floats(2, 3, 4), np.nan)
    y, _ = jn.dropout(0.5).apply({}, {}, jn.Padded(jnp.asarray(values), lengths), key=KEY, train=True)
    assert isinstance(y, jn.Padded)
    near(y.lengths, lengths, 0)
    near(y.zeroed(), np.nan_to_num(drop(jn.dropout(0.5), np.nan_to_num(values))), 1e-6)


X = jnp.ones((2, 3))
MISTAKES = {
    "one": (lambda: jn.dropout(1.0), r"dropout\(1.0\) expects rate in \[0, 1\), got 1"),
    "per cent": (lambda: jn.dropout(50), r"expects rate in \[0, 1\), got 50; 50 % is 0.5"),
    "negative": (lambda: jn.spatial_dropout(-0.1), r"spatial_dropout\(-0.1\) expects rate in \[0, 1\)"),
    "no number": (lambda: jn.dropout("half"), r"expects a real number for rate, got str"),  # type: ignore[arg-type]
    "no key": (lambda: jn.dropout(0.5).apply({}, {}, X, train=True), r"is random in training and needs a key"),
    "integers": (lambda: jn.dropout(0.5).apply({}, {}, jnp.ones((2, 3), int)), r"expects floating input, got int32"),
    "axis": (
        lambda: jn.dropout(0.5, broadcast_axes=(2,)).apply({}, {}, X),
        r"expects input with the broadcast_axes \(2,\), got \(2, 3\)",
    ),
    "axis at init": (lambda: jn.dropout(0.5, broadcast_axes=(-3,)).init(KEY, X), r"with the broadcast_axes \(-3,\)"),
    "no places": (
        lambda: jn.spatial_dropout(0.5).init(KEY, X),
        r"with a spatial axis, got \(2, 3\); use jn.dropout",
    ),
    "path rate": (lambda: jn.drop_path(1.0), r"^drop_path\(1.0\) expects rate in \[0, 1\), got 1$"),
    "path key": (
        lambda: jn.drop_path(0.5).apply({}, {}, X, train=True),
        r"^drop_path\(0.5\) is random in training and needs a key, got none; pass apply\(..., key=key, train=True\)$",
    ),
    "path of a scalar": (
        lambda: jn.drop_path(0.5).init(KEY, jnp.ones(())),
        r"^drop_path\(0.5\) expects \(batch, ...\), got a scalar; add a batch axis with x\[None\]$",
    ),
    "path integers": (
        lambda: jn.drop_path(0.5).apply({}, {}, jnp.ones((2, 3), int)),
        r"^drop_path\(0.5\) expects floating input, got int32 \(2, 3\); convert it, x.astype\(jnp.float32\) / 255 for "
        r"images, or use jn.embed for indices$",
    ),
    "parameters": (lambda: jn.dropout(0.5).apply({"scale": X}, {}, X), r"has no parameters, got scale"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
