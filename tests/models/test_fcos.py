"""FCOS against the same network in PyTorch; what is read from it, against loops; scenes of digits to train on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.models.agreement import agree
from tests.oracle import floats
from tests.peers import torchvision_models

CLASSES, WIDTH, FEATURES = 3, 2, 16
SIZE = (20, 28)


def flat(outputs: dict[str, jax.Array]) -> jax.Array:
    parts = [outputs[name] for name in ("class_logits", "distances", "center_logits")]
    return jnp.concatenate([*parts[:2], parts[2][..., None]], axis=-1)


def torch_fcos() -> Any:
    import torch
    from torch import nn
    from torch.nn import functional as F

    block = torchvision_models().resnet.BasicBlock

    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(1, WIDTH, 3, 2, 1, bias=False), nn.BatchNorm2d(WIDTH)
            for stage in range(4):
                wide, narrow = WIDTH * 2**stage, WIDTH * 2 ** max(stage - 1, 0)
                change = nn.Sequential(nn.Conv2d(narrow, wide, 1, 2, bias=False), nn.BatchNorm2d(wide))
                first = block(narrow, wide, 2 if stage else 1, change if stage else None)
                self.add_module(f"layer{stage + 1}", nn.Sequential(first))
            for level in (1, 2, 3):
                self.add_module(f"lateral{level}", nn.Conv2d(WIDTH * 2**level, FEATURES, 1))
                self.add_module(f"out{level}", nn.Conv2d(FEATURES, FEATURES, 3, padding=1))

        def forward(self, x: Any) -> Any:
            x, maps, above = self.get_submodule("layer1")(F.relu(self.bn1(self.conv1(x)))), [], None
            for level in (1, 2, 3):
                x = self.get_submodule(f"layer{level + 1}")(x)
                maps.append(x)
            outs = []
            for level in (3, 2, 1):
                own = self.get_submodule(f"lateral{level}")(maps[level - 1])
                if above is not None:
                    own = own + F.interpolate(above, scale_factor=2)[:, :, : own.shape[2], : own.shape[3]]
                above = own
                outs.insert(0, self.get_submodule(f"out{level}")(own))
            return outs

    def branch() -> Any:
        layers = nn.Sequential()
        layers.add_module("conv1", nn.Conv2d(FEATURES, FEATURES, 3, padding=1))
        layers.add_module("norm1", nn.GroupNorm(8, FEATURES))
        layers.add_module("relu1", nn.ReLU())
        return layers

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.class_branch, self.box_branch = branch(), branch()
            for name, outs in {"classes": CLASSES, "boxes": 4, "center": 1}.items():
                self.add_module(name, nn.Conv2d(FEATURES, outs, 3, padding=1))

        def forward(self, x: Any, stride: int) -> Any:
            beside = self.box_branch(x)
            boxes = stride * self.get_submodule("boxes")(beside).clamp(max=6).exp()
            every = torch.cat(
                [self.get_submodule("classes")(self.class_branch(x)), boxes, self.get_submodule("center")(beside)], 1
            )
            return every.flatten(2).transpose(1, 2)

    class FCOS(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pyramid, self.head = Pyramid(), Head()

        def forward(self, x: Any) -> Any:
            return torch.cat([self.head(each, 4 * 2**level) for level, each in enumerate(self.pyramid(x))], 1)

    whole = nn.Module()
    whole.net = FCOS()
    whole.forward = whole.net.forward
    return whole


def small() -> jn.Net:
    return jn.models.fcos(CLASSES, width=WIDTH, features=FEATURES, convs=1)


def test_fcos_is_that_of_pytorch_at_odd_sizes():
    agree("models/fcos", jn.serial(net=small(), flat=flat), floats(2, *SIZE, 1), torch_fcos)


def test_what_is_detected_is_what_loops_find():
    points = np.stack([*np.meshgrid(4 * np.arange(6.0) + 2, 4 * np.arange(5.0) + 2), np.full((5, 6), 4.0)], -1)
    points = np.broadcast_to(points.reshape(1, -1, 3), (2, 30, 3)).astype(np.float32)
    outputs = {
        "class_logits": floats(2, 30, CLASSES),
        "distances": 8 * np.abs(floats(2, 30, 4)) + 1,
        "center_logits": floats(2, 30),
        "points": points,
    }
    read = jax.jit(
        lambda outputs, threshold: jn.models.detect(outputs, SIZE, most=25, threshold=threshold, overlap=0.3)
    )
    found = read(outputs, 0.3)
    none = read(outputs, 0.999)
    assert none["count"].tolist() == [0, 0]
    assert (none["labels"] == -1).all()
    sigmoid = lambda x: 1 / (1 + np.exp(-x.astype(np.float64)))  # noqa: E731
    for image in range(2):
        x, y = points[image, :, 0], points[image, :, 1]
        left, top, right, bottom = outputs["distances"][image].T
        boxes = np.stack([np.maximum(x - left, 0), np.maximum(y - top, 0),
                          np.minimum(x + right, SIZE[1]), np.minimum(y + bottom, SIZE[0])], 1)  # fmt: skip
        scores = np.sqrt(sigmoid(outputs["class_logits"][image]) * sigmoid(outputs["center_logits"][image])[:, None])
        kept: list[tuple[int, int]] = []
        for place in np.argsort(-scores.ravel()):
            point, label = divmod(int(place), CLASSES)
            rivals = [boxes[each] for each, other in kept if other == label]
            free = all(jn.ops.box_iou(boxes[point][None], rival[None]).item() <= 0.3 for rival in rivals)
            if scores[point, label] > 0.3 and free:
                kept.append((point, label))
        count = int(found["count"][image])
        assert 1 < count == min(len(kept), 25)
        own = kept[:count]
        np.testing.assert_array_equal(found["labels"][image, :count], [label for _, label in own])
        np.testing.assert_allclose(found["boxes"][image, :count], boxes[[point for point, _ in own]], rtol=1e-6)
        np.testing.assert_allclose(found["scores"][image, :count], [scores[each] for each in own], rtol=1e-5)


def test_scenes_have_their_boxes_around_ink():
    digits = np.ones((3, 20, 12, 1), np.float32)
    labels = np.array([4, 5, 6])
    images, targets = jn.data.digit_scenes(digits, labels, 30, size=40, clutter=0)
    again = jn.data.digit_scenes(digits, labels, 30, size=40, clutter=0)
    np.testing.assert_array_equal(images, again[0])
    real = targets["labels"] >= 0
    assert set(real.sum(1)) == {0, 1, 2, 3}
    for image, boxes, mask in zip(images, targets["boxes"], real, strict=True):
        covered = np.zeros((40, 40), bool)
        for x1, y1, x2, y2 in boxes[mask].astype(int):
            covered[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(covered, image[..., 0] > 0.3)
        overlaps = np.asarray(jn.ops.box_iou(boxes[mask], boxes[mask]))
        assert (overlaps - np.eye(len(overlaps)) <= 0.1 + 1e-6).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jn.models.fcos(0), "fcos expects num_classes ≥ 1"),
        (lambda: jn.models.fcos(3, features=12), "fcos expects four stages and a multiple of 8 features"),
        (lambda: jn.models.detect({}, SIZE), "detect expects outputs of jn.models.fcos, class_logits"),
        (lambda: jn.models.detect({}, SIZE, most=0), "detect expects"),
        (
            lambda: jn.data.digit_scenes(np.ones((2, 9, 9)), np.ones(2, int), 1),
            r"expects digits \(n, height, width, 1\)",
        ),
        (lambda: jn.data.digit_scenes(np.ones((2, 9, 9, 1)), np.ones(2, int), 1, size=8), "digits of at most 8 × 8"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(jn.NetError, match=message):
        call()


def test_nan_is_not_hidden():
    outputs = {
        "class_logits": np.full((2, 2, 3), 9.0, np.float32),
        "distances": np.full((2, 2, 4), 3.0, np.float32),
        "center_logits": np.full((2, 2), 9.0, np.float32),
        "points": np.array([[[2, 2, 4], [6, 2, 4]]] * 2, np.float32),
    }
    outputs["class_logits"][0, 0, 1] = np.nan
    found = jn.models.detect(outputs, (8, 8), most=4)
    assert found["count"].tolist() == [0, 4]
    assert np.isnan(found["boxes"][0]).all()
    assert np.isnan(found["scores"][0]).all()
    assert (found["labels"][0] == -1).all()
