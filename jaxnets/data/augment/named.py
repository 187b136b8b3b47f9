"""Functions that are made by a call, and bear the call as their name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from jaxnets.core.errors import NetError
from jaxnets.core.keywords import check_arguments
from jaxnets.core.layer import describe

P = ParamSpec("P")
Made = TypeVar("Made", bound=Callable[..., Any])


def labeled_function(factory: Callable[P, Made]) -> Callable[P, Made]:
    """Decorate a function that makes a function: `shift(1)` is the name of what it makes, and stands before its errors.

    So a run's record tells one augmentation from another.
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Made:
        check_arguments(factory.__name__, signature, args, kwargs)
        label = describe(factory.__name__, signature, args, kwargs)

        def claim(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                try:
                    return function(*args, **kwargs)
                except NetError as error:
                    error.label = error.label or label  # of a composition, the part that failed
                    raise

            return call

        made: Any = claim(claim(factory)(*args, **kwargs))
        made.__name__ = made.__qualname__ = label
        return made

    return make
