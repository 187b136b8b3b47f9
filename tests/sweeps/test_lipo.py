"""LIPO on the usual test functions, against the published optima, PyPI's `lipo` (dlib) and random search."""

import importlib.util
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

import jaxnets as jn
from jaxnets.sweeps.lipo import Lipo, _in_ball, _slopes
from tests.oracle import floats, witness

DLIB = importlib.util.find_spec("lipo") is not None
TRIALS, SEEDS = 96, 3


def branin(x: np.ndarray) -> np.ndarray:
    parabola = x[0] * (5 / np.pi - 5.1 / (4 * np.pi**2) * x[0])
    return (x[1] + parabola - 6) ** 2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x[0]) + 10


def holder(x: np.ndarray) -> np.ndarray:
    return -np.abs(np.sin(x[0]) * np.cos(x[1]) * np.exp(np.abs(1 - np.hypot(x[0], x[1]) / np.pi)))


def rosenbrock(x: np.ndarray) -> np.ndarray:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(0)


def ackley(x: np.ndarray) -> np.ndarray:
    return 20 + np.e - 20 * np.exp(-0.2 * np.sqrt((x**2).mean(0))) - np.exp(np.cos(2 * np.pi * x).mean(0))


# Bounds, optimum (Surjanovic and Bingham, Virtual Library of Simulation Experiments), and the largest gap to it that
# the worst of the seeds may leave, one trial a time and eight a time.
FUNCTIONS: dict[str, tuple[Any, list[tuple[float, float]], float, float, float]] = {
    "branin": (branin, [(-5, 10), (0, 15)], 0.397887, 1e-5, 1e-3),
    "holder": (holder, [(-10, 10)] * 2, -19.2085, 1e-3, 0.05),
    "rosenbrock": (rosenbrock, [(-2, 2)] * 3, 0.0, 1.0, 2.5),
    "ackley": (ackley, [(-10, 20)] * 2, 0.0, 0.01, 0.5),
}


def found(name: str, batch: int, seed: int) -> float:
    """Return the least value after all trials."""
    function, bounds, *_ = FUNCTIONS[name]
    sampler = Lipo({f"x{k}": jn.sweeps.uniform(*each) for k, each in enumerate(bounds)}, seed)
    for _ in range(TRIALS // batch):
        sampler.tell(-function(np.stack([*sampler.ask(batch).values()])))
    return -sampler.values.max()


def at_random(name: str, seed: int) -> float:
    function, bounds, *_ = FUNCTIONS[name]
    low, high = np.asarray(bounds, float).T[..., None]
    return function(low + (high - low) * np.random.default_rng(seed).random((len(bounds), TRIALS))).min()


def by_dlib(name: str, seed: int) -> float:
    from lipo import GlobalOptimizer  # pyright: ignore[reportMissingImports]

    function, bounds, *_ = FUNCTIONS[name]
    names = [f"x{k}" for k in range(len(bounds))]
    called = list[float]()

    def call(**x: float) -> float:
        called.append(float(function(np.array([x[each] for each in names]))))
        return called[-1]

    optimizer = GlobalOptimizer(
        call,
        lower_bounds={each: float(low) for each, (low, _) in zip(names, bounds, strict=True)},
        upper_bounds={each: float(high) for each, (_, high) in zip(names, bounds, strict=True)},
        maximize=False, random_state=seed,
    )  # fmt: skip
    optimizer.run(TRIALS)
    return min(called)


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.slow_cases("rosenbrock-8", "ackley-8", "holder-1", "rosenbrock-1")
def test_the_optimum_is_found(name: str, batch: int):
    *_, optimum, alone, together = FUNCTIONS[name]
    gaps = np.array([found(name, batch, seed) for seed in range(SEEDS)]) - optimum
    drawn = np.array([at_random(name, seed) for seed in range(SEEDS)]) - optimum
    assert gaps.min() > -1e-4  # nothing is better than the published optimum
    assert gaps.max() < (alone if batch == 1 else together)
    assert gaps.mean() < drawn.mean() / 2


@pytest.mark.slow
def test_one_trial_at_a_time_it_is_as_near_as_dlib():
    theirs = witness(
        "sweeps/lipo",
        lambda: {name: np.round([by_dlib(name, seed) for seed in range(SEEDS)], 3) for name in FUNCTIONS},
        installed=DLIB,
    )
    for name, (_, _, optimum, gap, _) in FUNCTIONS.items():
        ours = np.mean([found(name, 1, seed) for seed in range(SEEDS)])
        assert ours - optimum < max(gap, 1.5 * (theirs[name].mean() - optimum)), name


def test_slopes_are_the_least_that_bound_all_values():
    """By SciPy's solver of constrained problems, with all pairs as constraints."""
    points = np.random.default_rng(0).random((12, 3))
    values = np.sin(5 * points[:, 0]) + 0.3 * points[:, 1] ** 2
    one, other = np.triu_indices(12, 1)
    apart, want = (points[one] - points[other]) ** 2, (values[one] - values[other]) ** 2
    theirs = minimize(
        lambda k: (k**2).sum(), np.full(3, 100.0), jac=lambda k: 2 * k, method="SLSQP", bounds=[(0, None)] * 3,
        constraints={"type": "ineq", "fun": lambda k: apart @ k - want, "jac": lambda k: apart},
        options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    np.testing.assert_allclose(_slopes(points, values), theirs.x, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("radius", [0.1, 10.0])
def test_the_maximizer_in_a_ball(radius: float):
    """A step beats all of a thousand others of the ball; inside, the gradient vanishes."""
    g, root = floats(3).astype(float), floats(3, 3).astype(float)
    for curvature in (-root @ root.T, root + root.T):
        step = _in_ball(g, curvature, radius)
        others = floats(1000, 3, seed=1).astype(float)
        others *= radius * np.random.default_rng(0).random((1000, 1)) / np.linalg.norm(others, axis=1, keepdims=True)

        def model(u: np.ndarray, curvature: np.ndarray = curvature) -> Any:
            return u @ g + np.einsum("...i,ij,...j", u, curvature, u) / 2

        assert np.linalg.norm(step) <= radius * (1 + 1e-6)
        assert model(step) >= model(others).max() - 1e-9


def test_integers_choices_and_failures():
    space = {"n": jn.sweeps.integers(1, 9), "c": jn.sweeps.choice([0.5, 0.1, 0.9]), "r": jn.sweeps.log_uniform(1e-4, 1)}
    sampler = Lipo(space, 0)
    for _ in range(8):
        hp = sampler.ask(6)
        assert set(hp["n"].tolist()) <= {*range(1, 10)}
        assert set(hp["c"].tolist()) <= {0.1, 0.5, 0.9}
        assert ((hp["r"] >= 1e-4 * (1 - 1e-9)) & (hp["r"] <= 1 + 1e-9)).all()
        value = -((hp["n"] - 6) ** 2) - (hp["c"] - 0.9) ** 2 - np.log10(hp["r"] / 0.01) ** 2
        sampler.tell(np.where(hp["r"] > 0.5, np.nan, value))
    best = {name: column[0] for name, column in Lipo(space, 0).ask(1).items()}
    assert best.keys() == space.keys()
    top = sampler.points[np.nanargmax(sampler.values)]
    assert (round(1 + 8 * top[0]), round(2 * top[1])) == (6, 2)
    assert abs(-4 + 4 * top[2] + 2) < 0.2
    nothing = Lipo(space, 0)
    for _ in range(3):  # all fail
        nothing.ask(4)
        nothing.tell(np.full(4, np.nan))
    assert len(nothing.values) == 12
