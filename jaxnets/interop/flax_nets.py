"""Networks made of modules of Flax: a Linen module, an NNX module, or a function that makes one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax

from jaxnets.core.contract import check_key
from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.net import Key, Net, Params, State, fold, spec
from jaxnets.core.value import recorded
from jaxnets.interop import nnx_nets
from jaxnets.interop.flax_calls import CALL, MODES, check_call, name_of, refuse_padded, taken_by

# Collections that hold what was recorded on the way.
_RECORDS = ("intermediates", "perturbations")


def from_flax_module(module: Any, *, call: Callable[[Any, Any, bool], Any] | None = None, rngs: Any = None) -> Net:
    """Return a network that runs a module of Flax, Linen or NNX, whatever is inside.

    The network is used as any other: in `jn.serial`, `jn.fit`, sweeps, `jn.summary`; only `jn.save(net=)` refuses it.
    To take over the weights alone, into a network of this library's layers, use `jn.interop.from_flax`.

    **Linen.** `params` is the collection of that name, `state` has the others, `{"batch_stats": ...}`; they are updated
    in training only. `net.init(key, x)` draws what `module.init(key, x)` draws, in evaluation mode, from the shape of
    `x` alone. In training, each stream of random numbers, `"dropout"`, has `key` folded with the CRC-32 of its name.
    What a module records by `sow` or `perturb` is dropped. Networks of equal modules are equal.

    **NNX.** `module` is a function or a class that makes a module, called as `module(rngs=nnx.Rngs(key))` to draw the
    parameters; or a module, whose own values `net.init` then returns for every key. `params` has its `nnx.Param`,
    `state` its other variables except streams, by their paths. Each stream has `key` folded with its path; in
    evaluation without a key, `jax.random.key(0)`. The module is never changed.

    **Training** is said in the module's own way: by arguments of its `__call__` named `train`, `training`,
    `is_training`, `deterministic` or `use_running_average`, otherwise by its fields of these names (in Linen a field
    that is set has priority over the argument of its name), and in NNX by `module.train()` and `module.eval()`.

    Args:
        module: an unbound Linen module; an NNX module, or a function `(*, rngs) -> module`.
        call: how to run the module, `(module, x, train) -> y`; default: `module(x)`, with the arguments above.
        rngs: for Linen, the names of the streams that modules look for by `has_rng`; default: `("dropout",)`. Streams
            of other names are served in any case.

    Raises:
        NetError: for anything else than such a module, one that takes more than `x`, or `Padded` input without `call=`,
            since Flax's modules would read the padding; when the network runs, for what Flax refuses.

    >>> import flax.linen as nn
    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> class Classifier(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x, train):
    ...         x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
    ...         return nn.Dense(2)(nn.Dropout(0.5, deterministic=not train)(x))
    >>> net, x = from_flax_module(Classifier()), jnp.ones((4, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> sorted(params), sorted(state), net == from_flax_module(Classifier())
    (['BatchNorm_0', 'Dense_0', 'Dense_1'], ['batch_stats'], True)
    >>> y, state = net.apply(params, state, x, key=jax.random.key(1), train=True)
    >>> y.shape
    (4, 2)
    """
    import flax.linen as nn
    from flax import nnx

    from jaxnets.interop.flax_classes import LinenNet

    with labeled_as("from_flax_module"):
        if call is not None and not callable(call):
            raise NetError(f"expects a function for call, got {shown(call)}; write {CALL}")
        if isinstance(rngs, str):
            raise NetError(f"expects names for rngs, got {rngs!r}; write ({rngs!r},)")
        if isinstance(module, LinenNet):
            return module.net
        if isinstance(module, nn.Module):
            if module.scope is not None:
                raise NetError(
                    f"expects an unbound module, got {name_of(module)} with variables; pass module.unbind()[0]"
                )
            check_call(module, call)
            return _linen(module, call, tuple(rngs or ("dropout",)))
        if rngs is not None:
            raise NetError("expects rngs for Linen modules alone; NNX's modules hold their streams")
        if isinstance(module, type) and issubclass(module, nn.Module):
            raise NetError(f"expects a module, got the class {module.__name__}: make one, {module.__name__}(...)")
        if isinstance(module, nnx.Module):
            check_call(module, call)
            graphdef, values = nnx.split(module)
            leaves, structure = jax.tree.flatten(values)
            return nnx_nets.of_values(graphdef, structure, tuple(leaves), call)
        if not callable(module):
            raise NetError(
                f"expects a module of Flax or a function (*, rngs) that makes one of NNX, got {shown(module)}"
            )
        return nnx_nets.made(module, call)


@recorded
def _linen(module: Any, call: Callable[..., Any] | None, rngs: tuple[str, ...]) -> Net:
    import flax.linen as nn
    from flax.core import unfreeze

    label = f"from_flax_module({name_of(module)})"
    taken, fields = taken_by(module), [name for name in MODES if name in module.__dataclass_fields__]
    # A field that the user has set has priority, as nn.BatchNorm(use_running_average=True).
    arguments = [name for name in taken if getattr(module, name, None) is None]
    cloned = [name for name in fields if name not in taken]

    def inside(method: Callable, args: tuple, kwargs: dict, _: Any) -> Any:
        # Scopes have the names of the parameters' paths, without the module's own name.
        with nn.override_named_call(True):
            return method(*args, **kwargs)

    def run(function: str, train: bool, variables: Any, x: Any, **options: Any) -> Any:
        refuse_padded(x, call)
        own = module.clone(**{name: MODES[name] == train for name in cloned}) if cloned else module
        if (method := call) is not None:
            options["method"] = lambda each, x: method(each, x, train)
        else:
            options |= {name: MODES[name] == train for name in arguments}
        with nn.override_named_call(False), nn.intercept_methods(inside):
            return getattr(own, function)(variables, x, **options)

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        with _explained(label):
            check_key(key)
            x = spec(x)
            shapes = jax.eval_shape(lambda key, x: run("init", False, key, x), key, x)
            kept = [name for name, collection in shapes.items() if not _recorded(name, collection)]
            # Only the variables are computed, not the outputs.
            variables = dict(unfreeze(nn.meta.unbox(run("lazy_init", False, key, x, mutable=kept))))
            return variables.pop("params", {}), variables

    def apply_fn(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        with _explained(label):
            streams = {} if key is None else {name: fold(key, name) for name in ("params", *rngs)}
            options = {"rngs": streams, "mutable": [*state]} if train else {"rngs": streams}
            done = run("apply", train, {"params": params, **state}, x, **options)
            return (done[0], {**state, **unfreeze(done[1])}) if train else (done, state)

    return Net(init_fn, apply_fn, label, kind="from_flax_module")


@contextmanager
def _explained(label: str) -> Iterator[None]:
    """Turn what Flax refuses into a `NetError`."""
    from flax import errors

    try:
        with labeled_as(label):
            yield
    except errors.InvalidRngError as error:
        raise NetError("is random and needs a key, got none; pass apply(..., key=key)", label=label) from error
    except (errors.FlaxError, ValueError) as error:
        text, hint = str(error).partition(" (https://")[0], ""
        if isinstance(error, NetError):
            raise
        if isinstance(error, errors.ModifyScopeVariableError) or "must be passed to the constructor" in text:
            hint = f"; say whether it trains by {CALL}"
        elif isinstance(error, errors.ScopeParamNotFoundError):
            hint = "; pass the parameters of this module; if it has more in training, init has those of evaluation: "
            hint += "call=lambda module, x, train: module(x, train or module.is_initializing())"
        elif not isinstance(error, errors.FlaxError):
            raise
        raise NetError(f"is refused by Flax: {text}{hint}", label=label) from error


def _recorded(name: str, collection: Any) -> bool:
    """Tell whether a collection holds what modules recorded: Flax appends each value to a tuple."""
    leaves = jax.tree.leaves(collection, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return name in _RECORDS or any(isinstance(leaf, tuple) for leaf in leaves)
