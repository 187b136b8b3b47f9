"""Data that is real, small and at hand, honest splits of it, and augmentation."""

from jaxnets.data.augment import compose, noise
from jaxnets.data.cutout import cutout
from jaxnets.data.digits import mnist5k
from jaxnets.data.folds import fold, folds, group_folds
from jaxnets.data.geometry import flip, random_crop, rotate, shift
from jaxnets.data.in_time import split_in_time, walk_forward
from jaxnets.data.mixing import cutmix, mixup
from jaxnets.data.splits import split, split_groups
from jaxnets.data.standardise import Scaling, rescale, standardise
from jaxnets.data.weights import balanced, balanced_order, class_weights, example_weights

__all__ = [
    "Scaling",
    "balanced",
    "balanced_order",
    "class_weights",
    "compose",
    "cutmix",
    "cutout",
    "example_weights",
    "flip",
    "fold",
    "folds",
    "group_folds",
    "mixup",
    "mnist5k",
    "noise",
    "random_crop",
    "rescale",
    "rotate",
    "shift",
    "split",
    "split_groups",
    "split_in_time",
    "standardise",
    "walk_forward",
]
