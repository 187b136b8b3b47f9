"""What the page says of Equinox."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.coming_from.page import Checks, Row, apply, close, differ, first, images, last, rows
from tests.oracle import floats, integers

ROWS = rows("Equinox")
KEY = jax.random.key(0)
checks = Checks()


@pytest.mark.promotes
@pytest.mark.parametrize("there", ROWS)
@pytest.mark.slow_cases("eqx.nn.LSTMCell(3, 4, key=key)")
def test_row(there: str):
    checks[there](ROWS[there])


def test_every_row_is_checked():
    assert set(checks) == set(ROWS)


def code(row: Row, **tensors: Any) -> Any:
    """Return their layer, with given tensors."""
    import equinox as eqx

    layer = row.theirs(eqx=eqx, key=KEY)
    for name, value in tensors.items():
        layer = eqx.tree_at(lambda each, name=name: getattr(each, name), layer, jnp.asarray(value))
    return layer


def asked(row: Row, compute: Callable[[], Any]) -> np.ndarray:
    return row.answers(lambda: {"y": np.asarray(jax.jit(compute)())})["y"]


def uniform(*leaves: Any) -> np.float32:
    """Tell whether all that is drawn for three inputs lies within ±1/√3, and reaches far into it."""
    most = [float(abs(np.asarray(leaf)).max()) * 3**0.5 for leaf in leaves]
    return np.float32(all(0.5 < each <= 1 for each in most))


@checks.row("eqx.nn.Linear(3, 8, key=key)")
def linear(row: Row):
    x, kernel, bias = floats(5, 3), floats(3, 8), floats(8)

    def theirs():
        layer = code(row)
        y = jax.jit(lambda: jax.vmap(code(row, weight=kernel.T, bias=bias))(x))()
        return {"y": np.asarray(y), "uniform": uniform(layer.weight, layer.bias)}

    want = row.answers(theirs)
    assert want["uniform"] == 1
    close(apply(row.ours(), x, {"kernel": kernel, "bias": bias}), want["y"])


@checks.row("eqx.nn.Conv2d(3, 6, 5, key=key)")
@checks.row("eqx.nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1, key=key)")
def conv(row: Row):
    size, flip = (4, -1) if "Transpose" in row.there else (5, 1)
    x, kernel, bias = images(), floats(size, size, 3, 6), floats(6)
    weight = kernel[::flip, ::flip].transpose(3, 2, 0, 1)
    want = asked(row, lambda: jax.vmap(code(row, weight=weight, bias=bias[:, None, None]))(first(x)))
    close(apply(row.ours(), x, {"kernel": kernel, "bias": bias}), last(want))


@checks.row("eqx.nn.MaxPool2d(2, stride=2)")
@checks.row("eqx.nn.AvgPool2d(3, stride=2, padding=1)")
def pool(row: Row):
    x = images(2, 7, 7, 3)

    def theirs():
        import equinox as eqx

        places = [jax.eval_shape(pool, first(x)[0]).shape for pool in (eqx.nn.MaxPool2d(2), eqx.nn.AvgPool2d(2))]
        return {"y": np.asarray(jax.jit(jax.vmap(code(row)))(first(x))), "places": np.array(places)}

    want = row.answers(theirs)
    close(apply(row.ours(), x), last(want["y"]))
    assert want["places"].tolist() == [[3, 6, 6], [3, 6, 6]]


@checks.row("eqx.nn.AdaptiveMaxPool2d(4)")
def adaptive_max_pool(row: Row):
    x, odd = images(2, 8, 4, 3), images(2, 7, 4, 3)

    def theirs():
        pool = jax.jit(jax.vmap(code(row)))
        return {"y": np.asarray(pool(first(x))), "odd": np.asarray(pool(first(odd)))}

    want = row.answers(theirs)
    close(apply(row.ours(), x), last(want["y"]))
    differ(apply(row.ours(), odd), last(want["odd"]))
    close(np.stack([odd[:, k : k + 2].max(1) for k in (0, 2, 4, 6)], 1), last(want["odd"]))


@checks.row("eqx.nn.LayerNorm(3)")
@checks.row("eqx.nn.GroupNorm(3, 6)")
def norm(row: Row):
    grouped = "Group" in row.there
    width = 6 if grouped else 3
    x = 1e-3 * (images(2, 4, 4, 6) if grouped else floats(7, 3))
    want = asked(row, lambda: jax.vmap(code(row))(first(x) if grouped else x))
    params = {"scale": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}
    close(apply(row.ours(), x, params), last(want) if grouped else want, 1e-4)


@checks.row("eqx.nn.RMSNorm(3)")
def rms_norm(row: Row):
    x = 1e-3 * floats(7, 3)

    def theirs():
        return {"y": np.asarray(jax.jit(jax.vmap(code(row)))(x)), "bias": np.asarray(code(row).bias)}

    want = row.answers(theirs)
    close(apply(row.ours(), x, {"scale": np.ones(3, np.float32)}), want["y"], 1e-4)
    np.testing.assert_array_equal(want["bias"], np.zeros(3))


@checks.row('eqx.nn.BatchNorm(3, "batch", mode="batch")')
def batch_norm(row: Row):
    x = images(2, 3, 3, 3)

    def theirs():
        import equinox as eqx

        layer, state = eqx.nn.make_with_state(lambda: code(row))()
        over = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        y, state = eqx.filter_jit(over)(first(x), state)
        mean, var = state.get(layer.batch_state_index)
        return {"y": np.asarray(y), "mean": np.asarray(mean), "var": np.asarray(var)}

    want, net = row.answers(theirs), row.ours()
    y, new = jax.jit(lambda: net.apply(*net.init(KEY, x), x, train=True))()
    close(y, last(want["y"]))
    close(new["mean"], want["mean"])
    close(new["var"], want["var"])


@checks.row("eqx.nn.Dropout(0.2)")
def dropout(row: Row):
    x = np.ones((100, 400), np.float32)

    def theirs():
        y = code(row)(x, key=KEY)
        return jnp.array([jnp.mean(y > 0), y.max()])

    want, y = asked(row, theirs), np.asarray(apply(row.ours(), x, key=KEY, train=True))
    for kept, most in (want, (float((y > 0).mean()), float(y.max()))):
        close(most, 1.25)
        assert abs(kept - 0.8) < 0.01


@checks.row("eqx.nn.Embedding(500, 20, key=key)")
def embed(row: Row):
    table, indices = floats(500, 20), integers(7, high=500)

    def theirs():
        normal = abs(float(np.std(code(row).weight)) - 1) < 0.03
        y = jax.jit(lambda: jax.vmap(code(row, weight=table))(indices))()
        return {"y": np.asarray(y), "normal": np.float32(normal)}

    want = row.answers(theirs)
    assert want["normal"] == 1
    close(apply(row.ours(), indices, {"embedding": table}), want["y"])


@checks.row("eqx.nn.LSTMCell(3, 4, key=key)")
@checks.row("eqx.nn.GRUCell(3, 4, key=key)")
def cell(row: Row):
    x, h, c = floats(2, 3), floats(2, 4), floats(2, 4, seed=1)
    gates = 16 if "LSTM" in row.there else 12
    kernel, recurrent, bias, inside = floats(3, gates), floats(4, gates), floats(gates), floats(4)
    params = {"kernel": kernel, "recurrent_kernel": recurrent, "bias": bias}
    tensors = {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias": bias}
    if gates == 16:
        want = asked(row, lambda: jnp.stack(jax.vmap(code(row, **tensors))(x, (h, c))))
        (mine, out), _ = jax.jit(row.ours().step)(params, jn.LSTMCarry(c, h), x)
        close(np.stack([out, mine]), want)
        close(np.asarray(jax.jit(row.ours().init)(KEY, x)["bias"])[4:8], 1)
    else:
        want = asked(row, lambda: jax.vmap(code(row, bias_n=inside, **tensors))(x, h))
        close(jax.jit(row.ours().step)(params | {"recurrent_bias": inside}, h, x)[1], want)


@checks.row("eqx.nn.MLP(3, 2, width_size=8, depth=2, key=key)")
def mlp(row: Row):
    x, net = floats(5, 3), row.ours()
    params = jax.tree.map(lambda leaf: floats(*leaf.shape), jax.eval_shape(net.init, KEY, x)[0])
    kernels = [leaf for path, leaf in jn.paths.paths(params).items() if path.endswith("kernel")]
    biases = [leaf for path, leaf in jn.paths.paths(params).items() if path.endswith("bias")]

    def theirs():
        import equinox as eqx

        layers = code(row).layers
        for place, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            new = eqx.tree_at(lambda each: (each.weight, each.bias), layers[place], (jnp.asarray(kernel.T), bias))
            layers = (*layers[:place], new, *layers[place + 1 :])
        return jax.vmap(eqx.tree_at(lambda each: each.layers, code(row), layers))(x)

    close(apply(net, x, params), asked(row, theirs), 1e-4)
