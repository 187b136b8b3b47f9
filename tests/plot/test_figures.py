"""Figures: drawn from the data given, labeled, and picked from honestly."""

import types
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxnets as jn

HISTORY = {
    "loss": [2.0, 1.0],
    "accuracy": [0.5, 0.75],
    "validation/loss": [2.5, 1.5],
    "validation/accuracy": [0.4, 0.6],
}


def test_curves_show_training_and_validation():
    left, right = jn.plot.curves(HISTORY).axes
    assert (left.get_xlabel(), left.get_ylabel(), right.get_ylabel()) == ("epoch", "loss", "accuracy (%)")
    np.testing.assert_allclose([np.asarray(line.get_ydata()) for line in right.lines], [[50, 75], [40, 60]])
    legend = left.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation"]


def test_curves_average_over_seeds():
    other = {name: [2 * value for value in values] for name, values in HISTORY.items()}
    figure = jn.plot.curves([HISTORY, other], ["loss"])
    np.testing.assert_allclose(np.asarray(figure.axes[0].lines[0].get_ydata()), [3.0, 1.5])
    assert "2 seeds" in figure.get_suptitle()
    with pytest.raises(jn.NetError, match=r"'f1'.*loss"):
        jn.plot.curves(HISTORY, ["f1"])


@pytest.mark.promotes
@pytest.mark.slow
def test_a_history_of_fit_draws_itself_whatever_it_has():
    x, y = np.ones((6, 2), np.float32), np.array([0, 1, 0, 1, 2, 2])
    metrics = {"confusion": jn.metrics.confusion_matrix(3), "f1": jn.metrics.f1(3)}
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(0.1))
    program = jn.train.program(
        jn.dense(3), objective, optax.sgd(0.1), (x, y), epochs=3, batch_size=6, metrics=metrics, validation=(x, y),
        ema_decay=0.5,
    )  # fmt: skip
    _, history = jn.train.run(program, key=jax.random.key(0))
    figure = jn.plot.curves(history)
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "cross_entropy", "f1", "l2"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["training", "validation", "validation of the average"]
    np.testing.assert_allclose(np.asarray(figure.axes[2].lines[1].get_ydata()), history["validation/f1"])
    plain = {name: values for name, values in history.items() if "l2" not in name}
    shown = [axes.get_ylabel() for axes in jn.plot.curves(plain | {"loss": plain["cross_entropy"]}).axes]
    assert shown == ["loss", "f1"]  # a part that is the loss is no second panel


def test_curves_of_runs_of_several_lengths_and_of_one_epoch():
    axes = jn.plot.curves([{"loss": [3.0, 2.0, np.nan]}, {"loss": [1.0]}]).axes[0]
    np.testing.assert_array_equal(np.asarray(axes.lines[0].get_xydata()), [[1, 2], [2, 2]])
    assert jn.plot.curves({"loss": [3.0]}).axes[0].lines[0].get_marker() == "o"
    with pytest.raises(jn.NetError, match="finds no history to draw"):
        jn.plot.curves([])


def test_confusion_writes_every_count():
    axes = jn.plot.confusion([[3, 1], [0, 2]], ["cat", "dog"]).axes[0]
    assert {text.get_position(): text.get_text() for text in axes.texts} == {(0, 0): "3", (1, 0): "1", (1, 1): "2"}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog"]
    assert axes.get_title().startswith("5 of 6")
    with pytest.raises(jn.NetError, match="square"):
        jn.plot.confusion(np.ones((2, 3)))


def test_misclassified_shows_the_most_confident_mistakes_first():
    images = np.linspace(0, 1, 5)[:, None, None, None] * np.ones((5, 4, 4, 1))
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]])
    figure = jn.plot.misclassified(images, [0, 1, 0, 1, 1], probabilities, most=2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["0, said 1\n80 %", "1, said 0\n70 %"]
    assert figure.get_suptitle() == "3 of 5 wrong, the 2 most confident"
    np.testing.assert_allclose(np.asarray(figure.axes[0].images[0].get_array()), 0.5)


def test_misclassified_draws_when_all_is_right():
    figure = jn.plot.misclassified(np.zeros((1, 2, 2)), [0], [[1.0, 0.0]])
    assert figure.get_suptitle() == "0 of 1 wrong"


def test_kernels_share_one_scale():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4))
    figure = jn.plot.kernels(kernel)
    pictures = [axes.images[0] for axes in figure.axes[:8]]
    np.testing.assert_allclose(np.asarray(pictures[5].get_array()), kernel[:, :, 1, 1], rtol=1e-6)
    assert {picture.get_clim() for picture in pictures} == {
        (-np.float32(abs(kernel).max()), np.float32(abs(kernel).max()))
    }
    assert len(jn.plot.kernels(np.ones((3, 3, 3, 5))).axes) == 5
    with pytest.raises(jn.NetError, match="kernel"):
        jn.plot.kernels(np.ones((3, 3)))


@pytest.mark.parametrize(
    "figure",
    [
        lambda: jn.plot.curves([HISTORY, HISTORY]),
        lambda: jn.plot.confusion(np.eye(10, dtype=int)),
        lambda: jn.plot.kernels(np.zeros((5, 5, 1, 6))),
    ],
)
def test_figures_save(figure, tmp_path):
    figure().savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_notebook_shows_figures_and_tables():
    figure: Any = jn.plot.confusion(np.eye(2))
    assert figure._repr_png_().startswith(b"\x89PNG")
    shown: list[str] = []
    table = jn.inspect.summary(jn.dense(2), np.ones((1, 3), np.float32))
    table._repr_pretty_(types.SimpleNamespace(text=shown.append), cycle=False)
    assert shown == [str(table)]


def test_calibration_shows_what_is_right_by_how_sure_it_is():
    probabilities = np.array([[0.6, 0.4], [0.4, 0.6], [0.35, 0.65], [0.05, 0.95]])
    above, below = jn.plot.calibration(probabilities, [0, 0, 1, 1], bins=10).axes
    np.testing.assert_allclose(np.asarray(above.lines[1].get_xydata()), [[0.6, 0.5], [0.65, 1.0], [0.95, 1.0]])
    assert [bar.get_height() for bar in below.patches] == [0, 0, 0, 0, 0, 2, 1, 0, 0, 1]  # type: ignore[attr-defined]
    error = jn.metrics.expected_calibration_error(10, from_logits=False)
    assert f"ECE {100 * float(error(probabilities, np.array([0, 0, 1, 1]))):.1f} %" in above.get_title()
    one = jn.plot.calibration([0.1, 0.9], [0, 1])
    assert one.axes[1].get_xlabel() == "probability of 1"
    for wrong in ([[2.0, -1.0]], [[0.5, 0.5]] * 2):
        with pytest.raises(jn.NetError, match="calibration expects probabilities"):
            jn.plot.calibration(wrong, [0])
