"""Autoencoders, against PyTorch and against principal components."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets import models
from jaxnets.core.net import fold
from tests.models.weights import draw
from tests.once import once
from tests.oracle import floats, witness

KEY = jax.random.key(2)
NETS = {
    "dense": (models.autoencoder((3, 2, 2), (7, 5), 2, activation=jnp.tanh), floats(4, 3, 2, 2)),
    "conv": (models.conv_autoencoder((9, 6, 2), (3, 4), 5), floats(4, 9, 6, 2)),
}


def to_torch(path, leaf):
    """Return the tensor of a parameter; those of transposed convolutions keep (in, out) in PyTorch too."""
    transposed = path.startswith("decoder") and leaf.ndim == 4
    if leaf.ndim < 2:
        return leaf
    return np.moveaxis(leaf, (-2, -1) if transposed else (-1, -2), (0, 1)).copy()


def by_torch(name):
    import torch
    from torch import nn

    class Flatten(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1).flatten(1)

    class Unflatten(nn.Module):
        def __init__(self, *shape):
            super().__init__()
            self.shape = shape

        def forward(self, x):
            return x.reshape(len(x), *self.shape).permute(0, 3, 1, 2)

    if name == "dense":
        encoder = [Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 2)]
        decoder = [nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 12), Unflatten(3, 2, 2)]
    else:
        inward = [nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), Flatten()]
        encoder = [*inward, nn.Linear(3 * 2 * 4, 5)]
        outward = [nn.Linear(5, 3 * 2 * 4), nn.ReLU(), Unflatten(3, 2, 4)]
        up = nn.ConvTranspose2d(4, 3, 3, 2, 1, output_padding=(0, 0))  # 3 × 2 to 5 × 3
        decoder = [*outward, up, nn.ReLU(), nn.ConvTranspose2d(3, 2, 3, 2, 1, output_padding=(0, 1))]
    whole = nn.Sequential()
    whole.encoder, whole.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
    net, x = NETS[name]
    weights = {path: to_torch(path, leaf) for path, leaf in jn.paths.paths(draw(net, x)[0]).items()}
    names = {path: path.replace("/", ".").replace("kernel", "weight") for path in weights}
    whole.load_state_dict({names[path]: torch.from_numpy(leaf) for path, leaf in weights.items()})
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    code = whole.encoder(images)
    y = whole.decoder(code)
    nn.functional.binary_cross_entropy_with_logits(y, torch.sigmoid(images)).backward()
    found = {name: np.asarray(tensor.grad) for name, tensor in whole.named_parameters()}
    return {"code": code.detach().numpy(), "y": y.permute(0, 2, 3, 1).detach().numpy()} | {
        path: found[names[path]] for path in weights
    }


@pytest.mark.parametrize("name", NETS)
def test_values_and_gradients_are_torchs(name):
    want = witness(f"models/autoencoder_{name}", lambda: by_torch(name))
    net, x = NETS[name]
    params, state = draw(net, x)

    def run(params, x):
        def loss(params):
            y, _ = net.apply(params, state, x, train=True)
            return jn.losses.binary_cross_entropy(y, jax.nn.sigmoid(x)).mean(), y

        return jax.grad(loss, has_aux=True)(params), net.upto("encoder").apply(params, state, x)[0]

    (gradients, y), code = once(run, params, x)
    found = {path: to_torch(path, np.asarray(leaf)) for path, leaf in jn.paths.paths(gradients).items()}
    found |= {"code": code, "y": y}
    assert set(found) == set(want)
    for path, theirs in want.items():
        np.testing.assert_allclose(found[path], theirs, rtol=0, atol=2e-6 * max(1.0, np.abs(theirs).max()))


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 2, 3), (32, 17, 4), (5, 1), (3, 4, 5, 2)])
@pytest.mark.slow_cases("shape1", "shape2", "shape3")
def test_any_size_comes_back(shape):
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    for net in (models.autoencoder(shape, (6,), 3), models.conv_autoencoder(shape, (4, 5, 6), 3)):
        params, state = jax.eval_shape(net.init, KEY, x)
        y, code = jax.eval_shape(
            lambda p, s, x, net=net: (net.apply(p, s, x)[0], net.upto("encoder").apply(p, s, x)[0]), params, state, x
        )
        assert (y.shape, code.shape) == (x.shape, (2, 3))


def test_the_halves_are_the_whole():
    net, x = NETS["conv"]
    params, state = draw(net, x)

    @jax.jit
    def run(params, state, x):
        code, _ = net.upto("encoder").apply(params, state, x)
        inside, _ = net["encoder"].apply(params["encoder"], {}, x)
        return code, inside, net["decoder"].apply(params["decoder"], {}, code)[0], net.apply(params, state, x)[0]

    code, inside, y, whole = run(params, state, x)
    np.testing.assert_array_equal(inside, code)
    np.testing.assert_array_equal(y, whole)


def test_denoising_sees_noise_in_training_alone():
    net, x = NETS["dense"]
    params, state = draw(net, x)
    denoising = models.denoising_autoencoder(net, jn.masking_noise(0.4))
    assert jax.tree.structure(jax.eval_shape(denoising.init, KEY, x)) == jax.tree.structure((params, state))

    @jax.jit
    def run(params, state, x):
        noisy, _ = denoising["noise"].apply({}, {}, x, key=fold(KEY, "noise"), train=True)
        evaluated = [each.apply(params, state, x)[0] for each in (denoising, net)]
        trained = [each.apply(params, state, of, key=KEY, train=True)[0] for each, of in ((denoising, x), (net, noisy))]
        return noisy, evaluated, trained, [each.upto("encoder").apply(params, state, x)[0] for each in (denoising, net)]

    noisy, *pairs = run(params, state, x)
    assert (np.asarray(noisy) == 0).any()
    for ours, plain in pairs:
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.slow
@pytest.mark.promotes
def test_a_linear_autoencoder_finds_the_principal_components():
    """Its error reaches that of the best plane, and the plane is theirs (Baldi and Hornik 1989)."""
    turn, _ = np.linalg.qr(floats(5, 5, seed=1))
    x = floats(200, 5) * np.array([[2.0, 1.5, 0.5, 0.3, 0.1]], np.float32) @ turn
    x -= x.mean(0)
    _, lengths, axes = np.linalg.svd(x.astype(np.float64), full_matrices=False)
    net = models.autoencoder((5,), (), 2)
    train = jn.train.program(
        net, jn.objective(jn.losses.squared_error), optax.adam(0.03), (x, x), epochs=800, batch_size=None
    )
    run, history = jax.jit(lambda program, key: program(key))(train, KEY)
    np.testing.assert_allclose(history["squared_error"][-1], (lengths[2:] ** 2).sum() / x.size, rtol=1e-3)
    found, _ = np.linalg.qr(np.asarray(run.params["encoder"]["1"]["kernel"], np.float64))
    np.testing.assert_allclose(np.linalg.svd(found.T @ axes[:2].T)[1], 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda: NETS["conv"][0].init(KEY, floats(2, 8, 6, 2)),
            r"encoder/0: conv\(3, 3.*expects \(batch, 9, 6, 2\), the shape this network was made for, got \(2, 8, 6, 2",
        ),
        (
            lambda: NETS["dense"][0].init(KEY, floats(2, 12)),
            r"encoder/0: flatten expects \(batch, 3, 2, 2\).*\(2, 12\)",
        ),
        (lambda: models.conv_autoencoder((9,)), r"expects a shape \(\*spatial, channels\) and at least one.*\(9,\)"),
        (lambda: models.conv_autoencoder((9, 9, 1), ()), r"at least one number of features, got \(9, 9, 1\) and \(\)"),
        (lambda: models.autoencoder((4,), (), 0), r"dense\(0\) expects features ≥ 1"),
        (
            lambda: models.denoising_autoencoder(models.vae((4,)), jn.masking_noise(0.1)),
            r"expects a serial network of encoder and decoder, got variational of encoder, decoder; .*jn.serial\(noise",
        ),
        (lambda: models.denoising_autoencoder(jn.dense(3), jn.masking_noise(0.1)), r"got dense\(3\) of none"),
    ],
)
def test_a_mistake_is_explained(run, message):
    with pytest.raises(jn.NetError, match=message):
        run()
