"""`jn.fit`, `jn.evaluate`, `jn.predict` and `jn.save`: one call each, with the numbers of the longer way."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnets as jn
from tests.oracle import floats, integers
from tests.train.test_program import equal

pytestmark = pytest.mark.promotes  # Optax's own arithmetic
KEY = jax.random.key(2)
X, Y = floats(10, 4), integers(10, high=3)
NET = jn.serial(body=jn.serial(bn=jn.batch_norm(), drop=jn.dropout(0.2)), head=jn.dense(3))
GIVEN: dict[str, Any] = {"epochs": 4, "batch_size": 4, "validation": (X[:4], Y[:4]), "metrics": [jn.metrics.accuracy]}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "much": {
        "augment": jn.data.noise(0.1),
        "batch_augment": jn.data.mixup(0.3, num_classes=3),
        "sampler": jn.data.balanced(3),
        "freeze": "body/bn/bias",
        "ema_decay": 0.9,
        "options": jn.train.Options(accumulate=2, monitor=jn.train.norms()),
    },
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.slow_cases("much")
def test_fit_is_run_of_a_program_to_the_bit(name: str):
    options = GIVEN | OPTIONS[name]
    program = jn.train.program(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), **options)
    fitted = jn.fit(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), key=KEY, **options)
    equal(fitted, jn.train.run(program, key=KEY))
    assert fitted[1]["loss"].shape == (4,)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_fit_is_the_program_itself_to_the_bit(name: str):
    options = GIVEN | OPTIONS[name]
    program = jn.train.program(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), **options)
    fitted = jn.fit(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), key=KEY, **options)
    equal(fitted, jax.jit(lambda program, key: program(key))(program, KEY))


@pytest.mark.slow
def test_fit_stops_early_as_a_program_does():
    rule = jn.train.early_stopping("loss", patience=1, mode="max")  # falling is never better
    program = jn.train.program(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), stopping=rule, **GIVEN)
    seen: list[int] = []
    watch = jn.train.Callback(on_epoch_end=lambda number, state, row: seen.append(number))
    state, history = jn.fit(
        NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), key=KEY, callbacks=[rule, watch], **GIVEN
    )
    final, rows = jn.train.run(program, key=KEY)
    equal(state, final)
    assert seen == [*range(len(history["loss"]))]
    np.testing.assert_array_equal(history["loss"], rows["loss"])
    assert len(seen) < 4


def test_fit_resumes_from_a_checkpoint(tmp_path: Path):
    def fit(**changed: Any) -> Any:
        keep = jn.train.checkpoint(tmp_path, overhead=None)
        given: dict[str, Any] = {**GIVEN, "callbacks": [keep], **changed}
        return jn.fit(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), key=KEY, **given)

    equal(fit(), fit())  # the second returns at once
    said = r"^checkpoint 4 in .* is of a run with another configuration:\n  epochs: 4 → 5\n"
    with pytest.raises(jn.NetError, match=said):
        fit(epochs=5)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "loss": ({"loss": jn.metrics.accuracy}, "fit expects an objective, or a loss .* got Metric accuracy"),
    "data": ({"data": X}, "fit expects data as .*; targets are missing"),
    "key": ({"key": 0}, r"fit expects a key such as jax.random.key\(0\), got int 0"),
    "epochs": ({"epochs": 0}, "fit expects epochs ≥ 1, got 0"),
    "callbacks": ({"callbacks": [print]}, r"fit expects a list of callbacks, .* got the function print"),
    "options": ({"options": {"accumulate": 2}}, r"fit expects options=jn.train.Options\(...\), got dict"),
    "twice": ({"freeze": "body/**", "options": jn.train.Options(freeze="head/**")}, "fit gets freeze twice"),
    "sampler": ({"sampler": lambda key, data: jnp.arange(3)}, r"fit expects sampler to return indices \(10,\)"),
    "labels": ({"data": (X, Y + 1)}, "labels of data range from 1 to 3, but the network has 3 outputs"),
    "name": ({"shuffle": True}, "fit has no argument shuffle: leave it out"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_in_fit_are_its_own(name: str):
    changed, message = MISTAKES[name]
    given: dict[str, Any] = {
        "loss": jn.losses.cross_entropy, "optimizer": optax.sgd(0.1), "data": (X, Y), "epochs": 1, "batch_size": 5,
        "key": KEY,
    }  # fmt: skip
    with pytest.raises(jn.NetError, match=f"^{message}"):
        jn.fit(NET, **given | changed)


@pytest.fixture(scope="module")
def state() -> jn.train.TrainState:
    return jn.fit(NET, jn.losses.cross_entropy, optax.adam(0.1), (X, Y), key=KEY, **GIVEN)[0]


def forms(state: jn.train.TrainState, folder: Path) -> dict[str, Any]:
    """Return everything that stands for the variables of a network: a train state, a loaded file, and a pair."""
    jn.save(folder / "state.safetensors", state, net=NET)
    return {
        "train state": state,
        "loaded": jn.load(folder / "state.safetensors"),
        "pair": (state.params, state.state),
    }


def test_evaluate_and_predict_take_a_train_state_a_loaded_file_or_a_pair(state: jn.train.TrainState, tmp_path: Path):
    outputs = jax.jit(NET.apply)(state.params, state.state, X)[0]
    accuracy = (np.asarray(outputs).argmax(1) == Y).mean()
    for each in forms(state, tmp_path).values():
        np.testing.assert_allclose(jn.predict(NET, each, X, batch_size=4), outputs, rtol=1e-5, atol=1e-6)
        found = jn.evaluate(NET, each, (X, Y), [jn.metrics.accuracy], jn.losses.cross_entropy, batch_size=4)
        np.testing.assert_allclose(found["accuracy"], accuracy, rtol=1e-6)
        assert set(found) == {"accuracy", "loss", "cross_entropy"}
    jitted = jax.jit(lambda state: jn.evaluate(NET, state, (X, Y), [jn.metrics.accuracy]))(state)
    np.testing.assert_allclose(jitted["accuracy"], accuracy, rtol=1e-6)


def test_save_takes_a_train_state_a_loaded_file_or_a_pair(state: jn.train.TrainState, tmp_path: Path):
    for number, each in enumerate(forms(state, tmp_path).values()):
        jn.save(tmp_path / f"{number}.safetensors", each, metadata={"number": number})
        loaded = jn.load(tmp_path / f"{number}.safetensors")
        equal((loaded.params, loaded.state), (state.params, state.state))
        assert loaded.metadata == {"number": number}


@pytest.mark.parametrize("wrong", [{"kernel": X}, X, None, (X,)])
def test_what_holds_no_variables_is_an_error(wrong: Any, tmp_path: Path):
    for name, call in {
        "evaluate": lambda: jn.evaluate(NET, wrong, (X, Y), []),
        "predict": lambda: jn.predict(NET, wrong, X),
        "save": lambda: jn.save(tmp_path / "wrong.safetensors", wrong),
    }.items():
        with pytest.raises(jn.NetError, match=rf"^{name}.* expects a train state or a pair \(params, state\), got"):
            call()
