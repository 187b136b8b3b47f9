"""DCGAN, the conditional U-Net and flow matching, against PyTorch and distributions known in closed form."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from experiments.benchmarks.flow_sampling import torch_parameters
from experiments.benchmarks.flow_sampling import torch_unet as by_torch
from jaxnets.core.net import fold
from jaxnets.decoding.flow import integrate
from tests.oracle import floats, integers, variables, witness

GAN = jn.models.dcgan((7, 6, 2), (4, 6), code=5)
UNET = jn.models.conditional_unet(2, (4, 8), num_classes=3)
PICTURES, CODES = floats(3, 7, 6, 2), floats(3, 5)
NOISY = floats(3, 7, 6, 2), np.array([0.0, 0.4, 1.0], np.float32), integers(3, high=4)


def gan_variables() -> Any:
    params, state = variables(GAN, PICTURES, scale=0.3)
    return params, jax.tree.map(np.abs, state)


def with_gradients(function, params, x):
    """Return the value of a function, and the gradient of its sum of squares."""
    value, pull = jax.vjp(function, params, x)
    return value, *pull(2 * value)


def torch_gan():
    import torch
    from torch.nn import functional as F

    params, state = gan_variables()
    p: dict[str, Any] = {path: torch.tensor(leaf, requires_grad=True) for path, leaf in jn.paths.paths(params).items()}
    s = {path: torch.tensor(leaf) for path, leaf in jn.paths.paths(state).items()}

    def norm(x, at):
        return F.batch_norm(x, s[f"{at}/mean"], s[f"{at}/var"], p[f"{at}/scale"], p[f"{at}/bias"])

    def conv(x, at, **options):
        return F.conv2d(x, p[f"{at}/kernel"].permute(3, 2, 0, 1), p.get(f"{at}/bias"), stride=2, padding=2, **options)

    def grow(x, at, extra):
        # PyTorch's kernel is (in, out, height, width), and is not flipped either.
        kernel = p[f"{at}/kernel"].permute(2, 3, 0, 1)
        return F.conv_transpose2d(x, kernel, p.get(f"{at}/bias"), stride=2, padding=2, output_padding=extra)

    def generate(z):
        h = (z @ p["generator/fc/kernel"]).reshape(-1, 2, 2, 6).permute(0, 3, 1, 2)
        h = torch.relu(norm(h, "generator/bn0"))
        h = torch.relu(norm(grow(h, "generator/conv1", (1, 0)), "generator/bn1"))  # 2×2 to 4×3
        return torch.tanh(grow(h, "generator/conv2", (0, 1))).permute(0, 2, 3, 1)  # to 7×6

    def judge(x):
        h = F.leaky_relu(conv(x.permute(0, 3, 1, 2), "discriminator/conv1"), 0.2)
        h = F.leaky_relu(norm(conv(h, "discriminator/conv2"), "discriminator/bn2"), 0.2)
        return h.permute(0, 2, 3, 1).flatten(1) @ p["discriminator/fc/kernel"] + p["discriminator/fc/bias"]

    found = {}
    for name, function, x in (("generator", generate, CODES), ("discriminator", judge, PICTURES)):
        given: Any = torch.tensor(x, requires_grad=True)
        value = function(given)
        (value**2).sum().backward()
        found |= {f"{name}.value": value.detach().numpy(), f"{name}.x": given.grad.numpy()}
    return found | {path: leaf.grad.numpy() for path, leaf in p.items()}


def torch_unet():
    import torch

    params, _ = variables(UNET, NOISY, scale=0.3)
    p: dict[str, Any] = torch_parameters(params)
    x: Any
    x, t, classes = (torch.tensor(each) for each in NOISY)
    for leaf in (x, *p.values()):
        leaf.requires_grad_()
    value = by_torch(p, 2, 4)(x.permute(0, 3, 1, 2), t, classes).permute(0, 2, 3, 1)
    (value**2).sum().backward()
    grads = {path: leaf.grad.permute(2, 3, 1, 0) if leaf.ndim == 4 else leaf.grad for path, leaf in p.items()}
    return {
        "value": value.detach().numpy(),
        "x": x.grad.numpy(),
        **{path: leaf.numpy() for path, leaf in grads.items()},
    }


def compare(got: Any, want: np.ndarray, name: str) -> None:
    np.testing.assert_allclose(got, want, rtol=5e-4, atol=2e-5 * max(1.0, np.abs(want).max()), err_msg=name)


def test_dcgan_matches_torch():
    want, (params, state) = witness("models/dcgan", torch_gan), gan_variables()
    for name, x in (("generator", CODES), ("discriminator", PICTURES)):
        run = jax.jit(lambda params, x, name=name: with_gradients(
            lambda params, x: GAN[name].apply(params, state[name], x)[0], params, x
        ))  # fmt: skip
        value, grads, by_input = run(params[name], x)
        compare(value, want[f"{name}.value"], name)
        compare(by_input, want[f"{name}.x"], name)
        for path, leaf in jn.paths.paths(grads).items():
            compare(leaf, want[f"{name}/{path}"], path)


def test_conditional_unet_matches_torch():
    want, (params, _) = witness("models/conditional_unet", torch_unet), variables(UNET, NOISY, scale=0.3)

    def run(params, x):
        return UNET.apply(params, {}, (x, *NOISY[1:]))[0]

    value, grads, by_input = jax.jit(lambda *given: with_gradients(run, *given))(params, jnp.asarray(NOISY[0]))
    compare(value, want["value"], "value")
    compare(by_input, want["x"], "x")
    for path, leaf in jn.paths.paths(grads).items():
        compare(leaf, want[path], path)


def test_the_generator_of_the_paper():
    # Radford (2016), figure 1: 100 → 4×4×1024 → 8×8×512 → 16×16×256 → 32×32×128 → 64×64×3, kernels of 5×5.
    net, x = jn.models.dcgan((64, 64, 3), (128, 256, 512, 1024)), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
    widths = [1024, 512, 256, 128, 3]
    kernels = [100 * 16 * 1024, *(25 * a * b for a, b in pairwise(widths))]
    found = [leaf.size for path, leaf in jn.paths.paths(params["generator"]).items() if path.endswith("kernel")]
    assert sorted(found) == sorted(kernels)


def test_gan_runs_both_on_the_same_noise():
    net = jn.models.gan(jn.dense(2), jn.serial(jn.dropout(0.5), jn.dense(1)), code=3)
    params, state = net.init(jax.random.key(0), jnp.ones((4, 2)))
    key = jax.random.key(1)
    y, _ = net.apply(params, state, jnp.zeros((4, 2)), key=key, train=True)
    z = jax.random.normal(fold(key, "code"), (4, 3))
    drawn = net["generator"].apply(params["generator"], {}, z)[0]
    again, _ = net.apply(params, state, drawn, key=key, train=True)
    assert (y["real"] == 0).all()  # the bias
    assert (y["fake"] == again["fake"]).all()
    assert (again["real"] != again["fake"]).any()  # dropout of its own
    plain, _ = net.apply(params, state, jnp.zeros((4, 2)))
    assert (plain["fake"] == net.apply(params, state, jnp.ones((4, 2)))[0]["fake"]).all()


MEAN, SPREAD = jnp.array([2.0, -1.0]), jnp.array([0.5, 2.0])


def gaussian_velocity(x, t):
    """E[x₁ − x₀ | x_t] for data N(m, s²): both are normal, so it is the regression on x_t."""
    variance = (t * SPREAD) ** 2 + (1 - t) ** 2
    return MEAN + (t * SPREAD**2 - (1 - t)) / variance * (x - t * MEAN)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_the_flow_to_a_normal_distribution(method, order):
    # Its flow is linear, x(1) = m + s x(0).
    start = floats(2)

    def errors(start):
        want = MEAN + SPREAD * start
        return jnp.stack([jnp.abs(integrate(gaussian_velocity, start, n, method) - want).max() for n in (20, 40)])

    few, many = jax.jit(errors)(jnp.asarray(start))
    assert many < 0.05
    np.testing.assert_allclose(np.log2(few / many), order, atol=0.25)


def test_flow_matching_learns_the_velocity_of_a_normal_distribution():
    # At each t the best velocity is linear in x_t: least squares on what the network gives and wants.
    shown = jn.models.flow_matching(lambda given: given[0])
    data = MEAN[None] + SPREAD[None] * floats(200_000, 2)
    apply = jax.jit(lambda x, key: shown.apply({}, {}, x, key=key, train=True)[0])
    y = apply(data, jax.random.key(0))
    t = np.asarray(jax.random.uniform(fold(jax.random.key(0), "time"), (len(data),)))
    near = np.abs(t - 0.6) < 0.01
    x, target = np.asarray(y["velocity"])[near], np.asarray(y["target"])[near]
    for place in (0, 1):
        slope, level = np.polyfit(x[:, place], target[:, place], 1)
        at = jax.vmap(gaussian_velocity, (0, None))(jnp.array([[0.0, 0.0], [1.0, 1.0]]), 0.6)[:, place]
        np.testing.assert_allclose([level, level + slope], at, atol=0.12)
    # The path itself: x_t = x − (1 − t) · target.
    np.testing.assert_allclose(y["velocity"], data - (1 - t[:, None]) * y["target"], atol=1e-4)


def table(given: Any) -> jax.Array:
    """Return a velocity that tells the time and the class."""
    x, t, classes = given
    return jnp.zeros_like(x) + (classes.astype(x.dtype) * 10 + t)[:, None]


def test_classes_are_dropped_and_guide():
    net = jn.models.flow_matching(table, num_classes=4, dropped=0.25)
    classes = jnp.zeros(4000, jnp.int32)
    y, _ = net.apply({}, {}, (jnp.zeros((4000, 1)), classes), key=jax.random.key(0), train=True)
    left_out = np.asarray(y["velocity"][:, 0] >= 40)
    assert 0.22 < left_out.mean() < 0.28
    kept, _ = net.apply({}, {}, (jnp.zeros((4000, 1)), classes))
    assert (kept["velocity"] < 1).all()  # all kept in evaluation
    # v = none + w (own − none), with none = 40 + t and own = 10 c + t, and a mean time of ¼ over two steps of Euler.
    key, own = jax.random.key(1), jnp.array([0, 1, 3])
    start = jax.random.normal(key, (3, 2))
    for w in (0.0, 1.0, 3.0):
        moved = jn.decoding.flow(net, {}, {}, (2,), 2, key=key, classes=own, guidance=w) - start
        want = 40 + w * (10 * np.arange(4)[own] - 40) + 0.25
        np.testing.assert_allclose(moved, np.broadcast_to(want[:, None], (3, 2)), rtol=1e-5)
    traced = jax.jit(lambda w: jn.decoding.flow(net, {}, {}, (2,), 2, key=key, classes=own, guidance=w))(1.0)
    np.testing.assert_allclose(traced, jn.decoding.flow(net, {}, {}, (2,), 2, key=key, classes=own), rtol=1e-5)


KEY, LINES = jax.random.key(0), jn.models.flow_matching(lambda given: given[0])
CLASSED = jn.models.flow_matching(table, num_classes=4)
MISTAKES = {
    "gan of integers": (
        lambda: jn.models.gan(jn.dense(2), jn.dense(1)).init(KEY, jnp.ones((2, 2), int)),
        "floating",
    ),
    "gan without key": (lambda: GAN.apply({}, {}, PICTURES, train=True), "gan is random in training"),
    "generator's shape": (
        lambda: jn.models.gan(jn.dense(3), jn.dense(1)).init(KEY, jnp.ones((4, 2))),
        r"generator of examples \(4, 2\), like the inputs, got \(4, 3\)",
    ),
    "dcgan's kernel": (lambda: jn.models.dcgan((8, 8, 1), kernel_size=4), "an odd kernel, got .* and 4"),
    "dcgan's shape": (lambda: jn.models.dcgan((8, 8)), r"expects a shape \(height, width, channels\)"),
    "one width": (lambda: jn.models.conditional_unet(1, (4,)), "at least two widths"),
    "groups": (lambda: jn.models.conditional_unet(1, (4, 6)), "multiples of groups=4, got"),
    "unet without a time": (lambda: UNET.init(KEY, PICTURES), r"a tuple \(x, t, classes\), got"),
    "times": (lambda: UNET.init(KEY, (PICTURES, np.ones(2, np.float32), NOISY[2])), r"expects t \(3,\).*got \(2,\)"),
    "odd embedding": (lambda: jn.models.conditional_unet(1, (4, 8), embedding=5), "even width, got 5"),
    "flow without classes": (lambda: CLASSED.init(KEY, PICTURES), r"\(x, classes\), since it has classes"),
    "flow with classes": (lambda: LINES.init(KEY, (PICTURES, NOISY[2])), "expects x, an array, got tuple"),
    "floating classes": (lambda: CLASSED.init(KEY, (PICTURES, floats(3))), r"integer classes \(3,\), got float32"),
    "velocity's shape": (
        lambda: jn.models.flow_matching(lambda given: given[1]).init(KEY, PICTURES),
        r"expects a velocity \(3, 7, 6, 2\), like the data, got \(3,\)",
    ),
    "dropped": (lambda: jn.models.flow_matching(table, num_classes=4, dropped=1.5), "dropped"),
    "flow without key": (lambda: LINES.apply({}, {}, PICTURES, train=True), "flow_matching is random in training"),
    "another network": (lambda: jn.decoding.flow(GAN, {}, {}, (2,), key=KEY), "expects what jn.models.flow_matching"),
    "no classes": (lambda: jn.decoding.flow(CLASSED, {}, {}, (2,), key=KEY), "classes=integers"),
    "classes": (lambda: jn.decoding.flow(LINES, {}, {}, (2,), key=KEY, classes=jnp.ones(1, int)), "expects no classes"),
    "class out of range": (
        lambda: jn.decoding.flow(CLASSED, {}, {}, (2,), key=KEY, classes=jnp.array([5])),
        "classes from 0 to 4, got 5",
    ),
    "guidance": (
        lambda: jn.decoding.flow(CLASSED, {}, {}, (2,), key=KEY, classes=jnp.array([1]), guidance=-1.0),
        "guidance ≥ 0, got",
    ),
    "method": (lambda: integrate(gaussian_velocity, MEAN, 2, "rk4"), "'euler' or 'heun', got 'rk4'"),  # pyright: ignore
    "steps": (lambda: integrate(gaussian_velocity, MEAN, 0), "steps"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    make, words = MISTAKES[name]
    with pytest.raises(jn.NetError, match=words):
        make()
