"""Losses of detectors against torchvision's: values and gradients, images without boxes, and mistakes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import NetError, losses
from jaxnets.losses.detection import fcos_parts
from tests.oracle import floats, integers, witness
from tests.peers import PEERS, torchvision_models

IMAGES, MOST, CLASSES, SIZE = 5, 4, 3, 64
LEVELS = {8: 8, 16: 4, 32: 2}  # points along an axis, by stride
CORNERS = integers(IMAGES, MOST, 2, high=36, seed=4)
BOXES = np.concatenate([CORNERS, CORNERS + integers(IMAGES, MOST, 2, low=5, high=28, seed=5)], -1).astype(np.float32)
BOXES[0, 0] = [0, 0, 64, 64]
LABELS = integers(IMAGES, MOST, high=CLASSES)
LABELS[2] = -1  # an image without boxes
LABELS[3, 1:] = -1
POINTS = np.concatenate([
    np.stack([*np.meshgrid(stride * np.arange(n), stride * np.arange(n)), np.full((n, n), stride)], -1).reshape(-1, 3)
    for stride, n in LEVELS.items()
]).astype(np.float32)  # fmt: skip
N = len(POINTS)
OUTPUTS = {
    "class_logits": floats(IMAGES, N, CLASSES),
    "distances": np.abs(floats(IMAGES, N, 4)) * POINTS[None, :, 2:],
    "center_logits": floats(IMAGES, N),
}
TARGETS = {"boxes": BOXES, "labels": LABELS}
SHIFTED = BOXES + floats(IMAGES, MOST, 4)
APART = (
    np.array([[0, 0, 2, 2], [5, 5, 9, 9], [0, 0, 4, 4]], np.float32),
    np.array([[3, 0, 5, 2], [0, 0, 3, 3], [1, 1, 2, 2]], np.float32),
)


def torchvision_says():
    import torch

    torchvision_models()
    from torchvision.models.detection.fcos import FCOS, FCOSHead
    from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

    found = {}
    for name, (first, second) in {"giou": (SHIFTED, BOXES), "apart": APART}.items():
        boxes = torch.tensor(first, requires_grad=True)
        values = generalized_box_iou_loss(boxes, torch.tensor(second))
        found[name] = values.detach().numpy()
        found[f"{name} gradient"] = torch.autograd.grad(values.sum(), boxes)[0].numpy()
    logits = torch.tensor(OUTPUTS["class_logits"], requires_grad=True)
    bits = torch.tensor((OUTPUTS["class_logits"] > 0.3).astype(np.float32))
    values = sigmoid_focal_loss(logits, bits, alpha=0.25, gamma=2.0)
    found["focal"] = values.detach().numpy().mean((1, 2))
    found["focal gradient"] = torch.autograd.grad(values.sum(), logits)[0].numpy()

    head = FCOSHead(32, 1, CLASSES)
    model = FCOS.__new__(FCOS)
    torch.nn.Module.__init__(model)
    model.head, model.center_sampling_radius = head, 1.5
    stride = POINTS[:, 2:]
    anchors = torch.tensor(np.concatenate([POINTS[:, :2] - stride / 2, POINTS[:, :2] + stride / 2], 1))
    for image in range(IMAGES):
        given = {name: torch.tensor(x[image : image + 1], requires_grad=True) for name, x in OUTPUTS.items()}
        real = LABELS[image] >= 0
        targets = [{"boxes": torch.tensor(BOXES[image][real]), "labels": torch.tensor(LABELS[image][real]).long()}]
        outputs = {
            "cls_logits": given["class_logits"],
            "bbox_regression": given["distances"] / torch.tensor(stride),
            "bbox_ctrness": given["center_logits"][..., None],
        }
        parts = model.compute_loss(targets, outputs, [anchors], [n * n for n in LEVELS.values()])
        for ours, theirs in {
            "classes": "classification",
            "boxes": "bbox_regression",
            "centerness": "bbox_ctrness",
        }.items():
            found[f"{ours} {image}"] = parts[theirs].detach().numpy()
        gradients = torch.autograd.grad(torch.stack([*parts.values()]).sum(), list(given.values()), allow_unused=True)
        for name, gradient in zip(given, gradients, strict=True):
            found[f"{name} gradient {image}"] = np.zeros(1) if gradient is None else gradient.numpy()
    return found


@pytest.fixture(scope="module")
def said():
    return witness("losses/detection", torchvision_says, installed=PEERS)


def test_fcos_is_that_of_torchvision(said):
    points = np.broadcast_to(POINTS, (IMAGES, N, 3))

    @jax.jit
    def ours(outputs, targets):
        def total(outputs):
            parts = fcos_parts(outputs | {"points": points}, targets)
            return sum(each.sum() for each in parts.values()), parts

        return jax.value_and_grad(total, has_aux=True)(outputs)

    (_, parts), gradients = ours(OUTPUTS, TARGETS)
    assert parts["boxes"][2] == 0 < parts["classes"][2]  # an image without boxes is background
    assert (np.asarray(parts["boxes"])[[0, 1, 3, 4]] > 0).all()
    for image in range(IMAGES):
        for name, values in parts.items():
            np.testing.assert_allclose(values[image], said[f"{name} {image}"], rtol=2e-5, err_msg=f"{name} {image}")
        for name, values in gradients.items():
            expected = np.broadcast_to(said[f"{name} gradient {image}"], (1, *values.shape[1:]))[0]
            np.testing.assert_allclose(values[image], expected, rtol=1e-4, atol=1e-6, err_msg=f"{name} {image}")
    whole = losses.fcos(OUTPUTS | {"points": points}, TARGETS, size=(SIZE, SIZE))
    np.testing.assert_allclose(whole, sum(parts.values()), rtol=1e-5)


def test_padding_has_no_effect():
    outputs = {name: x[:1] for name, x in OUTPUTS.items()} | {"points": POINTS[None]}
    boxes = np.concatenate([BOXES[:1], np.full((1, 2, 4), np.nan, np.float32)], 1)
    padded = {"boxes": boxes, "labels": np.concatenate([LABELS[:1], [[-1, -1]]], 1)}
    value, gradient = jax.value_and_grad(lambda o, t: losses.fcos(o, t).sum())(outputs, padded)
    assert value == losses.fcos(outputs, {"boxes": BOXES[:1], "labels": LABELS[:1]})[0]
    assert all(np.isfinite(each).all() for each in gradient.values())


@pytest.mark.parametrize(("name", "pair"), [("giou", (SHIFTED, BOXES)), ("apart", APART)])
def test_giou_is_that_of_torchvision(said, name, pair):
    axes = 1 if name == "giou" else 0

    def total(boxes, targets):
        values = losses.giou(boxes, targets)
        return values.sum() * (MOST if axes else 1), values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(*map(jnp.asarray, pair))
    np.testing.assert_allclose(values, said[name].mean(1) if axes else said[name], rtol=1e-5)
    np.testing.assert_allclose(gradient, said[f"{name} gradient"], rtol=1e-4, atol=1e-6)


def test_focal_is_sigmoid_focal_loss_of_torchvision(said):
    logits = OUTPUTS["class_logits"]
    bits = (logits > 0.3).astype(np.float32)

    def total(logits):
        values = losses.focal(logits, bits, alpha=0.25)
        return values.sum() * N * CLASSES, values

    (_, values), gradient = jax.value_and_grad(total, has_aux=True)(jnp.asarray(logits))
    np.testing.assert_allclose(values, said["focal"], rtol=1e-5)
    np.testing.assert_allclose(gradient, said["focal gradient"], rtol=1e-4, atol=1e-6)


def one(box, label=0):
    return {"boxes": np.array([[box]], np.float32), "labels": np.array([[label]])}


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (one([5, 2, 3, 4]), r"fcos expects boxes with x1 < x2 and y1 < y2, got \[5. 2. 3. 4.\] in example 0; .*-1"),
        (one([0, 0, 65, 4]), r"boxes inside the image of 64 × 64, got"),
        (one([0, 0, np.inf, 4]), "finite boxes"),
        (one([0, 0, 4, 4], 3), "classes from 0 to 2, got 3"),
        (one([0, 0, 4, 4], -2), "classes from 0 to 2, got -2"),
        ({"boxes": np.ones((1, 4)), "labels": np.zeros(1, int)}, r"expects boxes \(batch, most, 4\)"),
        (np.ones((1, 2, 4)), "expects targets {.*got ndarray"),
        ({**one([0, 0, 4, 4]), "labels": np.zeros((1, 1))}, "integer labels, got float64"),
        ({"boxes": BOXES[:2], "labels": LABELS[:2]}, "targets of 1 images, got 2"),
    ],
)
def test_mistakes(targets, message):
    outputs = {name: x[:1] for name, x in OUTPUTS.items()} | {"points": POINTS[None]}
    with pytest.raises(NetError, match=message):
        losses.fcos(outputs, targets, size=(SIZE, SIZE))


def test_mistakes_of_outputs_and_giou():
    with pytest.raises(NetError, match=r"expects outputs of jn\.models\.fcos, .*class_logits"):
        losses.fcos(jnp.ones((1, 2, 3)), TARGETS)
    with pytest.raises(NetError, match="of the same batch and points"):
        losses.fcos(OUTPUTS | {"points": POINTS}, TARGETS)
    with pytest.raises(NetError, match="giou expects x1 ≤ x2"):
        losses.giou(jnp.ones((1, 4)), jnp.array([[3.0, 0.0, 1.0, 1.0]]))
    with pytest.raises(NetError, match=r"giou expects boxes \(batch, ..., 4\)"):
        losses.giou(jnp.ones((1, 3)), jnp.ones((1, 3)))


def test_a_batch_without_any_box_is_background():
    outputs = {name: x[:1] for name, x in OUTPUTS.items()} | {"points": POINTS[None]}
    padding = {"boxes": np.zeros((1, 2, 4), np.float32), "labels": np.full((1, 2), -1)}
    none = {name: x[:, :0] for name, x in padding.items()}
    np.testing.assert_array_equal(losses.fcos(outputs, none), losses.fcos(outputs, padding))
    with pytest.raises(NetError, match="expects arrays of boxes and labels, got list for boxes"):
        losses.fcos(outputs, {name: x.tolist() for name, x in padding.items()})
