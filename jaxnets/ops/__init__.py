"""Array functions in the formulation that is fastest on their platform, and features of sound."""

from jaxnets.ops.attention import attention
from jaxnets.ops.boxes import box_area, box_iou, clip_boxes, generalized_box_iou, nms
from jaxnets.ops.mel import log_mel, mel_filters, mfcc
from jaxnets.ops.plain import plain
from jaxnets.ops.positions import distance_slopes, rotate
from jaxnets.ops.spectrogram import istft, spectrogram, stft

__all__ = [
    "attention",
    "box_area",
    "box_iou",
    "clip_boxes",
    "distance_slopes",
    "generalized_box_iou",
    "istft",
    "log_mel",
    "mel_filters",
    "mfcc",
    "nms",
    "plain",
    "rotate",
    "spectrogram",
    "stft",
]
