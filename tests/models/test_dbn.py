"""The deep belief network: greedy pretraining, fine-tuning, and what it generates."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets import models
from jaxnets.core.net import fold
from tests.models import enumerated
from tests.models.enumerated import states
from tests.once import once
from tests.oracle import integers

KEY = jax.random.key(10)
OBJECTIVE = jn.objective(jn.losses.energy_gap)
X = integers(20, 6, high=2).astype(np.float32)


def reconstruction_error(outputs, targets):
    return jn.losses.squared_error(outputs["reconstruction"], targets)


@pytest.mark.promotes
@pytest.mark.slow
def test_greedy_is_one_program_after_another():
    """Here of autoencoders, each of the codes of the one below."""
    nets = [models.autoencoder((6,), (), 4), models.autoencoder((4,), (), 2)]
    encoders = [net.upto("encoder") for net in nets]
    total, sgd = jn.objective(jn.losses.squared_error), optax.sgd(0.1)
    stages = list(zip(nets, encoders, strict=True))

    def pretrained(key, x):
        params, history = jn.train.pretrain_layers(stages, total, sgd, x, key=key, epochs=2, batch_size=8)
        below, _ = encoders[0].apply(params["0"], {}, x)
        return params, history, below, encoders[1].apply(params["1"], {}, below)[0], coder.apply(params, {}, x)[0]

    coder = jn.serial(*encoders)
    params, history, below, code, whole = once(pretrained, KEY, X)
    np.testing.assert_array_equal(whole, code)
    program = jn.train.program(nets[1], total, sgd, (below, below), epochs=2, batch_size=8)
    run, rows = once(lambda program, key: program(key), program, fold(KEY, "1"))
    for a, b in zip(jax.tree.leaves((run.params, rows)), jax.tree.leaves((params["1"], history["1"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.promotes
@pytest.mark.slow
def test_pretraining_and_fine_tuning_on_digits():
    """Each layer learns to reconstruct its input, and fine-tuning reads digits that it has not seen."""
    images, labels = jn.data.mnist5k()
    learn, unseen = (part[:600] for part in jn.data.split_indices(labels, [0.5, 0.5]))
    x, y = jnp.asarray(images.reshape(-1, 784)), jnp.asarray(labels)
    metrics = {"error": jn.metrics.mean(reconstruction_error)}
    params, history = jax.jit(
        lambda key, x: jn.train.pretrain_layers(
            models.dbn_stages((100, 50)),
            OBJECTIVE,
            optax.sgd(0.1),
            x,
            key=key,
            epochs=6,
            batch_size=50,
            metrics=metrics,
        )
    )(KEY, x[learn])
    for stage in history.values():
        assert stage["error"][-1] < 0.7 * stage["error"][0]
    net = models.dbn((100, 50), 10)
    fresh, _ = net.init(KEY, x[:1])
    assert jax.tree.structure(fresh) == jax.tree.structure(params | {"fc": fresh["fc"]})
    tuned = tune(net, params | {"fc": fresh["fc"]}, x[learn], y[learn])
    logits = jax.jit(net.apply)(tuned, {}, x[unseen])[0]
    assert jn.metrics.accuracy(logits, y[unseen]) > 0.8
    perceptron = jax.jit(models.mlp((100, 50), 10, activation=jax.nn.sigmoid).apply)
    np.testing.assert_allclose(perceptron(models.dbn_to_mlp(tuned), {}, x[unseen])[0], logits, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(tuned["0"]["visible_bias"], params["0"]["visible_bias"])


def tune(net, params, x, y, steps=60):
    """Return parameters after full-batch steps of Adam from given ones."""
    adam, total = optax.adam(0.01), jn.objective(jn.losses.cross_entropy)
    step = jn.train.make_train_step(net, total, adam)
    run = replace(jn.train.start(net, adam, x, key=KEY), params=params, opt_state=adam.init(params))
    batch = jn.train.Batch(x, y, jnp.ones(len(x)))
    return jax.jit(lambda run: jax.lax.scan(lambda run, _: (step(run, batch)[0], None), run, length=steps)[0])(
        run
    ).params


@pytest.mark.slow
def test_samples_have_the_mean_of_the_distribution():
    """p(v) = Σ_h p(v|h) p(h), with p(h) that of the top machine, by enumeration."""
    bottom, top = enumerated.parameters(4, 3)["0"], enumerated.parameters(3, 5)["0"]
    layers, p, _ = enumerated.joint({"0": top}, 3, 5)
    given = 1 / (1 + np.exp(-(states(3) @ bottom["kernel"].T.astype(np.float64) + bottom["visible_bias"])))
    expected = enumerated.marginal(layers, p) @ given
    params, start = {"0": bottom, "1": top, "fc": {}}, jnp.zeros((20_000, 4))
    found = np.asarray(jax.jit(lambda key: models.dbn_sample(key, params, start, steps=40))(KEY))
    assert (np.abs(found.mean(0) - expected) < 5 * found.std(0) / 20_000**0.5).all()


@pytest.mark.slow
def test_a_stack_of_one_is_its_machine():
    params = enumerated.parameters(4, 3)
    layers, p, _ = enumerated.joint(params, 4, 3)
    found = jax.jit(lambda key: models.dbn_sample(key, params, jnp.zeros((20_000, 4)), steps=40))(KEY)
    enumerated.assert_histogram(np.asarray(found), enumerated.marginal(layers, p))


def test_only_the_first_machine_sees_real_numbers():
    stages = models.dbn_stages((5, 4, 3), visible="gaussian")
    assert [machine.label for _, machine in stages] == ["rbm(5, visible='gaussian')", "rbm(4)", "rbm(3)"]
    assert list(models.dbn((5, 4, 3), 2, visible="gaussian").children) == ["0", "1", "2", "fc"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: models.dbn(()), "dbn expects at least one width, got none"),
        (lambda: models.dbn_to_mlp({"fc": {}}), "expects the parameters of a dbn, got fc"),
        (
            lambda: jn.train.pretrain_layers([], OBJECTIVE, optax.sgd(0.1), X, key=KEY, epochs=1),
            "pretrain_layers expects at least one stage",
        ),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()
