"""Flow matching: learning the velocity that carries noise to data along straight lines."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators.serial import Layer, build_child
from jaxnets.core.checks import check_floating, check_train_key
from jaxnets.core.dtypes import param_dtype
from jaxnets.core.errors import NetError, check_count, check_fraction, labeled_as
from jaxnets.core.layer import as_net
from jaxnets.core.net import Key, Net, Params, State, apply_child, compose, fold
from jaxnets.core.value import recorded


@recorded
def flow_matching(velocity: Layer, *, num_classes: int | None = None, dropped: Any = 0.1) -> Net:
    """Return the network that teaches a velocity v(x_t, t) by examples of straight lines from noise to data.

    For each example x it draws ε ~ N(0, 1) and t ~ U(0, 1), and returns v(x_t, t) at x_t = (1 − t) ε + t x beside its
    target, dx_t/dt = x − ε. The minimum of `jn.losses.velocity_error` is v = E[x − ε | x_t], whose flow from t = 0 to 1
    carries N(0, 1) to the data; `jn.decoding.flow` integrates it. In evaluation ε and t are drawn from a fixed key, so
    that values of different epochs compare. With classes, some are replaced by `num_classes`, which stands for no
    class, so that the network learns both velocities of classifier-free guidance.

    Args:
        velocity: a network from `(x, t)`, with t `(batch,)`, or with classes `(x, t, classes)`, to the shape of x, such
            as `jn.models.conditional_unet`.
        num_classes: the number of classes; `None` for none.
        dropped: the probability that a class is left out in training, in [0, 1); may be traced.

    Returns:
        A network from x, or with classes from `(x, classes)`, to a dict of `velocity` and `target`. It requires a key
        in training.

    Raises:
        NetError: for inputs of another form, a velocity of another shape than x, an option out of range, or training
            without a key.

    Lipman et al., "Flow Matching for Generative Modeling" (2023), section 4.1 with σ_min = 0; Ho and Salimans,
    "Classifier-Free Diffusion Guidance" (2022), algorithm 1, for the classes left out.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = flow_matching(jn.models.conditional_unet(1, (4, 8), num_classes=10), num_classes=10)
    >>> x = jnp.ones((2, 6, 6, 1)), jnp.array([3, 1])
    >>> params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    >>> {name: y.shape for name, y in jax.eval_shape(net.apply, params, state, x)[0].items()}
    {'target': (2, 6, 6, 1), 'velocity': (2, 6, 6, 1)}
    """
    child = {"velocity": as_net(velocity)}
    with labeled_as("flow_matching"):
        if num_classes is not None:
            check_count("num_classes", num_classes)
        check_fraction("dropped", dropped)

    def split(x: Any) -> tuple[Any, Any]:
        given: Any = x
        with labeled_as("flow_matching"):
            pair = isinstance(x, tuple | list) and len(x) == 2
            if pair is (num_classes is None):
                wanted = "x, an array" if num_classes is None else "(x, classes), since it has classes"
                raise NetError(f"expects {wanted}, got {type(x).__name__}")
            data, classes = given if pair else (given, None)
            check_floating(data)
            if classes is not None and (
                classes.shape != data.shape[:1] or not jnp.issubdtype(classes.dtype, jnp.integer)
            ):
                raise NetError(f"expects integer classes {data.shape[:1]}, got {classes.dtype} {classes.shape}")
            return data, classes

    def check(y: Any, x: Any) -> None:
        if getattr(y, "shape", None) != x.shape:
            got = getattr(y, "shape", type(y).__name__)
            raise NetError(f"expects a velocity {x.shape}, like the data, got {got}", label="flow_matching")

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state, (data, classes) = {}, {}, split(x)
        time = jax.ShapeDtypeStruct(data.shape[:1], data.dtype)
        given = (data, time) if classes is None else (data, time, classes)
        y = build_child(child["velocity"], "velocity", key, given, params, state)
        check(y, data)
        return params, state, {"velocity": y, "target": data}

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        data, classes = split(x)
        with labeled_as("flow_matching"):
            if train:
                check_train_key(key)
        draws = key if train and key is not None else jax.random.key(0)
        wide = param_dtype(data)
        noise = jax.random.normal(fold(draws, "noise"), data.shape, wide).astype(data.dtype)
        t = jax.random.uniform(fold(draws, "time"), data.shape[:1], wide).astype(data.dtype)
        along = t.reshape(-1, *[1] * (data.ndim - 1))
        given = ((1 - along) * noise + along * data, t)
        if classes is not None:
            if train:
                left_out = jax.random.bernoulli(fold(draws, "dropped"), dropped, classes.shape)
                classes = jnp.where(left_out, jnp.asarray(num_classes, classes.dtype), classes)
            given = (*given, classes)
        y, inner = apply_child(child["velocity"], "velocity", params, state, given, key=key, train=train)
        check(y, data)
        return {"velocity": y, "target": data - noise}, {"velocity": inner} if inner else {}

    return compose(build, apply, label="flow_matching", children=child)
