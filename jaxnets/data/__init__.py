"""Data that is at hand, in a folder or in a stream, honest splits of it, and augmentation."""

from jaxnets.data.augment import compose, noise
from jaxnets.data.cifar import cifar10, cifar100
from jaxnets.data.cutout import cutout
from jaxnets.data.digits import digits, mnist5k
from jaxnets.data.folders import ImageFolder, image_folder, imagenet
from jaxnets.data.folds import fold, folds, group_folds
from jaxnets.data.geometry import flip, random_crop, rotate, shift
from jaxnets.data.idx import fashion_mnist, mnist, read_idx
from jaxnets.data.in_time import split_in_time, walk_forward
from jaxnets.data.mixing import cutmix, mixup
from jaxnets.data.mnist1d import mnist1d
from jaxnets.data.problems import adding, copy_memory
from jaxnets.data.series import japanese_vowels, read_ts, sunspots
from jaxnets.data.splits import split, split_groups
from jaxnets.data.standardise import Scaling, rescale, standardise
from jaxnets.data.stream import Stream, stream
from jaxnets.data.tables import diabetes, iris, wine
from jaxnets.data.text import decode_text, encode_text, text
from jaxnets.data.toys import blobs, checkerboard, circles, moons, spirals, xor
from jaxnets.data.weights import balanced, balanced_order, class_weights, example_weights
from jaxnets.data.windows import windows

__all__ = [
    "ImageFolder",
    "Scaling",
    "Stream",
    "adding",
    "balanced",
    "balanced_order",
    "blobs",
    "checkerboard",
    "cifar10",
    "cifar100",
    "circles",
    "class_weights",
    "compose",
    "copy_memory",
    "cutmix",
    "cutout",
    "decode_text",
    "diabetes",
    "digits",
    "encode_text",
    "example_weights",
    "fashion_mnist",
    "flip",
    "fold",
    "folds",
    "group_folds",
    "image_folder",
    "imagenet",
    "iris",
    "japanese_vowels",
    "mixup",
    "mnist",
    "mnist1d",
    "mnist5k",
    "moons",
    "noise",
    "random_crop",
    "read_idx",
    "read_ts",
    "rescale",
    "rotate",
    "shift",
    "spirals",
    "split",
    "split_groups",
    "split_in_time",
    "standardise",
    "stream",
    "sunspots",
    "text",
    "walk_forward",
    "windows",
    "wine",
    "xor",
]
