"""Two players trained in turn, against a loop written in PyTorch."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from jaxnets.core.net import fold
from tests.oracle import floats, normal_like, witness

pytestmark = pytest.mark.promotes  # Optax's Adam does
CODE, STEPS = 3, 5
X = floats(16, 4)
NET = jn.models.gan(
    jn.serial(fc=jn.dense(6), bn=jn.batch_norm(), relu=jax.nn.relu, out=jn.dense(4)),
    jn.serial(fc=jn.dense(5), tanh=jnp.tanh, out=jn.dense(1)),
    code=CODE,
)
# name: kind of the losses, steps of the discriminator, simultaneous
GAMES: dict[str, tuple[Any, int, bool]] = {
    "alternating": ("non_saturating", 1, False),
    "several_steps": ("least_squares", 2, False),
    "simultaneous": ("wasserstein", 1, True),
}
KEY = jax.random.key(3)


def game(name: str = "alternating", rate: Any = 0.02, *, epochs=STEPS, **options) -> jn.train.Program:
    kind, steps, simultaneous = GAMES[name]
    loss = partial(jn.losses.gan_discriminator, kind=kind)
    players = {
        "discriminator": jn.train.Player(loss, optax.adam(rate, 0.5, 0.9), "discriminator/**", steps=steps),
        "generator": jn.train.Player(
            partial(jn.losses.gan_generator, kind=kind), optax.sgd(0.1, momentum=0.9), "generator/**"
        ),
    }
    return jn.train.adversarial(
        NET, players, (X, X), epochs=epochs, batch_size=16, simultaneous=simultaneous, **options
    )


def start(program: jn.train.Program) -> jn.train.TrainState:
    state = program.start(KEY)
    return replace(state, params=jax.tree.map(jnp.asarray, normal_like(state.params, scale=0.5)))


def torch_run():
    import torch

    def tensor(x):
        return torch.tensor(np.array(x))

    losses = {
        "non_saturating": (
            lambda r, f: -torch.log(torch.sigmoid(r)) - torch.log(1 - torch.sigmoid(f)),
            lambda f: -torch.log(torch.sigmoid(f)),
        ),
        "least_squares": (lambda r, f: ((r - 1) ** 2 + f**2) / 2, lambda f: (f - 1) ** 2 / 2),
        "wasserstein": (lambda r, f: f - r, lambda f: -f),
    }
    found, loss_g = {}, torch.zeros(())
    for name, (kind, steps, simultaneous) in GAMES.items():
        program = game(name)
        state = start(program)
        p = {path: tensor(leaf).requires_grad_() for path, leaf in jn.paths.paths(state.params).items()}

        def dense(x, at, p=p):
            return x @ p[f"{at}/kernel"] + p[f"{at}/bias"]

        def generate(z, p=p, dense=dense):
            h, scale, bias = dense(z, "generator/fc"), p["generator/bn/scale"], p["generator/bn/bias"]
            h = torch.nn.functional.batch_norm(h, None, None, scale, bias, True)
            return dense(torch.relu(h), "generator/out")

        def judge(x, dense=dense):
            return dense(torch.tanh(dense(x, "discriminator/fc")), "discriminator/out")

        own = {
            player: [leaf for path, leaf in p.items() if path.startswith(player)]
            for player in ("discriminator", "generator")
        }
        d = torch.optim.Adam(own["discriminator"], 0.02, (0.5, 0.9))
        g = torch.optim.SGD(own["generator"], 0.1, momentum=0.9)
        for step in range(STEPS):
            batch = tensor(program.next_batch(replace(state, step=jnp.int32(step))).x)
            key = jax.random.fold_in(state.key, step)

            def noise(number, key=key, steps=steps):
                key = key if steps == 1 else jax.random.fold_in(key, number)
                return tensor(jax.random.normal(fold(key, "code"), (16 // steps, CODE)))

            by_d, by_g = losses[kind]

            def g_gradient(by_g=by_g, noise=noise, steps=steps, own=own, generate=generate, judge=judge):
                loss = by_g(judge(generate(noise(steps - 1)))).mean()
                return loss, torch.autograd.grad(loss, own["generator"])

            before = g_gradient()
            for number in range(steps):
                d.zero_grad()
                part = batch[number::steps]
                loss_d = by_d(judge(part), judge(generate(noise(number)).detach())).mean()
                loss_d.backward()
                d.step()
            loss_g, grads = before if simultaneous else g_gradient()
            for leaf, grad in zip(own["generator"], grads, strict=True):
                leaf.grad = grad
            g.step()
        found |= {f"{name}.{path}": leaf.detach().numpy() for path, leaf in p.items()}
        found |= {f"{name}.loss": np.array([loss_g.item()])}
    return found


@pytest.mark.parametrize("name", GAMES)
def test_parameters_after_five_steps_match_torch(name):
    want = witness("train/adversarial", torch_run)
    program = game(name)
    epoch = jax.jit(program.run_epoch)
    state = start(program)
    row: dict = {}
    for _ in range(STEPS):
        state, row = epoch(state)
    for path, leaf in jn.paths.paths(state.params).items():
        np.testing.assert_allclose(leaf, want[f"{name}.{path}"], rtol=2e-4, atol=2e-5, err_msg=path)
    np.testing.assert_allclose(row["generator"], want[f"{name}.loss"][0], rtol=1e-4)
    np.testing.assert_allclose(row["loss"], row["generator"] + row["discriminator"], rtol=1e-6)
    assert int(state.step) == STEPS
    assert sorted(row) == ["discriminator", "generator", "loss"]


@pytest.mark.slow
def test_learning_rates_are_swept_by_vmap_and_by_sweep():
    rates = [0.01, 0.05, 0.2]

    def trial(hp):
        return game(rate=hp["rate"], epochs=2)

    result = jn.sweeps.sweep(trial, grid={"rate": rates}, seeds=1, strategy="vmap")
    key = jax.random.fold_in(jax.random.key(0), 0)
    states, _ = jax.jit(jax.vmap(lambda rate: trial({"rate": rate})(key)))(jnp.array(rates))
    alone, _ = jax.jit(lambda: game(rate=0.2, epochs=2)(key))()
    for path, leaf in jn.paths.paths(alone.params).items():
        np.testing.assert_allclose(jn.paths.paths(states.params)[path][2], leaf, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(jn.paths.paths(result.runs.params)[path][2], leaf, rtol=1e-5, atol=1e-6)
    assert len({float(each) for each in result.history["discriminator"][:, -1]}) == 3


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    def run(folder, epochs):
        options = {"every": 1, "overhead": None}
        return jn.train.run(
            game(epochs=epochs, ema_decay=0.9), key=KEY, callbacks=[jn.train.checkpoint(folder, **options), *stop]
        )

    stop = []
    whole, history = run(tmp_path / "whole", 4)
    stop = [jn.train.Callback(on_epoch_end=lambda number, state, row: number == 1)]
    run(tmp_path / "cut", 4)
    stop = []
    resumed, again = run(tmp_path / "cut", 4)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, resumed.opt_state, whole.opt_state)
    jax.tree.map(np.testing.assert_array_equal, resumed.ema, whole.ema)
    np.testing.assert_array_equal(again["generator"], history["generator"])
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(whole.ema), jax.tree.leaves(whole.params), strict=True))


def test_each_player_keeps_the_statistics_and_parameters_of_the_others():
    # A generator that does not move: its statistics do, by its own steps only.
    idle = jn.train.Player(jn.losses.gan_generator, optax.sgd(0.0), "generator/**")
    other = jn.train.Player(jn.losses.gan_discriminator, optax.sgd(0.1), "discriminator/**")
    program = jn.train.adversarial(
        NET, {"discriminator": other, "generator": idle}, (X, X), epochs=1, batch_size=16, validation=(X, X),
        metrics={"spread": jn.metrics.mean(lambda outputs, targets: jnp.abs(outputs["real"] - outputs["fake"])[:, 0])},
    )  # fmt: skip
    before = program.start(KEY)
    state, row = program.run_epoch(before)
    jax.tree.map(np.testing.assert_array_equal, state.params["generator"], before.params["generator"])
    assert (state.params["discriminator"]["fc"]["kernel"] != before.params["discriminator"]["fc"]["kernel"]).any()
    # One update of the running mean, m ← 0.9 m + 0.1 b: the discriminator's move left it alone.
    z = jax.random.normal(fold(jax.random.fold_in(before.key, 0), "code"), (16, CODE))
    fc = before.params["generator"]["fc"]
    np.testing.assert_allclose(
        state.state["generator"]["bn"]["mean"], 0.1 * (z @ fc["kernel"] + fc["bias"]).mean(0), rtol=1e-4, atol=1e-6
    )
    assert {"validation/discriminator", "validation/loss", "validation/spread", "spread"} <= set(row)


def test_frozen_parameters_and_shares_of_the_objective():
    penalized = jn.objective(jn.losses.gan_generator, jn.regularizers.l2(0.1, on="generator/**/kernel"))
    players = {
        "d": jn.train.Player(jn.losses.gan_discriminator, optax.sgd(0.1), "discriminator/**"),
        "g": jn.train.Player(penalized, optax.sgd(0.1), ("generator/**", "!generator/fc/**")),
    }
    program = jn.train.adversarial(NET, players, (X, X), epochs=1, batch_size=None, freeze="generator/fc/**")
    before = program.start(KEY)
    state, row = jax.jit(program.run_epoch)(before)
    moved = {
        path: bool((leaf != jn.paths.paths(before.params)[path]).any())
        for path, leaf in jn.paths.paths(state.params).items()
    }
    assert all(moved[path] is not path.startswith("generator/fc/") for path in moved)
    assert sorted(row) == ["d", "g", "g/gan_generator", "g/l2", "loss"]
    np.testing.assert_allclose(row["g"], row["g/gan_generator"] + row["g/l2"], rtol=1e-6)


def test_a_value_that_is_not_finite_halts_before_the_step():
    program = game(rate=jnp.inf)
    state, _ = jax.jit(lambda: program(KEY))()
    assert int(state.failed) >= 0
    assert np.isfinite(state.params["generator"]["fc"]["kernel"]).all()
    with pytest.raises(jn.train.NonFiniteError, match="step"):
        jn.train.run(program, key=KEY)


D = jn.train.Player(jn.losses.gan_discriminator, optax.sgd(0.1), "discriminator/**")
G = jn.train.Player(jn.losses.gan_generator, optax.sgd(0.1), "generator/**")
MISTAKES = {
    "one player": ({"d": D}, {}, "at least two players, got d; jn.train.program"),
    "no Player": ({"d": D, "g": optax.sgd(0.1)}, {}, "expects players by name"),
    "its name": ({"loss": D, "g": G}, {}, "other than 'loss'"),
    "shared": ({"d": D, "g": jn.train.Player(G.objective, G.optimizer, "**")}, {}, "one player for each parameter"),
    "left over": (
        {"d": D, "g": jn.train.Player(G.objective, G.optimizer, "generator/fc/**")},
        {},
        "got none for generator/bn/bias; or freeze='generator/bn/bias'",
    ),
    "no match": ({"d": D, "g": jn.train.Player(G.objective, G.optimizer, "maker/**")}, {}, "matches no parameter"),
    "in turn": (
        {"d": jn.train.Player(D.objective, D.optimizer, D.on, steps=2), "g": G},
        {"simultaneous": True},
        "one step each",
    ),
    "parts": (
        {"d": jn.train.Player(D.objective, D.optimizer, D.on, steps=3), "g": G},
        {},
        "divided into 3 parts.*batch_size=8 for 16 examples",
    ),
    "option": ({"d": D, "g": G}, {"options": jn.train.Options(accumulate=2)}, "no option accumulate, got 2"),
    "monitor": ({"d": D, "g": G}, {"options": jn.train.Options(monitor=jn.train.norms())}, "no option monitor"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained(name):
    players, options, words = MISTAKES[name]
    with pytest.raises(jn.NetError, match=words):
        jn.train.adversarial(NET, players, (X, X), epochs=1, batch_size=8, **options)


def test_a_player_is_checked():
    with pytest.raises(jn.NetError, match=r"Player expects an Optax optimizer"):
        jn.train.Player(jn.losses.gan_generator, "adam", "generator/**")  # pyright: ignore[reportArgumentType]
    with pytest.raises(jn.NetError, match=r"Player.*steps"):
        jn.train.Player(jn.losses.gan_generator, optax.sgd(0.1), "generator/**", steps=0)
