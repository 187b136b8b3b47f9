"""Array functions in the formulation that is fastest on their platform."""

from jaxnets.ops.attention import attention
from jaxnets.ops.boxes import box_area, box_iou, clip_boxes, generalized_box_iou, nms
from jaxnets.ops.plain import plain
from jaxnets.ops.positions import distance_slopes, rotate

__all__ = [
    "attention",
    "box_area",
    "box_iou",
    "clip_boxes",
    "distance_slopes",
    "generalized_box_iou",
    "nms",
    "plain",
    "rotate",
]
