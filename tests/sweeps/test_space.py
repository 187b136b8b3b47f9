"""Which hyperparameters and seeds the trials have."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets.sweeps.space import design, inputs

NUMBERS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=2)


@given(st.dictionaries(st.sampled_from("abc"), NUMBERS, min_size=1), st.integers(1, 2))
@pytest.mark.slow
def test_a_grid_is_every_combination_with_every_seed(grid: dict[str, list[float]], seeds: int):
    chosen = design(grid=grid, seeds=seeds)
    want = [(*each, seed) for each in itertools.product(*grid.values()) for seed in range(seeds)]
    got = [(*chosen.of(trial).values(), chosen.labels["seed"][trial]) for trial in range(len(chosen))]
    np.testing.assert_array_equal(np.array(got, np.float32), np.array(want, np.float32))
    assert chosen.config.tolist() == [number // seeds for number in range(len(want))]


def test_seeds_have_the_same_key_in_every_configuration():
    chosen = design(grid={"lr": [0.1, 0.2]}, seeds=[7, 3])
    want = [jax.random.fold_in(jax.random.key(0), seed) for seed in (7, 3, 7, 3)]
    assert [key == wanted for key, wanted in zip(chosen.keys, want, strict=True)] == [True] * 4
    assert chosen.labels["seed"].tolist() == [7, 3, 7, 3]


def test_a_list_keeps_its_order_and_kinds():
    chosen = design(trials=[{"lr": 0.1, "n": 3, "on": True}, {"n": 1, "on": False, "lr": 1}])
    assert [chosen.of(trial) for trial in (0, 1)] == [
        {"lr": 0.1, "n": 3, "on": True},
        {"lr": 1.0, "n": 1, "on": False},
    ]
    assert {name: column.dtype for name, column in inputs(chosen.hp).items()} == {
        "lr": np.float32,
        "n": np.int64,
        "on": np.bool_,
    }


def test_numbers_are_written_as_they_were():
    chosen = design(grid={"lr": jnp.array([0.1, 1e-4]), "l2": [0.3]})
    assert chosen.hp["lr"].tolist() == [0.1, 1e-4]
    assert (inputs(chosen.hp)["lr"] == np.array([0.1, 1e-4], np.float32)).all()


@pytest.mark.parametrize(
    ("space", "against"),
    [
        (jn.sweeps.uniform(-2, 3), scipy.stats.uniform(-2, 5)),
        (jn.sweeps.log_uniform(1e-4, 1e-1), scipy.stats.loguniform(1e-4, 1e-1)),
    ],
)
def test_draws_have_their_distribution(space: jn.sweeps.Space, against):
    drawn = space.draw(jax.random.key(0), 4000)
    assert scipy.stats.kstest(drawn, against.cdf).pvalue > 0.01
    np.testing.assert_array_equal(drawn, space.draw(jax.random.key(0), 4000))


@pytest.mark.parametrize(
    ("space", "values"),
    [(jn.sweeps.integers(2, 5), [2, 3, 4, 5]), (jn.sweeps.choice([0.0, 0.5, 0.9]), [0.0, 0.5, 0.9])],
)
def test_draws_of_few_values_are_even(space: jn.sweeps.Space, values: list[float]):
    found, counts = np.unique(space.draw(jax.random.key(1), 4000), return_counts=True)
    assert found.tolist() == values
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_a_further_hyperparameter_leaves_the_draws_of_others():
    lr, l2 = jn.sweeps.log_uniform(1e-4, 1e-1), jn.sweeps.uniform(0, 1)
    few = design(random={"lr": lr}, samples=5)
    more = design(random={"l2": l2, "lr": lr}, samples=5)
    np.testing.assert_array_equal(few.hp["lr"], more.hp["lr"])
    other = design(random={"lr": lr}, samples=5, key=jax.random.key(1))
    assert (few.hp["lr"] != other.hp["lr"]).all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: jn.sweeps.uniform(1, 1), "uniform expects low < high, got 1 and 1"),
        (lambda: jn.sweeps.log_uniform(0, 1), "log_uniform expects low > 0, got 0"),
        (lambda: jn.sweeps.integers(0, 2.5), "integers expects integers, got 0 and 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: jn.sweeps.choice([]), "choice expects at least one value for options"),
        (lambda: jn.sweeps.choice(["relu"]), "expects a list of numbers for options"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_mistakes_in_a_space(make, says: str):
    with pytest.raises(jn.NetError) as caught:
        make()
    assert says in str(caught.value)
