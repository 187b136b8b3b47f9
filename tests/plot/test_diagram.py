"""Drawings of networks: the lines that their programs have, boxes in boxes, and well-formed files."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import jaxnets as jn
from jaxnets.plot import diagram
from jaxnets.plot.diagram import ACROSS, DOWN, _measure, _wrapped
from jaxnets.plot.flow import INPUT, OUTPUT, Box, traced, untraced
from jaxnets.plot.layout import Placed, place

SVG = "{http://www.w3.org/2000/svg}"


def image(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)


def lines(box: Box, path: str = "") -> set[tuple[str, str]]:
    """Return the lines of the box at a path, meetings by their sign."""
    for name in filter(None, path.split("/")):
        box = box.children[name]
    signs = {name: child.label for name, child in box.children.items() if child.meeting}
    ends = {INPUT: "in", OUTPUT: "out"} | signs
    return {(ends.get(start, start), ends.get(end, end)) for start, end in box.lines}


NETS = {
    "lenet5": (jn.models.lenet5(), image(28, 28, 1)),
    "resnet": (jn.models.resnet18(scan=True).upto("layer2"), image(32, 32, 3)),
    "inception": (jn.models.inception_v3()["Mixed_6a"], image(9, 9, 8)),
    "branches": (jn.models.googlenet()["inception3a"], image(8, 8, 4)),
    "unet": (jn.models.unet(2, widths=(4, 8, 16)), image(16, 16, 1)),
    "recurrent": (jn.serial(rnn=jn.bidirectional(jn.lstm_cell(3)), fc=jn.dense(2)), image(6, 4)),
    "ensemble": (
        jn.serial(jn.ensemble(jn.serial(fc=jn.dense(3), act=jnp.tanh), 4), mean=lambda y: y.mean(1)),
        image(5),
    ),
}


def test_a_chain():
    box = traced(*NETS["lenet5"], depth=None)
    names = ["in", *jn.models.lenet5().children, "out"]
    assert lines(box) == set(itertools.pairwise(names))
    assert [box.children[name].shape for name in ("conv1", "pool2", "flatten", "fc3")] == [
        "28×28×6",
        "5×5×16",
        "400",
        "10",
    ]


def test_shortcuts_and_copies():
    box = traced(*NETS["resnet"], depth=None)
    chain = set(itertools.pairwise(["in", "conv1", "bn1", "relu1", "conv2", "bn2", "+", "out"]))
    assert lines(box, "layer2/0") == chain | {("in", "downsample"), ("downsample", "+")}
    assert lines(box, "layer2/1") == chain | {("in", "+")}
    assert (box.children["layer2"].children["1"].copies, box.children["layer2"].copies) == (1, 0)
    body = traced(jn.models.resnet_cifar(20, scan=True), image(8, 8, 3), depth=None).children["layer2"].children["1"]
    assert (body.copies, body.shape) == (2, "4×4×32")


def test_branches_and_named_nodes():
    box = traced(*NETS["branches"], depth=None)
    assert lines(box) == {line for k in range(1, 5) for line in [("in", f"branch{k}"), (f"branch{k}", "‖")]} | {
        ("‖", "out")
    }
    box = traced(*NETS["inception"], depth=None)
    triple = [f"branch3x3dbl_{k}" for k in (1, 2, 3)]
    paths = [["branch3x3"], triple, ["pool"]]
    wanted = {line for path in paths for line in itertools.pairwise(["in", *path, "join", "out"])}
    assert lines(box) == wanted


def test_layers_that_do_nothing_keep_their_place():
    box = traced(*NETS["unet"], depth=1)
    down = ["in", "encoder1", "pool1", "encoder2", "pool2", "bottleneck", "dropout"]
    up = ["upconv2", "bridge2", "decoder2", "upconv1", "bridge1", "decoder1", "conv", "out"]
    bridges = {("encoder1", "bridge1"), ("encoder2", "bridge2")}
    assert lines(box) == set(itertools.pairwise(down + up)) | bridges
    assert not box.children["encoder1"].children
    heads = traced(jn.models.googlenet(auxiliary=True), image(32, 32, 3), depth=1)
    assert "aux1" not in heads.children  # it runs in training alone


def test_a_chain_that_is_not_opened_names_what_is_in_it():
    block = jn.serial(conv=jn.conv(8, 3, padding=1, use_bias=False), bn=jn.batch_norm(epsilon=1e-3), relu=jax.nn.relu)
    stage = jn.serial(*[jn.residual(block)] * 3, jn.repeat(jn.residual(block), 2))
    net = jn.serial(block=block, stage=stage, rnn=jn.serial(jn.flatten, jn.dense(3, use_bias=False)))
    box = traced(net, image(4, 4, 8), depth=1)
    assert {name: child.label for name, child in box.children.items()} == {
        "block": "conv(8, 3), batch_norm, relu",
        "stage": "residual × 3, residual × 2",
        "rnn": "flatten, dense(3)",
    }
    assert (box.shape, box.children["stage"].shape) == ("4×4×8 → 3", "4×4×8")
    assert untraced(net, depth=1).children["block"].label == "conv(8, 3), batch_norm, relu"


def test_long_labels_are_broken_and_nothing_is_lost():
    for label in (
        "relu",
        "conv(128, 3, stride=2, padding=1, use_bias=False)",
        "conv(96, 1), batch_norm, relu",
        "x" * 60,
    ):
        lines = _wrapped(label, DOWN)
        assert "".join(lines).replace(" ", "") == label.replace(" ", "")
        assert all(len(line) <= ACROSS for line in lines)
    assert _wrapped("conv(96, 1), batch_norm, relu", DOWN) == ["conv(96, 1),", "batch_norm, relu"]
    assert _wrapped("word " * 40, DOWN)[-1].endswith(" …")
    assert len(_wrapped("word " * 40, DOWN)) == DOWN


def test_a_chain_of_blocks_is_one_straight_line():
    """Whatever stands beside a chain, a box is entered where its own first box is, and the chain goes straight down."""
    placed = place(traced(jn.models.resnet18().upto("layer2"), image(32, 32, 3), depth=None), _measure)
    assert len(placed.lines) == len(placed.inside) + 1
    stage = placed.inside["layer2"]
    for box in (placed, stage):
        np.testing.assert_allclose([x for line in box.lines for x, _ in line] + [box.leave], box.enter, atol=1e-9)
    block = stage.inside["1"]
    conv = block.inside["conv1"]
    np.testing.assert_allclose([block.x + block.enter, block.x + conv.x + conv.enter], stage.enter, atol=1e-9)


def test_flax_modules_and_functions():
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            y = linen.relu(linen.Dense(4, name="first")(x))
            return x + linen.Dense(4, name="second")(y)

    (name,) = traced(Block(), image(4), depth=None).children
    box = traced(Block(), image(4), depth=None)
    assert lines(box, name) == {("in", "first"), ("first", "second"), ("second", "+"), ("in", "+"), ("+", "out")}

    def gate(x):
        with jax.named_scope("signal"):
            y = jnp.sin(x)
        with jax.named_scope("gate"):
            z = jax.nn.sigmoid(x)
        return y * z

    assert lines(traced(gate, image(4), depth=None)) == {
        line for name in ("signal", "gate") for line in [("in", name), (name, "×")]
    } | {("×", "out")}


def test_without_an_input_the_kinds_say_what_they_can():
    box = untraced(jn.models.resnet18(scan=True), depth=None)
    with_input = traced(jn.models.resnet18(scan=True), image(32, 32, 3), depth=None)
    for path in ("", "layer1", "layer1/0", "layer1/1", "layer2/0", "layer2/0/downsample"):
        assert lines(box, path) == lines(with_input, path)
    assert lines(untraced(jn.models.unet(2), depth=None)) == set()  # a graph does not tell
    assert lines(untraced(NETS["branches"][0], depth=None)) >= {
        ("in", "branch1"),
        ("branch4", "merge"),
        ("merge", "out"),
    }


def check_nested(placed: Placed) -> None:
    """Boxes lie within their parent, and beside each other; lines go round boxes."""
    children = list(placed.inside.values())
    for child in children:
        assert child.x >= 0
        assert child.y >= 20  # the title
        assert child.x + child.width <= placed.width
        assert child.y + child.height <= placed.height
        check_nested(child)
    for a, b in itertools.combinations(children, 2):
        apart = a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
        assert apart, f"{a.box.name} and {b.box.name} overlap"
    for line in placed.lines:
        assert all(x == a or y == b for (x, y), (a, b) in itertools.pairwise(line))
        for (x, y), (a, b) in itertools.pairwise(line):
            for child in children:
                across = min(x, a) < child.x + child.width and max(x, a) > child.x
                assert not (across and min(y, b) < child.y + child.height and max(y, b) > child.y), child.box.name
    assert len(placed.lines) == len(placed.box.lines) or not children


@pytest.mark.parametrize("name", NETS)
def test_boxes_are_nested_and_lines_go_round_them(name):
    net, x = NETS[name]
    check_nested(place(traced(net, x, depth=None), _measure))
    check_nested(place(untraced(net, depth=None), _measure))


@pytest.mark.parametrize("name", NETS)
def test_files_are_well_formed_and_have_every_layer(name):
    net, x = NETS[name]
    drawing = diagram(net, x)
    root = ElementTree.fromstring(drawing.svg)
    assert root.tag == f"{SVG}svg"
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]

    def names(net: jn.Net) -> list[str]:
        return [each for name, child in net.children.items() for each in (name, *names(child))]

    written = [re.sub(r" × \d+$", "", text) for text in texts]
    assert all(written.count(name) >= names(net).count(name) for name in names(net))
    assert drawing.svg == diagram(net, x).svg == str(drawing) == drawing._repr_svg_()
    width, height = (float(root.get(side) or 0) for side in ("width", "height"))
    for rectangle in root.iter(f"{SVG}rect"):
        assert 0 <= float(rectangle.get("x") or -1) <= width - float(rectangle.get("width") or 0)
        assert 0 <= float(rectangle.get("y") or -1) <= height - float(rectangle.get("height") or 0)


def test_names_and_labels_are_escaped():
    net = jn.serial(**{"a<b": jn.dense(2), "c&d": jax.nn.relu})
    root = ElementTree.fromstring(diagram(net, image(3)).svg)
    assert {"a<b", "c&d"} <= {text.text for text in root.iter(f"{SVG}text")}


def test_saving_overwrites_nothing_unasked(tmp_path):
    drawing = diagram(jn.dense(3), image(4))
    assert drawing.save(tmp_path / "net.svg").read_text(encoding="utf-8") == drawing.svg
    with pytest.raises(FileExistsError):
        diagram(jn.dense(5), image(4)).save(tmp_path / "net.svg")
    assert "dense(3)" in (tmp_path / "net.svg").read_text(encoding="utf-8")
    diagram(jn.dense(5), image(4)).save(tmp_path / "net.svg", overwrite=True)
    assert "dense(5)" in (tmp_path / "net.svg").read_text(encoding="utf-8")


def test_mistakes():
    with pytest.raises(jn.NetError, match="depth of at least 1, got 0"):
        diagram(jn.dense(3), image(4), depth=0)
    with pytest.raises(jn.NetError, match="input x to trace function"):
        diagram(lambda x: x)
    with pytest.raises(jn.NetError, match=r"^lenet5 expects"):
        diagram(jn.models.lenet5(), image(28))
