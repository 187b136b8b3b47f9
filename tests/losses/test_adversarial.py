"""Losses of adversarial networks and of flow matching, against PyTorch's arithmetic and its derivatives."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import floats, witness

KINDS: tuple[Any, ...] = ("non_saturating", "hinge", "least_squares", "wasserstein")
SCORES = {"real": floats(6, 2, scale=2.0), "fake": floats(6, 2, scale=2.0, seed=1)}
FIELDS = {"velocity": floats(6, 3, 2), "target": floats(6, 3, 2, seed=1)}


def by_torch():
    import torch
    from torch.nn import functional as F

    def bits(x, value):
        return F.binary_cross_entropy_with_logits(x, torch.full_like(x, value), reduction="none")

    def half(x, value):
        return F.mse_loss(x, torch.full_like(x, value), reduction="none") / 2

    formulas = {
        "non_saturating": (lambda r, f: bits(r, 1.0) + bits(f, 0.0), lambda f: bits(f, 1.0)),
        "hinge": (lambda r, f: F.relu(1 - r) + F.relu(1 + f), lambda f: -f),
        "least_squares": (lambda r, f: half(r, 1.0) + half(f, 0.0), lambda f: half(f, 1.0)),
        "wasserstein": (lambda r, f: f - r, lambda f: -f),
    }
    found = {}

    def add(name, function, outputs):
        leaves: dict[str, Any] = {key: torch.tensor(value, requires_grad=True) for key, value in outputs.items()}
        values = function(*leaves.values())
        values = values.reshape(len(values), -1).mean(1)
        (values * torch.arange(1.0, 7.0)).sum().backward()
        found[name] = values.detach().numpy()
        found.update({f"{name}.{key}": leaf.grad.numpy() for key, leaf in leaves.items()})

    for kind, (of_discriminator, of_generator) in formulas.items():
        add(f"discriminator.{kind}", of_discriminator, SCORES)
        add(f"generator.{kind}", of_generator, {"fake": SCORES["fake"]})
    add("velocity_error", lambda v, u: F.mse_loss(v, u, reduction="none"), FIELDS)
    return found


def test_values_and_gradients_match_torch():
    want = witness("losses/adversarial", by_torch)
    cases: dict[str, Any] = {"velocity_error": (jn.losses.velocity_error, FIELDS)}
    for kind in KINDS:
        cases[f"discriminator.{kind}"] = partial(jn.losses.gan_discriminator, kind=kind), SCORES
        cases[f"generator.{kind}"] = partial(jn.losses.gan_generator, kind=kind), {"fake": SCORES["fake"]}

    @jax.jit
    def everything():
        found = {}
        for name, (loss, outputs) in cases.items():
            values, pull = jax.vjp(lambda outputs, loss=loss: loss(outputs, None), jax.tree.map(jnp.asarray, outputs))
            found[name] = values
            found |= {f"{name}.{key}": leaf for key, leaf in pull(jnp.arange(1.0, 7.0))[0].items()}
        return found

    got = everything()
    assert set(got) == set(want)
    for name, value in got.items():
        np.testing.assert_allclose(value, want[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["non_saturating", "hinge"])
def test_scores_far_out_have_finite_losses_and_gradients(kind):
    far = jnp.array([1e4, -1e4, 0.0])
    outputs = {"real": far, "fake": -far}
    for loss in (jn.losses.gan_discriminator, jn.losses.gan_generator):
        value, grads = jax.value_and_grad(lambda outputs, loss=loss: loss(outputs, kind=kind).sum())(outputs)
        assert all(np.isfinite(each).all() for each in (value, *grads.values()))


def test_mistakes_are_explained():
    with pytest.raises(jn.NetError, match="gan_generator expects a dict of outputs with 'fake', got real"):
        jn.losses.gan_generator({"real": jnp.ones(2)})
    with pytest.raises(jn.NetError, match=r"kind to be one of non_saturating, hinge, .*, got 'vanilla'"):
        jn.losses.gan_discriminator(SCORES, kind="vanilla")  # pyright: ignore[reportArgumentType]
    with pytest.raises(jn.NetError, match=r"gan_discriminator.*\(6, 2\).*\(6,\)"):
        jn.losses.gan_discriminator({"real": SCORES["real"], "fake": jnp.ones(6)})
    with pytest.raises(jn.NetError, match="velocity_error expects a dict of outputs with 'velocity'"):
        jn.losses.velocity_error(SCORES)
