"""The variational autoencoder, against PyTorch and against a model whose likelihood is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets import models
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats, witness

KEY = jax.random.key(6)
NET, X = models.vae((3, 2), (5,), 2), floats(4, 3, 2)
TARGETS = 1 / (1 + np.exp(-X))
EPSILON = floats(4, 2, seed=9)


def noise_of(key, shape):
    """Return the ε that a network draws from a key: the code of a mean 0 and a variance 1, decoded by nothing."""
    zeros = models.variational(lambda x: {"mean": x, "log_variance": x}, lambda z: z)
    return zeros.apply({}, {}, jnp.zeros(shape), key=key, train=True)[0]["reconstruction"]


def by_torch():
    import torch

    params = jn.paths.paths(draw(NET, X)[0])
    leaves = {path: torch.tensor(leaf, requires_grad=True) for path, leaf in params.items()}

    def linear(name, x):
        return x @ leaves[f"{name}/kernel"] + leaves[f"{name}/bias"]

    hidden = torch.tanh(linear("encoder/1", torch.tensor(X).flatten(1)))
    q = torch.distributions.Normal(
        linear("encoder/3/mean", hidden), torch.exp(linear("encoder/3/log_variance", hidden) / 2)
    )
    z = q.mean + q.stddev * torch.tensor(EPSILON)
    logits = linear("decoder/2", torch.tanh(linear("decoder/0", z))).reshape(4, 3, 2)
    fit = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(TARGETS), reduction="none")
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    loss = fit.sum((1, 2)) + 0.5 * kl.sum(1)
    loss.mean().backward()
    gradients = {path: leaf.grad.numpy() for path, leaf in leaves.items() if leaf.grad is not None}
    return {"loss": loss.detach().numpy(), "logits": logits.detach().numpy(), **gradients}


def test_values_and_gradients_are_torchs(monkeypatch):
    """With the same noise, and β = ½."""
    want = witness("models/vae", by_torch)
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.asarray(EPSILON, dtype))
    params, state = draw(NET, X)

    def loss(params):
        y, _ = NET.apply(params, state, jnp.asarray(X), key=KEY, train=True)
        values = jn.losses.negative_elbo(y, jnp.asarray(TARGETS), beta=0.5)
        return values.mean(), {"loss": values, "logits": y["reconstruction"]}

    gradients, found = once(jax.grad(loss, has_aux=True), params)
    found |= jn.paths.paths(gradients)
    assert set(found) == set(want)
    for path, theirs in want.items():
        np.testing.assert_allclose(found[path], theirs, rtol=0, atol=2e-6 * max(1.0, np.abs(theirs).max()))


def test_the_code_is_the_mean_in_evaluation_and_a_draw_in_training():
    params, state = draw(NET, X)
    q, _ = NET.upto("encoder").apply(params, state, X)
    y, _ = NET.apply(params, state, X)
    decode = partial(NET["decoder"].apply, params["decoder"], {})
    np.testing.assert_array_equal(y["reconstruction"], decode(q["mean"])[0])
    drawn, _ = NET.apply(params, state, X, key=KEY, train=True)
    z = q["mean"] + jnp.exp(q["log_variance"] / 2) * noise_of(KEY, (4, 2))
    np.testing.assert_allclose(drawn["reconstruction"], decode(z)[0], rtol=0, atol=1e-6)
    for name in ("mean", "log_variance"):
        np.testing.assert_array_equal(y[name], q[name])


def test_it_can_be_cut_anywhere():
    params, state = draw(NET, X)
    decoder = params["decoder"]
    q, _ = NET.upto("encoder").apply(params, state, X)
    hidden, _ = NET.upto("decoder/1").apply(params, state, X)
    wanted = np.tanh(q["mean"] @ decoder["0"]["kernel"] + decoder["0"]["bias"][None])
    np.testing.assert_allclose(hidden, wanted, rtol=0, atol=1e-6)
    whole, _ = NET.upto("decoder").apply(params, state, X)
    np.testing.assert_array_equal(whole, NET.apply(params, state, X)[0]["reconstruction"])
    first, _ = NET.upto("encoder/1").apply(params, state, X)
    assert first.shape == (4, 5)


def test_the_bound_is_the_likelihood_where_the_posterior_is_exact():
    """For p(x|z) = N(z W, σ²) with rows of W at right angles, q = p(z|x) is factorial and log p(x) is known.

    The mean of the loss over draws of z is then −log p(x); half the posterior's width gives a looser bound.
    """
    variance, w = 0.3, np.array([[1.0, 1.0, 0.0], [-0.5, 0.5, 1.0]], np.float32)
    lengths = (w**2).sum(1)
    x = floats(3, 3)
    encode = jnp.asarray((w / (lengths + variance)[:, None]).T)  # E[z|x] = x W'/(W W' + σ²)
    width = jnp.log(variance / (lengths + variance)).astype(jnp.float32)  # the posterior's log-variance

    def mean_loss(narrower):
        def encoder(x):
            return {"mean": x @ encode, "log_variance": jnp.broadcast_to(width[None] - narrower, (len(x), 2))}

        net = models.variational(encoder, lambda z: z @ jnp.asarray(w))

        def one(key):
            y, _ = net.apply({}, {}, jnp.asarray(x), key=key, train=True)
            return jn.losses.negative_elbo(y, jnp.asarray(x), likelihood="gaussian", variance=variance)

        values = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 20_000)), np.float64)
        return values.mean(0), values.std(0) / len(values) ** 0.5

    covariance = w.T @ w + variance * np.eye(3)
    exact = (np.log(np.linalg.det(2 * np.pi * covariance)) + (x @ np.linalg.inv(covariance) * x).sum(1)) / 2
    found, error = mean_loss(0.0)
    assert (np.abs(found - exact) < 5 * error).all()
    looser, error = mean_loss(2 * np.log(2.0).astype(np.float32))
    # KL between normals of one mean and widths σ/2, σ: log 2 + 1/8 − 1/2 each
    assert (np.abs(looser - exact - 2 * (np.log(2) - 3 / 8)) < 5 * error).all()


def test_convolutional_halves_take_any_size():
    for shape in ((5, 4, 3), (28, 28, 1), (7, 2)):
        net, x = models.conv_vae(shape, (4, 8), 2), jax.ShapeDtypeStruct((3, *shape), jnp.float32)
        params, state = jax.eval_shape(net.init, KEY, x)
        y = jax.eval_shape(lambda p, s, x, net=net: net.apply(p, s, x, key=KEY, train=True)[0], params, state, x)
        assert {name: leaf.shape for name, leaf in y.items()} == {
            "reconstruction": (3, *shape),
            "mean": (3, 2),
            "log_variance": (3, 2),
        }


def test_halves_may_hold_state_and_randomness():
    encoder = jn.serial(jn.batch_norm(), jn.branches(dict, mean=jn.dense(2), log_variance=jn.dense(2)))
    net = models.variational(encoder, jn.serial(jn.dropout(0.5), jn.dense(6), jn.batch_norm()))
    x = jnp.asarray(floats(8, 6))
    params, state = draw(net, x)
    after = jax.jit(lambda params, state: net.apply(params, state, x, key=KEY, train=True)[1])(params, state)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert set(after) == {"encoder", "decoder"}
    for half in after:
        changed = jax.tree.map(lambda a, b: bool((a != b).any()), after[half], state[half])
        assert all(jax.tree.leaves(changed))


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: NET.apply(*draw(NET, X), X, train=True), "variational is random in training and needs a key"),
        (lambda: NET.init(KEY, floats(2, 3, 3)), r"encoder/0: flatten expects \(batch, 3, 2\)"),
        (
            lambda: models.variational(jn.dense(4), jn.dense(3)).init(KEY, floats(2, 3)),
            "variational expects an encoder that returns a dict of mean and log_variance.*ShapeDtypeStruct; end it in",
        ),
        (
            lambda: models.variational(jn.branches(dict, mean=jn.dense(2), log_variance=jn.dense(3)), jn.dense(3)).init(
                KEY, floats(2, 3)
            ),
            "of one shape",
        ),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()
