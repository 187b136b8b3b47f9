"""Diagrams: Mermaid text with a node for every layer, and the arrows that the program has."""

import itertools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import linen

import jaxnets as jn
from jaxnets.plot import diagram
from jaxnets.plot.diagram import COLORS

NODE = re.compile(r'(\w+)(?:\["(.*)"\]|\(\["(.*)"\]\)|\("(.*)"\))(?::::(\w+))?')


class Chart(NamedTuple):
    """What a Mermaid text says, each node by its path: the names around it, and its own.

    Attributes:
        texts: lines of the label, without the name; for an input, output or merge the whole label.
        arrows: pairs of nodes.
        colors: classes of nodes.
        layers: paths of layers, subgraphs included.
    """

    texts: dict[str, list[str]]
    arrows: set[tuple[str, str]]
    colors: dict[str, str]
    layers: list[str]


def image(*shape: int) -> tuple[int, ...]:
    return (1, *shape)


def unescaped(text: str) -> str:
    return re.sub(r"#(\d+);", lambda code: chr(int(code[1])), text)


def read(text: str) -> Chart:
    """Read a flowchart, and check that every line is one of those that Mermaid knows."""
    first, *lines = text.splitlines()
    assert first == "flowchart TB"
    chart, around, paths, classes = Chart({}, set(), {}, []), [], {}, set()
    for line in lines:
        assert line.startswith("    " * (1 + len(around) - (line.strip() == "end")))
        line = line.strip()
        if line == "end":
            around.pop()
        elif arrow := re.fullmatch(r"(\w+) --> (\w+)", line):
            chart.arrows.add((paths[arrow[1]], paths[arrow[2]]))
        elif color := re.fullmatch(r"classDef (\w+) fill:#[0-9a-f]{6},stroke:#[0-9a-f]{6},color:#16191d", line):
            classes.add(color[1])
        else:
            node = NODE.fullmatch(line.removeprefix("subgraph "))
            assert node is not None, line
            name, label, end, merge, color = node.groups()
            assert name not in paths
            assert not re.search(r'["`\[\]{}|\\*]|#(?!\d+;)|<(?!/?b>|br/>)', end or merge or label), line
            if label is None:
                path = end or "/".join([*around[1:], merge])
                chart.texts[path] = [end or merge]
            else:
                own, *texts = map(unescaped, re.split(r"<br/>| · ", label))
                own = own.removeprefix("<b>").removesuffix("</b>")
                path = "/".join([*around[1:], own]) if around else own
                chart.layers.append(path)
                chart.texts[path] = texts
                if color:
                    chart.colors[path] = color
                if line.startswith("subgraph"):
                    around.append(own)
            paths[name] = path
    assert not around
    assert classes == set(chart.colors.values())
    return chart


def chain(*nodes: str) -> set[tuple[str, str]]:
    return set(itertools.pairwise(nodes))


NETS: dict[str, tuple[jn.Net, Any]] = {
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


@pytest.mark.parametrize("name", NETS)
@pytest.mark.slow_cases("resnet")
def test_every_layer_is_a_node(name: str):
    net, x = NETS[name]

    def paths(net: jn.Net, path: str = "") -> list[str]:
        own = [
            (f"{path}{name}" + (f" × {child.copies}" if child.copies > 1 else ""), child)
            for name, child in net.children.items()
        ]
        return [each for name, child in own for each in (name, *paths(child, f"{name}/"))]

    chart = read(str(diagram(net, x)))
    assert chart.layers[1:] == paths(net)
    rows = jn.summary(net, x, columns=("output", "parameters")).rows
    for path, row in zip(chart.layers[1:], rows, strict=True):
        shape = "×".join(map(str, row.output[0][1:]))
        assert chart.texts[path][-2:] == [shape, f"{row.parameters:,} parameters"] or (
            chart.texts[path][-1] == shape and not row.parameters
        )


def test_equal_nets_give_equal_text():
    def make() -> jn.Net:
        block = jn.residual(jn.serial(a=jn.dense(4), b=jnp.tanh))
        return jn.serial(block=block, deep=jn.repeat(block, 3), head=jn.dense(2))

    assert str(diagram(make(), image(4))) == str(diagram(make(), jnp.ones((1, 4))))


def test_a_chain():
    net, x = NETS["lenet5"]
    chart = read(str(diagram(net, x)))
    assert chart.arrows == chain("input 28×28×1", *net.children, "output 10")
    assert chart.texts["conv2"] == ["conv(16, 5)", "10×10×16", "2,416 parameters"]
    assert chart.texts["relu1"] == ["relu", "28×28×6"]
    assert chart.texts["flatten"] == ["400"]
    assert chart.texts["serial"] == ["10", "61,706 parameters"]
    convs, pools, dense = ("conv1", "conv2"), ("pool1", "pool2"), ("fc1", "fc2", "fc3")
    assert chart.colors == dict.fromkeys(convs, "conv") | dict.fromkeys(pools, "pool") | dict.fromkeys(dense, "dense")


def test_a_single_layer():
    chart = read(str(diagram(jn.dense(3), image(4))))
    assert chart.arrows == chain("input 4", "dense", "output 3")
    assert chart.texts["dense"] == ["dense(3)", "3", "15 parameters"]
    assert read(str(diagram(jn.dropout(0.1), image(4)))).arrows == chain("input 4", "dropout", "output 4")


def test_shortcuts_and_copies():
    chart = read(str(diagram(*NETS["resnet"])))
    names = ["conv1", "bn1", "relu1", "conv2", "bn2", "add"]
    first, second = ([f"layer2/{block}/{name}" for name in names] for block in (0, 1))
    arrows = {arrow for arrow in chart.arrows if "layer2/" in arrow[1]}
    entry, down = "layer1/1/add", "layer2/0/downsample"
    assert arrows == (
        chain(entry, *first, *second)
        | chain(entry, f"{down}/0", f"{down}/1", "layer2/0/add")
        | {("layer2/0/add", "layer2/1/add")}
    )
    assert chart.texts["layer2/1"] == ["residual", "4×4×128", "295,424 parameters"]
    assert chart.colors["layer2/0/bn1"] == "norm"
    cifar = read(str(diagram(jn.models.resnet_cifar(20, scan=True), image(8, 8, 3))))
    body = [f"layer2/1 × 2/{name}" for name in names]
    assert {arrow for arrow in cifar.arrows if "1 × 2" in arrow[1] and "layer2" in arrow[1]} == (
        chain("layer2/0/add", *body) | {("layer2/0/add", body[-1])}
    )
    assert cifar.texts["layer2/1 × 2"] == ["residual", "4×4×32", "37,120 parameters"]
    whole = read(str(diagram(jn.serial(jn.repeat(jn.dense(4), 3)), image(4))))
    assert whole.texts["0 × 3"] == ["dense(4)", "4", "60 parameters"]
    assert whole.arrows == chain("input 4", "0 × 3", "output 4")


def test_branches():
    chart = read(str(diagram(*NETS["branches"], depth=1)))
    assert chart.arrows == {
        arrow for k in range(1, 5) for arrow in chain("input 8×8×4", f"branch{k}", "concatenate", "output 8×8×256")
    }
    assert chart.colors == dict.fromkeys(("branch1", "branch2", "branch3"), "conv") | {"branch4": "pool"}


def test_a_graph():
    chart = read(str(diagram(*NETS["inception"], depth=1)))
    triple = [f"branch3x3dbl_{k}" for k in (1, 2, 3)]
    ways = [["branch3x3"], triple, ["pool"]]
    assert chart.arrows == {arrow for way in ways for arrow in chain("input 9×9×8", *way, "join", "output 4×4×488")}


def test_layers_without_an_operation_keep_their_place():
    chart = read(str(diagram(*NETS["unet"], depth=1)))
    down = ["input 16×16×1", "encoder1", "pool1", "encoder2", "pool2", "bottleneck", "dropout"]
    up = ["upconv2", "bridge2", "decoder2", "upconv1", "bridge1", "decoder1", "conv", "output 16×16×2"]
    assert chart.arrows == chain(*down, *up) | {("encoder1", "bridge1"), ("encoder2", "bridge2")}
    body = jn.serial(first=jn.dropout(0.1), fc=jn.dense(4), last=jn.dropout(0.1))
    net = jn.serial(start=jn.dropout(0.1), block=jn.residual(body), end=jn.dropout(0.1))
    inner = ["block/first", "block/fc", "block/last", "block/add"]
    assert read(str(diagram(net, image(4)))).arrows == (
        chain("input 4", "start", *inner, "end", "output 4") | {("start", "block/add")}
    )
    assert read(str(diagram(jn.serial(jn.dropout(0.1)), image(4)))).arrows == chain("input 4", "0", "output 4")


def test_heads():
    net = jn.auxiliary_heads(jn.serial(a=jn.dense(8), relu=jax.nn.relu, out=jn.dense(3)), aux=(jn.dense(5), "relu"))
    body = chain("input 4", "a", "relu", "out", "output 3")
    assert read(str(diagram(net, image(4)))).arrows == body
    assert read(str(diagram(net, image(4), train=True))).arrows == body | chain("relu", "aux", "output 5")
    both = jn.branches(dict, classes=jn.dense(3), box=jn.dense(4))
    ways = (chain("input 2", "classes", "output 3"), chain("input 2", "box", "output 4"))
    assert read(str(diagram(both, image(2)))).arrows == set().union(*ways)


def test_recurrent_networks():
    chart = read(str(diagram(*NETS["recurrent"])))
    ways = (chain("input 6×4", f"rnn/{way}", "rnn/concatenate") for way in ("forward", "backward"))
    assert chart.arrows == set().union(*ways) | chain("rnn/concatenate", "fc", "output 6×2")
    assert chart.colors == {"rnn/forward": "recurrent", "rnn/backward": "recurrent", "fc": "dense"}


def test_a_collapsed_serial_lists_its_layers():
    block = jn.serial(conv=jn.conv(8, 3, padding=1, use_bias=False), bn=jn.batch_norm(epsilon=1e-3), relu=jax.nn.relu)
    stage = jn.serial(*[jn.residual(block)] * 3, jn.repeat(jn.residual(block), 2))
    net = jn.serial(block=block, stage=stage, rnn=jn.serial(jn.flatten, jn.dense(3, use_bias=False)))
    chart = read(str(diagram(net, image(4, 4, 8), depth=1)))
    assert {path: texts[0] for path, texts in chart.texts.items() if path in net.children} == {
        "block": "conv(8, 3), batch_norm, relu",
        "stage": "residual × 3, residual × 2",
        "rnn": "flatten, dense(3)",
    }
    assert list(read(str(diagram(net, image(4, 4, 8), depth=0))).texts) == ["input 4×4×8", "serial", "output 3"]


def test_flax_modules_and_functions():
    class Block(linen.Module):
        @linen.compact
        def __call__(self, x):
            y = linen.relu(linen.Dense(4, name="first")(x))
            return x + linen.Dense(4, name="second")(y)

    chart = read(str(diagram(Block(), jnp.ones((1, 4)))))
    assert chart.arrows == chain("input 4", "first", "second", "add", "output 4") | {("input 4", "add")}
    assert chart.texts["first"] == ["4", "20 parameters"]

    def gate(x, y):
        with jax.named_scope("signal"):
            signal = jnp.sin(x)
        with jax.named_scope("gate"):
            opening = jax.nn.sigmoid(y)
        return jnp.where(signal > opening, signal, opening)

    chart = read(str(diagram(gate, (1, 4), (1, 1))))
    ways = (chain("input 4", "signal", "gt", "output 4"), chain("input 1", "gate", "gt"))
    assert chart.arrows == set().union(*ways)


def test_names_and_labels_are_escaped():
    names = ['a<b> "q" [x] {y} | # & `c` \\ *d*', "end", "1. x", "üß_"]
    chart = read(str(diagram(jn.serial(**{name: jn.dense(2) for name in names}), image(3))))
    assert chart.layers[1:] == names


def test_colors_are_told_apart_by_all_color_vision():
    okabe_ito = {"#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"}
    strokes = [stroke for _, stroke, _ in COLORS.values()]
    assert len(set(strokes)) == len(strokes)
    assert set(strokes) <= okabe_ito


def test_notebooks_get_a_fenced_block():
    drawn = diagram(jn.dense(3), image(4))
    fence = f"```mermaid\n{drawn}```\n"
    assert drawn._repr_markdown_() == fence
    assert drawn._repr_mimebundle_() == {
        "text/plain": str(drawn),
        "text/markdown": fence,
        "text/vnd.mermaid": drawn.mermaid,
    }


def test_saving_overwrites_nothing_unasked(tmp_path):
    drawn = diagram(jn.dense(3), image(4))
    assert drawn.save(tmp_path / "net.mmd").read_text(encoding="utf-8") == str(drawn)
    assert drawn.save(tmp_path / "net.md").read_text(encoding="utf-8") == drawn._repr_markdown_()
    with pytest.raises(FileExistsError):
        diagram(jn.dense(5), image(4)).save(tmp_path / "net.mmd")
    assert "dense(3)" in (tmp_path / "net.mmd").read_text(encoding="utf-8")
    diagram(jn.dense(5), image(4)).save(tmp_path / "net.mmd", overwrite=True)
    assert "dense(5)" in (tmp_path / "net.mmd").read_text(encoding="utf-8")
    with pytest.raises(jn.NetError, match=r"diagram expects a path that ends in \.mmd or \.md, got .*net\.svg"):
        drawn.save(tmp_path / "net.svg")


def test_mistakes():
    with pytest.raises(jn.NetError, match="depth as an integer ≥ 0, got -1"):
        diagram(jn.dense(3), image(4), depth=-1)
    with pytest.raises(jn.NetError, match="takes one input, got 0"):
        diagram(jn.dense(3))
    with pytest.raises(jn.NetError, match=r"^lenet5 expects"):
        diagram(jn.models.lenet5(), image(28))
