import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from tests.layers.near import call, near, pull
from tests.oracle import floats, witness

KEY = jax.random.key(0)
both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def example(shape, seed=0, shift=2.0):
    return floats(*shape, seed=seed, scale=1.5) + np.float32(shift)


def torch_values(make, shape, param_shape):
    """Values and gradients in float64, channels moved to the front and back where the layer wants them there."""
    import torch

    def tensor(array, grad=False):
        return torch.tensor(np.asarray(array, np.float64), requires_grad=grad)

    x = tensor(example(shape), True)
    scale, bias = (tensor(floats(*param_shape, seed=seed), True) for seed in (1, 2))
    y = make(torch.nn.functional, x, scale, bias)
    y.backward(tensor(floats(*shape, seed=9)))
    found = {"y": y.detach(), "dx": x.grad, "dscale": scale.grad, "dbias": bias.grad}
    found = {name: value for name, value in found.items() if value is not None}
    return {name: value.numpy() for name, value in found.items()}


def agree(net, shape, param_shape, dtype, expected):
    with jax.enable_x64(dtype is np.float64):
        x, g = example(shape).astype(dtype), floats(*shape, seed=9).astype(dtype)
        params, state = jax.eval_shape(net.init, KEY, x)
        given = {"scale": floats(*param_shape, seed=1), "bias": floats(*param_shape, seed=2)}
        given = {name: jnp.asarray(value, dtype) for name, value in given.items() if f"d{name}" in expected}
        assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, given)
        found = pull(net, given, state, x, g)
        assert found.pop("state") == {}
        assert all(leaf.dtype == dtype for leaf in found.values())
        near(found, expected, 1e-5 if dtype is np.float32 else 1e-13)


LAYER_NORMS = {"last": (-1, (4, 3, 5)), "all": ((1, 2, 3), (3, 2, 3, 4)), "two": ((-2, -1), (3, 2, 3, 4))}


@both_precisions
@pytest.mark.parametrize("name", LAYER_NORMS)
@pytest.mark.slow_cases("last-float64", "all-float32", "two-float32")
def test_layer_norm_agrees_with_torch(name, dtype):
    axis, shape = LAYER_NORMS[name]
    lengths = shape[-1:] if axis == -1 else shape[-len(axis) :]
    expected = witness(
        f"layers/layer_norm_{name}",
        lambda: torch_values(lambda F, x, s, b: F.layer_norm(x, lengths, s, b), shape, lengths),
    )
    agree(jn.layer_norm(axis=axis), shape, lengths, dtype, expected)


@both_precisions
@pytest.mark.parametrize("name", LAYER_NORMS)
@pytest.mark.slow_cases("last-float64", "all-float32", "two-float32")
def test_rms_norm_agrees_with_torch(name, dtype):
    axis, shape = LAYER_NORMS[name]
    lengths = shape[-1:] if axis == -1 else shape[-len(axis) :]
    expected = witness(
        f"layers/rms_norm_{name}",
        lambda: torch_values(lambda F, x, s, b: F.rms_norm(x, lengths, s, 1e-3), shape, lengths),
    )
    agree(jn.rms_norm(axis=axis, epsilon=1e-3), shape, lengths, dtype, expected)


def test_rms_norm_agrees_with_flax():
    x, g, scale = example((4, 3, 5)), floats(4, 3, 5, seed=9), floats(5, seed=1)
    for shrunk in (1, 1e-3):  # so small that ε counts
        y, back = jax.vjp(lambda s, x: linen.RMSNorm().apply({"params": {"scale": s}}, x), scale, shrunk * x)
        expected = {"y": y, **dict(zip(("dscale", "dx"), back(jnp.asarray(g)), strict=True)), "state": {}}
        near(pull(jn.rms_norm(), {"scale": scale}, {}, shrunk * x, g), expected, 1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_rms_norm_of_large_values_does_not_overflow(dtype):
    """Values and gradients are those of float64, up to the largest number of each dtype."""
    x = jnp.asarray(floats(6, 5)).astype(dtype)
    x = jnp.concatenate([x, x * (jnp.finfo(dtype).max / 8).astype(dtype)])
    g = jnp.asarray(floats(12, 5, seed=1)).astype(dtype)
    net = jn.rms_norm(use_scale=False)
    narrow = pull(net, {}, {}, x, g)
    assert narrow["y"].dtype == dtype
    tolerance = 1e-6 if dtype == jnp.float32 else float(jnp.finfo(dtype).eps)
    with jax.enable_x64(True):
        wide = np.asarray(x).astype(np.float64)
        root = np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6)
        near(narrow["y"], wide / root, tolerance)
        near(narrow["dx"], pull(net, {}, {}, wide, np.asarray(g).astype(np.float64))["dx"], tolerance)


GROUP_NORMS = {"one": (1, (3, 2, 3, 4)), "two": (2, (3, 2, 3, 4)), "instance": (3, (2, 5, 3)), "flat": (2, (3, 6))}


@both_precisions
@pytest.mark.parametrize("name", GROUP_NORMS)
@pytest.mark.slow_cases("one-float32", "two-float64", "instance-float32", "flat-float32", "flat-float64")
def test_group_norm_agrees_with_torch(name, dtype):
    groups, shape = GROUP_NORMS[name]

    def forward(F, x, scale, bias):
        return F.group_norm(x.movedim(-1, 1), groups, scale, bias).movedim(1, -1)

    expected = witness(f"layers/group_norm_{name}", lambda: torch_values(forward, shape, shape[-1:]))
    agree(jn.group_norm(groups), shape, shape[-1:], dtype, expected)


def by_hand(x, places, epsilon):
    """Normalize the values at `places` (an iterable of lists of indices) list by list, in float64."""
    y = np.zeros(x.shape)
    for indices in places:
        values = [float(x[index]) for index in indices]
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        for index, value in zip(indices, values, strict=True):
            y[index] = (value - mean) / (variance + epsilon) ** 0.5
    return y


def together(shape, kind):
    """Return the indices of `shape` in lists of equal `kind`."""
    found = {}
    for index in np.ndindex(*shape):
        found.setdefault(kind(index), []).append(index)
    return list(found.values())


@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    data=st.data(),
    epsilon=st.floats(1e-5, 0.1),
    shift=st.sampled_from([0.0, -30.0, 1000.0]),
)
@pytest.mark.slow  # PyTorch agrees on single shapes, above
def test_layer_norm_agrees_with_loops(shape, data, epsilon, shift):
    axes = data.draw(st.lists(st.integers(1, len(shape) - 1), min_size=1, unique=True))
    given_axes = [axis - len(shape) if data.draw(st.booleans()) else axis for axis in axes]
    x = example(shape, shift=shift)
    net = jn.layer_norm(axis=given_axes, epsilon=epsilon)
    params, _ = net.init(KEY, x)
    lengths = [shape[axis] for axis in sorted(axes)]
    params = {"scale": jnp.asarray(floats(*lengths, seed=1)), "bias": jnp.asarray(floats(*lengths, seed=2))}
    y = by_hand(x, together(shape, lambda index: tuple(k for a, k in enumerate(index) if a not in axes)), epsilon)
    laid = [length if axis in axes else 1 for axis, length in enumerate(shape)]
    expected = y * np.reshape(params["scale"], laid) + np.reshape(params["bias"], laid)
    near(call(net, params, {}, x)[0], expected)


@given(
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    groups=st.integers(1, 3),
    members=st.integers(1, 3),
    epsilon=st.floats(1e-5, 0.1),
    use=st.tuples(st.booleans(), st.booleans()),
)
@pytest.mark.slow  # PyTorch agrees on single shapes, above
def test_group_norm_agrees_with_loops(shape, groups, members, epsilon, use):
    shape = (*shape, groups * members)
    x = example(shape, shift=30.0)
    net = jn.group_norm(groups, epsilon=epsilon, use_scale=use[0], use_bias=use[1])
    params = {name: floats(shape[-1], seed=k) for k, name in enumerate(("scale", "bias")) if use[k]}
    assert jax.tree.map(jnp.shape, net.init(KEY, x)[0]) == jax.tree.map(jnp.shape, params)
    y = by_hand(x, together(shape, lambda index: (index[0], index[-1] // members)), epsilon)
    near(call(net, params, {}, x)[0], y * params.get("scale", 1) + params.get("bias", 0))


@pytest.mark.parametrize("net", [jn.layer_norm(axis=(1, 2)), jn.group_norm(2), jn.rms_norm()], ids=str)
def test_a_large_mean_costs_no_accuracy(net):
    x, g = example((3, 50, 4), shift=1e4), floats(3, 50, 4, seed=1)
    params, state = net.init(KEY, x)
    narrow = pull(net, params, state, x, g)
    with jax.enable_x64(True):
        x, g = x.astype(np.float64), g.astype(np.float64)
        params, state = net.init(KEY, x)
        near(narrow, pull(net, params, state, x, g), 2e-6)


PADDED = {
    "layer": (jn.layer_norm, 0),
    "layer over positions": (lambda: jn.layer_norm(axis=(2, 3)), 1),
    "rms": (jn.rms_norm, 0),
    "rms over positions": (lambda: jn.rms_norm(axis=(2, 3)), 1),
    "group": (lambda: jn.group_norm(2), 0),
    "group of places": (lambda: jn.group_norm(1), 1),
    "response": (lambda: jn.local_response_norm(3, alpha=1.0), 0),
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_does_not_count(name):
    """Each padded sequence has the output that it has alone at its true length, with NaN as padding."""
    make, extra = PADDED[name]
    net, shape, lengths = make(), (3, 4, *(2,) * extra, 4), np.array([2, 0, 4], np.int32)
    x, g = example(shape), floats(*shape, seed=1)
    params, state = jax.eval_shape(net.init, KEY, x)
    params = {key: jnp.asarray(floats(*leaf.shape, seed=4)) for key, leaf in params.items()}
    real = np.arange(4)[None] < lengths[:, None]
    spoilt = np.where(real.reshape(3, 4, *(1,) * (extra + 1)), x, np.nan)

    @jax.jit
    def run(params, values):
        y, back = jax.vjp(
            lambda p, v: net.apply(p, state, jn.Padded(v, jnp.asarray(lengths)))[0].values, params, values
        )
        return y, *back(jnp.asarray(np.where(np.isnan(spoilt), 0, g)))

    y, dparams, dx = run(params, jnp.asarray(spoilt))
    assert np.isfinite(y).all()
    sums = {key: np.zeros(leaf.shape) for key, leaf in params.items()}
    for k in (0, 2):
        n = lengths[k]
        alone = pull(net, params, state, x[k : k + 1, :n], g[k : k + 1, :n])
        near(y[k, :n], alone["y"][0], 1e-6)
        near(dx[k, :n], alone["dx"][0], 1e-6)
        sums = {key: total + alone[f"d{key}"] for key, total in sums.items()}
    assert not np.asarray(dx)[~real].any()
    near(dparams, sums, 2e-6)


@pytest.mark.parametrize("net", [jn.layer_norm(), jn.group_norm(1), jn.rms_norm()], ids=str)
def test_cast_leaves_the_parameters_in_float32(net):
    """Each output is the nearest bfloat16 to the exact one; with a scale rounded on the way in it would not be."""
    mixed = jn.cast(jn.serial(norm=net), jn.Policy(jnp.bfloat16, jnp.bfloat16, jnp.float32))
    x = jnp.asarray(example((16, 32))).astype(jnp.bfloat16).astype(jnp.float32)
    params, _ = mixed.init(KEY, x)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    given = {"scale": jnp.asarray(floats(32, seed=1)), "bias": jnp.zeros(32)}
    params = {"norm": {name: given[name] for name in params["norm"]}}
    y, _ = mixed.apply(params, {}, x)
    normal = by_hand(x, together(x.shape, lambda index: index[0]), 1e-5)
    if "bias" not in params["norm"]:
        exact = np.asarray(x, np.float64)
        normal = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + 1e-6)
    exact, coarse = (normal * np.asarray(scale, np.float64) for scale in _scales(params["norm"]["scale"]))
    assert (y == exact.astype(jnp.bfloat16).astype(np.float32)).mean() > 0.98
    assert (y == coarse.astype(jnp.bfloat16).astype(np.float32)).mean() < 0.8


@pytest.mark.parametrize("wrap", [jn.remat, jn.cast, lambda net: jn.repeat(net, 2), lambda net: jn.ensemble(net, 2)])
def test_cast_does_not_change_the_parameters_of_a_wrapped_norm(wrap):
    params, _ = jn.cast(wrap(jn.batch_norm()), jn.Policy(param=jnp.bfloat16)).init(KEY, jnp.ones((3, 4)))
    assert {leaf.dtype.name for leaf in params.values()} == {"float32"}


def _scales(scale):
    return scale, scale.astype(jnp.bfloat16)


def test_traced_numbers_may_be_mapped_over():
    x = jnp.asarray(example((2, 3, 4)))

    def outputs(numbers):
        epsilon, alpha, beta, bias = numbers
        nets = [
            jn.layer_norm(epsilon=epsilon, use_scale=False, use_bias=False),
            jn.rms_norm(epsilon=epsilon, use_scale=False),
            jn.group_norm(2, epsilon=epsilon, use_scale=False, use_bias=False),
            jn.local_response_norm(3, alpha=alpha, beta=beta, bias=bias),
        ]
        return [net.apply({}, {}, x)[0] for net in nets]

    numbers = jnp.array([[1e-5, 1.0, 0.5, 1.0], [1e-2, 0.1, 0.75, 2.0]])
    alone_at = [[float(number) for number in row] for row in numbers]
    mapped, members = jax.jit(lambda numbers: (jax.vmap(outputs)(numbers), list(map(outputs, alone_at))))(numbers)
    for k in range(2):
        for together_, alone in zip(mapped, members[k], strict=True):
            near(together_[k], alone, 1e-6)


def given_to(net, x, params=None):
    return net.apply({"scale": jnp.ones(4), "bias": jnp.ones(4)} if params is None else params, {}, x)


SEQUENCES = jn.Padded(jnp.ones((2, 3, 4)), jnp.array([1, 2]))
X = jnp.ones((2, 4))
MISTAKES = {
    "batch": (
        lambda: given_to(jn.layer_norm(axis=0), X),
        r"axes from 1 to 1 of \(2, 4\), without the batch, got axis 0",
    ),
    "far": (lambda: given_to(jn.layer_norm(axis=(1, 2)), X), r"of \(2, 4\), .*got axis \(1, 2\)"),
    "negative": (lambda: given_to(jn.layer_norm(axis=-2), X), r"layer_norm\(axis=-2\) expects .*got axis -2"),
    "twice": (lambda: given_to(jn.layer_norm(axis=(1, -1)), X), r"expects different axes .*got axis \(1, -1\)"),
    "none": (lambda: given_to(jn.layer_norm(axis=()), X), r"got axis \(\)"),
    "time": (lambda: given_to(jn.layer_norm(axis=(1, 2)), SEQUENCES), r"axes from 2 to 2 .* batch and time"),
    "layer integers": (lambda: given_to(jn.layer_norm(), jnp.ones((2, 4), int)), r"expects floating input, got int32"),
    "layer features": (
        lambda: given_to(jn.layer_norm(), jnp.ones((2, 3))),
        r"has scale \(4,\), but .* needs scale \(3,\)",
    ),
    "layer epsilon": (lambda: jn.layer_norm(epsilon=-1.0), r"expects epsilon > 0, got -1"),
    "layer parameters": (lambda: given_to(jn.layer_norm(), X, {}), r"needs the parameters scale, bias, got none"),
    "rms batch": (
        lambda: given_to(jn.rms_norm(axis=0), X, {"scale": jnp.ones(2)}),
        r"^rms_norm\(axis=0\) expects different axes from 1 to 1 of \(2, 4\), without the batch, got axis 0$",
    ),
    "rms integers": (
        lambda: jn.rms_norm().init(KEY, jnp.ones((2, 4), int)),
        r"^rms_norm\(\) expects floating input, got int32 \(2, 4\); convert it, x.astype\(jnp.float32\) / 255 for "
        r"images, or use jn.embed for indices$",
    ),
    "rms features": (
        lambda: given_to(jn.rms_norm(), jnp.ones((2, 3)), {"scale": jnp.ones(4)}),
        r"^rms_norm\(\) has scale \(4,\), but input \(2, 3\) needs scale \(3,\); pass input of the shape it was "
        r"initialized for, or call init again$",
    ),
    "rms epsilon": (lambda: jn.rms_norm(epsilon=0.0), r"^rms_norm\(epsilon=0.0\) expects epsilon > 0, got 0$"),
    "groups": (
        lambda: given_to(jn.group_norm(3), X),
        r"group_norm\(3\) expects channels divisible .* got 4 channels in 3 groups",
    ),
    "no groups": (lambda: jn.group_norm(0), r"expects groups ≥ 1, got 0"),
    "group rank": (lambda: given_to(jn.group_norm(2), jnp.ones(4)), r"expects \(batch, ..., channels\), got \(4,\)"),
    "group integers": (lambda: given_to(jn.group_norm(2), jnp.ones((2, 4), int)), r"floating input, got int32"),
    "group channels": (lambda: given_to(jn.group_norm(2), jnp.ones((2, 6))), r"has scale \(4,\), but .* \(6,\)"),
    "group epsilon": (lambda: jn.group_norm(2, epsilon=0.0), r"expects epsilon > 0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
