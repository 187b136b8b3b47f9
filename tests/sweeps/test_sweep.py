"""Sweeps: each trial equals the training run alone, however trials are computed."""

import signal
import sys
from collections import deque
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

import jaxnets as jn
from jaxnets.sweeps import strategy
from jaxnets.sweeps.space import design
from jaxnets.sweeps.strategy import Plan
from jaxnets.sweeps.sweep import plan
from tests.oracle import floats, integers

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
X, Y = floats(40, 4), integers(40, high=3)
GRID = {"lr": [0.003, 0.3], "l2": [0.0, 0.1]}
ALONE = jax.jit(lambda program, key: program(key))
KEYS = jax.random.split(jax.random.key(9), 2)
ONE = Mesh(np.array(jax.devices()[:1]), ("trials",))


def regular(hp: dict[str, Any]) -> jn.train.Program:
    """Dropout, batch norm, an average and early stopping, with hyperparameters in all of them."""
    net = jn.serial(jn.dense(5), jn.batch_norm(), jax.nn.relu, jn.dropout(hp["l2"]), out=jn.dense(3))
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(hp["l2"], on="**/kernel"))
    return jn.train.program(
        net,
        objective,
        optax.sgd(hp["lr"], momentum=0.9),
        (X[:30], Y[:30]),
        epochs=5,
        batch_size=8,
        validation=(X[30:], Y[30:]),
        metrics={"accuracy": jn.metrics.accuracy},
        ema_decay=0.9,
        stopping=jn.train.early_stopping("validation/loss", patience=1),
    )


def linear(hp: dict[str, Any], epochs: int = 4, **options: Any) -> jn.train.Program:
    objective = jn.objective(jn.losses.squared_error)
    data = (X[:8, :1], 3 * X[:8, :1])
    return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), data, epochs=epochs, batch_size=4, **options)


@pytest.fixture(scope="module")
def mapped() -> jn.sweeps.SweepResult:
    return jn.sweeps.sweep(regular, seeds=2, grid=GRID, strategy="map", mesh=ONE)


@pytest.fixture(scope="module")
def alone() -> Any:
    return ALONE(linear({"lr": 0.1}), KEYS[1])


def differences(left: Any, right: Any) -> list[float]:
    def numbers(leaf: Any) -> np.ndarray:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf).astype(np.float64)

    assert jax.tree.structure(left) == jax.tree.structure(right)
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return [float(np.nanmax(np.abs(numbers(a) - numbers(b)), initial=0)) for a, b in pairs]


@pytest.mark.slow
@pytest.mark.exact
def test_a_trial_equals_the_run_alone_to_the_bit(mapped: jn.sweeps.SweepResult):
    whole = jax.jit(lambda hp, key: regular(hp)(key))
    for trial in range(len(mapped)):
        hp = {name: jnp.float32(values[trial]) for name, values in mapped.hp.items()}
        run, history = whole(hp, mapped.keys[trial])
        assert max(differences(mapped.run(trial), run)) == 0
        for name, rows in history.items():
            np.testing.assert_array_equal(mapped.history[name][trial], rows, err_msg=name)
    stops = (mapped.epochs < 5).sum()
    assert 0 < stops < len(mapped)  # both ends are tested


@pytest.mark.parametrize("mesh", [None, ONE], ids=["shared out", "together"])
@pytest.mark.slow
def test_trials_side_by_side_are_the_same(mapped: jn.sweeps.SweepResult, mesh: Mesh | None):
    result = jn.sweeps.sweep(regular, seeds=2, grid=GRID, strategy="vmap", mesh=mesh)
    assert result.layout.devices == (4 if mesh is None else 1)
    np.testing.assert_array_equal(result.epochs, mapped.epochs)
    np.testing.assert_array_equal(result.reported, mapped.reported)
    for name, rows in mapped.history.items():
        np.testing.assert_allclose(result.history[name], rows, atol=1e-5, err_msg=name)
    assert max(differences(result.runs, mapped.runs)) < 1e-5


@pytest.mark.parametrize(
    "how",
    [
        {"strategy": "map", "mesh": ONE},
        {"strategy": "map", "chunk": 5},
        {"strategy": "map", "mesh": ONE, "batch_size": 2},
        {"strategy": "vmap", "mesh": ONE, "chunk": 4},
    ],
    ids=["mapped", "sharded", "batches", "chunks"],
)
@pytest.mark.slow_cases("sharded", "batches", "chunks")
def test_every_way_gives_the_program_of_a_trials_numbers(how: dict[str, Any], alone: Any):
    result = jn.sweeps.sweep(linear, grid={"lr": [0.01, 0.02, 0.1, 0.2, 0.3]}, seeds=KEYS, **how)
    run, history = alone
    np.testing.assert_allclose(result.history["loss"][5], history["loss"], rtol=1e-6)
    np.testing.assert_allclose(result.run(5).params["kernel"], run.params["kernel"], rtol=1e-6)
    if how == {"strategy": "map", "mesh": ONE}:  # the very same operations
        assert max(differences(result.run(5), run)) == 0
        np.testing.assert_array_equal(result.history["loss"][5], history["loss"])


@pytest.mark.slow
def test_stopped_trials_have_nan_and_the_best_parameters(mapped: jn.sweeps.SweepResult):
    for trial in range(len(mapped)):
        rows, done = mapped.history["validation/loss"][trial], mapped.epochs[trial]
        assert np.isfinite(rows[:done]).all()
        assert np.isnan(rows[done:]).all()
        assert mapped.reported[trial] == np.nanargmin(rows)
        assert mapped.value("validation/loss")[trial] == np.float64(np.nanmin(rows))
    run = mapped.run(7)
    net = jn.serial(jn.dense(5), jn.batch_norm(), jax.nn.relu, jn.dropout(0.1), out=jn.dense(3))
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(mapped.hp["l2"][7], on="**/kernel"))
    seen = jn.evaluate(net, run, (X[30:], Y[30:]), {}, objective)
    np.testing.assert_allclose(seen["loss"], mapped.value("validation/loss")[7], rtol=1e-5)


def test_one_compilation_for_fifty_values(monkeypatch: pytest.MonkeyPatch):
    traced = deque()  # no list: a trial function differs when a list that it reads has changed

    def trial_fn(hp):
        traced.append(1)
        return linear(hp)

    jn.sweeps.sweep(trial_fn, grid={"lr": np.linspace(0.01, 0.3, 50)}, strategy="vmap", chunk=16, mesh=ONE)
    assert len(traced) == 3  # to look at it, for `start` and for `epoch`
    again = jn.sweeps.sweep(trial_fn, grid={"lr": np.linspace(0.02, 0.2, 50)}, strategy="vmap", chunk=16, mesh=ONE)
    assert len(traced) == 4  # to look at it
    assert np.isfinite(again.history["loss"]).all()
    assert (np.diff(again.history["loss"][:, -1]) < 0).all()  # no two trials learned alike


@pytest.mark.slow
def test_data_are_no_constants():
    x = np.zeros((5000, 16), np.float32)
    objective = jn.objective(jn.losses.squared_error)

    def trial_fn(hp):
        return jn.train.program(jn.dense(1), objective, optax.sgd(hp["lr"]), (x, x[:, :1]), epochs=1, batch_size=1000)

    ready = plan(trial_fn, design(grid={"lr": [0.1, 0.2]}), strategy="vmap", mesh=ONE)
    assert sum(leaf.size for leaf in ready.shared.data) == 5000 * 17
    runs = ready.start([0, 1])
    function, arrays = ready.compiled([0, 1], runs, np.ones(2, bool))
    text = function.trace(*arrays).lower().as_text()
    assert 2 * len(text) < x.nbytes


def test_data_that_hyperparameters_choose_stay_with_their_trial():
    def trial_fn(hp):
        half = jnp.where(hp["half"] == 0, X[:20], X[20:])
        return jn.train.program(
            jn.dense(1),
            jn.objective(jn.losses.squared_error),
            optax.sgd(0.0),
            (half, half[:, :1]),
            epochs=1,
            batch_size=None,
        )

    result = jn.sweeps.sweep(trial_fn, grid={"half": [0, 1]}, strategy="vmap", mesh=ONE)
    for half in (0, 1):
        data, kernel = X[20 * half :][:20], result.run(half).params["kernel"]
        np.testing.assert_allclose(
            result.history["loss"][half, 0], ((data @ kernel - data[:, :1]) ** 2).mean(), rtol=1e-5
        )


@pytest.mark.parametrize("chunk", [None, 8])
@pytest.mark.slow_cases("None", "8")
def test_stopped_trials_leave(monkeypatch: pytest.MonkeyPatch, chunk: int | None):
    """Of 32 trials 28 can't get better and stop after two epochs; the four that go on have 8 places."""
    widths, run_epoch = [], Plan.run_epoch

    def counted(plan, trials, states, active):
        widths.append((len(active), int(np.sum(active))))
        return run_epoch(plan, trials, states, active)

    monkeypatch.setattr(Plan, "run_epoch", counted)

    def trial_fn(hp):
        return linear(hp, epochs=5, stopping=jn.train.early_stopping("loss", patience=1))

    rates = [0.0] * 28 + [0.05] * 4
    trials = [{"lr": lr} for lr in rates]
    result = jn.sweeps.sweep(trial_fn, trials=trials, strategy="vmap", mesh=ONE, chunk=chunk)
    assert result.epochs.tolist() == [2] * 28 + [5] * 4
    losses = result.history["loss"]
    assert (np.diff(losses[28:]) < 0).all()
    np.testing.assert_array_equal(losses[29:], np.tile(losses[28], (3, 1)))  # of one rate and one key
    if chunk is None:
        assert widths == [(32, 32), (32, 32), (8, 4), (8, 4), (8, 4)]
    else:  # where others wait, they take the places
        assert widths == [(8, 8)] * 6 + [(8, 8)] * 2 + [(8, 4)] * 3
        together = jn.sweeps.sweep(trial_fn, trials=trials, strategy="vmap", mesh=ONE)
        np.testing.assert_allclose(losses, together.history["loss"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.exact
def test_trials_of_one_seed_share_their_batches():
    """Side by side the order of an epoch is drawn once a seed; where trials wait for places, once a trial."""
    drawn = []

    def order(key, data):
        # `program` looks at one order, of key 0, when it is made.
        jax.debug.callback(lambda words: drawn.append(1) if words.any() else None, jax.random.key_data(key))
        return jax.random.permutation(key, len(data[0]))

    def trial_fn(hp):
        stopping = jn.train.early_stopping("loss", patience=1)
        return linear(hp, sampler=order, stopping=stopping)

    def sweep(**how: Any) -> jn.sweeps.SweepResult:
        drawn.clear()
        rates = [0.01, 0.0, 0.1]  # the second stops after two epochs
        found = jn.sweeps.sweep(trial_fn, seeds=KEYS, grid={"lr": rates}, strategy="vmap", mesh=ONE, **how)
        jax.effects_barrier()
        return found

    shared = sweep()
    assert len(drawn) == 2 * 4
    waited = sweep(chunk=3)
    assert len(drawn) == 2 * 3 * 4
    np.testing.assert_array_equal(shared.epochs, [4, 4, 2, 2, 4, 4])
    np.testing.assert_allclose(shared.history["loss"], waited.history["loss"], rtol=1e-5)
    assert max(differences(shared.runs, waited.runs)) < 1e-5


def test_mapped_trials_that_stopped_take_no_steps():
    steps = []

    def trial_fn(hp):
        def loss(outputs, targets):
            jax.debug.callback(lambda: steps.append(1))
            return ((outputs - targets) ** 2).sum(-1)

        return jn.train.program(
            jn.dense(1),
            jn.objective(loss),
            optax.sgd(hp["lr"]),
            (X[:8, :1], 3 * X[:8, :1]),
            epochs=6,
            batch_size=4,
            stopping=jn.train.early_stopping("loss", patience=1, mode="min"),
        )

    result = jn.sweeps.sweep(trial_fn, trials=[{"lr": lr} for lr in (0.0, 0.0, 0.05)], strategy="map", mesh=ONE)
    jax.effects_barrier()
    assert result.epochs.tolist() == [2, 2, 6]
    assert len(steps) == 2 * (2 + 2 + 6)
    losses = result.history["loss"]
    assert np.isfinite(losses).tolist() == [[True] * 2 + [False] * 4] * 2 + [[True] * 6]
    assert result.reported.tolist() == np.nanargmin(losses, 1).tolist()
    np.testing.assert_array_equal(result.value("loss"), np.nanmin(losses, 1).astype(np.float64))


def test_a_trial_that_fails_is_reported_and_hurts_no_other():
    result = jn.sweeps.sweep(linear, seeds=2, grid={"lr": [0.05, 1e25]}, strategy="vmap", mesh=ONE)
    assert [(each["trial"], each["lr"], each["seed"]) for each in result.failures()] == [(2, 1e25, 0), (3, 1e25, 1)]
    run = result.run(2)
    assert result.failures()[0]["step"] == int(run.failed) == int(run.step) > 0
    assert np.isfinite(run.params["kernel"]).all()  # the last good
    assert np.isnan(result.history["loss"][2:, 1:]).all()
    assert np.isfinite(result.history["loss"][:2]).all()
    assert np.isnan(result.value("loss")).tolist() == [False, False, True, True]
    assert result.best("loss").hp == {"lr": 0.05}
    assert [each["failed"] for each in result.table()][:2] == [None, None]


@pytest.mark.slow
def test_what_is_faster_is_measured_once(monkeypatch: pytest.MonkeyPatch):
    measured, faster = [], strategy._measure_faster
    monkeypatch.setattr(strategy, "_measure_faster", lambda plan: measured.append(1) or faster(plan))
    how: Any = {"grid": {"lr": [0.1, 0.2, 0.3, 0.4]}, "strategy": "measure", "mesh": ONE}
    results = [jn.sweeps.sweep(linear, **how) for _ in range(2)]
    assert len(measured) == 1
    assert results[0].layout.strategy == results[1].layout.strategy
    monkeypatch.setattr(strategy, "_measured", {})
    monkeypatch.setattr(strategy, "_measure_faster", lambda plan: "map")
    assert jn.sweeps.sweep(linear, **how).layout.strategy == "map"


IMAGES, STEPS = (floats(4, 8, 8, 1), integers(4, high=3)), (floats(4, 5, 2), integers(4, high=3))


@pytest.mark.parametrize(
    ("net", "data", "faster"),
    [
        (jn.serial(jn.dense(8), jax.nn.relu, jn.layer_norm(), jn.dropout(0.1), out=jn.dense(3)), (X, Y), "vmap"),
        (jn.serial(jn.dense(8191), jax.nn.relu, out=jn.dense(3)), (X, Y), "vmap"),  # 8 n + 3 parameters
        (jn.serial(jn.dense(8192), jax.nn.relu, out=jn.dense(3)), (X, Y), "map"),
        (jn.serial(jn.conv(2, 3), jn.flatten, out=jn.dense(3)), IMAGES, "map"),
        (jn.serial(jn.recurrent(jn.rnn_cell(4)), last=lambda y: y[:, -1], out=jn.dense(3)), STEPS, "map"),
    ],
    ids=["products", "small", "large", "convolution", "recurrence"],
)
@pytest.mark.slow_cases("small", "recurrence")
def test_a_cpu_knows_what_is_faster(net: jn.Net, data: Any, faster: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(strategy, "_measure_faster", None)  # nothing is measured

    def trial_fn(hp):
        objective = jn.objective(jn.losses.cross_entropy)
        return jn.train.program(net, objective, optax.sgd(hp["lr"]), data, epochs=1, batch_size=4)

    ready = plan(trial_fn, design(grid={"lr": [0.1, 0.2]}), mesh=ONE)
    assert ready.layout.strategy == faster


@pytest.mark.slow
def test_a_memory_budget_makes_chunks():
    chosen = design(grid={"lr": np.linspace(0.1, 0.2, 30)})
    whole = plan(linear, chosen, strategy="vmap", mesh=ONE)
    assert whole.width == 30
    widths = [
        plan(linear, chosen, strategy="vmap", mesh=ONE, memory_budget=budget).width for budget in (1_000, 10_000_000)
    ]
    assert 1 <= widths[0] < widths[1] == 30
    with pytest.raises(jn.NetError, match=r"memory_budget for at least one trial, [\d,]+ bytes per device, got 10"):
        jn.sweeps.sweep(linear, grid={"lr": [0.1] * 9}, strategy="vmap", mesh=ONE, memory_budget=10)


def test_ctrl_c_returns_what_there_is(monkeypatch: pytest.MonkeyPatch):
    seen = []

    def sweep_progress(show):
        def show_state(state):
            seen.append(state.done.tolist())
            if len(seen) == 2:
                signal.raise_signal(signal.SIGINT)

        return show_state

    monkeypatch.setattr(sys.modules["jaxnets.sweeps.loop"], "sweep_progress", sweep_progress)
    result = jn.sweeps.sweep(linear, grid={"lr": np.linspace(0.1, 0.4, 8)}, strategy="vmap", mesh=ONE, chunk=4)
    assert result.epochs.tolist() == [2] * 4 + [0] * 4
    assert np.isnan(result.history["loss"]).tolist() == [[False, False, True, True]] * 4 + [[True] * 4] * 4
    assert int(result.run(1).step) == 4
    assert result.best("loss").trial in range(4)
    with pytest.raises(jn.NetError, match="trial 4 has not begun"):
        result.run(4)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.slow
def test_callbacks_that_end_the_process_end_a_sweep_in_order(error: type[BaseException], tmp_path: Path):
    def end(number: int, run: Any, row: Any) -> None:
        if number == 1:
            raise error

    def sweep(**how: Any) -> jn.sweeps.SweepResult:
        return jn.sweeps.sweep(
            linear, grid={"lr": [0.1, 0.2, 0.3]}, strategy="vmap", mesh=ONE, checkpoint=tmp_path, overhead=1e-6, **how
        )

    def callbacks(trial: dict[str, Any]) -> list[jn.train.Callback]:
        return [jn.train.Callback(on_epoch_end=end)]

    if error is SystemExit:
        with pytest.raises(SystemExit):
            sweep(callbacks=callbacks)
    else:
        assert sweep(callbacks=callbacks).epochs.tolist() == [2, 2, 2]
    again = sweep()
    assert again.epochs.tolist() == [4, 4, 4]
    expected = jn.sweeps.sweep(linear, grid={"lr": [0.1, 0.2, 0.3]}, strategy="vmap", mesh=ONE)
    np.testing.assert_array_equal(again.history["loss"], expected.history["loss"])


def test_progress_prints_plain_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    jn.sweeps.sweep(linear, grid={"lr": [0.1, 0.2, 0.3, 0.4]}, strategy="vmap", mesh=ONE, progress=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:12] for line in lines] == ["sweep   25 %", "sweep   50 %", "sweep   75 %", "sweep  100 %"]
    assert "4 of 4 networks  median loss 0." in lines[-1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "160")
    jn.sweeps.sweep(linear, grid={"lr": [0.1, 0.2, 0.3, 0.4]}, strategy="vmap", mesh=ONE, progress=True)
    shown = capsys.readouterr().out
    assert "16/16" in shown
    assert "4 of 4 networks" in shown


@pytest.mark.slow
def test_seeds_alone_make_a_sweep(alone: Any):
    result = jn.sweeps.sweep(lambda hp: linear({"lr": 0.1}), seeds=KEYS, strategy="vmap", mesh=ONE)
    assert (result.hp, result.labels["seed"].tolist()) == ({}, [0, 1])
    np.testing.assert_allclose(result.run(1).params["kernel"], alone[0].params["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"grid": {}}, "at least one hyperparameter in grid, got none"),
        ({"grid": {"lr": []}}, "at least one value for 'lr' in grid, got none"),
        ({"grid": {"lr": 0.1}}, "a list of numbers for 'lr' in grid, got float64 ()"),
        ({"grid": {"lr": [[0.1], [0.2]]}}, "a list of numbers for 'lr' in grid, got float64 (2, 1)"),
        ({"grid": {"lr": ["adam", "sgd"]}}, "sweep over an index and look it up"),
        ({"grid": {"lr": [0.1]}, "trials": [{"lr": 0.1}]}, "one of grid, random and trials, got grid and trials"),
        ({"trials": []}, "at least one trial, got none"),
        ({"trials": [{"lr": 0.1}, {"l2": 0.1}]}, "expects lr in each trial, got l2 in trial 1"),
        ({"random": {"lr": jn.sweeps.uniform(0, 1)}}, "random={...} and samples=n together"),
        ({"random": {"lr": (0, 1)}, "samples": 2}, "a space for 'lr' in random, such as jn.sweeps.log_uniform"),
        ({"grid": {"lr": [0.1]}, "seeds": 0}, "seeds ≥ 1, got 0"),
        ({"grid": {"lr": [0.1]}, "seeds": [0.5]}, "seeds as a count, integers or keys"),
        ({"grid": {"lr": [0.1]}, "strategy": "pmap"}, "strategy 'vmap', 'map', 'measure' or None, got 'pmap'"),
        ({"grid": {"lr": [0.1]}, "chunk": 0}, "chunk ≥ 1, got 0"),
        ({"grid": {"lr": [0.1]}, "strategy": "vmap", "batch_size": 2}, "strategy='map' with batch_size=2"),
    ],
)
def test_mistakes_in_a_design(given: dict[str, Any], says: str):
    with pytest.raises(jn.NetError) as caught:
        jn.sweeps.sweep(linear, **given)
    assert str(caught.value).startswith("sweep ")
    assert says in str(caught.value)


class Unhashable:
    """A trial function that is equal to others."""

    __hash__ = None  # pyright: ignore

    def __call__(self, hp: dict[str, Any]) -> jn.train.Program:
        return linear(hp)


@pytest.mark.parametrize(
    ("trial_fn", "says"),
    [
        (lambda hp: (linear(hp), 3), "sweep expects a trial function that returns a Program, got tuple"),
        (lambda hp: linear({"lr": float(hp["lr"])}), "does not need to know the value of hp['lr']"),
        (lambda hp: jn.dense(hp["lr"]), "does not need to know the value of hp['lr']"),
        (lambda lr: linear({"lr": lr}), "got one with a parameter 'lr'; name it hp, and read hp['lr'] inside"),
        (lambda hp: linear(hp, epochs=0), "program expects epochs ≥ 1, got 0"),
        (3, "expects for trial_fn a function (hp) -> program, got int 3"),
        (Unhashable(), "expects a hashable trial function, got Unhashable"),
    ],
)
def test_mistakes_in_a_trial_function(trial_fn: Any, says: str):
    with pytest.raises(jn.NetError) as caught:
        jn.sweeps.sweep(trial_fn, grid={"lr": [0.1, 0.2]})
    assert says in str(caught.value)


def test_a_hyperparameter_that_the_sweep_does_not_have():
    with pytest.raises(KeyError) as caught:
        jn.sweeps.sweep(lambda hp: linear({"lr": hp["rate"]}), grid={"lr": [0.1, 0.2]})
    assert "If 'rate' is a hyperparameter that the trial function reads: the sweep has lr." in caught.value.__notes__
