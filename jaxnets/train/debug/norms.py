"""Norms of gradients, updates and activations of every layer, reported with every epoch."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.net import Net
from jaxnets.core.paths import Pattern, matches, paths
from jaxnets.train.options import Parts, StepInfo

QUANTITIES = ("gradients", "updates", "activations", "parameters")
By = Literal["layer", "parameter", "network"]


def norms(
    net: Net | None = None, *, of: Sequence[str] | None = None, on: Pattern = "**", by: By = "layer"
) -> Callable[[StepInfo], Parts]:
    """Report the norms of gradients, updates and activations: `options=jn.train.Options(monitor=norms(net))`.

    The history then has, for each layer by its path, the mean over the epoch's steps of

    - `gradient_norm/conv1`, ‖∇L‖₂ over all the layer's parameters together,
    - `update_norm/conv1`, ‖Δθ‖₂ of what the optimizer added to them,
    - `update_ratio/conv1`, ‖Δθ‖₂ / ‖θ‖₂, 0 if the parameters are all zero,
    - `activation_norm/conv1`, √(mean y²) over the values y of its output in training, which does not depend on the
      batch size,
    - `parameter_norm/conv1`, ‖θ‖₂ before the step, on request.

    Norms are computed in float32 or better. Gradients are those that the optimizer gets, before it clips them. No
    activation is reported for a block without arithmetic of its own, such as `serial`, or for a layer that does
    nothing. The copies of a layer in a `repeat` are reported together. Activations are those of the whole batch,
    including the rows that fill it up and the padding of sequences. They cost a forward pass per step unless the
    compiler finds that it has computed them already; everything else costs little.

    Args:
        net: the network, for its activations.
        of: what to report, any of "gradients", "updates", "activations", "parameters"; by default the first two, and
            with a network the activations.
        on: a pattern over paths (see `jn.paths`): of layers, or of parameters with `by="parameter"`.
        by: "layer"; "parameter" for each array of parameters, `gradient_norm/conv1/kernel`; "network" for a single
            value, `gradient_norm`, where `activation_norm` is that of the outputs.

    Raises:
        NetError: for an unknown name, activations without a network, and, when the program is traced, for a pattern
            that matches nothing.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net = jn.serial(hidden=jn.dense(4), tanh=jnp.tanh, out=jn.dense(2))
    >>> data = jax.random.normal(jax.random.key(0), (8, 3)), jnp.zeros(8, int)
    >>> program = jn.train.program(net, jn.losses.cross_entropy, optax.sgd(0.1), data, epochs=1, batch_size=4,
    ...                            options=jn.train.Options(monitor=norms(net, on="hidden")))
    >>> _, history = program(jax.random.key(1))
    >>> sorted(name for name in history if "/" in name)
    ['activation_norm/hidden', 'gradient_norm/hidden', 'update_norm/hidden', 'update_ratio/hidden']
    """
    chosen = ("gradients", "updates", *(() if net is None else ("activations",))) if of is None else tuple(of)
    with labeled_as("norms"):
        if unknown := [name for name in chosen if name not in QUANTITIES]:
            raise NetError(f"expects any of {', '.join(QUANTITIES)}, got {', '.join(map(repr, unknown))}")
        if by not in ("layer", "parameter", "network"):
            raise NetError(f"expects by='layer', 'parameter' or 'network', got {by!r}")
        if "activations" in chosen and net is None:
            raise NetError("needs the network for its activations: norms(net)")

    def monitor(info: StepInfo) -> Parts:
        # Frozen parameters have no gradient, and do not count in the ratio.
        learned = jax.tree.map(
            lambda gradient, own: None if gradient is None else own,
            info.gradients,
            info.state.params,
            is_leaf=lambda leaf: leaf is None,
        )
        found: dict[str, dict[str, jax.Array]] = {}
        if "gradients" in chosen:
            found["gradient_norm"] = _norms(info.gradients, by)
        if "updates" in chosen:
            sizes, weights = _norms(info.updates, by), _norms(learned, by)
            found["update_norm"] = sizes
            found["update_ratio"] = {
                path: jnp.where(weights[path] > 0, size / jnp.where(weights[path] > 0, weights[path], 1), 0)
                for path, size in sizes.items()
            }
        if "parameters" in chosen:
            found["parameter_norm"] = _norms(info.state.params, by)
        if "activations" in chosen and net is not None:
            found["activation_norm"] = activations(net, info, whole=by == "network")
        reported = {
            f"{what}/{path}" if path else what: value
            for what, values in found.items()
            for path, value in values.items()
            if matches(on, path)
        }
        if not reported:
            have = ", ".join(dict.fromkeys(path for values in found.values() for path in values))
            raise NetError(f"reports nothing: {on!r} matches none of {have}", label="norms")
        return reported

    return monitor


def activations(net: Net, info: StepInfo, *, whole: bool = False) -> dict[str, jax.Array]:
    """Return the root mean square of each layer's outputs in a step, by path; with `whole`, only the network's."""
    from jaxnets.tracing import layers
    from jaxnets.tracing.operation import Place, Program
    from jaxnets.tracing.replay import TracedReplay

    def outputs(*args: Any) -> Any:
        return net.apply(*args, key=info.key, train=True)[0]

    args = (info.state.params, info.state.state, info.batch.x)
    replay = TracedReplay(lambda array: jnp.square(_wide(jnp.abs(array))).mean())
    given = [replay.live(leaf, "input") for leaf in jax.tree.leaves(args)]
    made = replay.run(jax.make_jaxpr(outputs)(*args), given, Place())
    program = Program(replay.operations, [each.value for each in given], [each.value for each in made])
    found = {}
    for path, values in layers.outputs(program).items():
        own = [value for value in values if value in replay.measured and (whole or value.path == path)]
        if own and (path == () if whole else _has(net, path)):
            count = sum(value.size for value in own)
            squares = sum(replay.measured[value].mean() * (value.size / count) for value in own)
            found["/".join(path)] = jnp.sqrt(squares)
    return found


def _has(net: Net, path: tuple[str, ...]) -> bool:
    for name in path:
        if name not in net.children:
            return False
        net = net.children[name]
    return True


def _norms(tree: Any, by: By) -> dict[str, jax.Array]:
    """Return ‖·‖₂ over the leaves of each layer by path, of each leaf, or over all leaves."""
    groups: dict[str, list[Any]] = {}
    for path, leaf in paths(tree).items():
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            name = {"parameter": path, "layer": path.rpartition("/")[0], "network": ""}[by]
            groups.setdefault(name, []).append(_wide(jnp.abs(leaf)))
    widest = {name: max((leaf.dtype for leaf in leaves), key=lambda d: d.itemsize) for name, leaves in groups.items()}
    return {
        name: jnp.sqrt(sum(jnp.square(leaf.astype(widest[name])).sum() for leaf in leaves))
        for name, leaves in groups.items()
    }


def _wide(array: jax.Array) -> jax.Array:
    """Return an array in float32 or better."""
    return array.astype(jnp.float32) if array.dtype.itemsize < 4 else array
