"""What the page says of Keras."""

import contextlib
import os
import sys
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.coming_from.page import Checks, Row, W, apply, close, descend, differ, images, pulled, rows
from tests.oracle import floats, integers

ROWS = rows("Keras")
checks = Checks()


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory):
    """Import Keras on JAX where it is installed; it writes its settings to a folder of its own."""
    if "keras" not in sys.modules:
        settings = {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
        with patch.dict(os.environ, settings), contextlib.suppress(ModuleNotFoundError):
            import keras  # noqa: F401


@pytest.mark.promotes
@pytest.mark.parametrize("there", ROWS)
@pytest.mark.slow
def test_row(there: str):
    checks[there](ROWS[there])


def test_every_row_is_checked():
    assert set(checks) == set(ROWS)


def code(row: Row) -> Any:
    """Return what their code gives."""
    import keras

    names = ("layers", "losses", "activations", "regularizers", "optimizers", "callbacks")
    return row.theirs(**{name: getattr(keras, name) for name in names})


def run(row: Row, x: Any, *weights: Any, **options: Any) -> np.ndarray:
    """Return their layer's output for given weights."""
    layer = code(row)
    layer(x)  # makes the weights
    if weights:
        layer.set_weights(weights)
    return np.asarray(layer(x, **options))


def drawn(row: Row, x: Any) -> np.ndarray:
    layer = code(row)
    layer(x)
    return np.asarray(layer.weights[0])


@checks.row("layers.Dense(8)")
@checks.row("layers.Conv2D(6, 5)")
@checks.row('layers.Conv2D(6, 3, strides=2, padding="same")')
@checks.row('layers.Conv2DTranspose(6, 4, strides=2, padding="same")')
def weighted(row: Row):
    x = images()
    params = jax.tree.map(lambda leaf: floats(*leaf.shape), row.ours().init(jax.random.key(0), x)[0])
    kernel, bias = params["kernel"], params["bias"]
    moved = kernel.swapaxes(-1, -2) if "Transpose" in row.there else kernel

    def theirs():
        first = drawn(row, x)
        fan = first.size / first.shape[-1] + first.size / first.shape[-2]
        glorot = 0.8 < abs(first).max() / (6 / fan) ** 0.5 <= 1
        return {"y": run(row, x, moved, bias), "glorot": np.float32(glorot)}

    want = row.answers(theirs)
    assert want["glorot"] == 1
    close(apply(row.ours(), x, params), want["y"])


@checks.row("layers.SpectralNormalization(layers.Dense(8))")
def spectral_norm(row: Row):
    x, params = floats(5, 3), {"kernel": floats(3, 8), "bias": floats(8)}

    def theirs():
        layer = code(row)
        layer(x)
        layer.layer.set_weights([params["kernel"], params["bias"]])
        for _ in range(100):
            layer(x, training=True)
        return {"y": np.asarray(layer(x)), "kernel": np.asarray(layer.layer.weights[0])}

    want, net = row.answers(theirs), row.ours()
    _, state = jax.jit(net.init)(jax.random.key(0), x)
    train = jax.jit(lambda state: net.apply(params, state, x, train=True))
    for _ in range(100):
        state = train(state)[1]
    close(apply(net, x, params, state), want["y"])
    close(want["kernel"], params["kernel"] / np.linalg.norm(params["kernel"], 2))


@checks.row("layers.UpSampling2D(2)")
@checks.row("layers.Resizing(4, 9)")
def resize(row: Row):
    x = images(2, 7, 5, 3)
    want = row.answers(lambda: {"y": np.asarray(code(row)(x))})["y"]
    close(apply(row.ours(), x), want)
    if "Resizing" in row.there:
        differ(apply(jn.resize((4, 9)), x), want)
        differ(apply(jn.resize((4, 9), method="bilinear"), x), want)


@checks.row("layers.MaxPooling2D(2)")
@checks.row('layers.AveragePooling2D(3, 2, "same")')
@checks.row("layers.AdaptiveAveragePooling2D(4)")
@checks.row("layers.AdaptiveMaxPooling2D(4)")
@checks.row("layers.Flatten()")
def plain(row: Row):
    x = images(2, 7, 7, 3)
    want = row.answers(lambda: {"y": run(row, x)})["y"]
    close(apply(row.ours(), x), want)
    if "Average" in row.there:
        differ(apply(jn.avg_pool(3, stride=2, padding="SAME"), x), want)


@checks.row("layers.BatchNormalization()")
def batch_norm(row: Row):
    x = images(2, 3, 3, 4)

    def theirs():
        layer = code(row)
        y = layer(x, training=True)
        return {
            "y": np.asarray(y), "mean": np.asarray(layer.moving_mean), "var": np.asarray(layer.moving_variance),
            "shown": np.asarray(layer(0.1 * x)),
        }  # fmt: skip

    want, net = row.answers(theirs), row.ours()
    params, state = net.init(jax.random.key(0), x)
    y, new = net.apply(params, state, x, train=True)
    close(y, want["y"])
    close(new["mean"], want["mean"])
    close(new["var"], want["var"])
    close(apply(net, 0.1 * x, params, new), want["shown"])
    y, new = jn.batch_norm().apply(params, state, x, train=True)
    differ(y, want["y"], 1e-4)
    close(new["mean"], 10 * want["mean"])
    close(new["var"], 0.9 + 0.1 * x.reshape(-1, 4).var(0, ddof=1))


@checks.row("layers.LayerNormalization()")
@checks.row("layers.GroupNormalization(3)")
def norm(row: Row):
    x = 0.03 * images(2, 4, 4, 6)
    params = {"scale": np.ones(6, np.float32), "bias": np.zeros(6, np.float32)}
    want = row.answers(lambda: {"y": run(row, x)})["y"]
    close(apply(row.ours(), x, params), want, 1e-4)
    differ(apply(jn.layer_norm() if "Layer" in row.there else jn.group_norm(3), x, params), want, 0.1)


@checks.row("layers.RMSNormalization()")
def rms_norm(row: Row):
    x = 1e-3 * images(2, 4, 4, 6)  # so small that ε is seen
    want = row.answers(lambda: {"y": run(row, x)})["y"]
    close(apply(row.ours(), x, {"scale": np.ones(6, np.float32)}), want)


@checks.row("layers.Dropout(0.2)")
@checks.row("layers.SpatialDropout2D(0.2)")
def dropout(row: Row):
    x = np.ones((50, 5, 5, 40), np.float32)

    def told(y: np.ndarray) -> list[float]:
        return [float(abs((y > 0).mean() - 0.8) < 0.03), float(y.max()), float((y == y[:, :1, :1]).all())]

    want = row.answers(lambda: {"told": np.array(told(run(row, x, training=True)), np.float32)})["told"]
    close(told(np.asarray(apply(row.ours(), x, key=jax.random.key(0), train=True))), want)
    assert want[0] == 1


@checks.row("layers.Embedding(500, 20)")
def embed(row: Row):
    indices, table = integers(3, 4, high=500), floats(500, 20)

    def theirs():
        first = drawn(row, indices)
        return {"y": run(row, indices, table), "uniform": np.float32(0.049 < abs(first).max() <= 0.05)}

    want = row.answers(theirs)
    assert want["uniform"] == 1
    close(apply(row.ours(), indices, {"embedding": table}), want["y"])


X = floats(2, 5, 3)


@checks.row("layers.LSTM(4)")
def lstm(row: Row):
    params = {"kernel": floats(3, 16), "recurrent_kernel": floats(4, 16), "bias": floats(16)}

    def theirs():
        layer = code(row)
        layer.return_state = True
        layer(X)
        start = np.asarray(layer.weights[2])
        layer.set_weights(list(params.values()))
        y, hidden, cell = map(np.asarray, layer(X))
        return {"y": y, "hidden": hidden, "cell": cell, "bias": start}

    want = row.answers(theirs)
    close(apply(row.ours(), X, params), want["y"])
    y, (cell, hidden) = apply(jn.recurrent(jn.lstm_cell(4), return_carry=True), X, params)
    assert y.shape == (2, 5, 4)
    close(cell, want["cell"])
    close(hidden, want["hidden"])
    close(row.ours().init(jax.random.key(0), X)[0]["bias"], want["bias"])


@checks.row("layers.GRU(4)")
@checks.row("layers.GRU(4, reset_after=False)")
def gru(row: Row):
    after = "reset" not in row.there
    kernel, recurrent, bias = floats(3, 12), floats(4, 12), floats(*((2, 12) if after else (12,)))
    want = row.answers(lambda: {"y": run(row, X, kernel, recurrent, bias)})["y"]
    order = [*range(4, 8), *range(4), *range(8, 12)]  # theirs: update, reset, new
    params = {"kernel": kernel[:, order], "recurrent_kernel": recurrent[:, order]}
    if after:
        both = np.where(np.arange(12) < 8, bias.sum(0), bias[0])
        params |= {"bias": both[order], "recurrent_bias": bias[1, 8:]}
    else:
        params["bias"] = bias[order]
    close(apply(row.ours(), X, params), want)


@checks.row("layers.Bidirectional(layers.LSTM(4, return_sequences=True))")
def bidirectional(row: Row):
    forward, backward = (
        {"kernel": floats(3, 16, seed=n), "recurrent_kernel": floats(4, 16, seed=n), "bias": floats(16, seed=n)}
        for n in (0, 1)
    )
    want = row.answers(lambda: {"y": run(row, X, *forward.values(), *backward.values())})["y"]
    close(apply(row.ours(), X, {"forward": forward, "backward": backward}), want)


@checks.row("activations.gelu")
@checks.row("activations.leaky_relu")
def activation(row: Row):
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    want = row.answers(lambda: {"y": np.asarray(code(row)(x))})["y"]
    close(row.ours()(x), want, 1e-6)
    differ(getattr(jax.nn, row.there.removeprefix("activations."))(x), want, 2e-4)


LOGITS, LABELS = floats(6, 4), integers(6, high=4)
HOT = np.eye(4, dtype=np.float32)[LABELS]
PROBABILITIES = np.array(jax.nn.softmax(LOGITS))
SOFT = np.array(jax.nn.softmax(floats(6, 4, seed=1)))
POSITIVE = np.abs(LOGITS) + 1
ARGUMENTS = {  # what each takes, in our order
    "Sparse": (LOGITS, LABELS), "CategoricalCross": (LOGITS, HOT), "Binary": (LOGITS, SOFT),
    "Percentage": (LOGITS, POSITIVE), "Log": (POSITIVE, SOFT), "KL": (PROBABILITIES, SOFT),
    "CategoricalHinge": (LOGITS, HOT), "Hinge": (LOGITS, 2 * HOT - 1),
}  # fmt: skip


@checks.row("losses.SparseCategoricalCrossentropy(from_logits=True)")
@checks.row("losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)")
@checks.row("losses.BinaryCrossentropy(from_logits=True)")
@checks.row("losses.MeanSquaredError()")
@checks.row("losses.MeanAbsolutePercentageError()")
@checks.row("losses.MeanSquaredLogarithmicError()")
@checks.row("losses.Huber()")
@checks.row("losses.LogCosh()")
@checks.row("losses.CosineSimilarity()")
@checks.row("losses.KLDivergence()")
@checks.row("losses.Hinge()")
@checks.row("losses.CategoricalHinge()")
def loss(row: Row):
    outputs, targets = next((pair for name, pair in ARGUMENTS.items() if name in row.there), (LOGITS, SOFT))

    def theirs():
        import keras

        answers = {"mean": np.asarray(code(row)(targets, outputs))}
        if "from_logits" in row.there:
            plain = getattr(keras.losses, row.there.split(".")[1].split("(")[0])()
            ready = np.asarray(jax.nn.sigmoid(LOGITS)) if "Binary" in row.there else PROBABILITIES
            answers["ready"] = np.asarray(plain(targets, ready))
        if row.there == "losses.Hinge()":
            answers["ready"] = np.asarray(code(row)(HOT, outputs))
        return answers

    want = row.answers(theirs)
    mine = row.ours()(
        np.log(outputs) if "KL" in row.there else outputs, LABELS if "CategoricalHinge" in row.there else targets
    )
    assert mine.shape == (6,)
    found = float(mine.mean())
    if "Percentage" in row.there:
        found *= 100
    elif "Cosine" in row.there:
        found -= 1
    elif "CategoricalHinge" in row.there:
        assert jn.losses.multiclass_hinge(LOGITS, LABELS).mean() > want["mean"] + 0.1
    close(found, want["mean"])
    if "ready" in want and "smoothing" not in row.there:
        close(want["ready"], want["mean"], 1e-4)


@checks.row("regularizers.L2(0.1)")
def l2(row: Row):
    want = row.answers(lambda: {"y": np.asarray(code(row)(jnp.asarray(LOGITS)))})["y"]
    close(row.ours()({"kernel": LOGITS, "bias": LOGITS}), want)
    close(want, 0.1 * (LOGITS**2).sum())


@checks.row("optimizers.SGD(0.1, momentum=0.9)")
@checks.row("optimizers.Adam(0.1)")
@checks.row("optimizers.AdamW(0.1)")
@checks.row("optimizers.RMSprop(0.1)")
def optimizer(row: Row):
    def theirs():
        import keras

        steps, w = code(row), keras.Variable(W)
        for _ in range(4):
            steps.apply([jnp.asarray(pulled(np.asarray(w)))], [w])
        return {"w": np.asarray(w), "epsilon": np.float32(getattr(steps, "epsilon", 0))}

    want = row.answers(theirs)
    close(descend(row.ours(), W, pulled), want["w"], 1e-4)
    if "SGD" not in row.there:
        np.testing.assert_allclose(want["epsilon"], 1e-7)
    if "AdamW" in row.there:
        differ(descend(optax.adamw(0.1), W, pulled), want["w"])


@checks.row("callbacks.EarlyStopping(patience=3)")
def early_stopping(row: Row):
    answers = row.answers(lambda: {"restores": np.float32(code(row).restore_best_weights)})
    assert answers["restores"] == 0
    assert row.ours().restore
