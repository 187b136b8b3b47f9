"""The cache of Hugging Face's `datasets`, by a stand-in with those of its calls that are used."""

import importlib
import sys

import numpy as np
import pytest

import jaxnets as jn
from jaxnets.data.datasets import local

STAND_IN = """
from types import SimpleNamespace
import numpy as np
from PIL import Image
config = SimpleNamespace(HF_HUB_OFFLINE=False)
asked = []

def rows(examples, colors):
    shape = (4, 4, 3) if colors else (4, 4)
    pixels = np.arange(examples * np.prod(shape)).reshape(examples, *shape).astype(np.uint8)
    return {"image": [Image.fromarray(each) for each in pixels], "label": list(range(examples))}

def load_dataset(repository):
    import huggingface_hub
    asked.append((repository, config.HF_HUB_OFFLINE, huggingface_hub.constants.HF_HUB_OFFLINE))
    if config.HF_HUB_OFFLINE and repository != "ylecun/mnist":
        raise ConnectionError("not cached")
    return {"train": rows(3, False), "test": rows(2, False)}
"""


def test_the_hubs_cache_is_read_offline_unless_asked_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv(local.VARIABLE, raising=False)
    (tmp_path / "datasets.py").write_text(STAND_IN)
    (tmp_path / "huggingface_hub.py").write_text(
        "from types import SimpleNamespace\nconstants = SimpleNamespace(HF_HUB_OFFLINE=False)"
    )
    for name in ("datasets", "huggingface_hub"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (x, y), (x_test, _) = jn.data.mnist()
    assert (x.shape, x_test.shape, x.dtype, y.dtype) == ((3, 4, 4, 1), (2, 4, 4, 1), np.float32, np.int32)
    np.testing.assert_array_equal(x.ravel(), np.arange(48, dtype=np.float32) / np.float32(255))
    np.testing.assert_array_equal(y, [0, 1, 2])
    with pytest.raises(FileNotFoundError, match="fashion_mnist is not here"):
        jn.data.fashion_mnist()
    assert len(jn.data.fashion_mnist(download=True)[0][1]) == 3
    fashion = "zalando-datasets/fashion_mnist"
    asked = importlib.import_module("datasets").asked
    assert asked == [("ylecun/mnist", True, True), (fashion, True, True), (fashion, False, False)]
    for name in ("datasets", "huggingface_hub"):
        # Not by `monkeypatch`, which would bring the stand-ins back for the tests that follow.
        del sys.modules[name]


def test_download_says_what_to_install(monkeypatch):
    monkeypatch.delenv(local.VARIABLE, raising=False)
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[hub\]'"):
        jn.data.mnist(download=True)
    with pytest.raises(FileNotFoundError, match="mnist is not here"):
        jn.data.mnist()
