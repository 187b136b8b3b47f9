"""Mean average precision against pycocotools, on random detections and at the edges."""

import contextlib
import importlib.util
import io
from typing import Any

import numpy as np
import pytest

from jaxnets import NetError
from jaxnets.metrics import mean_average_precision
from tests.oracle import witness

CLASSES = 3
INSTALLED = importlib.util.find_spec("pycocotools") is not None


def scene(seed: int, *, images: int = 6, true: int = 5, found: int = 12, steps: int = 0):
    """Return detections near true boxes and elsewhere, all numbers with exact sums; `steps` makes scores tie."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 40, (images, true, 2))
    boxes = np.concatenate([corners, corners + random.integers(4, 20, (images, true, 2))], -1).astype(float)
    labels = random.integers(-1, CLASSES, (images, true))
    chosen = random.integers(0, true, (images, found))
    near = np.take_along_axis(boxes, chosen[..., None], 1)
    near[..., :2] -= random.integers(0, 8, (images, found, 2)) / 4
    near[..., 2:] += random.integers(0, 8, (images, found, 2)) / 4
    guessed = np.where(random.random((images, found)) < 0.7, np.take_along_axis(labels, chosen, 1), 0)
    scores = random.random((images, found))
    scores = np.round(scores * steps) / steps if steps else scores
    return {"boxes": near, "labels": guessed, "scores": scores}, {"boxes": boxes, "labels": labels}


def without(scene, *, found=None, true=None):
    """Return the scene with classes of detections or of true boxes padded, all for -1."""
    detections, targets = (dict(each) for each in scene)
    for each, label in ((detections, found), (targets, true)):
        if label is not None:
            each["labels"] = np.where((each["labels"] == label) | (label < 0), -1, each["labels"])
    return detections, targets


def same_boxes():
    detections, targets = scene(5)
    targets["boxes"][:] = targets["boxes"][:, :1]  # of equal overlaps one is taken
    detections["boxes"][:] = targets["boxes"][:, :1]
    return detections, targets


SCENES = {
    **{f"random {seed}": scene(seed) for seed in range(4)},
    "ties": scene(4, steps=4),
    "all tied": scene(6, steps=1),
    "equal boxes": same_boxes(),
    "no detections": without(scene(7), found=-1),
    "no detections of a class": without(scene(8), found=1),
    "a class missing": without(scene(9), true=2),
    "no boxes": without(scene(10), true=-1),
    "more than 100": scene(11, images=2, found=320, steps=50),
    "neither": without(scene(12), found=-1, true=-1),
}


def coco_says():
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = {}
    for name, (detections, targets) in SCENES.items():
        rows = {"true": [], "found": []}
        for kind, each in (("true", targets), ("found", detections)):
            for image, place in np.argwhere(each["labels"] >= 0):
                x1, y1, x2, y2 = each["boxes"][image, place].tolist()
                row = {"image_id": int(image) + 1, "category_id": int(each["labels"][image, place]) + 1,
                       "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
                       "id": len(rows[kind]) + 1}  # fmt: skip
                rows[kind].append(row | ({"score": float(each["scores"][image, place])} if kind == "found" else {}))
        about = {
            "images": [{"id": image + 1} for image in range(len(targets["labels"]))],
            "categories": [{"id": label + 1} for label in range(CLASSES)],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            sides = []
            for kind in rows:
                side: Any = COCO()
                side.dataset = about | {"annotations": rows[kind]}
                side.createIndex()
                sides.append(side)
            judge: Any = COCOeval(sides[0], sides[1], "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        found[name] = judge.stats[:3]
        # (thresholds, recalls, classes, areas, most)
        found[f"{name} classes"] = judge.eval["precision"][:, :, :, 0, 2].mean((0, 1))
    return found


def test_it_is_that_of_pycocotools():
    said = witness("mean_average_precision", coco_says, installed=INSTALLED)
    for name, (detections, targets) in SCENES.items():
        found = mean_average_precision(detections, targets, classes=CLASSES)
        for ours, theirs in ((found[:3], said[name]), (found.classes, said[f"{name} classes"])):
            # pycocotools returns -1 where there is no true box.
            np.testing.assert_allclose(ours, np.where(theirs == -1, np.nan, theirs), rtol=0, atol=1e-9, err_msg=name)
    assert np.isnan(said["no boxes"]).sum() == 0
    assert (said["no detections"] == 0).all()
    assert 0.05 < said["random 0"][0] < said["random 0"][1] < 1


DETECTIONS, TARGETS = SCENES["random 0"]


@pytest.mark.parametrize(
    ("detections", "targets", "message"),
    [
        ({"boxes": 1}, TARGETS, "detections as a dict of boxes, labels, scores"),
        (DETECTIONS, {name: x[:3] for name, x in TARGETS.items()}, "as many images in both, got 6 .* and 3"),
        (DETECTIONS | {"scores": np.ones(3)}, TARGETS, r"labels \(images, n\) and boxes \(images, n, 4\), got"),
        (DETECTIONS | {"scores": DETECTIONS["scores"] * np.nan}, TARGETS, "scores of detections, got NaN"),
        (DETECTIONS, TARGETS | {"labels": TARGETS["labels"] + 1}, "labels of targets from 0 to 2"),
        (DETECTIONS, TARGETS | {"boxes": -TARGETS["boxes"]}, "finite boxes of targets with x1 ≤ x2"),
    ],
)
def test_mistakes(detections, targets, message):
    with pytest.raises(NetError, match=f"mean_average_precision expects .*{message}"):
        mean_average_precision(detections, targets, classes=CLASSES)
