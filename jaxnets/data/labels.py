"""Class names and their numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.data.tables.cells import is_missing, plain


@dataclass(frozen=True)
class Labels:
    """The names of classes, numbered in order from 0; `jn.data.labels` makes it from data.

    It is callable: `labels(y)` is `labels.encode(y)`.

    Attributes:
        classes: the names, distinct: texts, numbers or booleans.

    Raises:
        NetError: for no classes, or one that is listed twice.

    >>> species = Labels(("setosa", "versicolor"))
    >>> species.encode(["versicolor", "setosa"]).tolist(), species.decode([[0.1, 2.0]]).tolist()
    ([1, 0], ['versicolor'])
    """

    classes: tuple[Any, ...]

    def __post_init__(self) -> None:
        # Python's values, of NumPy's and JAX' scalars: those can't be saved, or not be compared.
        plain_names = (name.item() if hasattr(name, "item") and not np.ndim(name) else name for name in self.classes)
        object.__setattr__(self, "classes", tuple(plain_names))
        if not self.classes or len(set(self.classes)) < len(self.classes):
            raise NetError(f"expects distinct names of classes, got {self.classes}", label="Labels")

    def __len__(self) -> int:
        return len(self.classes)

    def __call__(self, names: Any) -> np.ndarray:
        """Return `encode(names)`."""
        return self.encode(names)

    def encode(self, names: Any) -> np.ndarray:
        """Return the number of each class name.

        Args:
            names: `(examples,)`, a list, an array or a series.

        Returns:
            int32 `(examples,)`.

        Raises:
            NetError: for a name that is not among the classes, or a missing one, with its place.
        """
        numbers = {name: number for number, name in enumerate(self.classes)}
        listed = _listed(names)
        for place, name in enumerate(listed):
            if name not in numbers:
                known = ", ".join(map(repr, self.classes[:8])) + (", …" if len(self.classes) > 8 else "")
                raise NetError(f"expects one of the classes {known}, got {name!r} in row {place}", label="Labels")
        return np.array([numbers[name] for name in listed], np.int32)

    def decode(self, outputs: Any) -> np.ndarray:
        """Return the class names of a network's outputs, or of class numbers.

        Args:
            outputs: floating `(..., classes)`, logits or probabilities, of which the largest wins; for two classes also
                floating `(examples,)` or `(examples, 1)`, the logit of the second; or integers of any shape.

        Returns:
            An array of names, in the shape of the class numbers.

        Raises:
            NetError: for outputs of another shape, `(2,)` for two classes, which could be the scores of one example or
                the logits of two, NaN, or a number that is no class.
        """
        given, count = np.asarray(outputs), len(self.classes)
        if given.dtype.kind in "biu":
            codes = given.astype(np.int64)
            if codes.size and (codes.min() < 0 or codes.max() >= count):
                wrong = codes[(codes < 0) | (codes >= count)][0]
                raise NetError(f"expects class numbers from 0 to {count - 1}, got {wrong}", label="Labels")
        else:
            # bfloat16 is no floating type to NumPy.
            given = given.astype(np.float64)
            if np.isnan(given).any():
                raise NetError("expects outputs of a network, got NaN", label="Labels")
            if given.shape == (2,) and count == 2:
                hint = "add an axis, outputs[None] for one example, outputs[:, None] for two"
                raise NetError(
                    f"can't tell scores of two classes from logits of two examples, (2,); {hint}", label="Labels"
                )
            if given.ndim and given.shape[-1] == count and (count > 1 or given.ndim > 1):
                codes = given.argmax(-1)
            elif count == 2 and (given.ndim == 1 or given.shape[1:] == (1,)):
                codes = (given.reshape(len(given)) > 0).astype(np.int64)
            else:
                raise NetError(f"expects outputs (..., {count}), one for each class, got {given.shape}", label="Labels")
        kinds = {type(name) for name in self.classes}
        return np.array(self.classes, None if len(kinds) == 1 else object)[codes]


def labels(names: Any) -> Labels:
    """Find the classes in a list of class names, and number them in their order.

    `encode` of the result turns names into the integers that losses and metrics take, and `decode` turns a network's
    outputs back into names.

    Args:
        names: `(examples,)`, texts, integers or booleans: a list, an array or a series of pandas or polars.

    Returns:
        `Labels` with the distinct names, sorted.

    Raises:
        NetError: for no names, missing ones, or names of several types.

    >>> colors = labels(["red", "white", "red"])
    >>> colors, colors.encode(["red", "white", "red"]).tolist()
    (Labels(classes=('red', 'white')), [0, 1, 0])
    """
    with labeled_as("labels"):
        listed = _listed(names)
        if not listed:
            raise NetError("expects the class of at least one example, got none")
        kinds = {type(name).__name__ for name in listed}
        if len(kinds) > 1:
            raise NetError(f"expects names of one type, got {' and '.join(sorted(kinds))}; convert them to text by str")
        return Labels(tuple(sorted(set(listed))))


def _listed(names: Any) -> Sequence[Any]:
    """Return names as a list of Python values."""
    if isinstance(names, str) or not hasattr(names, "__len__") or getattr(names, "ndim", 1) != 1:
        raise NetError(f"expects the class of each example, (examples,), got {shown(names)}", label="labels")
    listed = [plain(name) for name in (names.tolist() if isinstance(names, np.ndarray) else names)]
    for place, name in enumerate(listed):
        if is_missing(name):
            raise NetError(f"finds a missing label in row {place}; leave such examples out", label="labels")
        if not isinstance(name, str | int | float):
            raise NetError(f"expects texts or numbers as labels, got {shown(name)} in row {place}", label="labels")
    return listed
