"""ONNX: what onnxruntime computes from a file equals what the network computes."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

import jaxnets as jn
from jaxnets.combinators.tied import untied
from tests.cases import combinators, layers, recurrent
from tests.cases.case import Case
from tests.export import gallery
from tests.export.gallery import trained
from tests.oracle import floats, integers
from tests.test_every_net import TAKEN_FOR

# Networks in another precision than float32 are refused: `test_mistakes`.
LAYERS = [
    case
    for case in (*combinators.CASES, *layers.CASES, *recurrent.CASES)
    if case.name not in TAKEN_FOR and not case.name.endswith("cast")
]
CASES = [*gallery.CASES, *LAYERS]
QUICK = ("lenet5", "mlp", "lstm", "llama", "vae", "layers/conv_padded", "recurrent/bidirectional_stacked")
large = pytest.mark.slow_cases(*(case.name for case in CASES if case.name not in QUICK))


def session(path: str | Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes(inner)


def rows(x: Any, size: int) -> Any:
    """Return an input of another batch size: other rows, in another order."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[np.arange(size, 0, -1) % len(leaf)], x)


def assert_alike(path: Path, made: jn.export.Converted, given: Any, wanted: Any) -> None:
    leaves = (np.asarray(jnp.asarray(leaf)) for leaf in jax.tree.leaves(given))  # integers have 32 bits in JAX
    found = session(path).run([*made.outputs], dict(zip(made.inputs, leaves, strict=True)))
    for one, want in zip(found, jax.tree.leaves(wanted), strict=True):
        want = np.asarray(want)
        assert (one.shape, one.dtype) == (want.shape, want.dtype)
        np.testing.assert_allclose(one, want, rtol=0, atol=1e-5 * np.abs(want[np.isfinite(want)]).max(initial=1))


@pytest.mark.parametrize("case", CASES, ids=str)
@large
def test_onnxruntime_computes_what_the_network_computes(case: Case, tmp_path: Path):
    net, path = case.make(), tmp_path / "net.onnx"
    params, state = trained(net, case.x)
    made = jn.export.onnx(net, params, state, case.x, path)
    assert [*tmp_path.iterdir()] == [path]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in nodes(model.graph)} <= {"", "ai.onnx"}
    assert not model.functions
    assert sum(made.operations.values()) == len([*nodes(model.graph)])
    x = rows(case.x, 5)
    y, _ = jax.jit(net.apply)(params, state, x)
    assert_alike(path, made, x, y)
    # An example is computed alone as among others.
    assert_alike(path, made, *jax.tree.map(lambda leaf: np.asarray(leaf)[:2], (x, y)))
    largest = max(np.abs(leaf).max(initial=0) for leaf in map(np.asarray, jax.tree.leaves(y)))
    assert largest > 1e-3  # zeros would equal anything


def write_by(
    net: jn.Net, params: Any, state: Any, carry: Any, first: np.ndarray, steps: int, path: Path
) -> tuple[Callable[..., np.ndarray], dict[str, np.ndarray]]:
    """Write a token step into a file, and return a loop of it in onnxruntime: `(tokens, carry) -> written`."""
    made = jn.export.onnx(net, params, state, (first, carry), path)
    run, (tokens, *caches) = session(path), made.inputs

    def loop(prompt: np.ndarray, feeds: dict[str, np.ndarray]) -> np.ndarray:
        written: list[np.ndarray] = []
        for step in range(prompt.shape[1] + steps - 1):
            token = prompt[:, step : step + 1] if step < prompt.shape[1] else written[-1]
            found = dict(zip(made.outputs, run.run(None, {tokens: token, **feeds})))
            feeds = {name: found[f"y{name.removeprefix('x')}"] for name in caches}
            if step >= prompt.shape[1] - 1:
                written.append(found["y/0"].argmax(-1).astype(np.int32))
        return np.concatenate(written, 1)

    shapes = {each.name: each for each in run.get_inputs() if each.name in caches}
    # A text begins with a cache of zeros, of the shapes that the file tells.
    zeros = {
        name: np.zeros(
            [n if isinstance(n, int) else len(first) for n in each.shape],
            np.int32 if each.type == "tensor(int32)" else np.float32,
        )
        for name, each in shapes.items()
    }
    return loop, zeros


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.slow
def test_a_loop_in_onnxruntime_writes_what_sample_writes(scan: bool, tmp_path: Path):
    net = jn.models.gpt2(vocabulary=11, length=12, layers=2, heads=2, features=8, scan=scan)
    prompt = integers(2, 3, high=11)
    params, state = net.init(jax.random.key(0), prompt)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.asarray(floats(*leaf.shape)), params)
    _, carry = jn.decoding.prefill(net, params, state, jnp.asarray(prompt), steps=9)
    loop, zeros = write_by(net, params, state, carry, prompt[:, :1], 9, tmp_path / "step.onnx")
    wanted = np.asarray(jn.decoding.sample(net, params, state, jnp.asarray(prompt), 9, temperature=0))
    np.testing.assert_array_equal(loop(prompt, zeros), wanted)


@pytest.mark.parametrize("kind", ["recurrent", pytest.param("transformer", marks=pytest.mark.slow)])
def test_a_loop_in_onnxruntime_decodes_what_greedy_decodes(kind: str, tmp_path: Path):
    net = (
        jn.models.transformer(11, features=8, layers=1, heads=2)
        if kind == "transformer"
        else jn.models.encoder_decoder(11, 11, 6, cell=jn.gru_cell)
    )
    source, length, start = integers(2, 4, high=11), 6, 0
    params, state = net.init(jax.random.key(0), (source, source))
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jnp.asarray(floats(*leaf.shape)), params)
    wanted = jn.decoding.greedy(net, params, state, source, max_length=length, start=start, end=10)
    # The whole network, from source to the carry before the first token, and from a token and a carry to the next.
    inner, full = untied(net, params)
    encoder, decoder = inner["encoder"], inner["decoder"]

    def begin(memory: Any) -> Any:
        if kind == "recurrent":
            return memory
        empty = jnp.zeros((jax.tree.leaves(memory)[0].shape[0], 0), jnp.int32)
        return jn.decoding.grow(decoder.apply(full["decoder"], {}, (empty, memory))[0][1], length)

    made = jn.export.onnx(encoder, full["encoder"], {}, source, tmp_path / "encoder.onnx", outputs=begin)
    carry = begin(encoder.apply(full["encoder"], {}, source)[0])
    loop, _ = write_by(decoder, full["decoder"], {}, carry, source[:, :1], length, tmp_path / "step.onnx")
    found = session(tmp_path / "encoder.onnx").run(None, {"x": source})
    begun = {f"x/1{name.removeprefix('y')}": leaf for name, leaf in zip(made.outputs, found)}
    written = loop(np.full((2, 1), start, np.int32), begun)
    for row, want, n in zip(written, np.asarray(wanted.tokens), np.asarray(wanted.lengths)):
        np.testing.assert_array_equal(row[:n], want[:n])


NET, X = jn.serial(fc=jn.dense(3), act=jnp.tanh), floats(4, 2)


def written(path: Path, net: Any = NET, x: Any = X, **options: Any) -> jn.export.Converted:
    params, state = trained(net, x)
    return jn.export.onnx(net, params, state, x, path, **options)


def test_inputs_and_outputs_are_named_by_their_paths(tmp_path: Path):
    path = tmp_path / "net.onnx"
    total = jn.as_net(lambda x: {"sum": x["a"] + x["b"], "a": x["a"]})
    made = written(path, total, {"a": X, "b": X})
    # An output that is also an input gets a name of its own.
    assert made.inputs == {"a": "float32[batch,2]", "b": "float32[batch,2]"}
    assert made.outputs == {"y/a": "float32[batch,2]", "y/sum": "float32[batch,2]"}
    assert_alike(path, made, {"a": X, "b": 2 * X}, {"a": X, "sum": 3 * X})
    assert [*written(path, total, {"a": X, "b": X}, outputs=lambda y: {"sum": y["sum"]}, overwrite=True).outputs] == [
        "sum"
    ]
    made = written(path, jn.as_net(lambda x: x), jn.Padded(X, np.array([1, 2, 0, 2], np.int32)), overwrite=True)
    assert [*made.inputs, *made.outputs] == ["x/values", "x/lengths", "y/values", "y/lengths"]
    assert [*written(path, jn.as_net(lambda x: x[0] + x[1]), (X, X), overwrite=True).inputs] == ["x/0", "x/1"]


def test_a_fixed_batch(tmp_path: Path):
    made = written(tmp_path / "net.onnx", batch=6)
    assert made.inputs == {"x": "float32[6,2]"}
    run = session(made.files[0])
    assert run.get_inputs()[0].shape == [6, 2]
    with pytest.raises(Exception, match="Got: 4 Expected: 6"):
        run.run(None, {"x": X})


def test_preprocessing_outputs_and_classes_are_in_the_file(tmp_path: Path):
    raw = integers(4, 2, high=255).astype(np.uint8)
    scaling, path = jn.data.standardize(raw), tmp_path / "net.onnx"
    params, state = trained(NET, X)
    made = jn.export.onnx(
        NET, params, state, raw, path, preprocess=scaling, outputs=jax.nn.softmax, classes=["a", "b", "ç"]
    )
    assert made.inputs == {"x": "uint8[batch,2]"}
    wanted = jax.nn.softmax(NET.apply(params, state, scaling(jnp.asarray(raw)))[0])
    assert_alike(path, made, raw, wanted)
    assert json.loads(session(path).get_modelmeta().custom_metadata_map["classes"]) == ["a", "b", "ç"]


def test_small_numbers_keep_their_digits(tmp_path: Path):
    """log(1 + x) and exp(x) - 1 as written would lose them."""
    x = np.array([1e-8, -3e-7, 1e-4, 0.5, -0.9, 80.0, 0.0, np.inf], np.float32)[:, None]
    net = jn.as_net(lambda x: {"log": jnp.log1p(x), "exp": jnp.expm1(x)})
    made = jn.export.onnx(net, {}, {}, np.abs(x[:5]), tmp_path / "net.onnx", tolerance=1e-3)
    exp, log = session(made.files[0]).run([*made.outputs], {"x": x})
    np.testing.assert_allclose(log, np.log1p(x.astype(np.float64)), rtol=1e-6)
    np.testing.assert_allclose(exp[:-2], np.expm1(x[:-2].astype(np.float64)), rtol=1e-6)
    assert exp[-2:].ravel().tolist() == [0, np.inf]


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "min_pool": (lambda x: jax.lax.reduce_window(x, np.inf, jax.lax.min, (1, 3, 2), (1, 2, 1), "SAME"), (4, 6, 5)),
    "pool over three axes": (
        lambda x: jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2, 2, 2), (1, 2, 1, 1), "VALID"),
        (3, 4, 4, 5),
    ),
    "padding wider than the window": (
        lambda x: jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 2), (1, 1), ((0, 0), (3, 1))),
        (3, 5),
    ),
    "pad": (lambda x: jax.lax.pad(x, np.float32(2), [(0, 0, 0), (2, -1, 1), (-1, 3, 0)]), (3, 4, 5)),
    "tile": (lambda x: jnp.tile(x, (1, 3, 1)), (3, 2, 5)),
    "unstack": (lambda x: jnp.stack(jnp.unstack(x, axis=1)[::-1], 2), (3, 2, 5)),
    "while": (lambda x: jax.lax.while_loop(lambda c: c[0] < 4, lambda c: (c[0] + 1, c[1] * 2), (0, x))[1], (3, 2)),
    "cond": (lambda x: jax.lax.cond(x.sum() > 1e9, jnp.sin, lambda x: jnp.log2(jnp.abs(x)), x), (3, 2)),
    "scan backwards": (
        lambda x: jax.lax.scan(lambda c, row: (c + row, c * row), x[:, 0], x.swapaxes(0, 1), reverse=True)[1][0],
        (3, 4),
    ),
}


@pytest.mark.promotes
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, tmp_path: Path):
    function, shape = FUNCTIONS[name]
    x = floats(*shape)
    made = jn.export.onnx(jn.as_net(function), {}, {}, x, tmp_path / "net.onnx")
    assert_alike(made.files[0], made, rows(x, 2), function(jnp.asarray(rows(x, 2))))


def test_weights_too_large_for_one_file_go_into_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["jaxnets.export.onnx_model"], "ONE_FILE", 10_000)
    net, path = jn.dense(200), tmp_path / "net.onnx"
    params, state = trained(net, X)
    made = jn.export.onnx(net, params, state, X, path)
    data = tmp_path / "net.onnx"
    assert made.files == (path,)  # 2,400 bytes
    wide = floats(4, 300)
    params, state = trained(net, wide)
    made = jn.export.onnx(net, params, state, wide, path, overwrite=True)
    data = tmp_path / "net.onnx.data"
    assert made.files == (path, data)
    assert sorted(tmp_path.iterdir()) == [path, data]
    assert_alike(path, made, wide, net.apply(params, state, wide)[0])
    path.unlink()
    with pytest.raises(FileExistsError, match=r"net\.onnx\.data exists"):
        jn.export.onnx(net, params, state, wide, path)
    assert [*tmp_path.iterdir()] == [data]


def test_functions_of_jax_are_as_before(tmp_path: Path):
    """Jax2onnx replaces functions while it converts."""
    before = {module: dict(vars(module)) for module in (jnp, jax.lax, jax.nn)}
    written(tmp_path / "net.onnx")
    for module, names in before.items():
        for name, value in names.items():
            assert vars(module)[name] is value


def noise(x: jax.Array) -> jax.Array:
    return x + jax.random.normal(jax.random.key(0), x.shape[1:])[None]


def called(x: jax.Array) -> jax.Array:
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((4, 2), jnp.float32), x)


OTHER: Any = None
MISTAKES: dict[str, tuple[str, dict[str, Any]]] = {
    "operation": (
        r"can't convert pure_callback in stage/inner: ",
        {"net": jn.serial(stage=jn.serial(inner=called)), "batch": 4},
    ),
    "drawn": (r"can't convert random_\w+ in drawn: ", {"net": jn.serial(drawn=noise)}),
    "half": (
        r"expects float32 throughout, got bfloat16 of \w+ in low; export the network without jn\.cast",
        {"net": jn.serial(low=jn.as_net(lambda x: x.astype(jnp.bfloat16)))},
    ),
    "batch by number": (
        r"can't be traced for any batch size: .*; batch=1 fixes it",
        {"net": jn.as_net(lambda x: x[: int(x.shape[0])])},
    ),
    "batch": (r"batch", {"batch": 0}),
    "batch as text": (r"expects an integer for batch, got str 'any'", {"batch": "any"}),
    "batch sizes": (
        r"expects one batch size, got arrays of 3, 4 examples",
        {"net": jn.as_net(lambda x: x[0]), "x": (X, X[:3])},
    ),
    "classes": (r"expects classes as a sequence of different names, got str 'cat'", {"classes": "cat"}),
    "classes as numbers": (r"expects classes as a sequence of different names, got", {"classes": [0, 1, 2]}),
    "equal classes": (r"expects classes as a sequence of different names, got", {"classes": ["a", "a"]}),
    "spec": (
        r"expects arrays for x, got ShapeDtypeStruct \(4, 2\) float32",
        {"x": jax.ShapeDtypeStruct((4, 2), jnp.float32)},
    ),
    "empty": (r"expects at least one example, got an empty array \(0, 2\)", {"x": X[:0]}),
    "no output": (r"at least one input and one output", {"net": jn.as_net(lambda x: ())}),
    "tolerance": (r"expects tolerance > 0", {"tolerance": 0}),
    "shape": (r"fc: dense\(3\) .*", {"preprocess": lambda x: x[:, :1]}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, tmp_path: Path):
    path, (message, options) = tmp_path / "net.onnx", MISTAKES[name]
    path.write_bytes(b"before")
    net = options.pop("net", NET) if (options := dict(options)) else NET
    x = options.pop("x", X)
    params, state = trained(net, X if net is NET else x)
    with pytest.raises(jn.NetError, match=f"{message}"):
        jn.export.onnx(net, params, state, x, path, overwrite=True, **options)
    # Nothing half-written stays, and what was there does.
    assert [*tmp_path.iterdir()] == [path]
    assert path.read_bytes() == b"before"


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rules = dict(sys.modules["jaxnets.export.onnx"].RULES, tanh=lambda x, **_: jax.lax.sin(x))
    monkeypatch.setattr(sys.modules["jaxnets.export.onnx"], "RULES", rules)
    with pytest.raises(jn.NetError, match=r"differs in onnxruntime by 0\.\d+ in the output y, more than 1e-05"):
        written(tmp_path / "net.onnx")
    assert not [*tmp_path.iterdir()]


REFUSED: dict[str, tuple[Any, str]] = {
    "by jax2onnx": (lambda x: jnp.sort(x.reshape(-1)).reshape(x.shape), r"can't convert sort in act: .*batch may help"),
    "by onnxruntime": (
        lambda x: jnp.maximum(x.astype(jnp.int16), np.int16(1)).astype(x.dtype),
        r"a file that onnxruntime refuses",
    ),
}


@pytest.mark.parametrize(("act", "message"), REFUSED.values(), ids=REFUSED)
def test_what_others_refuse_is_told(act: Any, message: str, tmp_path: Path):
    with pytest.raises(jn.NetError, match=message):
        written(tmp_path / "net.onnx", jn.serial(fc=jn.dense(3), act=act))
    assert not [*tmp_path.iterdir()]


def test_existing_files_and_missing_folders_and_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")
    with pytest.raises(FileExistsError, match=r"net\.onnx exists; .*overwrite=True"):
        written(path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; create it first"):
        written(tmp_path / "nowhere" / "net.onnx")
    monkeypatch.setitem(sys.modules, "jax2onnx", OTHER)
    with pytest.raises(ModuleNotFoundError, match=r"needs the package jax2onnx: pip install 'jaxnets\[onnx\]'"):
        written(tmp_path / "other.onnx")


def test_onnxruntime_finds_nothing_to_remove(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    net, x = jn.models.gru(3, num_classes=2), np.ones((1, 4, 2), np.float32)
    jn.export.onnx(net, *net.init(jax.random.key(0), x), x, tmp_path / "net.onnx")
    capfd.readouterr()
    onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    assert capfd.readouterr() == ("", "")


def test_functions_that_jax2onnx_replaces_are_not_called(monkeypatch: pytest.MonkeyPatch):
    """It records them as operations, where Python needs a tuple."""
    monkeypatch.delattr(jnp, "shape")
    for net, shape in [(jn.models.lenet5(), (1, 28, 28, 1)), (jn.models.lstm(3, num_classes=2), (1, 4, 2))]:
        x = jnp.ones(shape)
        net.apply(*net.init(jax.random.key(0), x), x)
        jax.make_jaxpr(lambda x, net=net: net.init_with_output(jax.random.key(0), x))(x)
