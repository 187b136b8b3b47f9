"""Normalized kernels: values and gradients against PyTorch, singular values against those of the matrix of the map."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.once import once
from tests.oracle import floats, variables, witness

KEY = jax.random.key(0)
ROWS, MAPS, STEPS = floats(5, 4), floats(2, 6, 5, 4), floats(2, 7, 4)


def moved(kernel: np.ndarray) -> np.ndarray:
    """(*window, in, out) as (out, in, *window), and back for the last two axes in turn."""
    return np.ascontiguousarray(np.moveaxis(kernel, (-1, -2), (0, 1)))


def transposed(kernel: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(kernel, (-2, -1), (0, 1)))


# A layer, an input, the layer in PyTorch, its weight from our kernel, and the axis of its features.
TORCHS: dict[str, tuple[jn.Net, np.ndarray, Callable[[Any], Any], Callable[[np.ndarray], np.ndarray], int]] = {
    "dense": (jn.dense(3), ROWS, lambda nn: nn.Linear(4, 3), moved, 0),
    "conv": (jn.conv(3, 2, stride=2), MAPS, lambda nn: nn.Conv2d(4, 3, 2, stride=2), moved, 0),
    "grouped": (jn.conv(6, 3, groups=2, padding=1), STEPS, lambda nn: nn.Conv1d(4, 6, 3, 1, 1, groups=2), moved, 0),
    "depthwise": (jn.depthwise_conv(3, 2), STEPS, lambda nn: nn.Conv1d(4, 8, 3, groups=4), moved, 0),
    "transposed": (jn.conv_transpose(3, 3, stride=2), MAPS, lambda nn: nn.ConvTranspose2d(4, 3, 3, 2), transposed, 1),
}


def first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


@pytest.mark.parametrize("name", TORCHS)
def test_weight_norm_has_pytorchs_values_and_gradients(name: str):
    layer, x, make, to_weight, axis = TORCHS[name]
    net = jn.weight_norm(layer)
    params, state = variables(net, x)
    g = floats(*jax.eval_shape(net.apply, params, state, x)[0].shape, seed=9)

    def ask() -> dict[str, np.ndarray]:
        import torch
        from torch.nn.utils.parametrizations import weight_norm

        module: Any = weight_norm(make(torch.nn), dim=axis)
        weight = to_weight(params["kernel"])
        rest = tuple(-1 if each == axis else 1 for each in range(weight.ndim))
        with torch.no_grad():
            module.parametrizations.weight.original0.copy_(torch.tensor(params["scale"].reshape(rest)))
            module.parametrizations.weight.original1.copy_(torch.tensor(weight))
            module.bias.copy_(torch.tensor(params["bias"]))
        y = module(torch.tensor(first(x)))
        (y * torch.tensor(first(g))).sum().backward()
        originals = module.parametrizations.weight
        return {
            "y": np.moveaxis(y.detach().numpy(), 1, -1),
            "kernel": originals.original1.grad.numpy(),
            "scale": originals.original0.grad.numpy().ravel(),
        }

    want = witness(f"combinators/weight_norm_{name}", ask)

    def run(params: Any, x: Any) -> Any:
        y, back = jax.vjp(lambda params: net.apply(params, state, x)[0], params)
        return y, *back(jnp.asarray(g))

    y, grads = once(run, params, x)
    for found, wanted in ((y, "y"), (to_weight(np.asarray(grads["kernel"])), "kernel"), (grads["scale"], "scale")):
        np.testing.assert_allclose(found, want[wanted], rtol=1e-4, atol=1e-5 * np.abs(want[wanted]).max())
    # v is orthogonal to its gradient.
    along = np.sum(np.asarray(grads["kernel"]) * params["kernel"], axis=tuple(range(params["kernel"].ndim - 1)))
    assert np.abs(along).max() < 1e-4 * np.abs(np.asarray(grads["kernel"])).max()


LAYERS: dict[str, tuple[jn.Net, np.ndarray]] = {
    "dense": (jn.dense(3), ROWS),
    "conv": (jn.conv(3, 3), MAPS),
    "same": (jn.conv(5, 3, padding="SAME"), MAPS),
    "strided": (jn.conv(3, 3, stride=2, padding=1, use_bias=False), MAPS),
    "dilated": (jn.conv(3, (2, 3), dilation=(1, 2), padding=((1, 0), (0, 2))), MAPS),
    "grouped": (jn.conv(4, 3, groups=2), MAPS),
    "sequence": (jn.conv(4, 3, padding=((2, 0),)), STEPS),
    "depthwise": (jn.depthwise_conv(3, 2, padding="SAME"), MAPS),
    "transposed": (jn.conv_transpose(3, 4, stride=2, padding=1), MAPS),
    "transposed_groups": (jn.conv_transpose(4, 3, stride=2, groups=2, output_padding=1), MAPS),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.slow_cases("conv", "same", "dilated", "grouped", "sequence", "transposed")
def test_weight_norm_starts_as_the_layer_and_its_scale_is_the_norm_of_each_feature(name: str):
    layer, x = LAYERS[name]
    net = jn.weight_norm(layer)
    params, state = net.init(KEY, x)
    plain, _ = layer.init(KEY, x)
    assert state == {}
    for key, leaf in plain.items():
        np.testing.assert_array_equal(params[key], leaf)
    want = layer.apply(plain, {}, x)[0]
    np.testing.assert_allclose(net.apply(params, {}, x)[0], want, rtol=0, atol=1e-5)
    # v of another length changes nothing, and each feature grows with its scale.
    features = want.shape[-1]
    assert params["scale"].shape == (features,)
    scaled = params | {"scale": params["scale"] * jnp.arange(1.0, features + 1), "kernel": 3 * params["kernel"]}
    bias = plain.get("bias", jnp.zeros(features))
    by = jnp.arange(1.0, features + 1).reshape((1,) * (want.ndim - 1) + (features,))
    np.testing.assert_allclose(net.apply(scaled, {}, x)[0] - bias[(None,) * (want.ndim - 1)], by * want, atol=1e-4)


def matrix(net: jn.Net, params: Any, state: Any, x: np.ndarray) -> np.ndarray:
    """Return the matrix of a layer as a map of one example, by its derivative, in which the bias has no part."""
    one = np.zeros((1, *x.shape[1:]), x.dtype)
    derivative = jax.jit(jax.jacobian(lambda x: net.apply(params, state, x)[0]))(one)
    return np.asarray(derivative).reshape(-1, one.size)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.slow_cases("conv", "same", "dilated", "grouped", "sequence", "transposed")
def test_spectral_norm_divides_by_the_largest_singular_value_of_the_map(name: str):
    """In float64, after a thousand steps, against NumPy's decomposition of the matrix of the map."""
    layer, x = LAYERS[name]
    net = jn.spectral_norm(layer, iterations=1000)
    with jax.enable_x64(True):
        x = x.astype(np.float64)
        params, start = jax.jit(net.init)(KEY, x)
        # Other singular vectors than those of the start.
        params = {key: leaf + 0.3 * floats(*leaf.shape).astype(np.float64) for key, leaf in params.items()}
        _, state = jax.jit(lambda *given: net.apply(*given, train=True))(params, start, x)
        whole, normalized = matrix(layer, params, {}, x), matrix(net, params, state, x)
        sigma = np.linalg.norm(whole, 2)
        np.testing.assert_allclose(sigma * normalized, whole, rtol=0, atol=1e-9)
        assert np.linalg.norm(matrix(net, params, start, x), 2) > 1 + 1e-6
        y, same = jax.jit(net.apply)(params, state, x)
        want, _ = layer.apply(params | {"kernel": params["kernel"] / sigma}, {}, x)
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-9)
        assert all((same[key] == state[key]).all() for key in "uv")


def test_the_reshaped_kernels_singular_value_is_not_the_maps():
    """Which is why convolutions are not normalized as in PyTorch: here the map stretches an input fourfold."""
    kernel = np.ones((4, 4, 1, 1), np.float32)
    net, x = jn.spectral_norm(jn.conv(1, 4, padding="SAME", use_bias=False), iterations=100), floats(1, 16, 16, 1)
    _, state = net.init(KEY, x)
    _, state = net.apply({"kernel": kernel}, state, x, train=True)
    y, _ = net.apply({"kernel": kernel}, state, x)
    plain, _ = jn.conv(1, 4, padding="SAME", use_bias=False).apply({"kernel": kernel}, {}, x)
    sigma = float((plain / y).mean())
    assert np.linalg.norm(kernel.reshape(-1, 1), 2) == 4
    assert 14 < sigma < 16  # the sum of the kernel, which a map without edges would reach
    np.testing.assert_allclose(np.linalg.norm(matrix(net, {"kernel": kernel}, state, x), 2), 1, rtol=1e-4)


def test_dense_layers_follow_pytorch_step_by_step():
    """Values, gradients, and the vectors after each of three training calls on changing kernels, then in evaluation."""
    net = jn.spectral_norm(jn.dense(3), iterations=2)
    params, state = variables(net, ROWS)
    g = floats(5, 3, seed=9)

    def ask() -> dict[str, np.ndarray]:
        import torch
        from torch.nn.utils.parametrizations import spectral_norm

        module: Any = spectral_norm(torch.nn.Linear(4, 3), n_power_iterations=2)
        weight, vectors = module.parametrizations.weight.original, module.parametrizations.weight[0]
        with torch.no_grad():
            vectors._u.copy_(torch.tensor(state["u"]))
            vectors._v.copy_(torch.tensor(state["v"]))
            module.bias.copy_(torch.tensor(params["bias"]))
        said = {}
        for step in range(4):
            module.train(step < 3)
            module.zero_grad()
            with torch.no_grad():
                weight.copy_(torch.tensor(params["kernel"].T + step))
            y = module(torch.tensor(ROWS))
            (y * torch.tensor(g)).sum().backward()
            said[f"y{step}"], said[f"kernel{step}"] = y.detach().numpy(), weight.grad.numpy().copy()
            said |= {f"{name}{step}": getattr(vectors, f"_{name}").numpy().copy() for name in "uv"}
        return said

    want, found = witness("combinators/spectral_norm_dense", ask), {}
    for step in range(4):

        def run(params: Any, state: Any, train: bool = step < 3) -> Any:
            y, back, after = jax.vjp(lambda params: net.apply(params, state, ROWS, train=train), params, has_aux=True)
            return y, after, *back(jnp.asarray(g))

        y, state, grads = once(run, params | {"kernel": params["kernel"] + np.float32(step)}, state)
        found |= {f"y{step}": y, f"kernel{step}": grads["kernel"].T} | {f"{n}{step}": state[n] for n in "uv"}
    assert set(found) == set(want)
    for name, value in want.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-5 * max(1, np.abs(value).max()), err_msg=name)


@pytest.mark.parametrize("name", ["dense", "strided", "transposed_groups"])
def test_gradients_of_spectral_norm_agree_with_finite_differences(name: str):
    """In evaluation, where the vectors are constants; in training they are what no gradient flows through."""
    layer, x = LAYERS[name]
    net = jn.spectral_norm(layer)
    with jax.enable_x64(True):
        x = x.astype(np.float64)
        params, state = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables(net, x))
        along = jax.tree.map(lambda leaf: floats(*leaf.shape, seed=5).astype(np.float64), params)
        trained = net.apply(params, state, x, train=True)[1]

        def out(params: Any, state: Any = state, train: bool = False) -> Any:
            return net.apply(params, state, x, train=train)[0]

        def beside(step: float) -> Any:
            return out(jax.tree.map(lambda leaf, by: leaf + step * by, params, along))

        _, forward = jax.jvp(out, (params,), (along,))
        np.testing.assert_allclose(forward, (beside(1e-6) - beside(-1e-6)) / 2e-6, rtol=1e-6, atol=1e-8)
        # In training the gradients are those in evaluation by the new vectors.
        fixed, training = (
            jax.grad(lambda p, state=state, train=train: jnp.sin(out(p, state, train)).sum())(params)
            for state, train in ((trained, False), (state, True))
        )
        for key in params:
            np.testing.assert_allclose(training[key], fixed[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrapper", [jn.weight_norm, jn.spectral_norm])
@pytest.mark.slow_cases("weight_norm")
def test_in_other_networks(wrapper: Callable[[jn.Net], jn.Net]):
    """In a chain, repeated, in an ensemble and in bfloat16, what is alone or in float32."""
    conv = wrapper(jn.conv(4, 3, padding="SAME"))
    chain, scanned = jn.serial(jn.serial(conv, conv)), jn.serial(jn.repeat(conv, 2))
    params, state = scanned.init(KEY, MAPS)
    flat = {"0": jn.unstack(params["0"])}, {"0": jn.unstack(state["0"])} if state else {}
    for train in (False, True):
        y, after = jax.jit(scanned.apply, static_argnames="train")(params, state, MAPS, train=train)
        want, end = chain.apply(*flat, MAPS, train=train)
        np.testing.assert_allclose(y, want, rtol=0, atol=1e-5)
        for place in range(2) if state else ():
            for name in "uv":
                np.testing.assert_allclose(after["0"][name][place], end["0"][str(place)][name], rtol=0, atol=1e-5)
    low, _ = jn.cast(scanned).apply(params, state, MAPS)
    np.testing.assert_allclose(low, scanned.apply(params, state, MAPS)[0], rtol=0, atol=0.05)
    many = jn.ensemble(conv, 3)
    params, state = many.init(KEY, MAPS)
    together, _ = many.apply(params, state, MAPS)
    for k in range(3):
        own, vectors = jax.tree.map(lambda leaf, k=k: leaf[k], (params, state))
        np.testing.assert_allclose(together[:, k], conv.apply(own, vectors, MAPS)[0], rtol=0, atol=1e-5)


@pytest.mark.promotes
def test_training_keeps_the_map_and_that_of_the_average_within_one():
    """At the end of a run they stretch no input by more than a thousandth."""
    import optax

    net = jn.serial(conv=jn.spectral_norm(jn.conv(3, 3, padding=1)), relu=jax.nn.relu, pool=jn.global_avg_pool)
    x, y = floats(32, 6, 5, 4), floats(32, 3, seed=1)
    options: Any = {"epochs": 4, "batch_size": 4, "ema_decay": 0.9}
    program = jn.train.program(net, jn.losses.squared_error, optax.adam(1e-2), (x, y), **options)
    trained, _ = jax.jit(program)(KEY)
    start, _ = net.init(KEY, x)
    assert np.abs(np.asarray(start["conv"]["kernel"] - trained.params["conv"]["kernel"])).max() > 1e-3
    for params, state in ((trained.params, trained.state), jn.train.ema_params(net, trained, x, batch_size=4)):
        assert 1 - 1e-5 < np.linalg.norm(matrix(net["conv"], params["conv"], state["conv"], x[:1]), 2) < 1.001


def test_padded_sequences_pass_through():
    x = jn.Padded(STEPS, np.array([7, 4], np.int32))
    for wrapper in (jn.weight_norm, jn.spectral_norm):
        net = wrapper(jn.conv(4, 3, padding="SAME"))
        params, state = net.init(KEY, x)
        y, _ = net.apply(params, state, x, train=True)
        assert isinstance(y, jn.Padded)
        np.testing.assert_allclose(y.values[1, :3], net.apply(params, state, STEPS, train=True)[0][1, :3], atol=1e-5)


def test_a_batch_norm_behind_is_not_folded_into_a_normalized_kernel():
    net = jn.serial(conv=jn.weight_norm(jn.conv(3, 3)), bn=jn.batch_norm())
    params, state = variables(net, MAPS)
    state["bn"]["var"] = np.abs(state["bn"]["var"]) + 1
    folded, own, rest = jn.fold_batch_norm(net, params, state)
    np.testing.assert_allclose(folded.apply(own, rest, MAPS)[0], net.apply(params, state, MAPS)[0], rtol=0, atol=1e-5)


def test_labels_and_equality():
    net = jn.spectral_norm(jn.conv(3, 3), iterations=2)
    assert repr(net) == "spectral_norm(conv(3, 3), iterations=2)"
    assert repr(jn.serial(a=jn.weight_norm(jn.dense(2)))) == "serial\n└─ a: weight_norm(dense(2))"
    assert net == jn.spectral_norm(jn.conv(3, 3), iterations=2)
    assert net != jn.spectral_norm(jn.conv(3, 3))
    assert jn.weight_norm(jn.dense(2)) != jn.dense(2)


def test_mistakes_are_told():
    wrappers: Any = (jn.weight_norm, jn.spectral_norm)
    for wrapper in wrappers:
        name = wrapper.__name__
        kinds = r"jn.conv, jn.conv_transpose, jn.dense, jn.depthwise_conv"
        for given, came in (
            (jn.serial(jn.dense(3)), "serial"),
            (jn.batch_norm(), "batch_norm"),
            (jax.nn.relu, "the function relu"),
            (jn.dense, "the function dense"),
        ):
            with pytest.raises(jn.NetError, match=rf"^{name} expects a layer with a kernel, {kinds}, got {came}"):
                wrapper(given)
        with pytest.raises(jn.NetError, match=rf"^{name} expects a kernel other than zero, got zeros as kernel_init"):
            wrapper(jn.dense(3, kernel_init=jax.nn.initializers.zeros))
        net = jn.serial(fc=wrapper(jn.dense(3)))
        params, state = net.init(KEY, ROWS)
        with pytest.raises(jn.NetError, match=r"of another net: missing parameters fc/bias"):
            net.apply({"fc": {k: v for k, v in params["fc"].items() if k != "bias"}}, state, ROWS)
        with pytest.raises(jn.NetError, match=r"fc: .*dense\(3\) has kernel \(4, 3\), but input \(5, 2\)"):
            net.apply(params, state, ROWS[:, :2])
        with pytest.raises(jn.NetError, match=r"^fc: .*has no counterpart in PyTorch"):
            jn.interop.to_torch(net, params, state, ROWS)
        with pytest.raises(jn.NetError, match=r"expects floating input, got int32"):
            net.init(KEY, ROWS.astype(np.int32))
    net = jn.serial(fc=jn.weight_norm(jn.dense(3)))
    params, _ = net.init(KEY, ROWS)
    with pytest.raises(jn.NetError, match=r"fc: weight_norm\(dense\(3\)\) has scale \(2,\)"):
        net.apply({"fc": params["fc"] | {"scale": np.ones(2, np.float32)}}, {}, ROWS)
    net = jn.spectral_norm(jn.conv(3, 3))
    params, state = net.init(KEY, MAPS)
    with pytest.raises(
        jn.NetError, match=r"^spectral_norm\(conv\(3, 3\)\) has v \(6, 5, 4\), but input \(2, 5, 5, 4\)"
    ):
        net.apply(params, state, MAPS[:, 1:])
    with pytest.raises(jn.NetError, match=r"needs the state v, u, got none"):
        net.apply(params, {}, MAPS)
    with pytest.raises(jn.NetError, match=r"^spectral_norm expects iterations ≥ 1, got 0"):
        jn.spectral_norm(jn.dense(3), iterations=0)
    with pytest.raises(jn.NetError, match=r"has no argument n_power_iterations: write iterations=2"):
        jn.spectral_norm(jn.dense(3), **{"n_power_iterations": 2})
