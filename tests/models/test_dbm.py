"""The deep Boltzmann machine, against enumeration in float64."""

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
from tests.oracle import floats, integers, variables

KEY = jax.random.key(9)
WIDTHS = (4, 3, 2)
PARAMS = enumerated.parameters(*WIDTHS)
LAYERS, P, LOG_Z = enumerated.joint(PARAMS, *WIDTHS)
V = integers(6, 4, high=2).astype(np.float32)


def exact(params, v):
    """Return log p(v) + log Z, by a sum over the first hidden layer, given which all others are independent."""
    first, second = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[name]) for name in ("0", "1"))
    h = states(first["bias"].size)
    above = np.logaddexp(0, h @ second["kernel"] + second["bias"]).sum(1)
    scores = v @ first["kernel"] @ h.T + (h @ first["bias"] + above)[None]
    return v @ first["visible_bias"] + np.logaddexp.reduce(scores, axis=1)


def log_partition(params):
    first, second = (jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params[name]) for name in ("0", "1"))
    h = states(first["bias"].size)
    below = np.logaddexp(0, h @ first["kernel"].T + first["visible_bias"]).sum(1)
    above = np.logaddexp(0, h @ second["kernel"] + second["bias"]).sum(1)
    return np.logaddexp.reduce(h @ first["bias"] + below + above)


@jax.jit
def inferred(params, v):
    """Return means and bounds after 0, 1, 2 and 50 sweeps."""
    means = [models.mean_field(params, v, steps=steps) for steps in (0, 1, 2, 50)]
    return means, [models.variational_bound(params, v, each) for each in means]


def test_two_ways_to_enumerate_agree():
    assert abs(log_partition(PARAMS) - LOG_Z) < 1e-9
    np.testing.assert_allclose(
        np.exp(exact(PARAMS, states(4)) - LOG_Z), enumerated.marginal(LAYERS, P), rtol=0, atol=1e-12
    )


def test_mean_field_is_a_fixed_point():
    first, second = (np.asarray(each, np.float64) for each in inferred(PARAMS, V)[0][-1])
    p = PARAMS
    below = V @ p["0"]["kernel"] + second @ p["1"]["kernel"].T + p["0"]["bias"]
    np.testing.assert_allclose(first, 1 / (1 + np.exp(-below)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        second, 1 / (1 + np.exp(-(first @ p["1"]["kernel"] + p["1"]["bias"]))), rtol=0, atol=1e-6
    )
    net = models.dbm(WIDTHS[1:], steps=50)
    np.testing.assert_allclose(once(net.apply, PARAMS, {}, V)[0], second, rtol=0, atol=1e-6)


def test_the_bound_rises_with_each_sweep_and_stays_below_the_likelihood():
    means, bounds = inferred(PARAMS, V)
    bounds = np.asarray(bounds, np.float64)
    assert (np.diff(bounds, axis=0) > -1e-5).all()
    assert (bounds[-1] - bounds[0] > 1e-3).any()
    above = exact(PARAMS, V) - bounds
    assert (above > 0).all()
    any_means = [1 / (1 + np.exp(-floats(*mean.shape, seed=3))) for mean in means[0]]
    assert (np.asarray(once(models.variational_bound, PARAMS, V, any_means)) < bounds[-1]).all()


def test_the_bound_misses_the_likelihood_by_the_divergence():
    """KL(μ ‖ p(h|v)), summed over all 32 hidden states."""
    means, bounds = inferred(PARAMS, V)
    h1, h2 = np.split(states(5), [3], axis=1)
    first, second = (np.asarray(mean, np.float64) for mean in means[1])
    for row in range(len(V)):
        q = np.prod(np.where(h1, first[row], 1 - first[row]), 1) * np.prod(
            np.where(h2, second[row], 1 - second[row]), 1
        )
        scores = -enumerated.energies(PARAMS, np.tile(V[row], (32, 1)), h1, h2)
        divergence = (q * (np.log(q) - scores)).sum() + np.logaddexp.reduce(scores)
        np.testing.assert_allclose(bounds[1][row], exact(PARAMS, V)[row] - divergence, rtol=1e-5)


def test_the_bound_is_exact_without_a_second_layer():
    """One hidden layer is an RBM, whose posterior is factorial."""
    params = {"0": PARAMS["0"]}

    def both(params, v):
        bound = models.variational_bound(params, v, models.mean_field(params, v, steps=1))
        return bound, -models.free_energy(params["0"], v)

    bound, likelihood = once(both, params, V)
    np.testing.assert_allclose(bound, likelihood, rtol=1e-5)


@pytest.mark.slow
def test_the_chain_reaches_the_distribution():
    @jax.jit
    def run(key):
        def move(layers, key):
            return models.dbm_gibbs_step(key, PARAMS, layers), None

        start = [jnp.zeros((20_000, width)) for width in WIDTHS]
        return jax.lax.scan(move, start, jax.random.split(key, 60))[0]

    assert_histogram(np.concatenate(run(KEY), axis=1), P)


@pytest.mark.slow
def test_the_gradient_is_that_of_the_bound():
    """−∂/∂θ of the mean bound on log p(v): data at their means, and the model's moments by enumeration."""
    net = models.mean_field_learning(WIDTHS[1:], steps=20, chains=40_000, moves=40)
    trees = jax.eval_shape(net.init, KEY, V)
    assert jax.tree.structure(trees[0]) == jax.tree.structure(PARAMS)

    @jax.jit
    def run(params, v):
        state = net.init(KEY, v)[1]

        def loss(params):
            y, after = net.apply(params, state, v, key=KEY, train=True)
            return jn.losses.energy_gap(y).mean(), after

        means = models.mean_field(params, v, steps=20)
        bound = jax.grad(lambda params: models.variational_bound(params, v, means).mean())(params)
        return *jax.grad(loss, has_aux=True)(params), bound

    found, after, bound = run(PARAMS, V)
    model = enumerated.moments(PARAMS, LAYERS, P)
    for a, b, c in zip(*map(jax.tree.leaves, (found, model, bound)), strict=True):
        np.testing.assert_allclose(a, b - c, rtol=0, atol=5 * 0.5 / 40_000**0.5)
    assert_histogram(np.asarray(after["0"]), enumerated.marginal(LAYERS, P))


@pytest.mark.slow
@pytest.mark.promotes
def test_learning_raises_the_bound():
    """On images of bars the mean of bound − log Z rises from −6 log 2 = −4.16, for coins, and stays below log p."""
    images = np.array([np.repeat(state, 2) for state in states(3)], np.float32)
    net = models.mean_field_learning((6, 4), kernel_init=jax.nn.initializers.normal(0.1))
    adam = optax.adam(optax.cosine_decay_schedule(0.03, 800))
    program = jn.train.program(
        net, jn.objective(jn.losses.energy_gap), adam, (images, images), epochs=800, batch_size=None
    )
    run, history = jax.jit(lambda program, key: program(key))(program, KEY)

    _, bounds = inferred(run.params, images)
    bound, likelihood = (np.mean(each) - log_partition(run.params) for each in (bounds[-1], exact(run.params, images)))
    assert likelihood > bound > -2.6  # −log 8 = −2.08 is the best there is
    assert np.isfinite(history["loss"]).all()


def test_reconstruction_and_evaluation():
    net = models.mean_field_learning(WIDTHS[1:], steps=20, chains=3)

    @jax.jit
    def run(params, v):
        state = net.init(KEY, v)[1]
        return state, *net.apply(params, state, v), models.mean_field(params, v, steps=20)[0]

    state, y, after, first = run(PARAMS, V)
    field = np.asarray(first) @ PARAMS["0"]["kernel"].T + PARAMS["0"]["visible_bias"]
    np.testing.assert_allclose(y["reconstruction"], 1 / (1 + np.exp(-field)), rtol=0, atol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        np.testing.assert_array_equal(a, b)
    half = V.astype(jnp.bfloat16)
    half, _ = jax.eval_shape(lambda state: net.apply(PARAMS, state, half, key=KEY, train=True), state)
    assert (half["energy_gap"].dtype, half["reconstruction"].dtype) == (jnp.float32, jnp.bfloat16)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: models.dbm(()), r"dbm\(\(\)\) expects the number of hidden layers ≥ 1, got 0"),
        (lambda: models.dbm((3, 0)), "expects each width ≥ 1"),
        (lambda: models.dbm((3,)).init(KEY, floats(2, 3, 3)), r"expects \(batch, features\), got \(2, 3, 3\)"),
        (lambda: models.dbm((3,)).apply(PARAMS, {}, V), "expects parameters of 1 layers, got 0, 1"),
        (lambda: models.dbm((3, 2)).apply(PARAMS, {}, floats(2, 5)), r"has kernel \(4, 3\), but input \(2, 5\) needs"),
        (lambda: models.mean_field_learning((3, 2), chains=0), "expects chains ≥ 1, got 0"),
        (lambda: models.mean_field_learning((3, 2)).apply(PARAMS, {}, V), "needs the state 0, 1, 2, got none"),
        (
            lambda: models.mean_field_learning((3, 2), chains=2).apply(
                PARAMS, variables(models.mean_field_learning((3, 2), chains=2), V)[1], V, train=True
            ),
            "is random in training and needs a key",
        ),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()
