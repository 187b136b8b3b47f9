"""Training of two players, such as a generator and a discriminator, as one pure program."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from jaxnets.core.errors import NetError, labeled_as, shown
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net
from jaxnets.core.paths import Pattern
from jaxnets.train import arguments
from jaxnets.train.callbacks.early_stopping import EarlyStopping
from jaxnets.train.options import Options
from jaxnets.train.players import Game, GameRecipe, Player
from jaxnets.train.program import DEFAULT_BATCH_SIZE, Program, build
from jaxnets.train.state import Data


@explained
def adversarial(
    net: Net | Callable[[Any], Any],
    players: Mapping[str, Player],
    data: Any,
    *,
    epochs: int,
    batch_size: int | None = DEFAULT_BATCH_SIZE,
    simultaneous: bool = False,
    validation: Any = None,
    metrics: arguments.Metrics = None,
    augment: Callable[[Key, Any], Any] | None = None,
    batch_augment: Callable[[Key, Any, Any, jax.Array], tuple[Any, Any, jax.Array]] | None = None,
    sampler: Callable[[Key, Data], jax.Array] | None = None,
    freeze: Pattern | None = None,
    ema_decay: Any = None,
    stopping: EarlyStopping | None = None,
    options: Options = Options(),
) -> Program:
    """Return the program that trains the parts of a network against each other.

    Player p has the parameters θ_p that match its pattern, an objective L_p and an optimizer's update u_p. In a step of
    the program each moves in turn, θ_p ← θ_p + u_p(∂L_p/∂θ_p), at the other players' newest parameters, or with
    `simultaneous` at those before the step. All players of a step see the same examples and the same random key, so the
    generator is trained on the pictures that the discriminator has just seen. With `Player(..., steps=k)` a batch is
    divided into k parts: the player takes a step on each, and the others follow on the last.

    It is a program like any other: `jn.train.run` runs it with callbacks, checkpoints and resume, and learning rates
    may be traced, so that `jn.sweeps.sweep` and `vmap` train many pairs at once. Its history has each player's
    objective under the player's name, the mean over its steps, and `loss`, their sum, which measures no success.

    Args:
        net: the network that holds all players, such as `jn.models.gan`.
        players: at least two `jn.train.Player` by name, in the order in which they move.
        data: as for `program`, like all that follow but `simultaneous`.
        epochs: how often every example is seen, at least 1.
        batch_size: examples per step, by default 64, a multiple of the largest number of a player's steps.
        simultaneous: whether all gradients are computed before the first update.
        validation: see `program`.
        metrics: see `program`; of the outputs of the last move.
        augment: see `program`.
        batch_augment: see `program`.
        sampler: see `program`.
        freeze: the parameters of no player, see `program`.
        ema_decay: see `program`; in generative networks it is often the better generator.
        stopping: see `program`.
        options: only `halt_on_nonfinite`, which looks at the objectives and gradients of all moves, `freeze` and
            `ema_decay`.

    Raises:
        NetError: for what `program` does not accept; fewer than two players; a parameter of several players, or of none
            that is not frozen; a batch, or a last batch, that can't be divided into as many parts as steps;
            simultaneous players of several steps; other options.

    Goodfellow et al., "Generative Adversarial Nets" (2014), algorithm 1.

    >>> import jax, jax.numpy as jnp, jaxnets as jn, optax
    >>> net = jn.models.gan(jn.dense(2), jn.dense(1), code=3)
    >>> x = jnp.ones((8, 2))
    >>> def pair(rate):
    ...     players = {
    ...         "discriminator": Player(jn.losses.gan_discriminator, optax.sgd(rate), "discriminator/**"),
    ...         "generator": Player(jn.losses.gan_generator, optax.sgd(0.1), "generator/**"),
    ...     }
    ...     return adversarial(net, players, (x, x), epochs=2, batch_size=4)
    >>> states, history = jax.vmap(lambda rate: pair(rate)(jax.random.key(0)))(jnp.array([0.1, 0.2, 0.3]))
    >>> history["generator"].shape, states.params["generator"]["kernel"].shape
    ((3, 2), (3, 3, 2))
    """
    with labeled_as("adversarial"):
        options = arguments.options_of(options, freeze, ema_decay, stopping)
        _check_players(players, simultaneous, options)
    game, count = Game(dict(players), simultaneous), max(player.steps for player in players.values())
    functions = {"augment": augment, "batch_augment": batch_augment, "sampler": sampler}
    made_of = (net, game, optax.identity(), data, validation, metrics, functions, stopping, options)
    program = build("adversarial", *made_of, epochs, batch_size, GameRecipe)
    size, last = program.recipe.batch_size, program.examples % program.recipe.batch_size
    if size % count or 0 < last < count:
        raise NetError(
            f"expects batches that can be divided into {count} parts, one for each of a player's steps, got "
            f"batch_size={size} for {program.examples} examples",
            label="adversarial",
        )
    # Only shapes: patterns and optimizers are checked before the run.
    jax.eval_shape(program.start, jax.eval_shape(lambda: jax.random.key(0)))
    return program


def _check_players(players: Any, simultaneous: Any, options: Options) -> None:
    if not isinstance(players, Mapping) or not all(isinstance(each, Player) for each in players.values()):
        hint = '{"discriminator": jn.train.Player(objective, optimizer, on="discriminator/**"), ...}'
        raise NetError(f"expects players by name, {hint}, got {shown(players)}")
    if len(players) < 2:
        raise NetError(f"expects at least two players, got {', '.join(players) or 'none'}; jn.train.program trains one")
    if taken := [name for name in players if name == "loss" or "/" in name]:
        raise NetError(f"expects names of players without '/' and other than 'loss', got {taken[0]!r}")
    if not isinstance(simultaneous, bool):
        raise NetError(f"expects simultaneous=True or False, got {shown(simultaneous)}")
    if simultaneous and any(player.steps > 1 for player in players.values()):
        raise NetError("expects players of one step each with simultaneous=True; several steps are taken in turn")
    for name in ("loss_scale", "plateau", "monitor"):
        if getattr(options, name) is not None:
            raise NetError(f"has no option {name}, which is for one objective; leave it out")
    if options.accumulate != 1:
        raise NetError(f"has no option accumulate, got {options.accumulate}; use a smaller batch")
