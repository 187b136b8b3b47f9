"""Several players that share a network, each with its own objective, optimizer and parameters: their step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from jaxnets.core.equality import Ingredients
from jaxnets.core.errors import NetError, check_count, labeled_as
from jaxnets.core.example_weights import example_weights
from jaxnets.core.net import Key, Params, State
from jaxnets.core.paths import Pattern, matches, paths, select
from jaxnets.core.sharding import constrained
from jaxnets.train import arguments
from jaxnets.train.epoch import Recipe
from jaxnets.train.evaluation import Totals, batch_totals
from jaxnets.train.names import merge_unique
from jaxnets.train.objective import Loss
from jaxnets.train.optimizers import init_optimizer, unrounded, update_params
from jaxnets.train.options import Parts
from jaxnets.train.state import Batch, TrainState
from jaxnets.train.step import (
    ObjectiveFunction,
    all_finite,
    check_step,
    join_frozen,
    moving_average,
    start,
)


@dataclass(frozen=True)
class Player:
    """A part of a network that minimizes an objective of its own.

    Attributes:
        objective: `(params, outputs, targets, weights) -> (scalar, parts)`, as `jn.objective` makes it, or a loss.
        optimizer: the Optax optimizer of its parameters.
        on: which parameters it trains: a pattern over paths (see `jn.paths`), `"discriminator/**"`.
        steps: how many steps of gradient descent it takes in each step of the program.

    Raises:
        NetError: for what is no objective or no optimizer, or a number of steps below 1.

    >>> import jaxnets as jn, optax
    >>> Player(jn.losses.gan_generator, optax.adam(2e-4), on="generator/**").steps
    1
    """

    objective: ObjectiveFunction | Loss
    optimizer: optax.GradientTransformation
    on: Pattern
    steps: int = 1

    def __post_init__(self) -> None:
        with labeled_as("Player"):
            # The dataclass is frozen.
            object.__setattr__(self, "objective", arguments.objective_of(self.objective))
            arguments.check_optimizer(self.optimizer)
            check_count("steps", self.steps)

    @property
    def evaluate(self) -> ObjectiveFunction:
        """The objective: a loss was converted to one."""
        return cast(ObjectiveFunction, self.objective)


@dataclass(frozen=True, eq=False, repr=False)
class Game:
    """The objectives of all players: an objective that is reported, but that nobody minimizes.

    Attributes:
        players: the players by name, in the order in which they move.
        simultaneous: whether all gradients are computed before the first update.
    """

    players: Mapping[str, Player]
    simultaneous: bool

    @cached_property
    def ingredients(self) -> Ingredients:
        """The key by which games are compared."""
        return Ingredients(self.players, self.simultaneous)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names that are reported besides `loss`; `None` if they are not known before a run."""
        own = {name: getattr(player.objective, "names", None) for name, player in self.players.items()}
        if any(names is None for names in own.values()):
            return None
        return tuple(each for name, names in own.items() for each in _reported(name, dict.fromkeys(names or ()), None))

    def __call__(
        self, params: Any, outputs: Any, targets: Any, weights: Any = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the sum of the objectives, and each by the name of its player."""
        totals, rows = [], []
        for name, player in self.players.items():
            total, parts = player.evaluate(params, outputs, targets, weights)
            totals.append(total)
            rows.append(_reported(name, parts, total))
        return _sum(totals), merge_unique(*rows)

    def __repr__(self) -> str:
        texts = (f"{name}={each.objective} on {each.on!r} × {each.steps}" for name, each in self.players.items())
        return f"game({', '.join(texts)}{', simultaneous' if self.simultaneous else ''})"


def _reported(name: str, parts: Mapping[str, Any], total: Any) -> dict[str, Any]:
    """Return a player's objective under its name and, if there are several, its parts below that."""
    return {name: total} | ({f"{name}/{part}": value for part, value in parts.items()} if len(parts) > 1 else {})


@dataclass(frozen=True, eq=False)
class GameRecipe(Recipe):
    """What a program of several players was made of: its objective is a `Game`.

    The train state's `opt_state` has the state of each player's optimizer by name.
    """

    @property
    def players(self) -> Mapping[str, Player]:
        """The players by name, in the order in which they move."""
        return self._game.players

    @property
    def _game(self) -> Game:
        assert isinstance(self.objective, Game)
        return self.objective

    def start(self, x: Any, key: Key) -> TrainState:
        """Return the train state before the first step on inputs of some shape.

        Raises:
            NetError: if a parameter belongs to several players, or to none without being frozen.
        """
        state = start(self.net, optax.identity(), x, replace(self.options, freeze=None), key=key)
        _check_owners(self.players, self.options.freeze, state.params)
        own = {
            name: init_optimizer(player.optimizer, split_owned(state.params, player.on)[0])
            for name, player in self.players.items()
        }
        state = replace(state, opt_state=own)
        return state if self.stopping is None else self.stopping.start(state)

    def train_step(self, state: TrainState, batch: Batch) -> tuple[TrainState, Totals]:
        """Return the train state one step later, and the totals of the last player's examples."""
        batch, before, after = self.prepare(state, batch), state, state
        key, count = jax.random.fold_in(state.key, state.step), max(each.steps for each in self.players.values())
        outputs, piece, rows, values = None, batch, list[Parts](), list[jax.Array]()
        for name, player in self.players.items():
            moves = list[Parts]()
            # A player of fewer steps takes the last parts of the batch.
            for number in range(count - player.steps, count):
                piece = batch if count == 1 else self._part(batch, number, count)
                move = key if count == 1 else jax.random.fold_in(key, number)
                base = before if self._game.simultaneous else after
                after, outputs, parts, grads = self._move(name, base, after, piece, move)
                moves.append(parts)
                values += [parts[name], *jax.tree.leaves(grads)]
            # The mean over the player's steps
            rows.append({part: _sum([each[part] for each in moves]) / len(moves) for part in moves[0]})
        parts = merge_unique(*rows)
        parts = merge_unique({"loss": _sum([parts[name] for name in self.players])}, parts)
        after = self._finished(before, after, parts["loss"], values)
        return after, batch_totals(self.metrics, outputs, piece, parts)

    def _part(self, batch: Batch, number: int, count: int) -> Batch:
        # Every count-th row, so that rows that fill up the last batch are spread over the parts.
        return constrained(jax.tree.map(lambda leaf: leaf[number::count], batch), self.batch_sharding)

    def _move(
        self, name: str, base: TrainState, after: TrainState, batch: Batch, key: Key
    ) -> tuple[TrainState, Any, Parts, Any]:
        """Return the train state after one player's step, with the gradient at the parameters of `base`."""
        player = self.players[name]
        learned, others = split_owned(base.params, player.on)

        def evaluate(learned: Any) -> tuple[jax.Array, tuple[Any, State, Parts]]:
            params = join_frozen(learned, others)
            with example_weights(batch.weights if self.options.weighted else None):
                outputs, state = self.net.apply(params, base.state, batch.x, key=key, train=True)
            total, parts = player.evaluate(params, outputs, batch.y, batch.weights)
            return total, (outputs, state, _reported(name, parts, total))

        grads, (outputs, state, parts) = jax.grad(evaluate, has_aux=True)(learned)
        params, own, _ = update_params(
            player.optimizer, grads, after.opt_state[name], learned, parts[name], lambda learned: evaluate(learned)[0]
        )
        after = replace(
            after,
            params=join_frozen(params, split_owned(after.params, player.on)[1]),
            # The layers of the other players keep their statistics.
            state=join_frozen(split_owned(state, player.on)[0], split_owned(after.state, player.on)[1]),
            opt_state={**after.opt_state, name: own},
        )
        return after, outputs, parts, grads

    def _finished(self, before: TrainState, after: TrainState, loss: jax.Array, values: list[jax.Array]) -> TrainState:
        """Return the train state after all moves, with its moving average, or the one before if it halts."""
        after = replace(after, step=before.step + 1)
        if self.options.ema_decay is not None:
            exact = after.params
            for name, player in self.players.items():
                own, others = split_owned(exact, player.on)
                exact = join_frozen(unrounded(after.opt_state[name], own), others)
            after = replace(after, ema=moving_average(before.ema, exact, self.options.ema_decay, before.step))
        if not self.options.halt_on_nonfinite:
            return after
        after, taken = check_step(self.options, before, after, loss, all_finite(values))
        new, old = ((each.params, each.opt_state, each.ema) for each in (after, before))
        params, own, ema = jax.tree.map(lambda new, old: jnp.where(taken, new, old), new, old)
        return replace(after, params=params, opt_state=own, ema=ema)


def split_owned(tree: Any, pattern: Pattern) -> tuple[Any, Any]:
    """Split a tree into the leaves that a pattern matches and the others, each with `None` in place of the other's."""
    structure, leaves = jax.tree.structure(tree), paths(tree)
    own = {path: matches(pattern, path) for path in leaves}
    halves = ([leaf if own[path] is kept else None for path, leaf in leaves.items()] for kept in (True, False))
    first, second = (jax.tree.unflatten(structure, half) for half in halves)
    return first, second


def _check_owners(players: Mapping[str, Player], freeze: Pattern | None, params: Params) -> None:
    """Check that each parameter is trained by one player, or frozen."""
    with labeled_as("adversarial"):
        owned = {name: select(params, player.on) for name, player in players.items()}
        owned |= {} if freeze is None else {"freeze": select(params, freeze)}
        for path in paths(params):
            owners = [name for name, own in owned.items() if path in own]
            if len(owners) > 1:
                raise NetError(f"expects one player for each parameter, got {path} for {' and '.join(owners)}")
            if not owners:
                raise NetError(f"expects a player for each parameter, got none for {path}; or freeze={path!r}")


def _sum(values: list[jax.Array]) -> jax.Array:
    return sum(values[1:], start=values[0])
