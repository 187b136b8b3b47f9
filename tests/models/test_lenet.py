"""LeNet-5 of 1998 against the paper, and both against short PyTorch definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.models.lenet import codes_for, fan_in_uniform
from tests.layers.near import near
from tests.models.weights import digest, draw, from_torch, to_torch
from tests.once import once
from tests.oracle import floats, integers, witness

TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""  # as the paper prints it: a row a map of S2, a column a map of C3
CODES = np.sign(floats(7, 84, seed=5))
LABELS = integers(3, high=7)


def by_the_paper(x, tensors):
    """Return the penalties y, the loss of equation 9 with j = 2, and its gradients by name."""
    import torch
    from torch.nn.functional import conv2d, linear

    rows = TABLE_I.split()
    p = {name: torch.tensor(np.asarray(value), requires_grad=True) for name, value in tensors.items()}
    image = torch.tensor(x, requires_grad=True)

    def squash(a):
        return 1.7159 * torch.tanh(2 / 3 * a)

    def layer(a, name, stride=1):
        return conv2d(a, p[f"{name}.kernel"].permute(3, 2, 0, 1), p[f"{name}.bias"], stride)

    def sums(a, name):
        four = a[:, :, ::2, ::2] + a[:, :, 1::2, ::2] + a[:, :, ::2, 1::2] + a[:, :, 1::2, 1::2]
        return four * p[f"{name}.scale"][:, None, None] + p[f"{name}.bias"][:, None, None]

    s2 = squash(sums(squash(layer(image.permute(0, 3, 1, 2), "c1")), "s2"))
    c3, kernels = [], iter(p["c3.kernel"].permute(2, 0, 1))
    for column in range(16):
        seen = [row for row in range(6) if rows[row][column] == "X"]
        kernel = torch.stack([next(kernels) for _ in seen])[None]
        c3.append(conv2d(s2[:, seen], kernel, p["c3.bias"][column : column + 1]))
    assert next(kernels, None) is None
    c5 = squash(layer(squash(sums(squash(torch.cat(c3, 1)), "s4")), "c5")).flatten(1)
    f6 = squash(linear(c5, p["f6.kernel"].T, p["f6.bias"]))
    y = ((f6[:, None] - p["output.codes"][None]) ** 2).sum(-1)
    right = y.gather(1, torch.tensor(LABELS).long()[:, None])[:, 0]
    loss = right + torch.log(torch.exp(torch.tensor(-2.0)) + torch.exp(-y).sum(1))
    gradients = torch.autograd.grad(loss.sum(), [image, *p.values()])
    named = {f"d{name}": np.asarray(g) for name, g in zip(["x", *p], gradients, strict=True)}
    whole = {name: value for name, value in named.items() if value.size < 3000}
    rest = {name: digest({name: value})[0] for name, value in named.items() if value.size >= 3000}
    return {"y": y.detach().numpy(), "loss": loss.detach().numpy(), **whole, **rest}


def test_lenet5_1998_is_the_papers():
    """Penalties, its own loss, and the gradients of all weights, codes and input."""
    net, x = jn.models.lenet5_1998(7, codes=CODES, trainable_codes=True), floats(3, 32, 32, 1)
    params, _ = draw(net, x)
    params["output"]["codes"] = CODES
    params["f6"]["kernel"] *= 3  # so that some distances are small and some large
    tensors = {path.replace("/", "."): leaf for path, leaf in jn.paths.paths(params).items()}
    expected = witness("models/lenet5_1998", lambda: by_the_paper(x, tensors))

    def ours(params, x):
        def total(params, x):
            logits, _ = net.apply(params, {}, x)
            values = jn.losses.maximum_a_posteriori(logits, LABELS, rubbish=2.0)
            return values.sum(), (-logits, values)

        return jax.grad(total, argnums=(0, 1), has_aux=True)(params, x)

    (dparams, dx), (y, loss) = once(ours, params, x)
    near(y, expected["y"], 1e-6)
    near(loss, expected["loss"], 1e-6)
    found = {"dx": dx} | {f"d{path}".replace("/", "."): leaf for path, leaf in jn.paths.paths(dparams).items()}
    assert {f"d{name}" for name in tensors} | {"dx"} == set(found)
    for name, value in found.items():
        value = np.asarray(value)
        # A digest is a few sums of thousands of values, among which much cancels.
        value, near_to = (value, 1e-5) if value.size < 3000 else (digest({name: value})[0], 5e-5)
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=near_to * np.abs(expected[name]).max())
    features, _ = jax.jit(net.upto("output").apply)(params, {}, x)
    near(features, expected["y"], 1e-6)


def test_lenet5_1998_has_the_papers_parameters_layer_by_layer():
    x = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
    params, state = jax.eval_shape(jn.models.lenet5_1998().init, jax.random.key(0), x)
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(own)) for name, own in params.items()}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    assert params["c3"]["kernel"].shape == (5, 5, 60)
    assert state == {}


def test_initial_values_are_the_papers():
    """U(-2.4 / F, 2.4 / F): the largest of many comes near the end of the range."""
    net, key = jn.models.lenet5_1998(), jax.random.key(0)
    kernel = 400 / 2.4 * np.asarray(fan_in_uniform(key, (5, 5, 16, 120), jnp.float32))
    assert -1 <= kernel.min() < -0.99
    assert 0.99 < kernel.max() <= 1
    c3, _ = net["c3"].init(key, jnp.ones((1, 14, 14, 6)))
    for seen, kernels in ((3, c3["kernel"][..., :18]), (4, c3["kernel"][..., 18:54]), (6, c3["kernel"][..., 54:])):
        assert 0.95 < np.abs(kernels).max() * 25 * seen / 2.4 <= 1
    s2, _ = net["s2"].init(key, jnp.ones((1, 28, 28, 6)))
    assert 0.2 < np.abs(s2["scale"]).max() <= 0.6
    assert not np.any(s2["bias"])
    assert not np.any(c3["bias"])


def test_codes_are_pictures_of_digits_and_bits_at_random_for_more_classes():
    codes = codes_for(40)
    assert codes.shape == (40, 84)
    assert set(codes.ravel().tolist()) == {-1.0, 1.0}
    np.testing.assert_array_equal(codes_for(7), codes[:7])
    four = ["".join(" #"[int(place > 0)] for place in row).rstrip() for row in codes[4].reshape(12, 7)]
    assert four[1] == "    ##"
    assert four[7] == "#######"
    apart = np.sum(codes[:, None] != codes[None], axis=-1)[np.triu_indices(40, 1)]
    assert apart.min() >= 4
    assert 0.45 < (codes[10:] > 0).mean() < 0.55


def test_a_padded_input_is_a_digit_with_a_margin():
    padded, plain, x = jn.models.lenet5_1998(padding=2)["c1"], jn.models.lenet5_1998()["c1"], floats(3, 28, 28, 1)
    params, _ = draw(padded, x)
    margin = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    near(padded.apply(params, {}, x)[0], plain.apply(params, {}, margin)[0], 1e-6)


def modern_by_torch(x, g, tensors):
    import torch
    from torch.nn.functional import conv2d, linear, max_pool2d, relu

    p = {name: torch.tensor(value, requires_grad=True) for name, value in tensors.items()}
    image = torch.tensor(x, requires_grad=True)
    y = max_pool2d(relu(conv2d(image.permute(0, 3, 1, 2), p["conv1.weight"], p["conv1.bias"], padding=2)), 2)
    y = max_pool2d(relu(conv2d(y, p["conv2.weight"], p["conv2.bias"])), 2).flatten(1)
    y = relu(linear(y, p["fc1.weight"], p["fc1.bias"]))
    y = linear(relu(linear(y, p["fc2.weight"], p["fc2.bias"])), p["fc3.weight"], p["fc3.bias"])
    dx, *gradients = torch.autograd.grad((y * torch.tensor(g)).sum(), [image, *p.values()])
    tree, _ = from_torch(dict(zip(p, map(np.asarray, gradients), strict=True)), flattened={"fc1": (5, 5, 16)})
    return {"y": y.detach().numpy(), "dx": dx.numpy(), "dparams": digest(tree)}


def test_lenet5_of_today_agrees_with_torch():
    net, x, g = jn.models.lenet5(7), floats(3, 28, 28, 1), floats(3, 7)
    params, _ = draw(net, x)
    tensors = to_torch(params, flattened={"fc1": (5, 5, 16)})
    expected = witness("models/lenet5", lambda: modern_by_torch(x, g, tensors))

    def ours(params, x):
        y, back = jax.vjp(lambda params, x: net.apply(params, {}, x)[0], params, x)
        return y, *back(jnp.asarray(g))

    y, dparams, dx = once(ours, params, x)
    near({"y": y, "dx": dx, "dparams": digest(dparams)}, expected, 2e-6)


MISTAKES = {
    "codes": (lambda: jn.models.lenet5_1998(codes=CODES), r"lenet5_1998 expects codes \(10, bits\), got \(7, 84\)"),
    "a vector": (lambda: jn.models.lenet5_1998(1, codes=[1.0]), r"expects codes \(1, bits\), got \(1,\)"),
    "no classes": (lambda: jn.models.lenet5(0).init(jax.random.key(0), jnp.ones((1, 28, 28, 1))), "features ≥ 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()


@pytest.mark.parametrize(
    ("net", "size", "words"),
    [
        (jn.models.lenet5_1998(), 28, r"^c5: conv\(120, 5\) expects an input at least as large.*4 for kernel"),
        (jn.models.lenet5_1998(), 12, r"^c3: connected_conv\(16, 5\) expects an input at least as large.*height 4"),
        (jn.models.lenet5(), 11, r"^pool2: max_pool\(2\) expects an input at least as large as .*got height 1"),
    ],
)
def test_a_size_too_small_names_the_layer(net, size, words):
    with pytest.raises(jn.NetError, match=words):
        jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, size, size, 1)))


def test_weights_of_another_net_are_told():
    net, x = jn.models.lenet5_1998(), jnp.ones((1, 32, 32, 1))
    params, _ = draw(net, x)
    wrong = params | {"s2": {"scale": np.ones(5, np.float32), "bias": np.ones(6, np.float32)}}
    with pytest.raises(jn.NetError, match=r"s2: subsample\(2\) has scale \(5,\), but input \(1, 28, 28, 6\) needs"):
        net.apply(wrong, {}, x)
    with pytest.raises(jn.NetError, match=r"c3: connected_conv\(16, 5\) expects 6 channels, .*got \(1, 14, 14, 5\)"):
        jn.serial(c3=net["c3"]).apply({"c3": params["c3"]}, {}, jnp.ones((1, 14, 14, 5)))
    with pytest.raises(jn.NetError, match=r"output: rbf\(10, 84\) expects \(batch, 84\)"):
        jn.serial(output=net["output"]).apply({}, {}, jnp.ones((1, 80)))
