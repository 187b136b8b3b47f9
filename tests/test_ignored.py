"""Places without a label count for nothing in losses and metrics, and of several outputs metrics read the logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, integers, witness

LOGITS = floats(3, 4, 5, 6)
LABELS = np.where(floats(3, 4, 5) > 0.3, 255, integers(3, 4, 5, high=6)).astype(np.int32)
LABELS[2] = 255  # an example without any label


def torch_says() -> dict[str, np.ndarray]:
    """Return cross entropy with `ignore_index`, example by example, and the gradient of the first two's sum."""
    import torch
    from torch.nn.functional import cross_entropy

    outputs = torch.tensor(LOGITS, requires_grad=True)
    rows = [
        cross_entropy(
            outputs[row].permute(2, 0, 1)[None], torch.tensor(LABELS[row], dtype=torch.long)[None], ignore_index=255
        )
        for row in range(2)
    ]
    torch.stack(rows).sum().backward()
    assert outputs.grad is not None
    return {"values": torch.stack(rows).detach().numpy(), "gradient": outputs.grad.numpy()}


def test_a_loss_ignores_labels_like_pytorch():
    theirs = witness("losses/ignored", torch_says)
    loss = jn.losses.ignoring(jn.losses.cross_entropy, 255)
    spoiled = np.where((LABELS == 255)[..., None], np.nan, LOGITS)
    for outputs in (LOGITS, spoiled):
        values, pull = jax.vjp(lambda o: jax.jit(loss)(o, LABELS), jnp.asarray(outputs))
        np.testing.assert_allclose(values, [*theirs["values"], 0.0], rtol=1e-6)
        (gradient,) = pull(jnp.ones(3))
        np.testing.assert_allclose(gradient, theirs["gradient"], rtol=0, atol=1e-7)
    assert loss.__name__ == "cross_entropy"


@pytest.mark.parametrize("weights", [None, np.array([1.0, 0.5, 2.0], np.float32)])
@pytest.mark.slow_cases("None")
def test_a_metric_ignores_labels(weights):
    """Against the metric of the labeled positions alone."""
    real = LABELS != 255
    place_weights = np.broadcast_to(np.ones(3) if weights is None else weights, (5, 4, 3)).T[real].astype(np.float32)
    wholes = jn.metrics.accuracy, jn.metrics.intersection_over_union(6), jn.metrics.perplexity
    left_out = [jn.metrics.ignoring(metric, 255) for metric in wholes]
    expected = jax.jit(lambda *data: [metric(*data) for metric in wholes])(LOGITS[real], LABELS[real], place_weights)
    found = jax.jit(lambda *data: [metric(*data) for metric in left_out])(LOGITS, LABELS, weights)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert [metric.name for metric in left_out] == [metric.name for metric in wholes]


def test_metrics_read_the_logits_of_several_outputs():
    logits, labels = floats(8, 3), integers(8, high=3)
    heads = {"logits": logits, "aux1": -logits}
    of_classes = jn.metrics.accuracy, jn.metrics.top_k(2), jn.metrics.recall(3), jn.metrics.perplexity
    yes = labels[:, None] == np.arange(3)[None]

    @jax.jit
    def values(*both):
        return [[*(metric(o, labels) for metric in of_classes), jn.metrics.binary_accuracy(o, yes)] for o in both]

    np.testing.assert_array_equal(*values(heads, logits))
    with pytest.raises(jn.NetError, match="expects an array, got dict; choose one"):
        jn.metrics.accuracy({"value": logits}, labels)
