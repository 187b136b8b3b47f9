"""What estimators ask while a search fits them: whether they are trained already, and their outputs known."""

from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np


class Search(Protocol):
    """A search that trains many estimators at once."""

    def fit(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> bool:
        """Set what training sets, and tell whether it was done; otherwise the estimator trains itself."""
        ...

    def outputs(self, estimator: Any, x: np.ndarray) -> np.ndarray | None:
        """Return the outputs of a fitted estimator's network, or `None` if it is to compute them itself."""
        ...


# The search that is going on in this context, if any.
SEARCH: ContextVar[Search | None] = ContextVar("search", default=None)
