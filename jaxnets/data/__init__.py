"""Datasets, splits, scaling, augmentation, and streams of data that do not fit into memory."""

from jaxnets.data.augment.boxes import erase, random_resized_crop
from jaxnets.data.augment.colors import color_jitter
from jaxnets.data.augment.mixing import cutmix, mixup
from jaxnets.data.augment.rand_augment import rand_augment
from jaxnets.data.augment.transforms import compose, cutout, flip, noise, random_crop, rotate, shift
from jaxnets.data.characters import characters
from jaxnets.data.class_balance import balanced, balanced_order, class_weights, example_weights
from jaxnets.data.datasets.cifar import cifar10, cifar100
from jaxnets.data.datasets.headlines import headlines
from jaxnets.data.datasets.image_folder import ImageFolder, image_folder, imagenet
from jaxnets.data.datasets.mnist import fashion_mnist, mnist, read_idx
from jaxnets.data.datasets.mnist1d import mnist1d
from jaxnets.data.datasets.moving import moving_pictures
from jaxnets.data.datasets.opinions import opinions
from jaxnets.data.datasets.packaged import diabetes, digits, iris, japanese_vowels, mnist5k, read_ts, sunspots, wine
from jaxnets.data.datasets.quantifiers import quantifier_pairs
from jaxnets.data.datasets.questions import Question, table_questions
from jaxnets.data.datasets.scenes import digit_scenes
from jaxnets.data.datasets.sequences import adding, copy_memory
from jaxnets.data.datasets.sort_of_clevr import sort_of_clevr
from jaxnets.data.datasets.speech import Spoken, spoken_words, write_wav
from jaxnets.data.datasets.spelled import dates_and_numbers
from jaxnets.data.datasets.text import decode_text, encode_text, text
from jaxnets.data.datasets.toys import blobs, checkerboard, circles, moons, spirals, xor
from jaxnets.data.labels import Labels, labels
from jaxnets.data.loader import Stream, stream
from jaxnets.data.objectives import mask_tokens, next_tokens
from jaxnets.data.packing import pack, pad, unpack
from jaxnets.data.preprocess import Image, Preprocess, Text
from jaxnets.data.scaling import Scaling, rescale, standardize
from jaxnets.data.sources import Columns, collect, columns, parquet
from jaxnets.data.splits import (
    fold,
    folds,
    group_folds,
    split,
    split_groups,
    split_in_time,
    split_indices,
    walk_forward,
    windows,
)
from jaxnets.data.tables.encoder import TableEncoder
from jaxnets.data.tables.table import Table, table
from jaxnets.data.tokenizer import Tokenizer, tokenizer

__all__ = [
    "Columns",
    "Image",
    "ImageFolder",
    "Labels",
    "Preprocess",
    "Question",
    "Scaling",
    "Spoken",
    "Stream",
    "Table",
    "TableEncoder",
    "Text",
    "Tokenizer",
    "adding",
    "balanced",
    "balanced_order",
    "blobs",
    "characters",
    "checkerboard",
    "cifar10",
    "cifar100",
    "circles",
    "class_weights",
    "collect",
    "color_jitter",
    "columns",
    "compose",
    "copy_memory",
    "cutmix",
    "cutout",
    "dates_and_numbers",
    "decode_text",
    "diabetes",
    "digit_scenes",
    "digits",
    "encode_text",
    "erase",
    "example_weights",
    "fashion_mnist",
    "flip",
    "fold",
    "folds",
    "group_folds",
    "headlines",
    "image_folder",
    "imagenet",
    "iris",
    "japanese_vowels",
    "labels",
    "mask_tokens",
    "mixup",
    "mnist",
    "mnist1d",
    "mnist5k",
    "moons",
    "moving_pictures",
    "next_tokens",
    "noise",
    "opinions",
    "pack",
    "pad",
    "parquet",
    "quantifier_pairs",
    "rand_augment",
    "random_crop",
    "random_resized_crop",
    "read_idx",
    "read_ts",
    "rescale",
    "rotate",
    "shift",
    "sort_of_clevr",
    "spirals",
    "split",
    "split_groups",
    "split_in_time",
    "split_indices",
    "spoken_words",
    "standardize",
    "stream",
    "sunspots",
    "table",
    "table_questions",
    "text",
    "tokenizer",
    "unpack",
    "walk_forward",
    "windows",
    "wine",
    "write_wav",
    "xor",
]
