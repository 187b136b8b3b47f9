"""StableHLO: the file computes what the network does, for every platform, and without this library."""

import contextlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from experiments.framework.gallery import TABLES, Entry
from jaxnets.core.cache import take_rows
from jaxnets.data import Image, Preprocess, Scaling
from jaxnets.export.plain_trees import plain
from jaxnets.export.stablehlo import lowered
from jaxnets.interop.safetensors import digest
from tests.cases.case import Case
from tests.oracle import floats, variables
from tests.test_every_net import CASES as NETS

X = floats(4, 3)
NET = jn.serial(fc=jn.dense(5), tanh=jnp.tanh, norm=jn.batch_norm(), out=jn.dense(2))
MADE = NET.init(jax.random.key(0), X)
ALL = ("cpu", "cuda", "tpu")

# One of each kind is quick: recurrence with lengths, attention with a carry, convolution.
QUICK = {"models/gru", "models/llama", "combinators/spectral_norm_conv"}
CASES = [case for case in NETS if case.name.startswith("models/") or case.name in QUICK]
CASES = [case for case in CASES if case.name != "models/lenet5_smooth"]  # lenet5 with other functions


@pytest.fixture(autouse=True)
def plain_convolutions(monkeypatch: pytest.MonkeyPatch):
    """Compare with the formulation that is exported: oneDNN's differs in the last bit."""
    monkeypatch.setenv("JAXNETS_ONEDNN", "0")


def written(path: Path, net: jn.Net = NET, made: Any = MADE, x: Any = X, **options: Any) -> Any:
    jn.export.stablehlo(net, made[0], made[1], x, path / "net.stablehlo", **options)
    return jn.export.load(path / "net.stablehlo")


@pytest.mark.slow_cases(*(case.name for case in CASES if case.name not in QUICK))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_are_those_of_the_net(case: Case, tmp_path: Path):
    """To the bit, or at most the last: a batch of one, known when it is compiled, may be summed in another order."""
    net = case.make()
    made = variables(net, case.x, scale=0.5)
    # Variances are not negative.
    made = jax.tree.map(np.abs, made) if made[1] else made
    x = jax.tree.map(jnp.asarray, case.x)
    served = written(tmp_path, net, made, x)
    assert served.platforms == ALL
    for size in (1, 2, 5):
        rows = take_rows(x, jnp.arange(size) % 3)
        want = plain(jax.jit(net.apply)(made[0], made[1], rows)[0])
        got = served(rows)
        assert jax.tree.structure(got) == jax.tree.structure(want)
        tolerance = 0.0 if case.name in QUICK else 2e-6
        jax.tree.map(partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance / 10), got, want)


# The first of each family: the others repeat its blocks.
FAMILIES = {re.split(r"[\d(]", entry.call)[0]: entry for rows in reversed(TABLES.values()) for entry in reversed(rows)}
GALLERY = {entry.call: entry for entry in FAMILIES.values()}
SHORT = ("landmarks(5)", "resnet18()", "encoder_decoder(256, 256, 512)")


@pytest.mark.slow_cases(*(name for name in GALLERY if name not in SHORT))
@pytest.mark.parametrize("entry", GALLERY.values(), ids=list(GALLERY))
def test_the_gallery_is_lowered_for_every_platform(entry: Entry):
    net, x = entry.net, entry.x
    made = jax.eval_shape(net.init, jax.random.key(0), x)
    weights, _, program = lowered(net, made[0], made[1], x, ALL, "free", Preprocess())
    assert len(weights) == len(jax.tree.leaves(made))
    assert program.platforms == ALL
    assert str(jax.tree.leaves(program.out_avals)[0].shape[0]) == "batch"


def test_the_step_of_a_decoder_continues(tmp_path: Path):
    """Tokens are written one by one, each with the carry that the step before returned."""
    net = jn.models.llama(11, 4, 1, 2, hidden=3)
    tokens = np.array([[1, 5, 2, 7], [3, 3, 9, 0]], np.int32)
    params, state = variables(net, tokens)
    whole, _ = jax.jit(net.apply)(params, state, tokens)
    (_, carry), _ = jax.jit(net.apply)(params, state, (tokens[:, :1], None))
    carry = jn.decoding.grow(carry, 3)
    step = written(tmp_path, net, (params, state), (tokens[:, :1], carry))
    for time in range(1, 4):
        y, carry = step((tokens[:, time : time + 1], carry))
        np.testing.assert_allclose(y[:, 0], whole[:, time], rtol=1e-4, atol=1e-5)


ALONE = """
import json, sys
import jax, jax.export, numpy as np
with np.load(sys.argv[1], allow_pickle=False) as file:
    header = json.loads(file["header"].tobytes())
    weights = {name: file[name].view(dtype) for name, dtype in header["weights"].items()}
    program = jax.export.deserialize(bytearray(file["program"]))
assert "jaxnets" not in sys.modules
np.save(sys.argv[2], program.call(weights, np.load(sys.argv[3])))
"""


def test_a_process_with_jax_alone_computes_the_same(tmp_path: Path):
    served = written(tmp_path)
    np.save(tmp_path / "x.npy", X)
    files = [tmp_path / name for name in ("net.stablehlo", "y.npy", "x.npy")]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), served(X), rtol=1e-6)


def test_the_file_says_what_it_is(tmp_path: Path):
    options: Any = {"platforms": ["cpu", "tpu"], "preprocess": Preprocess(classes=["a", "b"])}
    served = written(tmp_path, **options)
    assert served.platforms == ("cpu", "tpu")
    assert served.batch == "free"
    assert served.classes == ("a", "b")
    assert served.inputs.shape[1:] == (3,)
    assert served.outputs.dtype == jnp.float32
    assert repr(served) == "Served(float32[batch,3] -> float32[batch,2] on cpu, tpu)"
    assert set(served.weights) == {
        f"params/{layer}/{name}" for layer in ("fc", "out") for name in ("kernel", "bias")
    } | {
        *("params/norm/scale", "params/norm/bias", "state/norm/mean", "state/norm/var"),
    }
    # Neither the folders of this machine nor anything that changes from run to run.
    content = (tmp_path / "net.stablehlo").read_bytes()
    assert str(Path(jn.__file__).parent).encode() not in content
    jn.export.stablehlo(
        NET, *MADE, X, tmp_path / "again", platforms=["cpu", "tpu"], preprocess=Preprocess(classes=["a", "b"])
    )
    assert (tmp_path / "again").read_bytes() == content


def test_a_fixed_batch_and_narrow_weights(tmp_path: Path):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), MADE[0])
    served = written(tmp_path, made=(params, MADE[1]), batch=2)
    assert served.weights["params/fc/kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(served(X[:2]), jax.jit(NET.apply)(params, MADE[1], X[:2])[0])
    with pytest.raises(jn.NetError, match=r"Served expects float32\[2,3\], got float32\[4,3\]"):
        served(X)


def test_scaling_and_normalization_are_in_the_program(tmp_path: Path):
    scaling = jn.data.standardize(7 * X + 3)
    back = Scaling(np.array([5.0, 1.0]), np.array([2.0, 3.0]))
    served = written(tmp_path, preprocess=Preprocess(scaling, targets=back))
    raw = 7 * X + 3
    want = back.inverse(np.asarray(NET.apply(*MADE, scaling(raw))[0]))
    np.testing.assert_allclose(served(raw), want, rtol=1e-5)
    np.testing.assert_allclose(written(tmp_path, preprocess=scaling, overwrite=True)(raw), back(want), atol=1e-5)
    net, pictures = jn.serial(jn.flatten, jn.dense(2)), [np.full((6, 9, 3), 200, np.uint8)]
    image = Image(4, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    made = variables(net, image(pictures))
    served = written(tmp_path, net, made, image(pictures), preprocess=Preprocess((image,)), overwrite=True)
    assert served.header["steps_before"] == ["Image"]
    with pytest.raises(jn.NetError, match=r"expects images from 0 to 1 behind Image, got uint8; .*jn\.data\.Image"):
        written(tmp_path, net, made, np.zeros((1, 4, 4, 3), np.uint8), preprocess=Preprocess((image,)), overwrite=True)
    # Decoded alone: numbers from 0 to 1.
    np.testing.assert_allclose(served(Image(4)(pictures)), net.apply(made[0], made[1], image(pictures))[0], rtol=1e-4)


def test_a_damaged_file_is_refused(tmp_path: Path):
    whole = written(tmp_path)
    content = (tmp_path / "net.stablehlo").read_bytes()
    for place in range(0, len(content), max(1, len(content) // 60)):
        (tmp_path / "bad").write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        # Some bits of an archive have no meaning: then the file is what it was.
        with contextlib.suppress(jn.NetError):
            assert jn.export.load(tmp_path / "bad").header == whole.header
    for part in (b"", b"not an archive", content[: len(content) // 2]):
        (tmp_path / "bad").write_bytes(part)
        with pytest.raises(jn.NetError, match=r"expects a whole file that export\.stablehlo wrote"):
            jn.export.load(tmp_path / "bad")


def changed(path: Path, **entries: Any) -> Any:
    """Load a file with other entries in its header."""
    written(path)
    with np.load(path / "net.stablehlo") as archive:
        arrays = dict(archive)
    header = json.loads(arrays["header"].tobytes()) | entries
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with (path / "bad").open("wb") as file:
        np.savez(file, **arrays)
    return jn.export.load(path / "bad")


def of_another_jax(path: Path) -> Any:
    """Load a file whose program this JAX can't read."""
    program = replace(written(path).program, mlir_module_serialized=b"newer").serialize()
    with np.load(path / "net.stablehlo") as archive:
        arrays = dict(archive) | {"program": np.frombuffer(program, np.uint8)}
    header = json.loads(arrays.pop("header").tobytes()) | {"jax": "99.0"}
    del header["sha256"]
    header["sha256"] = digest(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with (path / "bad").open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return jn.export.load(path / "bad")


def of_rows(x: Any) -> Any:
    return x.reshape(x.shape[0] // 2, -1)


MISTAKES: dict[str, tuple[Any, str]] = {
    "platform": (
        lambda path: written(path, platforms=["gpu"]),
        r"expects platforms among cpu, .* got str \'gpu\'; a GPU",
    ),
    "none": (lambda path: written(path, platforms=()), r"expects platforms among .*, got none"),
    "twice": (lambda path: written(path, platforms=("cpu", "cpu")), r"each once"),
    "batch": (lambda path: written(path, batch=0), r"export\.stablehlo expects batch ≥ 1, got 0"),
    "a word as batch": (lambda path: written(path, batch="any"), r"expects an integer for batch, got str 'any'"),
    "batches": (
        lambda path: written(path, jn.serial(jn.concatenate), ({}, {}), (X, X[:2])),
        r"expects one batch size, got arrays of 2, 4 examples",
    ),
    "half": (
        lambda path: written(path, jn.as_net(of_rows), ({}, {})),
        r"can't be lowered for cpu, cuda, tpu: .*; give batch= a number",
    ),
    "another net": (lambda path: written(path, made=({"fc": {}}, {})), r"parameters .*missing"),
    "a callback": (
        lambda path: written(path, jn.as_net(lambda x: jax.pure_callback(np.sin, x, x)), ({}, {})),
        r"export\.stablehlo can't be lowered for cpu, cuda, tpu",
    ),
    "preprocess": (lambda path: written(path, preprocess=3), r"Preprocess expects steps, raw -> arrays"),
    "another input": (lambda path: written(path)(X[:, :2]), r"Served expects float32\[batch,3\], got float32\[4,2\]"),
    "another dtype": (lambda path: written(path)(X.astype(np.int32)), r"expects float32\[batch,3\], got int32\[4,3\]"),
    "a tuple": (lambda path: written(path)((X,)), r"expects float32\[batch,3\], got \['float32\[4,3\]'\]"),
    "no example": (lambda path: written(path)(X[:0]), r"expects one batch size of at least 1, got 0"),
    "the platform here": (
        lambda path: written(path, platforms="tpu")(X),
        r"Served runs on tpu, got cpu; export it with platforms=",
    ),
    "another format": (
        lambda path: changed(path, format="x/1"),
        r"expects a file of format jaxnets-stablehlo/1",
    ),
    "another JAX": (of_another_jax, rf"can't read a program of JAX 99\.0, .* by JAX {re.escape(jax.__version__)}: "),
    "a changed header": (lambda path: changed(path, batch=7), r"another SHA-256 than was written"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, tmp_path: Path):
    mistake, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        mistake(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} <= {"net.stablehlo", "bad"}


def test_no_file_is_replaced(tmp_path: Path):
    written(tmp_path)
    with pytest.raises(FileExistsError, match=r"pass overwrite=True"):
        written(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder"):
        jn.export.stablehlo(NET, MADE[0], MADE[1], X, tmp_path / "none" / "net")
