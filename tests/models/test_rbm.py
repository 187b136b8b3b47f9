"""The restricted Boltzmann machine, against enumeration in float64 and against scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets import models
from tests.models import enumerated
from tests.models.enumerated import assert_histogram, states
from tests.once import once
from tests.oracle import floats, integers

KEY = jax.random.key(8)
PARAMS = enumerated.parameters(4, 3)["0"]
LAYERS, P, LOG_Z = enumerated.joint({"0": PARAMS}, 4, 3)
V = integers(6, 4, high=2).astype(np.float32)


def near(found, expected, tolerance=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def hidden(v):
    """Return p(h = 1 | v) in float64."""
    return 1 / (1 + np.exp(-(v @ PARAMS["kernel"].astype(np.float64) + PARAMS["bias"])))


def test_free_energy_sums_over_all_hidden_states():
    above = np.repeat(states(3), len(V), axis=0)
    scores = -enumerated.energies({"0": PARAMS}, np.tile(V, (8, 1)), above).reshape(8, len(V))
    everything = states(4).astype(np.float32)
    some, every = once(lambda *given: [models.free_energy(PARAMS, v) for v in given], V, everything)
    near(some, -np.logaddexp.reduce(scores, axis=0))
    log_p = -np.asarray(every, np.float64) - LOG_Z
    near(np.exp(log_p), enumerated.marginal(LAYERS, P))


def test_free_energy_of_real_units_sums_over_all_hidden_states():
    v, a = floats(5, 4), PARAMS["visible_bias"]
    scores = [(v @ PARAMS["kernel"] + PARAMS["bias"]) @ h - ((v - a) ** 2).sum(1) / 2 for h in states(3)]
    near(once(lambda v: models.free_energy(PARAMS, v, visible="gaussian"), v), -np.logaddexp.reduce(scores, axis=0))


def test_scikit_learn_agrees():
    from sklearn.neural_network import BernoulliRBM

    theirs = BernoulliRBM(3)
    theirs.components_, theirs.intercept_hidden_ = PARAMS["kernel"].T, PARAMS["bias"]
    theirs.intercept_visible_ = PARAMS["visible_bias"]
    (ours, _), energy = once(lambda v: (models.rbm(3).apply(PARAMS, {}, v), models.free_energy(PARAMS, v)), V)
    near(ours, theirs.transform(V))
    near(energy, theirs._free_energy(V))


def test_it_is_a_dense_layer_and_a_sigmoid():
    net = jn.serial(jn.dense(3), jax.nn.sigmoid)
    params = {"0": {name: PARAMS[name] for name in ("kernel", "bias")}}
    found, wanted = once(lambda v: (models.rbm(3).apply(PARAMS, {}, v)[0], net.apply(params, {}, v)[0]), V)
    np.testing.assert_array_equal(found, wanted)


def test_reconstruction_by_hand():
    field = hidden(V) @ PARAMS["kernel"].T + PARAMS["visible_bias"]
    kinds = ("bernoulli", "gaussian")
    binary, real = once(lambda v: [models.reconstruct(PARAMS, v, visible=kind) for kind in kinds], V)
    near(binary, 1 / (1 + np.exp(-field)))
    near(real, field)


def run_chains(visible, chains=20_000, steps=40):
    @jax.jit
    def run(key):
        def move(v, key):
            return models.gibbs_step(key, PARAMS, v, visible=visible), None

        return jax.lax.scan(move, jnp.zeros((chains, 4)), jax.random.split(key, steps))[0]

    return np.asarray(run(KEY), np.float64)


def test_the_chain_reaches_the_distribution():
    assert_histogram(run_chains("bernoulli"), enumerated.marginal(LAYERS, P))


@pytest.mark.slow
def test_the_chain_of_real_units_reaches_the_distribution():
    """p(v) is a mixture of a normal around a + h W for each h: means, and second moments."""
    v = run_chains("gaussian")
    kernel, bias, a = (PARAMS[name].astype(np.float64) for name in ("kernel", "bias", "visible_bias"))
    centers = a + states(3) @ kernel.T
    scores = states(3) @ bias + ((centers**2).sum(1) - a @ a) / 2
    p = np.exp(scores - np.logaddexp.reduce(scores))
    second = np.einsum("s,si,sj->ij", p, centers, centers) + np.eye(4)
    products = np.einsum("si,sj->sij", v, v)
    for sample, expected in ((v, p @ centers), (products, second)):
        assert (np.abs(sample.mean(0) - expected) < 5 * sample.std(0) / len(v) ** 0.5).all()


def gap_gradient(net, params, state, v, key):
    """Return the gradient of the mean gap, the network's state after it, as `jn.train.step` takes them."""

    def loss(params):
        y, after = net.apply(params, state, v, key=key, train=True)
        return jn.losses.energy_gap(y).mean(), after

    return once(jax.grad(loss, has_aux=True), params)


def by_data(v, p):
    """Return −⟨∂F/∂θ⟩ over visible states v of probabilities p."""
    return {"kernel": (v * p[:, None]).T @ hidden(v), "bias": p @ hidden(v), "visible_bias": p @ v}


@pytest.mark.parametrize("steps", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_gradient_is_that_of_contrastive_divergence(steps):
    """Its expectation is exact: the data through k transitions, all 16 states of them by enumeration."""
    everything = states(4)
    on = 1 / (1 + np.exp(-(states(3) @ PARAMS["kernel"].T + PARAMS["visible_bias"])))
    h_given_v = np.prod(np.where(states(3)[None] == 1, hidden(everything)[:, None], 1 - hidden(everything)[:, None]), 2)
    v_given_h = np.prod(np.where(everything[None] == 1, on[:, None], 1 - on[:, None]), 2)
    data = np.full(len(V), 1 / len(V))
    start = np.bincount(enumerated.indices(V), data, 16)
    end = start @ np.linalg.matrix_power(h_given_v @ v_given_h, steps)
    expected = jax.tree.map(lambda model, seen: model - seen, by_data(everything, end), by_data(V, data))
    many = jnp.asarray(np.tile(V, (10_000, 1)))
    found, _ = gap_gradient(models.contrastive_divergence(3, steps=steps), PARAMS, {}, many, KEY)
    near(found, expected, 5 * 0.5 / len(many) ** 0.5)  # no entry varies by more than ½


@pytest.mark.slow
def test_many_steps_give_the_gradient_of_the_likelihood():
    data = np.full(len(V), 1 / len(V))
    model = enumerated.moments({"0": PARAMS}, LAYERS, P)["0"]
    expected = jax.tree.map(lambda model, seen: model - seen, model, by_data(V, data))
    net = models.contrastive_divergence(3, steps=30, chains=60_000)
    params, state = net.init(KEY, V)
    found, after = gap_gradient(net, PARAMS, state, jnp.asarray(V), KEY)
    near(found, expected, 5 * 0.5 / 60_000**0.5)
    assert jax.tree.structure(params) == jax.tree.structure(PARAMS)
    assert_histogram(np.asarray(after["chain"]), enumerated.marginal(LAYERS, P))


def test_chains_persist():
    """A second step goes on where the first one stopped, whatever the data and the size of the batch."""
    net = models.contrastive_divergence(3, steps=2, chains=5)

    @jax.jit
    def run(v):
        _, state = net.init(KEY, v)
        keys, moved, by_hand = jax.random.split(KEY), state, state["chain"]
        for key, batch in zip(keys, (v, v[:2]), strict=True):
            _, moved = net.apply(PARAMS, moved, batch, key=key, train=True)
            for each in jax.random.split(key):
                by_hand = models.gibbs_step(each, PARAMS, by_hand)
        return moved["chain"], by_hand, net.apply(PARAMS, state, v)[1]["chain"], state["chain"]

    moved, by_hand, evaluated, state = map(np.asarray, run(V))
    np.testing.assert_array_equal(moved, by_hand)
    np.testing.assert_array_equal(evaluated, state)
    assert (moved != state).any()


def test_evaluation_compares_with_the_reconstruction():

    def both(v):
        made = models.reconstruct(PARAMS, v)
        gap = models.free_energy(PARAMS, v) - models.free_energy(PARAMS, made)
        return models.contrastive_divergence(3).apply(PARAMS, {}, v)[0], made, gap

    y, made, gap = once(both, V)
    near(y["reconstruction"], made)
    near(y["energy_gap"], gap)


def bars_and_stripes(side=3):
    """Return the 2^(side + 1) − 2 images whose rows, or whose columns, are each all on or all off."""
    rows = [np.repeat(state, side) for state in states(side)]
    columns = [np.tile(state, side) for state in states(side)]
    return np.unique(np.array([*rows, *columns], np.float32), axis=0)


@pytest.mark.slow
@pytest.mark.promotes
def test_it_learns_bars_and_stripes():
    """Its exact likelihood comes near that of the 14 images, −log 14 = −2.64, from −9 log 2 = −6.24 for coins."""
    images = bars_and_stripes()
    assert len(images) == 14
    net = models.contrastive_divergence(16, steps=5, chains=100)
    adam = optax.adam(optax.cosine_decay_schedule(0.02, 1500))
    program = jn.train.program(
        net, jn.objective(jn.losses.energy_gap), adam, (images, images), epochs=1500, batch_size=None
    )
    run, _ = jax.jit(lambda program, key: program(key))(program, KEY)
    every = -np.asarray(models.free_energy(run.params, jnp.asarray(states(9), jnp.float32)), np.float64)
    assert every[enumerated.indices(images)].mean() - np.logaddexp.reduce(every) > -2.9


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: models.rbm(0), r"rbm\(0\) expects hidden ≥ 1"),
        (lambda: models.rbm(3, visible="real"), "expects visible 'bernoulli' or 'gaussian', got 'real'"),  # type: ignore[arg-type]
        (
            lambda: models.rbm(3).init(KEY, floats(2, 4, 4, 1)),
            r"expects \(batch, features\), got \(2, 4, 4, 1\); flatten",
        ),
        (lambda: models.rbm(3).init(KEY, jnp.ones((2, 4), int)), "expects floating input, got int32"),
        (lambda: models.rbm(3).apply(PARAMS, {}, floats(2, 5)), r"has kernel \(4, 3\), but input \(2, 5\) needs"),
        (lambda: models.contrastive_divergence(3, steps=0), "expects steps ≥ 1, got 0"),
        (lambda: models.contrastive_divergence(3, chains=-1), "expects an integer ≥ 0 for chains, got -1"),
        (lambda: models.contrastive_divergence(3).apply(PARAMS, {}, V, train=True), r"divergence\(3\) is random.*key"),
        (
            lambda: models.contrastive_divergence(3, chains=5).apply(PARAMS, {}, V, key=KEY, train=True),
            "needs the state chain, got none",
        ),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()
