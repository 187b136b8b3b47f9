"""What both exporters take along of a preprocessing: pictures, tables, names of classes."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose

import jaxnets as jn


def outputs(kind: str, path: Path, given: Any, x: Any, preprocess: Any) -> Any:
    """Export a network and return what its file computes."""
    net, params, state = given
    if kind == "onnx":
        jn.export.onnx(net, params, state, x, path, preprocess=preprocess)
        return onnxruntime.InferenceSession(path).run(None, {"x": x})[0]
    jn.export.stablehlo(net, params, state, x, path, preprocess=preprocess, platforms=("cpu",))
    return jn.export.load(path)(x)


@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (0.5, 0.4, 0.3)])
def test_pictures_are_integers_up_to_255_or_numbers_up_to_1(kind: str, mean: Any, tmp_path: Path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3), np.uint8)
    preprocess = jn.data.Preprocess(jn.data.Image(4, resize=4, mean=mean, std=(0.5, 0.25, 1.0)), classes=["a", "b"])
    net = jn.serial(jn.flatten, jn.dense(2))
    x = preprocess(pictures)
    given = (net, *net.init(jax.random.key(0), x))
    wanted = net.apply(*given[1:], x)[0]
    assert_allclose(outputs(kind, tmp_path / "integers", given, pictures, preprocess), wanted, atol=1e-5)
    floats = pictures.astype(np.float32) / 255
    assert_allclose(outputs(kind, tmp_path / "floats", given, floats, preprocess), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
@pytest.mark.parametrize("inside", [False, True])
def test_the_encoder_of_a_table_stays_outside_and_brings_its_names(kind: str, inside: bool, tmp_path: Path):
    rows = {"width": [1.0, 2.0, 3.0, 4.0], "color": ["red", "blue"] * 2, "kind": ["a", "b"] * 2}
    table = jn.data.table(rows, target="kind", split=None)
    preprocess = jn.data.Preprocess(table.encoder) if inside else table.encoder
    net, (x, _) = jn.dense(2), table.train
    given = (net, *net.init(jax.random.key(0), x))
    wanted = net.apply(*given[1:], x)[0]
    assert_allclose(outputs(kind, tmp_path / "net", given, x, preprocess), wanted, atol=1e-6)
    jn.save(tmp_path / "net.safetensors", given[1:], net=net, preprocess=preprocess)
    names = jn.load(tmp_path / "net.safetensors").predict(rows)
    assert names.tolist() == np.array(["a", "b"])[np.argmax(wanted, 1)].tolist()


@pytest.mark.parametrize("kind", ["onnx", "stablehlo"])
def test_there_is_an_output_for_each_class(kind: str, tmp_path: Path):
    net, x = jn.dense(2), np.ones((1, 3), np.float32)
    given = (net, *net.init(jax.random.key(0), x))
    with pytest.raises(jn.NetError, match=r"an output for each of 3 classes, a, b, c; got outputs \(batch, 2\)"):
        outputs(kind, tmp_path / "net", given, x, jn.data.Preprocess(classes=["a", "b", "c"]))
    assert not [*tmp_path.iterdir()]
