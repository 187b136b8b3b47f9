"""Pictures as squares of numbers from 0 to 1, whatever mode, depth and orientation their files have."""

from pathlib import Path
from typing import Any

import numpy as np


def decode(picture: Any, *, size: int, resize: int, grayscale: bool) -> np.ndarray:
    """Return the square in the middle of a picture, whose shorter side was scaled before.

    The picture is turned as its EXIF tag says. Gray pictures of 16 bits keep their depth; of color ones Pillow gives
    the upper 8 bits. Transparency is dropped.

    Args:
        picture: a file, or an image of Pillow's.
        size: height and width of the square.
        resize: what the shorter side is scaled to, bilinear and antialiased.
        grayscale: whether to return brightness, 0.299 red + 0.587 green + 0.114 blue.

    Returns:
        `(size, size, 3)`, or `(size, size, 1)` of a gray one, float32 from 0 to 1.

    Raises:
        ValueError: for numbers of a depth that does not say which of them is white.
        Exception: whatever Pillow raises for a damaged file.
    """
    from PIL import Image, ImageOps

    opened = Image.open(picture) if isinstance(picture, str | Path) else picture
    with opened:
        whites = _white(opened)
        ImageOps.exif_transpose(opened, in_place=True)
        if whites is not None:
            image = Image.fromarray(np.asarray(opened, np.float32) * np.float32(255 / whites))
        else:
            if opened.mode == "P" and "transparency" in opened.info:  # otherwise Pillow warns
                opened = opened.convert("RGBA")
            image = opened.convert("L" if grayscale else "RGB")
        width, height = image.size
        short = min(width, height)
        scaled = image.resize((int(resize * width / short), int(resize * height / short)), Image.Resampling.BILINEAR)
    left, top = (round((length - size) / 2) for length in scaled.size)
    square = np.asarray(scaled.crop((left, top, left + size, top + size)), np.float32) / 255
    if square.ndim == 2:
        square = square[..., None]
    return square if grayscale else np.broadcast_to(square, (size, size, 3)).copy()


def _white(image: Any) -> int | None:
    """Return the value of white in a mode of more than 8 bits, `None` in any other."""
    if image.mode[0] not in "IF":
        return None
    tags = getattr(image, "tag_v2", {})  # a TIFF's: bits a value, and whether 0 is black
    full = image.mode.startswith("I;16") and (not tags or (tags.get(258), tags.get(262)) == ((16,), 1))
    if full or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return 65535
    kind = "float" if image.mode == "F" else "integer"
    raise ValueError(f"its {kind} values do not say which of them is white; convert it to 8 bits, or to 16 unsigned")
