"""Input checks of image models: the number of axes, and channels last."""

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.keywords import explained
from jaxnets.core.net import Apply, Key, Net, Params, State, described
from jaxnets.core.padded import Padded
from jaxnets.core.value import recorded
from jaxnets.layers.windows import AXES, check_spatial

P = ParamSpec("P")


def takes_images(factory: Callable[P, Net]) -> Callable[P, Net]:
    """Decorate the constructor of a model of images `(batch, height, width, channels)`; see `of_images`.

    If it has an argument `image_size`, height and width must be equal to it.
    """
    make_net, signature = explained(factory), inspect.signature(factory)

    @functools.wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Net:
        net, given = make_net(*args, **kwargs), signature.bind(*args, **kwargs)
        given.apply_defaults()
        return of_images(net, factory.__name__, image_size=given.arguments.get("image_size"))

    return recorded(make)


def of_images(net: Net, label: str, spatial_axes: int = 2, image_size: int | None = None) -> Net:
    """Return a network that only accepts floating inputs `(batch, *spatial, channels)` with `spatial_axes` axes.

    Convolutions and pools accept any number of axes: images `(batch, height, width)` without channels would be read as
    sequences of `width` channels. An input whose second axis is 1 or 3, and shorter than all axes after it, looks like
    channels first, and gives a warning.

    Args:
        net: the model; its children are unchanged.
        label: the name in messages.
        spatial_axes: 1 for sequences, 2 for images, 3 for volumes.
        image_size: height and width that images must have, where a model has parameters for each place.

    Raises:
        NetError: for another number of spatial axes.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = of_images(jn.serial(jn.conv(4, 3)), "small")
    >>> net.init(jax.random.key(0), jnp.ones((1, 8, 8)))
    Traceback (most recent call last):
        ...
    jaxnets.core.errors.NetError: small expects (batch, height, width, channels), got (1, 8, 8); add the missing axis, \
x[None] for the batch or x[..., None] for the channels
    """
    if spatial_axes not in AXES:
        raise NetError(f"expects spatial_axes 1, 2 or 3, got {spatial_axes!r}", label=label)

    def check(x: Any) -> None:
        # The layers raise a better error.
        if isinstance(x, Padded):
            return
        with labeled_as(label):
            check_spatial(x, spatial_axes)
            if image_size is not None and tuple(x.shape[1:3]) != (image_size, image_size):
                hint = "resize them, or give image_size, and trained parameters to jn.models.resize_positions"
                raise NetError(f"expects images of {image_size} × {image_size}, got {tuple(x.shape)}; {hint}")
        warn_of_channels_first(label, tuple(x.shape))

    def init(key: Key, x: Any) -> tuple[Params, State]:
        check(x)
        return net.init(key, x)

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        check(x)
        return net.init_with_output(key, x)

    def checked(inner: Apply) -> Apply:
        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            check(x)
            return inner(params, state, x, key=key, train=train)

        return apply

    def cut(path: tuple[str, ...]) -> Apply:
        assert net.cut is not None
        return checked(net.cut(path))

    def remake(change: Callable[[Net], Net]) -> Net:
        return of_images(change(net), label, spatial_axes, image_size)

    whole = replace(net, init=init, apply=checked(net.apply), build=build, cut=net.cut and cut)
    return described(whole, net.wiring, remake)


def warn_of_channels_first(label: str, shape: tuple[int, ...]) -> None:
    """Warn where images `(batch, *spatial, channels)` look like `(batch, channels, *spatial)`."""
    _, second, *rest = shape
    if second in (1, 3) and shape[-1] not in (1, 3) and min(rest) > second:
        order = (0, *range(2, len(shape)), 1)
        warnings.warn(
            f"{label}: {shape} looks like (batch, channels, {', '.join(AXES[len(rest)])}), but channels are the last "
            f"axis here: x.transpose{order}",
            # The caller of init or apply.
            stacklevel=4,
        )
