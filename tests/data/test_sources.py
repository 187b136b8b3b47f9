"""Sources of other libraries: Hugging Face, PyTorch and Parquet, in memory and as streams."""

import importlib
import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

import jaxnets as jn
from tests.oracle import TORCH, floats, integers

X, Y, W = floats(23, 3), integers(23, high=5), np.abs(floats(23)) + 1
DATASETS = importlib.util.find_spec("datasets") is not None


class Tensor:
    """What of a tensor of PyTorch is used."""

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value)

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.array(self.value, dtype)


Tensor.__module__ = "torch"


class MapDataset:
    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, number: int) -> Any:
        return self.make(number)


MapDataset.__module__ = "torch.utils.data.dataset"


def real_torch() -> Any:
    torch = importlib.import_module("torch")
    utils = importlib.import_module("torch.utils.data")
    return utils.TensorDataset(torch.tensor(X.astype(np.float64)), torch.tensor(Y.astype(np.int64)))


def rows() -> list[dict[str, Any]]:
    return [{"x": x.tolist(), "y": int(y), "w": float(w)} for x, y, w in zip(X, Y, W, strict=True)]


def hugging_face() -> Any:
    return jn.data.columns(importlib.import_module("datasets").Dataset.from_list(rows()), "x", "y")


def parquet(folder: Path, **options: Any) -> Any:
    """Write two files of several row groups each, and read them."""
    folder.mkdir(exist_ok=True)
    for name, part in (("b", slice(10, None)), ("a", slice(0, 10))):
        pandas.DataFrame(rows()[part]).to_parquet(folder / f"{name}.parquet", row_group_size=4)
    return jn.data.parquet(folder, "x", "y", **options)


SOURCES: dict[str, Callable[[Path], Any]] = {
    "rows": lambda folder: jn.data.columns(rows(), "x", "y"),
    "tensors": lambda folder: MapDataset(
        lambda number: [Tensor(X[number].astype(np.float64)), Tensor(np.int64(Y[number]))]
    ),
    "rows of tensors": lambda folder: jn.data.columns(
        MapDataset(lambda number: {"x": Tensor(X[number]), "y": int(Y[number])}), "x", "y"
    ),
    "Parquet": parquet,
    "Parquet, one group at a time": lambda folder: parquet(folder, groups=1),
    **({"Hugging Face": lambda folder: hugging_face()} if DATASETS else {}),
    **({"PyTorch": lambda folder: real_torch()} if TORCH else {}),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources_are_read_as_arrays_are(kind: str, tmp_path: Path):
    source = SOURCES[kind](tmp_path / "set")
    x, y = jn.data.collect(source)
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)
    ours, arrays = (jn.data.stream(each, 5, seed=2, epochs=2) for each in (source, (X, Y)))
    for found, want in zip(ours, arrays, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, want)


@pytest.mark.parametrize("kind", SOURCES)
def test_positions_are_saved_as_other_streams(kind: str, tmp_path: Path):
    source = SOURCES[kind](tmp_path / "set")
    first = jn.data.stream(source, 4, seed=1, epochs=2)
    for _ in range(5):
        next(first)
    position = json.dumps(first.get_state())
    again = jn.data.stream(SOURCES[kind](tmp_path / "set"), 4, seed=1, epochs=2)
    again.set_state(json.loads(position))
    jax.tree.map(np.testing.assert_array_equal, list(again), list(first))
    other = jn.data.stream((X + 1, Y), 4, seed=1, epochs=2)
    with pytest.raises(jn.NetError, match="expects the position of a stream with source="):
        other.set_state(json.loads(position))


def test_weights_and_several_columns(tmp_path: Path):
    for source in (
        jn.data.columns(rows(), ["x", "y"], "y", weights="w"),
        jn.data.columns(parquet(tmp_path, weights="w").rows, ["x", "y"], "y", weights="w"),
    ):
        x, y, weights = jn.data.collect(source)
        jax.tree.map(np.testing.assert_array_equal, (x, y), ({"x": X, "y": Y}, Y))
        np.testing.assert_allclose(weights, W, rtol=1e-6)
        batch = next(iter(jn.data.stream(source, 23, shuffle=False)))
        np.testing.assert_allclose(batch.weights, W, rtol=1e-6)


def test_images_and_nested_lists(tmp_path: Path):
    pixels = integers(2, 4, 3, 3, high=256).astype(np.uint8)
    images = jn.data.columns([{"image": Image.fromarray(each), "label": 1} for each in pixels], "image", "label")
    np.testing.assert_array_equal(jn.data.collect(images)[0], pixels)
    values = floats(5, 2, 3)
    table = pyarrow.table({"x": values.astype(np.float64).tolist(), "y": [1.5] * 5})
    pyarrow.parquet.write_table(table, tmp_path / "nested.parquet", row_group_size=2)
    source = jn.data.parquet(tmp_path / "nested.parquet", "x", "y")
    np.testing.assert_array_equal(jn.data.collect(source)[0], values)
    assert source[-1][0].tolist() == values[-1].tolist()
    with pytest.raises(IndexError):
        source[5]


def test_parquet_keeps_few_groups_and_is_sent_without_them(tmp_path: Path):
    source = parquet(tmp_path, groups=2)
    assert [len(source.rows.files), len(source)] == [2, 23]
    jn.data.collect(source)
    assert list(source.rows._kept) == [5, 6]
    sent = pickle.loads(pickle.dumps(source))
    assert not sent.rows._kept
    np.testing.assert_array_equal(sent[22][0], X[22])


@pytest.mark.slow
def test_workers_read_parquet(tmp_path: Path):
    ours, arrays = (
        jn.data.stream(each, 5, seed=2, workers=workers) for each, workers in ((parquet(tmp_path), 2), ((X, Y), 0))
    )
    for found, want in zip(ours, arrays, strict=True):
        jax.tree.map(np.testing.assert_array_equal, found, want)


class Iterable:
    def __iter__(self) -> Any:
        yield 1


def one(**row: Any) -> Callable[[], Any]:
    return lambda: jn.data.columns([row], "x", "y")


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "a dict of parts": (
        lambda: jn.data.columns({"train": rows()}, "x", "y"),
        r"columns expects rows by number, got dict; .*rows\['train'\]",
    ),
    "an iterable": (lambda: jn.data.columns(Iterable(), "x", "y"), r"an iterable is read by list\(rows\)"),
    "no such column": (one(x=1.0, label=2), r"finds no column 'y', but 'x', 'label'"),
    "pairs": (lambda: jn.data.columns([(1, 2)], "x", "y"), r"expects rows that are dicts, got tuple \(1, 2\)"),
    "text": (one(x="hello", y=1), r"expects numbers in the column 'x', got str 'hello'; tokenize it first"),
    "texts": (one(x=["a", "b"], y=1), r"expects numbers in the column 'x', got <U1; tokenize text first"),
    "missing": (one(x=None, y=1), r"expects numbers in the column 'x', got None; leave such rows out"),
    "ragged": (
        one(x=[[1], [1, 2]], y=1),
        r"one array in the column 'x', got lists of unequal length; pad them, jn\.data",
    ),
    "large integers": (one(x=2**40, y=1), r"expects integers of 32 bits in the column 'x', got 1099511627776"),
    "examples of unequal length": (
        lambda: jn.data.collect(jn.data.columns([{"x": [1], "y": 0}, {"x": [1, 2], "y": 0}], "x", "y")),
        r"collect expects examples of one shape and type, got x int32 \(2,\) in example 1",
    ),
    "dicts": (lambda: jn.data.collect(rows()), r"got dict for example 0; jn\.data\.columns\(source, inputs, targets\)"),
    "nothing": (lambda: jn.data.collect([]), r"expects a source of at least one example"),
    "groups": (lambda: jn.data.parquet("x.parquet", "x", "y", groups=0), r"expects groups ≥ 1, got 0"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str):
    mistake, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        mistake()


def test_files_and_columns_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(FileNotFoundError, match=r"there is no Parquet file .*absent"):
        jn.data.parquet(tmp_path / "absent", "x", "y")
    with pytest.raises(FileNotFoundError, match=r"there is no Parquet file .*\*\.parquet"):
        jn.data.parquet(tmp_path, "x", "y")
    parquet(tmp_path)
    with pytest.raises(jn.NetError, match=r"parquet finds no column 'z' in .*a\.parquet, but 'x', 'y', 'w'"):
        jn.data.parquet(tmp_path, "x", "z")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package pyarrow: pip install 'jaxnets\[tables\]'"):
        jn.data.parquet(tmp_path, "x", "y")
