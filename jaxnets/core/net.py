"""`Net`, a pair of pure functions, and functions that make one out of others."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, overload

import jax
import numpy as np

from jaxnets.core.contract import CALLS, check_key, checked
from jaxnets.core.draws import draw_together
from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, labeled_as
from jaxnets.core.markup import foldable, layers
from jaxnets.core.paths import paths
from jaxnets.core.value import Value, made_by

Params = Any  # nested dicts of arrays
State = Any  # nested dicts of arrays
Key = jax.Array

DEEP = 20
"""Networks of at least this many layers draw their initial values together: `core/draws.py`."""


class Apply(Protocol):
    """`(params, state, x, *, key=None, train=False) -> (y, state)`."""

    def __call__(
        self, params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False
    ) -> tuple[Any, State]:
        """Return the outputs for a batch, and the state after it."""
        ...


@dataclass(frozen=True)
class Wiring:
    """How the children of a network are connected.

    Attributes:
        sources: for each child, the names of the children that it reads, in order; "" is the input of the network.
        output: the child whose output is that of the network.
        shortcut: what is added to it, a child or ""; `None` for nothing.
        activation: a function of the sum; `None` for none.
    """

    sources: Mapping[str, tuple[str, ...]]
    output: str
    shortcut: str | None = None
    activation: Callable[[Any], Any] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Net(Value):
    """A network: the pair of pure functions `init` and `apply`, with what is needed to print and cut it.

    Parameters and state are plain nested dicts of arrays; a network without any has `{}`. `apply` returns a state of
    the same structure, shapes and dtypes as it was given.

    A network is a value: two that are built from equal arguments are equal, and what was compiled for one is reused for
    the other. Functions and arrays among the arguments are compared by identity, except that functions made by Optax
    and JAX are compared by their settings.

    Attributes:
        init: `(key, x) -> (params, state)`. `x` is an array or a `jax.ShapeDtypeStruct`, batch axis first; only its
            shape and dtype are read.
        apply: `(params, state, x, *, key=None, train=False) -> (y, state)`. Random layers need `key` in training;
            `train` is a Python bool.
        label: how the network was written, `conv(64, 3)`; for display only.
        children: the networks inside, by the same names as in `params`.
        build: for a network made of others, `(key, x) -> (params, state, y)` with `x` and `y` as
            `jax.ShapeDtypeStruct`. It traces each leaf once, however deep.
        cut: the function behind `upto`, for networks whose children run one after another.
        full_precision: whether `cast` leaves the parameters as they are (normalization layers).
        copies: the number of copies of the children that the parameters hold, stacked along their first axis
            (`repeat`, `ensemble`); 0 if they are not stacked.
        kind: the kind of network, `conv`; default: the label.
        inner: the network that `remat`, `cast`, `repeat` or `ensemble` runs; `None` for other networks.
        caches: for a layer that can continue from a `Cache` in its state, the name of the cache there.
        ties: for `tied`, which parameter stands in for each that is left out, by path.
        wiring: how the children are connected; `None` if they are not nodes of a graph, or this is unknown.
        remake: `(change) -> Net`, for a network around others that is not described by its wiring: the same network of
            `change(each)` in place of each of them.
        constructor: the function that made the network, `jn.conv`; `None` if unknown, as in a custom layer.
            `dataclasses.replace` drops it and the two before it, since it makes a different network.
        arguments: the arguments of the constructor by name, defaults included.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = jn.serial(hidden=jn.dense(8), relu=jax.nn.relu, out=jn.dense(2))
    >>> net
    serial
    ├─ hidden: dense(8)
    ├─ relu: relu
    └─ out: dense(2)
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 4)))
    >>> y, state = net.apply(params, state, jnp.ones((32, 4)))
    >>> y.shape, params["out"]["kernel"].shape
    ((32, 2), (8, 2))
    >>> net == jn.serial(hidden=jn.dense(8), relu=jax.nn.relu, out=jn.dense(2))
    True
    """

    init: Callable[[Key, Any], tuple[Params, State]]
    apply: Apply
    label: str = "net"
    children: Mapping[str, "Net"] = field(default_factory=dict)
    build: Callable[[Key, Any], tuple[Params, State, Any]] | None = None
    cut: Callable[[tuple[str, ...]], Apply] | None = None
    full_precision: bool = False
    copies: int = 0
    kind: str = ""
    inner: "Net | None" = None
    caches: str = ""
    ties: Mapping[str, str] = field(default_factory=dict)
    wiring: Wiring | None = field(default=None, init=False)
    remake: "Callable[[Callable[[Net], Net]], Net] | None" = field(default=None, init=False)
    constructor: Callable[..., Any] | None = field(default=None, init=False)
    arguments: Mapping[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name, function in (("init", self.init), ("apply", self.apply)):
            # The dataclass is frozen.
            object.__setattr__(self, name, checked(function, name, self.label))
        object.__setattr__(self, "kind", self.kind or self.label)

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Explain how to run a network.

        Raises:
            NetError: always.
        """
        hint = f"{CALLS['init']}, then {CALLS['apply']}"
        raise NetError(f"can't be called, as it holds no parameters: {hint}", label=self.kind)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            hint = ABSENT.get(name, "")
            raise AttributeError(f"a Net has no {name!r}" + (f"; {hint}" if hint else ""), name=name, obj=self)

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which networks are compared: constructor and arguments, or the functions if these are unknown."""
        if self.constructor is None:
            return Ingredients(self.init, self.apply, self.build, self.cut, self.children)
        return Ingredients(self.constructor, self.arguments)

    def init_with_output(self, key: Key, x: Any) -> tuple[Params, State, Any]:
        """Return initial parameters and state, and the shape of the output: `(params, state, y)`.

        Networks made of others initialize their children by this method, so that each leaf is traced once, however
        deep.

        Args:
            key: a random key.
            x: an array or a `jax.ShapeDtypeStruct`, or a pytree of them; only shapes and dtypes are read.

        Returns:
            What `init` returns, and `y` as a pytree of `jax.ShapeDtypeStruct`.

        >>> import jax, jax.numpy as jnp, jaxnets as jn
        >>> net = jn.serial(jn.conv(6, 5), jn.flatten)
        >>> net.init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 1)))[2]
        ShapeDtypeStruct(shape=(2, 96), dtype=float32)
        """
        if self.build is not None:
            return self.build(key, x if _is_spec(x) else spec(x))
        params, state = self.init(key, x)
        # JAX caches the trace of a function by shapes: equal leaves are traced once.
        return params, state, jax.eval_shape(self.apply, params, state, x)[0]

    def __getitem__(self, path: str) -> "Net":
        """Return the child at a slash-joined path.

        Raises:
            NetError: if there is none; the error lists the children.
        """
        net = self
        for name in str(path).split("/"):
            if name not in net.children:
                names = ", ".join(net.children) or "none"
                raise NetError(f"has no child {name!r} (in {path!r}); its children: {names}", label=net.label)
            net = net.children[name]
        return net

    def upto(self, path: str) -> "Net":
        """Return the network that stops after a child, and takes the same full `params` and `state`.

        Use it to extract deep features: `net.upto("flatten").apply(params, state, x)`.

        Raises:
            NetError: if there is no such child, or its parent does not run its children in order.
        """
        self[path]
        if self.cut is None:
            raise NetError(f"runs no children in order, so it can't stop after {path!r}", label=self.label)
        # Only the children up to the path's first name remain.
        apply, children = self.cut(tuple(path.split("/"))), {}
        for name, child in self.children.items():
            children[name] = child
            if name == path.split("/")[0]:
                break

        def build(key: Key, x: Any) -> tuple[Params, State, Any]:
            # The parameters are those of the whole network.
            params, state, _ = self.init_with_output(key, x)
            return params, state, jax.eval_shape(lambda p, s, x: apply(p, s, x)[0], params, state, x)

        cut = compose(build, apply, label=f"{self.label} up to {path}", children=children, cut=self.cut, kind=self.kind)
        cut = replace(cut, apply=apply)  # unchecked: parameters of the children left out are not an error
        return made_by(cut, Net.upto, {"self": self, "path": path})

    def _repr_html_(self) -> str:
        # Notebooks show a tree that folds.
        return foldable(self)

    def __repr__(self) -> str:
        lines = [self.label]
        for place, (name, child) in enumerate(self.children.items(), start=1):
            last = place == len(self.children)
            first, *rest = repr(child).split("\n")
            lines.append(f"{'└─' if last else '├─'} {name}: {first}")
            lines.extend(f"{'  ' if last else '│ '} {line}" for line in rest)
        return "\n".join(lines)


_MAKES = f"a network holds no parameters, {CALLS['init']} makes them"
_RUNS = f"{CALLS['apply']} runs it; leave train=True out to evaluate"
_TRAINS = "jn.fit(net, loss, optimizer, data, epochs=10, key=key) trains it"
# Attributes that networks of other libraries have.
ABSENT = {
    **dict.fromkeys(("params", "parameters", "weights", "variables", "state_dict", "get_weights"), _MAKES),
    **dict.fromkeys(("fit", "compile", "train", "train_step", "backward"), _TRAINS),
    **dict.fromkeys(("forward", "eval", "evaluate", "predict"), _RUNS),
    **dict.fromkeys(("add", "append", "layers", "modules"), "jn.serial(...) makes one from layers, .children has them"),
    **dict.fromkeys(("to", "cuda", "cpu", "half"), "jax.device_put(params) places parameters, jn.cast(net) casts"),
    **dict.fromkeys(("summary", "count_params", "tabulate"), "jn.summary(net, x) shows it"),
}


def _is_spec(x: Any) -> bool:
    return all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(x))


def spec(x: Any) -> Any:
    """Return the pytree `x` with a `jax.ShapeDtypeStruct` for each array, with the dtype that JAX would use."""
    return jax.eval_shape(lambda x: x, x)


def describe(x: Any) -> str:
    """Describe the shapes and dtypes of a pytree for a message, `(32, 784) float32`."""
    return ", ".join(f"{leaf.shape} {leaf.dtype}" for leaf in jax.tree.leaves(spec(x)))


@overload
def fold(key: Key, name: str) -> Key: ...
@overload
def fold(key: Key | None, name: str) -> Key | None: ...
def fold(key: Key | None, name: str) -> Key | None:
    """Return the key of a child: `key` folded with the CRC-32 of its name; `None` for `None`."""
    return None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))


def compose(
    build: Callable[[Key, Any], tuple[Params, State, Any]],
    apply: Apply,
    *,
    label: str,
    children: Mapping[str, Net],
    cut: Callable[[tuple[str, ...]], Apply] | None = None,
    full_precision: bool = False,
    copies: int = 0,
    kind: str = "",
    inner: Net | None = None,
    wiring: Wiring | None = None,
    remake: Callable[[Callable[[Net], Net]], Net] | None = None,
) -> Net:
    """Make a network out of others, with parameters checked by name; every combinator calls this.

    Given the parameters of another network, the outermost network lists every missing, unexpected and misshapen path.
    """

    def init_fn(key: Key, x: Any) -> tuple[Params, State]:
        check_key(key)
        x = spec(x)
        # The initial values of a deep network are drawn in one compiled loop.
        return (
            draw_together(lambda key: build(key, x)[:2], key)
            if sum(map(layers, children.values())) >= DEEP
            else build(key, x)[:2]
        )

    def apply_fn(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        try:
            for what, tree in (("parameters", params), ("state", state)):
                if not isinstance(tree, Mapping):
                    hint = "; a train state has state.params and state.state" if hasattr(tree, "opt_state") else ""
                    raise NetError(f"expects {what} as a dict, got {type(tree).__name__}{hint}", label=label)
                if children and (extra := [name for name in tree if name not in children]):
                    raise NetError(
                        f"gets {what} for unknown children {', '.join(extra)}", label=label, names_differ=True
                    )
            return apply(params, state, x, key=key, train=train)
        except NetError as error:
            # Replace an error about the names of one layer with all differences.
            if error.names_differ and (differences := _differences(build, params, state, x)):
                raise NetError(differences, label=label, names_differ=True) from error
            raise

    net = Net(init_fn, apply_fn, label, children, build, cut, full_precision, copies, kind, inner)
    return described(net, wiring, remake)


def described(net: Net, wiring: Wiring | None, remake: Callable[[Callable[[Net], Net]], Net] | None) -> Net:
    """Set the attributes `wiring` and `remake` of a network that was just made, and return it."""
    # The dataclass is frozen.
    object.__setattr__(net, "wiring", wiring)
    object.__setattr__(net, "remake", remake)
    return net


def _differences(build: Callable, params: Params, state: State, x: Any) -> str:
    """Describe how parameters and state differ from those that `init` makes, "" if they agree."""
    # Only shapes: nothing is drawn.
    key = jax.random.key(0)
    wanted_trees = jax.eval_shape(lambda: build(key, spec(x))[:2])
    found: list[str] = []
    hint = "; pass what its own init returned"
    # The state has the paths that the parameters should have.
    if paths(state) and paths(state).keys() == paths(wanted_trees[0]).keys():
        hint = "; parameters and state are swapped"
    # The variables of Flax hold the parameters under this name.
    if isinstance(params, Mapping) and "params" in params and "params" not in wanted_trees[0]:
        hint = "; pass the parameters alone, variables['params']"
    for what, wanted, given in zip(("parameters", "state"), wanted_trees, (params, state), strict=True):
        wanted, given = paths(wanted), paths(given)
        shape = {path: np.shape(leaf) for path, leaf in given.items()}
        lists = {
            "missing": [path for path in wanted if path not in given],
            "unexpected": [path for path in given if path not in wanted],
            "misshapen": [
                f"{path} {shape[path]} for {leaf.shape}"
                for path, leaf in wanted.items()
                if path in given and shape[path] != leaf.shape
            ],
        }
        found += [f"{kind} {what} {', '.join(names)}" for kind, names in lists.items() if names]
    return "gets the parameters or state of another net: " + "; ".join(found) + hint if found else ""


def apply_child(
    child: Net, name: str, params: Params, state: State, x: Any, *, key: Key | None, train: bool
) -> tuple[Any, State]:
    """Apply a child by name to `x`, with its part of the parameters, state and key."""
    with labeled_as(child=name):
        return child.apply(params.get(name, {}), state.get(name, {}), x, key=fold(key, name), train=train)
