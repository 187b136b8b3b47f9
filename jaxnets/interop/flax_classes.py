"""A network as a module of Flax: of Linen, and of NNX."""

from typing import Any

import flax.linen as nn
import jax
from flax import nnx

from jaxnets.core.net import Net, Params, State


class LinenNet(nn.Module):
    """A network as a Linen module; made by `jn.to_linen`.

    Attributes:
        net: the network.
        collection: the collection of its state.
        train: whether a call without `train=` is one in training.
    """

    net: Net
    collection: str = "batch_stats"
    train: bool = False

    @nn.compact
    def __call__(self, x: Any, train: bool | None = None) -> Any:
        """Return the outputs for a batch, and update the state in training."""
        train = self.train if train is None else train
        if self.is_initializing() and not self._held("params") and not self._held(self.collection):
            for collection, tree in zip(("params", self.collection), self.net.init(self.make_rng("params"), x)):
                for name, values in tree.items():
                    self.put_variable(collection, name, values)
        params, state = self._held("params"), self._held(self.collection)
        random = train and (self.has_rng("dropout") or self.has_rng("params"))
        y, after = self.net.apply(params, state, x, key=self.make_rng("dropout") if random else None, train=train)
        if not self.is_initializing():
            for name, values in after.items():
                # What did not change may be in a collection that is not mutable.
                before = jax.tree.leaves(state[name])
                if [*map(id, before)] != [*map(id, jax.tree.leaves(values))]:
                    self.put_variable(self.collection, name, values)
        return y

    def _held(self, collection: str) -> Any:
        return dict(self.variables.get(collection, {}))


class NnxNet(nnx.Module):
    """A network as an NNX module; made by `jn.to_nnx`.

    Attributes:
        net: the network.
        params: its parameters, each an `nnx.Param`.
        state: its state, each array an `nnx.BatchStat`.
        deterministic: whether a call is one in evaluation, as `eval()` and `train()` set it.
        rngs: the stream of the keys of its calls in training.
    """

    def __init__(self, net: Net, params: Params, state: State, rngs: nnx.Rngs) -> None:
        """Hold a network with its parameters and state."""
        self.net = net
        self.params: Any = _variables(nnx.Param, params)
        self.state: Any = _variables(nnx.BatchStat, state)
        self.deterministic = False
        self.rngs: nnx.RngStream = rngs.dropout.fork()

    def __call__(self, x: Any) -> Any:
        """Return the outputs for a batch, and update the state in training."""
        train = not self.deterministic
        key = self.rngs() if train else None
        y, after = self.net.apply(_values(self.params), _values(self.state), x, key=key, train=train)
        _set(self.state, after)
        return y


def _variables(kind: Any, tree: Any) -> Any:
    if isinstance(tree, dict):
        return nnx.Dict({name: _variables(kind, each) for name, each in tree.items()})
    return kind(tree)


def _values(variables: Any) -> Any:
    return (
        variables.get_value() if isinstance(variables, nnx.Variable) else {k: _values(v) for k, v in variables.items()}
    )


def _set(variables: Any, tree: Any) -> None:
    for name, each in variables.items():
        if not isinstance(each, nnx.Variable):
            _set(each, tree[name])
        elif each.get_value() is not tree[name]:
            each.set_value(tree[name])
