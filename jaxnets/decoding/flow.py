"""Examples drawn by a learned flow: its differential equation, integrated in a scan."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxnets.core.compiled import computed
from jaxnets.core.errors import NetError, check_count, check_counts, known, labeled_as, shown
from jaxnets.core.net import Key, Net, Params, State, check_key

Method = Literal["euler", "heun"]


def integrate(
    velocity: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, steps: int, method: Method = "euler"
) -> jax.Array:
    """Return x(1) of dx/dt = v(x, t) with x(0) given, by equal steps of size h = 1 / steps.

    Euler: x ← x + h v(x, t), with an error of order h. Heun: x ← x + h (v(x, t) + v(x', t + h)) / 2 with Euler's x', of
    order h², which evaluates the velocity twice a step.

    Args:
        velocity: `(x, t) -> v`, with t a scalar of the dtype of x.
        x: the start, floating, of any shape.
        steps: how many steps, at least 1.
        method: "euler" or "heun".

    Raises:
        NetError: for fewer steps than 1, or another method.

    >>> import jax.numpy as jnp
    >>> round(integrate(lambda x, t: x, jnp.ones(()), 100, "heun").item(), 3)
    2.718
    """
    with labeled_as("integrate"):
        _check(steps, method)
    h = jnp.asarray(1 / steps, x.dtype)

    def step(x: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
        t = number.astype(x.dtype) * h
        v = velocity(x, t)
        if method == "heun":
            v = (v + velocity(x + h * v, t + h)) / 2
        return x + h * v, None

    return jax.lax.scan(step, x, jnp.arange(steps))[0]


def flow(
    net: Net,
    params: Params,
    state: State,
    shape: Sequence[int],
    steps: int = 50,
    *,
    key: Key,
    classes: Any = None,
    guidance: Any = 1.0,
    method: Method = "euler",
) -> jax.Array:
    """Draw examples by a flow from x(0) ~ N(0, 1) at t = 0 to x(1), in one compiled scan.

    With classes and guidance w the velocity is v(x, t, none) + w (v(x, t, class) − v(x, t, none)): w = 1 is that of the
    class alone, and above 1 examples are more typical of their class and less varied. It can be jitted, and mapped over
    keys, parameters and guidance.

    Args:
        net: a `jn.models.flow_matching`.
        params: its parameters.
        state: its state.
        shape: of one example, or with `classes=None` and no classes in the network of all of them,
            `(examples, ...)`.
        steps: how many steps; Heun's cost twice as much as Euler's.
        key: a random key, of the noise.
        classes: integers `(examples,)`, for a network with classes; `num_classes` stands for no class.
        guidance: w ≥ 0; may be traced. Known to be 1, it costs half as much.
        method: as in `integrate`.

    Returns:
        The examples, `(examples, ...)` float32.

    Raises:
        NetError: for another network, classes where it has none or none where it has, or out of range if known, or an
            option out of range.

    Lipman et al., "Flow Matching for Generative Modeling" (2023), equation 1; Ho and Salimans, "Classifier-Free
    Diffusion Guidance" (2022), equation 6 with w one larger.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.models.flow_matching(jn.serial(lambda given: given[0], jn.dense(2)))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 2)))
    >>> flow(net, params, state, (3, 2), 5, key=jax.random.key(1)).shape
    (3, 2)
    """
    with labeled_as("flow"):
        if not isinstance(net, Net) or net.kind != "flow_matching" or "num_classes" not in net.arguments:
            came = net.label if isinstance(net, Net) else shown(net)
            raise NetError(f"expects what jn.models.flow_matching returned, got {came}")
        check_key(key)
        check_counts("shape", shape)
        _check(steps, method)
        count = net.arguments["num_classes"]
        if (classes is None) is not (count is None):
            wanted = "classes=integers (examples,)" if count is not None else "no classes, since the network has none"
            raise NetError(f"expects {wanted}, got {shown(classes)}")
        if classes is not None:
            classes = jnp.asarray(classes)
            if classes.ndim != 1 or not jnp.issubdtype(classes.dtype, jnp.integer):
                raise NetError(f"expects integer classes (examples,), got {classes.dtype} {classes.shape}")
            if (values := known(classes)) is not None and ((values < 0) | (values > count)).any():
                raise NetError(f"expects classes from 0 to {count}, got {values.min()} to {values.max()}")
            shape = (len(classes), *shape)
        strength = known(jnp.asarray(guidance))
        if strength is not None and not (strength.shape == () and strength >= 0):
            raise NetError(f"expects guidance ≥ 0, got {shown(guidance)}")
        guided = classes is not None and not (strength is not None and strength == 1)
        static = [net, tuple(shape), steps, guided, method]
        return computed(_flow, static, params, state, key, classes, jnp.asarray(guidance, jnp.float32))


def _check(steps: Any, method: Any) -> None:
    check_count("steps", steps)
    if method not in get_args(Method):
        raise NetError(f"expects method 'euler' or 'heun', got {method!r}")


def _flow(
    net: Net,
    shape: tuple[int, ...],
    steps: int,
    guided: bool,
    method: Method,
    params: Params,
    state: State,
    key: Key,
    classes: Any,
    guidance: jax.Array,
) -> jax.Array:
    inner = net["velocity"]

    def learned(x: jax.Array, t: jax.Array, *classes: jax.Array) -> jax.Array:
        given = (x, jnp.broadcast_to(t, x.shape[:1]), *classes)
        return inner.apply(params.get("velocity", {}), state.get("velocity", {}), given)[0]

    def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
        if classes is None:
            return learned(x, t)
        if not guided:
            return learned(x, t, classes)
        # Both velocities in one pass over twice the batch.
        none = jnp.full_like(classes, net.arguments["num_classes"])
        plain, own = jnp.split(learned(jnp.concatenate([x, x]), t, jnp.concatenate([none, classes])), 2)
        return plain + guidance * (own - plain)

    return integrate(velocity, jax.random.normal(key, shape, jnp.float32), steps, method)
