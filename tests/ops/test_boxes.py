"""Boxes against torchvision and ONNX Runtime: overlaps, clipping, suppression by class, compiled and mapped."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnets import NetError, ops
from tests.oracle import integers, witness
from tests.peers import PEERS, torchvision_models

INSTALLED = PEERS and all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))

BATCH, N, CLASSES = 3, 30, 3
CORNERS, SIZES = integers(BATCH, N, 2, low=-4, high=20), integers(BATCH, N, 2, low=1, high=16)
BOXES = np.concatenate([CORNERS, CORNERS + SIZES], axis=-1).astype(np.float32)
SCORES = np.random.default_rng(0).permuted(np.tile(np.arange(1, N + 1), (BATCH, 1)), axis=1).astype(np.float32) / N
LABELS = integers(BATCH, N, high=CLASSES)
THRESHOLDS = (0.2, 0.5)


def others_say():
    """Ask torchvision for overlaps, and ONNX Runtime for suppression: torchvision's needs its compiled operators."""
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

    torchvision_models()
    from torchvision import ops as by_torchvision

    boxes = torch.tensor(BOXES)
    found = {
        "iou": by_torchvision.box_iou(boxes[0], boxes[1]),
        "giou": by_torchvision.generalized_box_iou(boxes[0], boxes[1]),
        "clipped": by_torchvision.clip_boxes_to_image(boxes[0], (12, 17)),
        "area": by_torchvision.box_area(boxes[0]),
    }
    found = {name: value.numpy() for name, value in found.items()}
    kinds = {"boxes": TensorProto.FLOAT, "scores": TensorProto.FLOAT, "most": TensorProto.INT64,
             "iou": TensorProto.FLOAT, "score": TensorProto.FLOAT}  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", list(kinds), ["kept"])], "nms",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [helper.make_tensor_value_info("kept", TensorProto.INT64, None)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    own = np.where(LABELS[:, None] == np.arange(CLASSES)[None, :, None], SCORES[:, None], 0)
    for t in THRESHOLDS:
        for kind, scores in (("nms", SCORES[:, None]), ("batched", own)):
            given = {"boxes": BOXES, "scores": scores.astype(np.float32), "most": np.array([N]),
                     "iou": np.array([t], np.float32), "score": np.zeros(1, np.float32)}  # fmt: skip
            kept = np.asarray(session.run(None, given)[0])
            for each in range(BATCH):
                indices = kept[kept[:, 0] == each, 2]
                found[f"{kind} {t} {each}"] = indices[np.argsort(-SCORES[each, indices])]
    return found


def test_boxes_are_those_of_others():
    said = witness("ops/boxes", others_say, installed=INSTALLED)

    @jax.jit
    def ours(boxes, scores, labels, threshold):
        pairs = {
            "iou": ops.box_iou(boxes[0], boxes[1]), "giou": ops.generalized_box_iou(boxes[0], boxes[1]),
            "clipped": ops.clip_boxes(boxes[0], (12, 17)), "area": ops.box_area(boxes[0]),
        }  # fmt: skip
        plain = jax.vmap(lambda b, s: ops.nms(b, s, threshold))(boxes, scores)
        batched = jax.vmap(lambda b, s, c: ops.nms(b, s, threshold, labels=c))(boxes, scores, labels)
        return pairs, plain, batched

    for threshold in THRESHOLDS:
        pairs, *kept = ours(BOXES, SCORES, LABELS, threshold)
        for name, found in pairs.items():
            np.testing.assert_allclose(found, said[name], rtol=1e-6, atol=1e-6, err_msg=name)
        for kind, (indices, counts) in zip(("nms", "batched"), kept, strict=True):
            for each in range(BATCH):
                expected = said[f"{kind} {threshold} {each}"]
                assert counts[each] == len(expected) < N
                np.testing.assert_array_equal(indices[each, : counts[each]], expected)
                assert (indices[each, counts[each] :] == -1).all()


def test_edges_of_suppression():
    same = jnp.broadcast_to(jnp.array([0.0, 0.0, 2.0, 2.0]), (4, 4))
    indices, count = ops.nms(same, jnp.array([0.5, 0.5, 0.5, -jnp.inf]), 0.5)  # of equal scores the first
    assert count == 1
    assert indices.tolist() == [0, -1, -1, -1]
    indices, count = ops.nms(same, jnp.full(4, -jnp.inf), 0.5)  # no box
    assert count == 0
    assert indices.tolist() == [-1] * 4
    indices, count = ops.nms(same, jnp.arange(4, dtype=jnp.float32), 1.0, most=2)  # nothing overlaps by more than 1
    assert count == 2
    assert indices.tolist() == [3, 2]
    indices, count = ops.nms(same[:1], jnp.ones(1), most=3)
    assert count == 1
    assert indices.tolist() == [0, -1, -1]
    indices, count = ops.nms(same[:0], jnp.ones(0), most=2)
    assert count == 0
    assert indices.tolist() == [-1, -1]


def test_empty_boxes_do_not_overlap():
    point = jnp.zeros((1, 4))
    assert ops.box_iou(point, point).item() == 0
    assert ops.generalized_box_iou(point, point).item() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.box_iou(jnp.ones((2, 3)), jnp.ones((2, 4))), r"box_iou.* expects boxes \(..., 4\) as x1"),
        (lambda: ops.box_iou(jnp.ones(4), jnp.ones((2, 4))), r"expects boxes \(..., n, 4\)"),
        (lambda: ops.nms(jnp.ones((2, 4)), jnp.ones(3)), r"with scores and labels \(n,\), got \(2, 4\), \(3,\)"),
        (lambda: ops.nms(jnp.ones((2, 4)), jnp.array([1.0, jnp.nan])), "expects scores, got NaN"),
        (lambda: ops.nms(jnp.ones((2, 4)), jnp.ones(2), 50), r"threshold in \[0, 1\], got 50"),
        (lambda: ops.nms(jnp.ones((2, 4)), jnp.ones(2), most=0), "most ≥ 1"),
    ],
)
def test_mistakes(call, message):
    with pytest.raises(NetError, match=message):
        call()
