"""Labels that the network has no output for: named before a run, wherever labels come from."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.core.errors import is_traced
from jaxnets.train.labels import outputs_of
from tests.oracle import floats

KEY = jax.random.key(0)
X, Y = floats(12, 4), np.arange(12) % 3
ENTROPY = jn.objective(jn.losses.cross_entropy)
BEYOND = r"labels of {} range from 1 to 3, but the network has 3 outputs; classes are counted from 0 to 2: subtract 1"


def program(data: Any, objective: Any = ENTROPY, net: Any = None, **options: Any) -> jn.train.Program:
    given: dict[str, Any] = {"epochs": 1, "batch_size": 4} | options
    return jn.train.program(net or jn.dense(3), objective, optax.sgd(0.1), data, **given)


def test_labels_beyond_the_outputs_are_named_before_a_run():
    with pytest.raises(jn.NetError, match=BEYOND.format("data")):
        program((X, Y + 1))
    with pytest.raises(jn.NetError, match=BEYOND.format("validation")):
        program((X, Y), validation=(X, Y + 1))
    with pytest.raises(jn.NetError, match=r"labels of data range from -1 to 1, .* weights of 0 or jn.losses.ignoring"):
        program((X, Y - 1))
    with pytest.raises(
        jn.NetError, match=r"from 0 to 2, but the network has 2 outputs; .*: give the network 3 outputs"
    ):
        program((X, Y), net=jn.models.mlp([8], 2))
    params, state = jn.dense(3).init(KEY, X)
    with pytest.raises(jn.NetError, match=BEYOND.format("data")):
        jn.evaluate(jn.dense(3), (params, state), (X, Y + 1), {"accuracy": jn.metrics.accuracy})


@pytest.mark.slow
def test_streams_are_looked_at_batch_by_batch():
    late = np.where(np.arange(12) == 9, 7, Y)
    one = program(jn.data.stream((X, late), 4, shuffle=False))
    with pytest.raises(jn.NetError, match="labels of data range from 1 to 7, but the network has 3 outputs"):
        jn.train.run(one, key=KEY)
    held = jn.data.stream((X, late), 4, shuffle=False)
    with pytest.raises(jn.NetError, match="labels of validation range from 1 to 7"):
        jn.train.run(program(jn.data.stream((X, Y), 4), validation=held), key=KEY)


NAMED = {
    "partial": partial(jn.losses.cross_entropy, label_smoothing=0.1),
    "log-likelihood": jn.losses.negative_log_likelihood,
    "lenet": jn.losses.maximum_a_posteriori,
    "focal": jn.losses.softmax_focal,
    "hinge": jn.losses.multiclass_hinge,
    "heads": jn.losses.auxiliary_loss(jn.losses.cross_entropy, side=0.3),
}


@pytest.mark.parametrize("name", NAMED)
def test_every_loss_of_classes_says_so(name: str):
    with pytest.raises(jn.NetError, match=BEYOND.format("data")):
        program((X, Y + 1), jn.objective(NAMED[name]))


METRICS = (
    jn.metrics.accuracy, jn.metrics.top_k(2), jn.metrics.perplexity, jn.metrics.confusion_matrix(3),
    jn.metrics.precision(3), jn.metrics.recall(3), jn.metrics.f1(3), jn.metrics.mean(jn.losses.cross_entropy),
)  # fmt: skip


@pytest.mark.parametrize("metric", METRICS, ids=str)
def test_every_metric_of_classes_says_so(metric: jn.metrics.Metric):
    with pytest.raises(jn.NetError, match=BEYOND.format("data")):
        program((X, Y + 1), lambda *_: None, metrics={"one": metric})


def test_what_is_no_label_passes():
    """Padding, weights of 0, labels that stand for none, probabilities, targets of other losses, and traced ones."""
    high = np.where(np.arange(12) < 2, 9, Y)
    program((X, high, (high < 9).astype(np.float32)))
    program((X, np.eye(3)[Y].astype(int)))
    program((X, 5 * Y), jn.objective(lambda outputs, targets: (outputs[:, 0] - targets) ** 2))
    jax.eval_shape(lambda y: program((X, y)).start(KEY), Y + 1)
    places, marked = floats(4, 5, 2), np.array([[0, 255, 2, 1, 255]] * 4)
    program((places, marked), jn.objective(jn.losses.ignoring(jn.losses.cross_entropy, 255)), metrics={
        "iou": jn.metrics.ignoring(jn.metrics.intersection_over_union(3), 255)})  # fmt: skip
    with pytest.raises(jn.NetError, match="labels of data range from 0 to 2, but the network has 2 outputs"):
        program((places, marked), jn.objective(jn.losses.ignoring(jn.losses.cross_entropy, 255)), jn.dense(2))
    lengths = jnp.array([2, 5, 1, 3])
    steps = jn.objective(jn.losses.sequence(jn.losses.cross_entropy))
    padding = np.where(np.arange(5) < np.array(lengths)[:, None], 1, 99)
    program((jn.Padded(places, lengths), jn.Padded(padding, lengths)), steps)
    with pytest.raises(jn.NetError, match="labels of data range from 1 to 99"):
        program((jn.Padded(places, lengths), jn.Padded(padding, jnp.minimum(lengths + 1, 5))), steps)
    blank = jn.objective(jn.losses.ctc)
    program((places, np.array([[1, 2]] * 4)), blank)
    with pytest.raises(jn.NetError, match=r"from 0 to 2, .* counted from 1 to 2 \(0 is the blank\)"):
        program((places, np.array([[0, 2]] * 4)), blank)


def test_outputs_are_known_without_initial_values():
    """A sweep builds programs where JAX computes at once whatever does not depend on an argument."""

    def drawn(key: jax.Array, shape: Any, dtype: Any = None, out_sharding: Any = None) -> jax.Array:
        assert is_traced(key)
        return jnp.zeros(shape, dtype)

    with jax.ensure_compile_time_eval():
        assert outputs_of(jn.dense(3, kernel_init=drawn), np.zeros((2, 4), np.float32)).shape == (1, 3)
