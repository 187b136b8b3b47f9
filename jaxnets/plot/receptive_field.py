"""Figures of feature maps and receptive fields on an image. Each returns a matplotlib `Figure`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.inspect.receptive_field.field import ReceptiveField
from jaxnets.plot.style import ORANGE, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def feature_maps(maps: Any, *, image: Any = None, most: int = 64) -> "Figure":
    """Draw the channels of a layer's output for one image on one color scale, a picture per channel.

    Args:
        maps: `(height, width, channels)` or a batch of one, such as `net.upto("conv1").apply(params, state, image)[0]`.
        image: the network's input, `(height, width[, channels])` or a batch of one, drawn first.
        most: the most channels to draw, beginning with the first.

    Raises:
        NetError: for anything but the output for one image.

    >>> len(feature_maps(np.ones((1, 5, 5, 6))).axes)  # six channels and the scale
    7
    """
    maps = np.asarray(maps, np.float32)
    maps = maps[0] if maps.ndim == 4 and len(maps) == 1 else maps
    if maps.ndim != 3 or not maps.size or most < 1:
        raise NetError(f"expects (height, width, channels) of one image, got {maps.shape}", label="feature_maps")
    shown, extra = min(most, maps.shape[-1]), int(image is not None)
    limit = float(np.abs(maps).max()) or 1.0
    # Two-sided around 0, or from 0 if no value is negative.
    scale = {"cmap": "RdBu_r", "vmin": -limit} if maps.min() < 0 else {"cmap": "viridis", "vmin": 0.0}
    columns = min(8, shown + extra)
    rows = -(-(shown + extra) // columns)
    figure = canvas(1.2 * columns + 1.0, 1.25 * rows + 0.6)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    if image is not None:
        _image(grid[0], image)
        grid[0].set_title("input", fontsize=8)
    drawn: Any = None
    for channel, axes in enumerate(grid[extra : extra + shown]):
        drawn = axes.imshow(maps[..., channel], vmax=limit, interpolation="nearest", **scale)
        axes.set_title(str(channel), fontsize=8)
    figure.colorbar(drawn, ax=list(grid), label="activation", shrink=0.8)
    first = f", the first {shown}" if shown < maps.shape[-1] else ""
    figure.suptitle(f"{maps.shape[-1]} channels of {maps.shape[0]}×{maps.shape[1]}{first}", fontsize=9)
    return figure


def draw_receptive_field(image: Any, field: ReceptiveField, *unit: int, effective: Any = None) -> "Figure":
    """Draw the rectangle of an image that a unit sees, which may extend beyond the image into the padding.

    Args:
        image: `(height, width[, channels])` or a batch of one.
        field: the receptive field of the layer, `receptive_field(net, x).layers["conv5"]`.
        *unit: the unit's index along each axis; default: the unit in the middle.
        effective: how much each position counts, `(height, width)` from `effective_field`, drawn beside the image.

    Raises:
        NetError: if the field or the map is not of this image, or there is no such unit.

    >>> import jaxnets as jn
    >>> field = jn.inspect.receptive_field(jn.conv(1, 3, padding=1), np.ones((1, 8, 8, 1)))
    >>> draw_receptive_field(np.ones((8, 8)), field, 0, 0).axes[0].get_title()
    'unit (0, 0) of 8 × 8 sees 3 × 3'
    """
    picture = _one(image)
    if len(field.size) != 2:
        raise NetError(f"expects the field of a network for images, got {len(field.size)} axes", label=_DRAW)
    where = unit or tuple(n // 2 for n in field.units)
    box = field.box(*where)
    panels = 1 if effective is None else 2
    height, width = picture.shape[:2]
    figure = canvas(4.2 * panels, 4.2 * height / width + 0.6)
    row = figure.subplots(1, panels, squeeze=False)[0]
    _image(row[0], picture)
    if effective is not None:
        effective = np.asarray(effective, np.float32)
        if effective.shape != (height, width):
            raise NetError(f"expects a map {(height, width)} of the image, got {effective.shape}", label=_DRAW)
        share = effective / (float(effective.max()) or 1.0)
        drawn = row[1].imshow(share, cmap="magma", vmin=0, vmax=1, interpolation="nearest")
        row[1].set_title("how much each position counts", fontsize=9)
        figure.colorbar(drawn, ax=row[1], label="of the largest", shrink=0.8)
    units, size = (" × ".join(map(str, each)) for each in (field.units, (last - first + 1 for first, last in box)))
    row[0].set_title(f"unit ({', '.join(map(str, where))}) of {units} sees {size}", fontsize=9)
    for axes in row:
        _frame(axes, box, height, width)
    return figure


_DRAW = "draw_receptive_field"


def _frame(axes: "Axes", box: tuple[tuple[int, int], ...], height: int, width: int) -> None:
    """Draw a box and the border of the image, with a margin around both."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    (top, bottom), (left, right) = box
    # Pixel k spans k - 0.5 to k + 0.5.
    corner, sides = (left - 0.5, top - 0.5), (right - left + 1, bottom - top + 1)
    halo = [withStroke(linewidth=4, foreground="white")]
    axes.add_patch(Rectangle(corner, *sides, fill=False, edgecolor=ORANGE, linewidth=2, path_effects=halo))
    axes.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, edgecolor="0.5", linewidth=0.8))
    axes.plot([(left + right) / 2], [(top + bottom) / 2], "+", color=ORANGE, markersize=10, path_effects=halo)
    margin = 0.03 * max(height, width)
    axes.set_xlim(min(left, 0) - 0.5 - margin, max(right, width - 1) + 0.5 + margin)
    axes.set_ylim(max(bottom, height - 1) + 0.5 + margin, min(top, 0) - 0.5 - margin)
    axes.set_axis_off()


def _one(image: Any) -> np.ndarray:
    """Return an image as `(height, width)` or `(height, width, 3)`."""
    picture = np.asarray(image, np.float32)
    picture = picture[0] if picture.ndim == 4 and len(picture) == 1 else picture
    picture = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    if picture.ndim != 2 and not (picture.ndim == 3 and picture.shape[-1] == 3):
        raise NetError(f"expects one image (height, width[, 1 or 3]), got {np.shape(image)}")
    return picture


def _image(axes: "Axes", image: Any) -> None:
    """Draw an image on a gray scale from its least to its largest value."""
    picture = _one(image)
    low, high = float(picture.min()), float(picture.max())
    axes.imshow((picture - low) / ((high - low) or 1.0), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
