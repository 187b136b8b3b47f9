"""What notebooks show of networks and summaries: HTML, in which names are text."""

import xml.etree.ElementTree as ElementTree

import jax
import pytest
import treescope

import jaxnets as jn

NAME = "<b>&"
INNER = jn.serial(**{NAME: jn.dense(3), "relu": jax.nn.relu})


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<div>{text.replace('<details open>', '<details>')}</div>")


def test_a_network_folds_by_its_children():
    text = jn.serial(inner=INNER, out=jn.dense(2))._repr_html_()
    root = parsed(text)
    assert [each.text for each in root.iter("code")] == ["serial", "serial", "dense(3)", "relu", "dense(2)"]
    assert [each.text for each in root.iter("b")] == ["inner", NAME, "relu", "out"]
    assert [each.get("title") for each in root.iter("div") if each.get("title")] == [
        f"inner/{NAME}",
        "inner/relu",
        "out",
    ]
    assert text.count("<details open>") == 2
    assert "(3 layers)" in text


def test_large_branches_are_folded():
    many = jn.serial(jn.serial(*[jn.dense(2)] * 13), jn.serial(*[jn.dense(2)] * 12))
    assert many._repr_html_().count("<details open>") == 2
    assert many._repr_html_().count("<details>") == 1
    assert parsed(jn.dense(2)._repr_html_()).findtext("div/code") == "dense(2)"


def test_a_summary_is_a_table():
    summary = jn.summary(INNER, (1, 2))
    root = parsed(summary._repr_html_())
    cells = [["".join(cell.itertext()) for cell in row] for row in root.iter("tr")]
    assert cells[0] == ["layer", "kind", "output", "parameters", "multiply-adds", "FLOPs", "memory"]
    assert cells[1][:4] == [NAME, "dense", "(1, 3)", "9"]
    assert cells[-1][3] == "9"
    loop = jn.summary(lambda x: jax.lax.while_loop(lambda x: (x < 1).all(), lambda x: x @ x, x), (2, 2))
    assert all(note.replace("<", "&lt;") in loop._repr_html_() for note in loop.notes)
    assert loop.notes


@pytest.mark.filterwarnings("ignore:The chararray class:DeprecationWarning")  # treescope reads all of NumPy
def test_treescope_shows_networks_and_parameters():
    net = jn.serial(inner=INNER)
    assert "inner" in treescope.render_to_text(net)
    params, _ = net.init(jax.random.key(0), jax.numpy.ones((1, 2)))
    assert "kernel" in treescope.render_to_text(params)
