"""The classic networks against torchvision, scikit-learn and short PyTorch definitions, and their mistakes."""

import warnings
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets import models
from tests.models.classics_in_torch import (
    alexnet_of_the_paper,
    alexnet_of_torchvision,
    mlp_by_torch,
    small_cnn_by_torch,
    vgg_of_torchvision,
)
from tests.models.weights import digest, draw, from_torch, to_torch
from tests.once import once
from tests.oracle import floats, witness
from tests.peers import PEERS


def by_torch(model, x, g, tensors, flattened, train):
    """Return a PyTorch model's outputs, its gradients for the output's `g`, and its statistics after."""
    import torch

    model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()}, strict=False, assign=True)
    asked = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert asked == set(tensors)
    image = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
    y = model.train(train)(image)
    named = dict(model.named_parameters())
    dx, *gradients = torch.autograd.grad((y * torch.tensor(g)).sum(), [image, *named.values()])
    dparams, _ = from_torch(dict(zip(named, map(np.asarray, gradients), strict=True)), flattened=flattened)
    _, after = from_torch({n: np.asarray(t) for n, t in model.state_dict().items() if "running" in n})
    said = {"y": y.detach().numpy(), "dx": digest({"": np.moveaxis(dx.numpy(), 1, -1)}), "dparams": digest(dparams)}
    return said | ({"after": digest(after)} if after else {})


def assert_like_torch(name, net, make, x, *, flattened, train=False, dtype: Any = np.float32):
    """Assert that outputs, gradients and statistics are those of the model that `make` returns.

    In float32 where evaluated, to 1e-5 of each leaf's spread; in float64 where trained, to 1e-10, since there a
    rounding turns some rectifier off whose value the batch norm has put at zero.
    """
    params, state = jax.tree.map(lambda leaf: leaf.astype(dtype), draw(net, x))
    x, tensors = x.astype(dtype), to_torch(params, state, flattened=flattened)
    g = floats(*jax.eval_shape(net.apply, params, state, x)[0].shape).astype(dtype)
    expected = witness(f"models/{name}", lambda: by_torch(make(), x, g, tensors, flattened, train), installed=PEERS)

    def ours(params, state, x):
        y, back, after = jax.vjp(lambda p, x: net.apply(p, state, x, train=train), params, x, has_aux=True)
        return y, *back(jnp.asarray(g)), after

    with jax.enable_x64(dtype is np.float64):
        y, dparams, dx, after = once(ours, params, state, x)
    assert y.dtype == dtype
    found = {"y": y, "dx": digest({"": dx}), "dparams": digest(dparams)} | ({"after": digest(after)} if after else {})
    assert set(found) == set(expected)
    for what, value in found.items():
        rows = expected[what].reshape(1 if what == "y" else len(expected[what]), -1)
        spread = np.abs(rows).max(axis=1, keepdims=True)
        spread = np.maximum(spread, 1e-3 * spread.max())  # a bias before a batch norm has no gradient
        worst = np.max(np.abs(np.asarray(value).reshape(rows.shape) - rows) / spread)
        assert worst < (1e-5 if dtype is np.float32 else 1e-10), f"{what} differs by {worst:.1e} of its spread"


@pytest.mark.slow
def test_alexnet_agrees_with_torchvision():
    """On a small image that is not square, with a narrow classifier."""
    net, x = models.alexnet(7, hidden=24), floats(2, 72, 96, 3)
    make = partial(alexnet_of_torchvision, 24, 7)
    assert_like_torch("alexnet", net, make, x, flattened={"classifier/1": (6, 6, 256)})


@pytest.mark.slow
def test_vgg11_bn_agrees_with_torchvision():
    """In training: logits by the batch's statistics, gradients through them, running averages after."""
    net, x = models.vgg11(7, batch_norm=True, hidden=24, dropout=0.0), floats(2, 64, 32, 3)
    make, flattened = partial(vgg_of_torchvision, 24, 7), {"classifier/0": (7, 7, 512)}
    assert_like_torch("vgg11_bn", net, make, x, flattened=flattened, train=True, dtype=np.float64)


@pytest.mark.slow
def test_alexnet_2012_agrees_with_the_paper_written_in_torch():
    net, x = models.alexnet_2012(7, hidden=24), 20 * floats(2, 83, 99, 3)  # large, so that responses are normalized
    make = partial(alexnet_of_the_paper, 24, 7, 2 * 256)
    assert_like_torch("alexnet_2012", net, make, x, flattened={"fc6": (1, 2, 256)})


def test_cnn_agrees_with_torch():
    net = models.cnn((4, 6), 3, convs=2, batch_norm=True, hidden=(5,), activation=jnp.tanh)
    x, flattened = floats(5, 12, 8, 2), {"classifier/fc1": (3, 2, 6)}
    assert_like_torch("cnn", net, small_cnn_by_torch, x, flattened=flattened, train=True, dtype=np.float64)


def test_mlp_agrees_with_torch():
    net = models.mlp((7, 5), 3, norm="batch")
    x, flattened = floats(6, 3, 1, 2), {"fc1": (3, 1, 2)}
    assert_like_torch("mlp", net, mlp_by_torch, x, flattened=flattened, train=True, dtype=np.float64)


def test_perceptron_learns_as_scikit_learn_does():
    """One example at a time by the criterion's gradient: weights after three passes over data no plane parts."""
    from sklearn.linear_model import Perceptron

    x, start = floats(40, 3), floats(3, 1, seed=1)
    t = np.where(x @ [1.0, -2.0, 0.5] + 0.8 * floats(40, seed=2) > 0.3, 1.0, -1.0).astype(np.float32)
    judge: Any = Perceptron(max_iter=3, tol=None, shuffle=False)  # type: ignore[arg-type]  # as its manual says
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge.fit(x, t, coef_init=start.T.copy(), intercept_init=np.zeros(1))
    net = models.perceptron()
    scores = net.upto("fc")

    def step(params, example):
        def loss(params):
            return jn.losses.perceptron(scores.apply(params, {}, example[0][None])[0], example[1][None, None])[0]

        return jax.tree.map(jnp.subtract, params, jax.grad(loss)(params)), None

    data = np.tile(x, (3, 1)), np.tile(t, 3)
    params = {"fc": {"kernel": start, "bias": np.zeros(1, np.float32)}}

    def learned(params, data):
        params, _ = jax.lax.scan(step, params, data)
        return params, net.apply(params, {}, x)[0]

    params, found = jax.tree.map(np.asarray, once(learned, params, data))
    np.testing.assert_allclose(params["fc"]["kernel"].T, judge.coef_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(params["fc"]["bias"], judge.intercept_, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found[:, 0], judge.predict(x))


@pytest.mark.slow
def test_alexnet_2012_starts_as_published():
    net, x = models.alexnet_2012(5, hidden=6), jax.ShapeDtypeStruct((1, 67, 67, 3), jnp.float32)

    def start(key):  # what is not returned is not computed
        params, _ = net.init(key, x)
        return {name: leaves["bias"] for name, leaves in params.items()}, [params[name]["kernel"] for name in chosen]

    chosen = ("conv2", "fc6")
    biases, kernels = jax.jit(start)(jax.random.key(0))
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name, bias in biases.items():
        np.testing.assert_array_equal(bias, np.full(bias.shape, name in ones), err_msg=name)
    for kernel in kernels:
        assert abs(np.std(kernel) - 0.01) < 5 * 0.01 / (2 * kernel.size) ** 0.5


DROPPED = {
    "alexnet": (models.alexnet, {"classifier/0", "classifier/3"}),
    "vgg11": (models.vgg11, {"classifier/2", "classifier/5"}),
    "alexnet_2012": (models.alexnet_2012, {"drop6", "drop7"}),
    "mlp": (partial(models.mlp, (5, 4), norm="layer"), {"drop1", "drop2"}),
    "cnn": (partial(models.cnn, (3,), hidden=(5, 4)), {"classifier/drop1", "classifier/drop2"}),
}


@pytest.mark.parametrize("name", DROPPED)
@pytest.mark.slow_cases("vgg11", "alexnet_2012")
def test_dropout_may_be_traced_and_stands_where_the_originals_have_it(name: str):
    make, places = DROPPED[name]
    x = jax.ShapeDtypeStruct((2, 67, 67, 1), jnp.float32)

    def outputs(rate, x):
        net = make(num_classes=3, dropout=rate)
        params, state = net.init(jax.random.key(0), x)
        return net.apply(params, state, x, key=jax.random.key(1), train=True)[0]

    rates = jax.ShapeDtypeStruct((4,), jnp.float32)
    assert jax.eval_shape(jax.vmap(outputs, (0, None)), rates, x).shape == (4, 2, 3)
    net = make(num_classes=3, dropout=0.5)
    for place in places:
        assert net[place].label == "dropout(0.5)"
    assert repr(net).count("dropout(0.5)") == len(places)


@pytest.mark.slow
def test_any_size_has_the_same_parameters_where_features_are_pooled():
    for net, least in ((models.alexnet(), 63), (models.vgg13(batch_norm=True), 32)):
        specs = [
            jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, height, width, 2), jnp.float32))
            for height, width in ((least, least), (224, 301))
        ]
        assert specs[0] == specs[1]


def test_cnn_takes_sequences_and_volumes():
    for x in (floats(2, 12, 3), floats(2, 4, 5, 6, 1)):
        net = models.cnn((4, 8), spatial_axes=x.ndim - 2)
        params, state = jax.eval_shape(net.init, jax.random.key(0), x)
        assert jax.eval_shape(net.apply, params, state, x)[0].shape == (2, 10)


@pytest.mark.parametrize(
    ("net", "size", "words"),
    [
        (models.alexnet(), 62, r"^features/12: max_pool\(3, stride=2\) expects an input at least as large as"),
        (models.alexnet(), 6, r"^features/0: conv\(64, \(11, 11\), stride=4, padding=2\) expects an input at least"),
        (models.alexnet_2012(), 66, r"^pool5: max_pool\(3, stride=2\) expects an input at least as large as"),
        (models.vgg11(), 31, r"^features/20: max_pool\(2\) expects an input at least as large as .*got height 1"),
        (models.vgg19(batch_norm=True), 31, r"^features/52: max_pool\(2\) expects an input at least as large"),
        (models.cnn((4, 4, 4)), 7, r"^features/pool3: max_pool\(2\) expects an input at least as large as"),
    ],
)
def test_a_size_too_small_names_the_layer(net, size, words):
    with pytest.raises(jn.NetError, match=words):
        jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, size, size, 3)))


MISTAKES = {
    "norm": (lambda: models.mlp((3,), norm="group"), r'mlp expects norm "batch", "layer" or None, got \'group\''),  # type: ignore[arg-type]
    "rate": (lambda: models.mlp((3,), dropout=50), r"dropout\(50\) expects rate in \[0, 1\), got 50; 50 % is 0.5"),
    "width": (lambda: models.mlp((0,)), r"mlp expects widths ≥ 1, got 0"),
    "classes": (lambda: models.vgg11(0), r"dense\(0\) expects features ≥ 1"),
    "convs": (lambda: models.cnn(convs=0), r"cnn expects convs ≥ 1"),
    "rate of cnn": (lambda: models.cnn(dropout=-0.1), r"expects rate in \[0, 1\), got -0.1"),
    "rate of vgg": (lambda: models.vgg16(dropout=1.0), r"expects rate in \[0, 1\), got 1"),
    "rate of alexnet": (lambda: models.alexnet(dropout=1.5), r"expects rate in \[0, 1\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
