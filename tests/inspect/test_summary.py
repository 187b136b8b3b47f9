"""Summaries: exact numbers for each layer in every format."""

import builtins
import io
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import jaxnets as jn
from jaxnets.inspect import flops, memory, multiply_adds
from jaxnets.inspect.report import COLUMNS, _scaled
from tests.inspect.test_counts import shaped

SMALL = jn.serial(
    conv=jn.conv(8, 3), relu=jax.nn.relu, pool=jn.max_pool(2), drop=jn.dropout(0.5), flatten=jn.flatten, fc=jn.dense(10)
)
X = shaped(2, 10, 10, 3)
EVERY = tuple(COLUMNS)


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """Yield a list to which every compilation adds its name."""
    names: list[str] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if "backend_compile" in event:
            names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


def test_every_layer_by_hand():
    table = jn.summary(SMALL, X)
    rows = {row.path: row for row in table.rows}
    assert list(rows) == ["conv", "relu", "pool", "drop", "flatten", "fc"]
    assert {path: row.kind for path, row in rows.items()} == {
        **{"conv": "conv", "relu": "relu", "pool": "max_pool", "drop": "dropout", "flatten": "flatten", "fc": "dense"}
    }
    shapes = [(2, 8, 8, 8), (2, 8, 8, 8), (2, 4, 4, 8), (2, 4, 4, 8), (2, 128), (2, 10)]
    assert [row.output for row in table.rows] == [(shape,) for shape in shapes]
    assert [row.parameters for row in table.rows] == [224, 0, 0, 0, 0, 1290]
    assert [row.multiply_adds for row in table.rows] == [2 * 64 * 27 * 8, 0, 0, 0, 0, 2 * 1280]
    assert [row.flops for row in table.rows] == [2 * 64 * (54 + 1) * 8, 1024, 3 * 256, 0, 0, 2 * 2560 + 20]
    assert [row.memory for row in table.rows] == [4096, 4096, 1024, 0, 1024, 80]
    assert [row.receptive_field for row in table.rows] == [(3, 3), (3, 3), (4, 4), (4, 4), (4, 4), (10, 10)]
    total = table.total
    assert (total.path, total.kind, total.output, total.parameters) == ("", "serial", ((2, 10),), 1514)
    for name in ("multiply_adds", "flops", "memory"):
        assert getattr(total, name) == sum(getattr(row, name) for row in table.rows)
    assert table.notes == ()


def test_totals_agree_with_the_functions():
    table = jn.summary(SMALL, X, columns=EVERY)
    held = memory(SMALL, X)
    assert table.total.multiply_adds == multiply_adds(SMALL, X)
    assert table.total.flops == flops(SMALL, X)
    assert table.total.connections == jn.inspect.connections(SMALL, X)
    assert table.total.train_flops == flops(SMALL, X, train_step=True)
    assert (table.total.memory, table.total.train_memory) == (held.activations, held.residuals)
    residuals = {row.path: row.train_memory for row in table.rows if row.train_memory}
    # Residuals are the ReLU's and dropout's masks, the pool's choices and the input of fc.
    assert sum(residuals.values()) == held.residuals
    assert residuals["relu"] >= 1024
    steps = {row.path: row.train_flops for row in table.rows}
    assert steps["conv"] == 2 * rows_flops(table, "conv") - 8  # no gradient for the image; a sum of n takes n - 1
    trained = jn.summary(SMALL, X, columns=["flops"], train=True)
    assert {row.path for row in trained.rows if row.flops} - {row.path for row in table.rows if row.flops} == {"drop"}


def rows_flops(table: jn.inspect.Summary, path: str) -> int:
    return next(row.flops for row in table.rows if row.path == path and row.flops is not None)


def test_depth_columns_and_records():
    block = jn.residual(jn.serial(conv1=jn.conv(4, 3, padding=1), conv2=jn.conv(4, 3, padding=1)))
    net = jn.serial(stem=jn.conv(4, 1), layer1=jn.repeat(block, 3), head=jn.serial(jn.global_avg_pool, jn.dense(2)))
    whole = jn.summary(net, X)
    paths = ["stem", "layer1", "layer1/conv1", "layer1/conv2", "head", "head/0", "head/1"]
    assert [row.path for row in whole.rows] == paths
    assert [row.times for row in whole.rows] == [1, 3, 1, 1, 1, 1, 1]
    assert [row.path for row in jn.summary(net, X, depth=1).rows] == ["stem", "layer1", "head"]
    nothing = jn.summary(net, X, depth=0)
    assert nothing.rows == ()
    assert nothing.total == whole.total
    assert whole.rows[2].multiply_adds == 3 * 200 * 9 * 16
    assert whole.rows[2].parameters == 3 * 148
    assert whole.rows[1].output == whole.rows[2].output == ((2, 10, 10, 4),)
    some = jn.summary(net, X, columns=["parameters", "output"], depth=1)
    assert some.records() == [
        {"path": "stem", "times": 1, "parameters": 16, "output": ((2, 10, 10, 4),)},
        {"path": "layer1", "times": 3, "parameters": 888, "output": ((2, 10, 10, 4),)},
        {"path": "head", "times": 1, "parameters": 10, "output": ((2, 2),)},
        {"path": "", "times": 1, "parameters": 914, "output": ((2, 2),)},
    ]
    assert some.total.multiply_adds is None


def test_layers_without_an_operation_pass_on_their_shapes():
    x = shaped(1, 6, 6, 2)
    net = jn.serial(
        same=lambda x: x,
        cut=jn.branches(jn.concatenate, left=jn.dropout(0.1), right=jn.conv(3, 1)),
        block=jn.residual(jn.serial(drop=jn.dropout(0.1), conv=jn.conv(4, 1)), shortcut=jn.conv(4, 1)),
        last=jn.dropout(0.3),
    )
    shapes = {row.path: row.output for row in jn.summary(net, x).rows}
    assert shapes["same"] == shapes["cut/left"] == ((1, 6, 6, 2),)
    assert shapes["cut"] == shapes["block/drop"] == ((1, 6, 6, 5),)
    assert shapes["block"] == shapes["block/downsample"] == shapes["last"] == ((1, 6, 6, 4),)


def test_several_outputs_and_sequences():
    net = jn.branches(dict, classes=jn.dense(3), box=jn.dense(4))
    table = jn.summary(net, shaped(2, 5))
    assert table.total.output == ((2, 4), (2, 3))  # leaves of a dict come by name
    sequences = jn.Padded(jnp.ones((2, 7, 3)), jnp.array([7, 4]))
    rows = jn.summary(jn.serial(jn.recurrent(jn.gru_cell(4)), jn.dense(2)), sequences).rows
    assert [row.output[0] for row in rows] == [(2, 7, 4), (2, 7, 2)]


@pytest.mark.slow
def test_receptive_fields_of_published_networks():
    fields = {row.path: row.receptive_field for row in jn.summary(jn.models.vgg16(), shaped(1, 224, 224, 3)).rows}
    vgg = {"features/0": 3, "features/4": 6, "features/9": 16, "features/16": 44, "features/23": 100}
    assert {path: fields[path] for path in vgg} == {path: (size, size) for path, size in vgg.items()}
    assert "field" not in str(jn.summary(jn.dense(3), shaped(1, 4)))  # no image, no column


def test_functions_and_scopes():
    def function(params: Any, x: jax.Array) -> jax.Array:
        with jax.named_scope("outer"):
            with jax.named_scope("inner"):
                x = x @ params["outer"]["kernel"]
            x = x + 1.0
        return jnp.tanh(x)

    table = jn.summary(function, shaped(3, 4), params={"outer": {"kernel": jnp.ones((4, 5))}})
    assert table.label == "function"
    assert [(row.path, row.parameters, row.multiply_adds, row.flops) for row in table.rows] == [
        ("outer", 20, 60, 135),
        ("outer/inner", 0, 60, 120),
    ]
    assert (table.total.flops, table.total.memory) == (150, 60 + 60 + 60)
    again = jn.summary(lambda x: jax.lax.map(jnp.tanh, x), shaped(6, 2))
    assert (again.total.flops, again.rows) == (12, ())


def test_unknown_counts_are_marked():
    def loop(x: jax.Array) -> jax.Array:
        with jax.named_scope("until"):
            return jax.lax.while_loop(lambda x: x.max() < 9, lambda x: x @ x, x)

    table = jn.summary(jn.serial(first=jnp.tanh, second=loop), shaped(4, 4))
    note = "a loop in second/until has no known length; give it by trips="
    assert table.notes == (note,)
    assert [row.unsure for row in table.rows] == [False, True, True]
    assert table.total.unsure
    assert str(table).endswith(f"≥: {note}")
    assert "≥ 64" in str(table)
    assert "≥ 64" in table.markdown()
    known = jn.summary(loop, shaped(4, 4), trips=3)
    assert known.notes == ()
    assert (known.total.multiply_adds, "≥" in str(known)) == (192, False)
    singular = jn.summary(jnp.linalg.cholesky, shaped(4, 4))
    assert singular.notes == ("cholesky in the function has no known cost",)


def test_text_markdown_and_rich_say_the_same():
    table = jn.summary(jn.serial(body=jn.repeat(jn.dense(300), 4), fc=jn.dense(10)), shaped(1, 300))
    lines = str(table).splitlines()
    assert lines[0] == "serial"
    assert lines[2].split() == ["layer", "kind", "output", "parameters", "multiply-adds", "FLOPs", "memory"]
    assert lines[4].split() == "body ×4 repeat (1, 300) 361,200 360 k 721 k 4.69 KiB".split()  # noqa: SIM905
    assert lines[-1].split() == "total serial (1, 10) 364,210 363 k 727 k 4.73 KiB".split()  # noqa: SIM905
    assert len({len(line) for line in lines if line.startswith("─")}) == 1
    head, rule, body, *_, total = table.markdown().splitlines()
    assert head == "| layer | kind | output | parameters | multiply-adds | FLOPs | memory |"
    assert rule == "| --- | --- | --- | --: | --: | --: | --: |"
    assert body == "| body | repeat | (1, 300) | 361,200 | 360,000 | 721,200 | 4,800 |"
    assert total == "| total | serial | (1, 10) | 364,210 | 363,000 | 727,210 | 4,840 |"
    file = io.StringIO()
    Console(file=file, width=120).print(table)
    printed = file.getvalue()
    for cell in ("body ×4", "361,200", "360 k", "4.73 KiB", "multiply-adds"):
        assert cell in printed


def test_text_needs_no_optional_package(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in ("rich", "matplotlib", "flax"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "1,514" in str(jn.summary(SMALL, X))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0, "0"), (999, "999"), (1000, "1.00 k"), (15_104, "15.1 k"), (999_499, "999 k"), (999_500, "1.00 M")),
        *((4_089_184_256, "4.09 G"), (2**70, "1180592 P")),
    ],
)
def test_numbers_have_three_digits_and_a_unit(number: int, text: str):
    assert _scaled(number) == text


def test_nothing_is_compiled_or_allocated(compiled: list[str]):
    before = sum(array.nbytes for array in jax.live_arrays())
    table = jn.summary(jn.models.vgg19(), shaped(64, 224, 224, 3))
    assert table.total.multiply_adds == 64 * 19_632_062_464
    assert compiled == []
    assert sum(array.nbytes for array in jax.live_arrays()) - before < 2**20  # its parameters alone are 575 MB
    jax.jit(lambda x: x * 3.0)(1.0)
    assert compiled  # the listener works


def test_mistakes():
    with pytest.raises(jn.NetError, match=r"summary expects columns among kind, output, .*, got 'params'"):
        jn.summary(SMALL, X, columns=["params"])
    with pytest.raises(jn.NetError, match=r"expects depth as an integer ≥ 0, got -1"):
        jn.summary(SMALL, X, depth=-1)
    with pytest.raises(jn.NetError, match=r"conv: conv\(8, 3\) expects"):
        jn.summary(SMALL, shaped(2, 10))
    with pytest.raises(jn.NetError, match=r"has no parameters to train"):
        jn.summary(jnp.tanh, X, columns=["train_flops"])


def test_a_shape_stands_for_an_input_of_float32():
    shape = (2, 10, 10, 3)
    assert (
        jn.summary(SMALL, shape).records() == jn.summary(SMALL, list(shape)).records() == jn.summary(SMALL, X).records()
    )
    assert multiply_adds(SMALL, shape) == multiply_adds(SMALL, X)
    assert jn.inspect.count_parameters(SMALL, shape) == jn.inspect.count_parameters(SMALL, X)
    assert jn.inspect.receptive_field(SMALL, shape).size == jn.inspect.receptive_field(SMALL, X).size
    assert str(jn.plot.diagram(SMALL, shape)) == str(jn.plot.diagram(SMALL, X))
    with pytest.raises(jn.NetError, match=r"conv: conv\(8, 3\) expects \(batch, .* got \(10, 10\)"):
        jn.summary(SMALL, (10, 10))


def test_a_batch_of_no_size_is_explained():
    with pytest.raises(jn.NetError, match=r"expects a whole shape, got \(None, 13\); use a batch of one, \(1, 13\)"):
        jn.summary(jn.dense(3), (None, 13))
