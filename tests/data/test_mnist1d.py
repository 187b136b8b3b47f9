"""MNIST-1D against its authors' own code."""

import importlib
import importlib.util

import numpy as np
import pytest

import jaxnets as jn
from tests.oracle import witness


def _theirs() -> dict[str, np.ndarray]:
    made = importlib.import_module("mnist1d.data").make_dataset()
    return {
        "x": made["x"][::40].astype(np.float32),
        "x_test": made["x_test"][::40].astype(np.float32),
        "y": made["y"].astype(np.int8),
        "y_test": made["y_test"].astype(np.int8),
        "sums": made["x"].sum(0),
        "sums_test": made["x_test"].sum(0),
    }


def test_equals_its_authors_number_for_number():
    (x, y), (x_test, y_test) = jn.data.mnist1d()
    want = witness("mnist1d", _theirs, installed=importlib.util.find_spec("mnist1d") is not None)
    assert (x.shape, x_test.shape, x.dtype, y.dtype) == ((4000, 40), (1000, 40), np.float32, np.int32)
    np.testing.assert_array_equal(x[::40], want["x"])
    np.testing.assert_array_equal(x_test[::40], want["x_test"])
    np.testing.assert_array_equal(y, want["y"])
    np.testing.assert_array_equal(y_test, want["y_test"])
    np.testing.assert_allclose(x.sum(0, np.float64), want["sums"], atol=1e-3)  # 4,000 roundings to float32
    np.testing.assert_allclose(x_test.sum(0, np.float64), want["sums_test"], atol=1e-3)


def test_size_and_seed():
    (x, y), (x_test, y_test) = jn.data.mnist1d(200, train=50, seed=1)
    assert (len(x), len(y), len(x_test), len(y_test)) == (50, 50, 150, 150)
    np.testing.assert_array_equal(np.bincount(np.concatenate([y, y_test])), [20] * 10)
    np.testing.assert_array_equal(x, jn.data.mnist1d(200, train=50, seed=1)[0][0])
    assert not np.array_equal(x, jn.data.mnist1d(200, train=50, seed=2)[0][0])


@pytest.mark.parametrize(("examples", "train"), [(0, None), (15, None), (20, 0), (20, 20)])
def test_rejects(examples, train):
    with pytest.raises(jn.NetError, match="mnist1d expects"):
        jn.data.mnist1d(examples, train=train)
