"""In which order features stand that were flattened from a map: here and in PyTorch, whose channels come first.

The program of a network tells, whatever it is made of. Each value in it is followed from the input to the outputs, and
with it what of its past matters: whether it is a map, how its features stand, which parameters they stem from.
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
    """What is known of a value.

    Attributes:
        map: whether it has the channels last that PyTorch has first.
        order: where each of its features, on the last axis, stands in PyTorch; `None` where it stands here.
        parameters: those whose last axis is the value's last axis.
    """

    map: bool = False
    order: np.ndarray | None = None
    parameters: frozenset[str] = frozenset()


def feature_orders(net: Net, params: Params, state: State, x: Any, convolved: frozenset[str]) -> tuple[Orders, Orders]:
    """Return where features stand in PyTorch, for each parameter that meets features of a flattened map.

    Args:
        net: the network.
        params: its parameters, or their specs.
        state: its state, likewise.
        x: an input, or its spec. One of three axes is a sequence, one of more is a map.
        convolved: the paths of the kernels whose outputs are maps, `params/conv1/kernel`.

    Returns:
        Two dicts by path, `params/fc1/kernel`: of the first axis of matrices, and of the last axis of any parameter.
        Feature k stands at `order[k]` in PyTorch. What stands alike in both is left out.
    """
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
        if read.issuperset(jaxpr.invars[: len(jax.tree.leaves(params))]):
            break  # no head runs in training only
    return walk.inputs, walk.outputs


@dataclass(frozen=True)
class _Walk:
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    convolved: frozenset[str]

    def program(self, jaxpr: Jaxpr | ClosedJaxpr, given: Sequence[_Fact]) -> list[_Fact]:
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
        if name == "cond":  # its branches compute the same in other ways
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
        """Multiply features by a matrix, the last axis of one with the first of the other, or something else."""
        left, right = given
        (over_left, over_right), _ = numbers
        if tuple(over_left) != (len(shapes[0]) - 1,) or tuple(over_right) != (0,):
            return _Fact(left.map or right.map)
        if left.order is not None:
            self.inputs.update(dict.fromkeys(right.parameters, left.order))
        return _Fact(bool(right.parameters & self.convolved), None, right.parameters)

    def reshape(self, fact: _Fact, old: tuple[int, ...], new: tuple[int, ...]) -> _Fact:
        if fact.map and len(new) == 2 and new[0] == old[0]:  # a map becomes features
            return _Fact(order=_channels_first(old[1:]))
        if len(old) == 2 and len(new) > 3 and new[0] == old[0] and old[1] != new[-1]:  # features become a map
            order = _channels_first(new[1:])
            if order is not None and fact.order is None:
                self.outputs.update(dict.fromkeys(fact.parameters, order))
            return _Fact(map=True)
        return self.aligned([fact], [old], new)

    def aligned(self, given: list[_Fact], shapes: list[tuple[int, ...]], out: tuple[int, ...]) -> _Fact:
        """Compute feature by feature: what is as long as the output's last axis lies along it."""
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
    ends = (permutation[0], permutation[-1]) == (0, len(permutation) - 1)
    return fact if ends else _Fact()


def _channels_first(shape: tuple[int, ...]) -> np.ndarray | None:
    """Return where each number of a map `(*places, channels)` stands when the channels come first."""
    order = np.moveaxis(np.arange(int(np.prod(shape))).reshape(shape[-1], *shape[:-1]), 0, -1).ravel()
    return None if np.array_equal(order, np.arange(order.size)) else order
