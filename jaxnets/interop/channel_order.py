"""The order of features that were flattened from a feature map: channels last here, channels first in PyTorch.

The order is read from the network's jaxpr, so it is found for any network. For each value from the input to the
outputs, three facts are tracked: whether it is a feature map, the order of its features, and the parameters that
produced them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.core.net import Net, Params, State, spec
from jaxnets.core.paths import paths
from jaxnets.tracing import jaxprs

Orders = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Fact:
    """What is known about a value of the jaxpr.

    Attributes:
        map: whether it is a feature map, with channels last here and first in PyTorch.
        order: the index in PyTorch of each feature on the last axis; `None` if it is the same.
        parameters: paths of parameters whose last axis is the value's last axis.
    """

    map: bool = False
    order: np.ndarray | None = None
    parameters: frozenset[str] = frozenset()


def feature_orders(net: Net, params: Params, state: State, x: Any, convolved: frozenset[str]) -> tuple[Orders, Orders]:
    """Return PyTorch's feature order for each parameter that acts on features of a flattened map.

    Args:
        net: the network.
        params: its parameters, or their specs.
        state: its state, or its specs.
        x: an input, or its spec. Inputs of three axes are sequences, those of more axes are feature maps.
        convolved: the paths of the kernels whose outputs are feature maps, `params/conv1/kernel`.

    Returns:
        Two dicts by path, `params/fc1/kernel`: for the first axis of matrices, and for the last axis of any parameter.
        Feature k has index `order[k]` in PyTorch. Parameters with the same order in both are left out.
    """
    # A batch of two, so that the batch axis is not mistaken for an axis of length 1.
    two = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((2, *leaf.shape[1:]), leaf.dtype), spec(x))
    given = {"params": params, "state": state}
    facts = [_Fact(parameters=frozenset({path})) for path in paths(given)]
    facts += [_Fact(map=len(leaf.shape) > 3) for leaf in jax.tree.leaves(two)]
    walk = _Walk({}, {}, convolved)
    for train in (False, True):

        def program(given: Any, x: Any, train: bool = train) -> Any:
            return net.apply(given["params"], given["state"], x, key=jax.random.key(0), train=train)

        jaxpr = jax.make_jaxpr(program)(given, two).jaxpr
        walk.program(jaxpr, facts)
        read = {atom for equation in jaxpr.eqns for atom in equation.invars if not isinstance(atom, Literal)}
        # Trace in training mode only if some parameters, such as those of auxiliary heads, are unused otherwise.
        if read.issuperset(jaxpr.invars[: len(jax.tree.leaves(params))]):
            break
    return walk.inputs, walk.outputs


@dataclass(frozen=True)
class _Walk:
    """A pass over a jaxpr, which collects the orders for the first and last axes of parameters."""

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    convolved: frozenset[str]

    def program(self, jaxpr: Jaxpr | ClosedJaxpr, given: Sequence[_Fact]) -> list[_Fact]:
        """Return the facts of a jaxpr's outputs, given those of its inputs."""
        jaxpr, _ = jaxprs.opened(jaxpr)
        facts: dict[Any, _Fact] = dict(zip(jaxpr.invars, given, strict=True))

        def read(atom: Any) -> _Fact:
            return _Fact() if isinstance(atom, Literal) else facts.get(atom, _Fact())

        for equation in jaxpr.eqns:
            facts |= zip(equation.outvars, self.equation(equation, [read(atom) for atom in equation.invars]))
        return [read(atom) for atom in jaxpr.outvars]

    def equation(self, equation: Any, given: list[_Fact]) -> list[_Fact]:
        name, settings = equation.primitive.name, equation.params
        shapes = [atom.aval.shape for atom in equation.invars]
        out = equation.outvars[0].aval.shape if equation.outvars else ()
        if name == "cond":
            # The branches compute the same function in different ways.
            return self.program(jaxprs.branches_of(equation)[-1], given[1:])
        if (body := jaxprs.scan_parts(equation).body if name == "scan" else jaxprs.body_of(equation)) is not None:
            return self.program(body, given)
        special: Mapping[str, Callable[[], _Fact]] = {
            "dot_general": lambda: self.product(given, settings["dimension_numbers"], shapes),
            "conv_general_dilated": lambda: _Fact(True, None, given[1].parameters),
            "reshape": lambda: self.reshape(given[0], shapes[0], out),
            "concatenate": lambda: _join(given, shapes, settings["dimension"]),
            "transpose": lambda: _moved(given[0], settings["permutation"]),
        }
        if name in special:
            return [special[name]()]
        return [self.aligned(given, shapes, variable.aval.shape) for variable in equation.outvars]

    def product(self, given: list[_Fact], numbers: Any, shapes: list[tuple[int, ...]]) -> _Fact:
        """Return the fact of a product: of features with a matrix (last axis with first), or any other."""
        left, right = given
        (over_left, over_right), _ = numbers
        if tuple(over_left) != (len(shapes[0]) - 1,) or tuple(over_right) != (0,):
            return _Fact(left.map or right.map)
        if left.order is not None:
            self.inputs.update(dict.fromkeys(right.parameters, left.order))
        return _Fact(bool(right.parameters & self.convolved), None, right.parameters)

    def reshape(self, fact: _Fact, old: tuple[int, ...], new: tuple[int, ...]) -> _Fact:
        # A feature map is flattened: (batch, *spatial, channels) to (batch, features).
        if fact.map and len(new) == 2 and new[0] == old[0]:
            return _Fact(order=_channels_first(old[1:]))
        # Features are unflattened to a feature map: the layer before it produces them in PyTorch's order.
        if len(old) == 2 and len(new) > 3 and new[0] == old[0] and old[1] != new[-1]:
            order = _channels_first(new[1:])
            if order is not None and fact.order is None:
                self.outputs.update(dict.fromkeys(fact.parameters, order))
            return _Fact(map=True)
        return self.aligned([fact], [old], new)

    def aligned(self, given: list[_Fact], shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> _Fact:
        """Return the fact of an elementwise operation, from the operands with the output's last axis."""
        along = [fact for fact, shape in zip(given, shapes) if shape[-1:] == out[-1:]]
        order = next((fact.order for fact in along if fact.order is not None), None)
        parameters = reduce(frozenset.union, (fact.parameters for fact in along), frozenset())
        if order is not None and parameters:
            self.outputs.update(dict.fromkeys(parameters, order))
        return _Fact(len(out) > 2 and any(fact.map for fact in given), order, parameters)


def _join(given: list[_Fact], shapes: list[tuple[int, ...]], axis: int) -> _Fact:
    joined = replace(given[0], map=any(fact.map for fact in given))
    if axis < len(shapes[0]) - 1:
        return joined
    if all(fact.order is None for fact in given):
        return _Fact(map=joined.map)
    widths = [shape[-1] for shape in shapes]
    orders = [np.arange(n) if fact.order is None else fact.order for fact, n in zip(given, widths)]
    return _Fact(order=np.concatenate([order + sum(widths[:k]) for k, order in enumerate(orders)]))


def _moved(fact: _Fact, permutation: Sequence[int]) -> _Fact:
    # A fact is about the last axis.
    return fact if permutation[-1] == len(permutation) - 1 else _Fact()


def _channels_first(shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the channels-first index of each number of a map `(*spatial, channels)`; `None` if it is the same."""
    order = np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape[-1], *shape[:-1]), 0, -1).ravel()
    return None if np.array_equal(order, np.arange(order.size)) else order
