"""From what users have, files and text and numbers in their units, to a network's inputs, and back from its outputs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError, check_count, labeled_as, shown
from jaxnets.core.padded import Padded
from jaxnets.data.datasets.image_folder import check_sizes, decode
from jaxnets.data.labels import Labels
from jaxnets.data.scaling import Scaling
from jaxnets.data.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Preprocess:
    """What turns raw examples into a network's inputs, and its outputs into answers; `jn.save` writes it with the net.

    Attributes:
        inputs: a step, or several that are applied in order: a `Scaling`, an `Image`, a `Text`, a `Tokenizer`, a
            `TableEncoder`, which also brings the names or the scaling of its target.
        classes: the names of the classes in the order of the outputs, which become names as by `Labels.decode`: that of
            the largest, or for a single output, a logit, the second of two names where it is positive.
        targets: the `Scaling` of the targets, whose `inverse` is applied to the outputs.

    Raises:
        NetError: for a step that can't be called, names that are not distinct, or both classes and targets.

    >>> import numpy as np
    >>> preprocess = Preprocess(Scaling(np.array([2.0]), np.array([4.0])), classes=("no", "yes"))
    >>> preprocess(np.array([[6.0]])).tolist(), preprocess.decode(np.array([[0.1, 0.9]])).tolist()
    ([[1.0]], ['yes'])
    """

    inputs: Any = ()
    classes: Any = None
    targets: Any = None

    def __post_init__(self) -> None:
        with labeled_as("Preprocess"):
            steps = tuple(self.inputs) if isinstance(self.inputs, tuple | list) else (self.inputs,)
            if wrong := [step for step in steps if not callable(step) or isinstance(step, type)]:
                raise NetError(f"expects steps, raw -> arrays, for inputs, got {shown(wrong[0])}")
            object.__setattr__(self, "inputs", steps)
            if self.classes is None and self.targets is None:
                # A `TableEncoder` knows the names or the units of its target.
                names = next((each.names for each in steps if getattr(each, "names", None) is not None), None)
                object.__setattr__(self, "targets" if isinstance(names, Scaling) else "classes", names)
            if self.targets is not None and not hasattr(self.targets, "inverse"):
                raise NetError(f"expects a Scaling for targets, got {shown(self.targets)}")
            if self.classes is None:
                return
            if isinstance(self.classes, str) or self.targets is not None:
                raise NetError(f"expects names as classes, or targets, got {self.classes!r} and {shown(self.targets)}")
            object.__setattr__(self, "classes", Labels(getattr(self.classes, "classes", self.classes)).classes)

    def __call__(self, raw: Any) -> Any:
        """Return the network's inputs for a batch of raw examples."""
        for step in self.inputs:
            raw = step(raw)
        return raw

    def decode(self, outputs: Any) -> Any:
        """Return the class names `(batch, ...)` or the targets in their units for a network's outputs.

        Raises:
            NetError: for outputs that are not one for each class, or hold NaN.
        """
        if self.targets is not None:
            return self.targets.inverse(outputs)
        return outputs if self.classes is None else Labels(self.classes).decode(outputs)

    def check_outputs(self, outputs: Any) -> None:
        """Check that a network has an output for each class, or a single one for two.

        Args:
            outputs: arrays or specs.

        Raises:
            NetError: if not.
        """
        shapes = [leaf.shape for leaf in jax.tree.leaves(outputs)]
        count = len(self.classes or ())
        if (
            count
            and len(shapes) == 1
            and shapes[0][-1:] != (count,)
            and not (count == 2 and shapes[0][1:] in ((), (1,)))
        ):
            names = ", ".join(map(str, self.classes[:5])) + ", …" * (count > 5)
            raise NetError(f"expects an output for each of {count} classes, {names}; got outputs {shapes[0]}")

    @property
    def on_host(self) -> tuple[Any, ...]:
        """The steps that are no JAX functions, which a program can't take along; an `Image` decodes there."""
        return self._parted()[0]

    @property
    def in_program(self) -> Callable[[Any], Any]:
        """The JAX function that the last steps make: `Scaling`, and what an `Image` does after decoding.

        That of an `Image` takes decoded images, integers from 0 to 255 or floats from 0 to 1.
        """
        functions = self._parted()[1]

        def apply(x: Any) -> Any:
            for function in functions:
                x = function(x)
            return x

        return apply

    def _parted(self) -> tuple[tuple[Any, ...], list[Callable[[Any], Any]]]:
        host, functions = list(self.inputs), list[Callable[[Any], Any]]()
        while host and isinstance(host[-1], Scaling):
            functions.insert(0, host.pop())
        if host and isinstance(image := host[-1], Image):
            functions[:0] = [_unit, *([] if image.scaling is None else [image.scaling])]
            host[-1] = Image(image.size, resize=image.resize, grayscale=image.grayscale)
        return tuple(host), functions


def as_preprocess(given: Any) -> Preprocess:
    """Return a `Preprocess` for one of its steps, or for `None`."""
    return given if isinstance(given, Preprocess) else Preprocess(() if given is None else given)


def _unit(images: jax.Array) -> jax.Array:
    """Return images from 0 to 1: integers are divided by 255."""
    return images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32) / 255


@dataclass(frozen=True)
class Image:
    """Pictures of any size as one array: decoded, scaled, cropped to a square as by `image_folder`, and normalized.

    z = (x - mean) / std, where x is from 0 to 1.

    Attributes:
        size: the height and width of the result.
        resize: the length to which the shorter side is scaled before the crop; default: 8/7 of `size`.
        mean: the value that becomes 0, for each channel; default: 0.
        std: the difference that becomes 1, for each channel; default: 1.
        grayscale: whether there is one channel instead of three.

    Raises:
        ModuleNotFoundError: if Pillow is not installed.
        NetError: for sizes below 1, `resize` < `size`, or means and deviations that are not one for each channel.

    >>> import numpy as np
    >>> step = Image(8, mean=(0.5,), std=(0.25,), grayscale=True)
    >>> x = step([np.full((10, 20, 3), 255, np.uint8), np.zeros((12, 9), np.uint8)])
    >>> x.shape, x[:, 0, 0, 0].tolist()
    ((2, 8, 8, 1), [2.0, -2.0])
    """

    size: int
    resize: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    grayscale: bool = False

    def __post_init__(self) -> None:
        with labeled_as("Image"):
            object.__setattr__(self, "resize", check_sizes(self.size, self.resize))
            channels = 1 if self.grayscale else 3
            for name, default in (("mean", 0.0), ("std", 1.0)):
                given = getattr(self, name)
                values = (default,) * channels if given is None else tuple(map(float, np.ravel(given)))
                if len(values) != channels or not np.isfinite(values).all() or (name == "std" and min(values) <= 0):
                    raise NetError(f"expects {name} as {channels} numbers{' > 0' * (name == 'std')}, got {given!r}")
                object.__setattr__(self, name, values)

    @property
    def scaling(self) -> Scaling | None:
        """The normalization, a function of images from 0 to 1; `None` if it changes nothing."""
        mean, std = np.array(self.mean), np.array(self.std)
        return None if (mean == 0).all() and (std == 1).all() else Scaling(mean[None, None], std[None, None])

    def __call__(self, pictures: Any) -> np.ndarray:
        """Return `(pictures, size, size, channels)` float32.

        Args:
            pictures: a list of paths, of Pillow's images or of arrays, or one array `(batch, height, width, channels)`.
                Arrays are uint8, `(height, width)` or with 1, 3 or 4 channels.

        Raises:
            NetError: for anything else, or a picture that can't be decoded.
        """
        with labeled_as("Image"):
            if isinstance(pictures, str | Path) or not hasattr(pictures, "__len__") or not len(pictures):
                raise NetError(f"expects a list of pictures, got {shown(pictures)}; write [picture]")
            if getattr(pictures, "ndim", 4) == 3 and pictures.shape[2] in (1, 3, 4):
                raise NetError(f"can't tell one picture from several gray ones, {shown(pictures)}; write picture[None]")
            x = np.stack([self._decoded(number, picture) for number, picture in enumerate(pictures)])
        return x if self.scaling is None else self.scaling(x)

    def _decoded(self, number: int, picture: Any) -> np.ndarray:
        if isinstance(picture, np.ndarray | jax.Array):
            picture = _as_image(np.asarray(picture))
        try:
            return decode(picture, size=self.size, resize=self.resize or self.size, grayscale=self.grayscale)
        # Pillow raises many kinds of errors for files that are damaged, or larger than its limit.
        except Exception as error:
            what = picture if isinstance(picture, str | Path) else f"picture {number}, {shown(picture)}"
            raise NetError(f"can't decode {what}: {error or type(error).__name__}") from error


@dataclass(frozen=True, eq=False)
class Text:
    """Texts as `Padded` tokens of one length, so that a network is compiled once.

    Attributes:
        tokenizer: a `Tokenizer`, which may be a step itself: then the longest text of a batch gives the length.
        length: the number of tokens to which each text is padded; what a longer text has beyond it is left out.
        special: whether to add the tokens that the tokenizer puts around each text.

    Raises:
        NetError: for anything but a tokenizer, or a length below 1.

    >>> import jaxnets as jn
    >>> Text(jn.data.characters("abc"), length=3)(["ab", "cabba"]).values.tolist()
    [[0, 1, 0], [2, 0, 1]]
    """

    tokenizer: Tokenizer
    length: int
    special: bool = True

    def __post_init__(self) -> None:
        with labeled_as("Text"):
            check_count("length", self.length)
            if not isinstance(self.tokenizer, Tokenizer):
                raise NetError(f"expects a tokenizer, got {shown(self.tokenizer)}")

    def __call__(self, texts: Sequence[str]) -> Padded:
        """Return `Padded` integers `(texts, length)`."""
        tokens = self.tokenizer.encode(texts, special=self.special)
        values = np.zeros((len(tokens.lengths), self.length), np.int32)
        width = min(self.length, tokens.values.shape[1])
        values[:, :width] = tokens.values[:, :width]
        return Padded(values, np.minimum(tokens.lengths, self.length))


def _as_image(array: np.ndarray) -> Any:
    from PIL import Image as pillow

    channels = array.shape[2] if array.ndim == 3 else 1
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or channels not in (1, 3, 4) or not array.size:
        hint = "; a float from 0 to 1 is (255 * x).round().astype(np.uint8)" if array.dtype.kind == "f" else ""
        raise NetError(f"expects uint8 (height, width) or with 1, 3 or 4 channels, got {shown(array)}{hint}")
    return pillow.fromarray(array[..., 0] if array.ndim == 3 and channels == 1 else array)
