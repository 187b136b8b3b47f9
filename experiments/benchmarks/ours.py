"""Our contestants, as a user would write them: epochs of a program, a jitted step in a loop, `jn.sweeps.sweep`."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from experiments.benchmarks import architecture as a
from experiments.benchmarks.peers import stepping
from experiments.benchmarks.work import Contestant, Work
from jaxnets.sweeps.strategy import Strategy

BIASES = {"lstm": 4, "gru": 4}


def network(layers: a.Layers) -> jn.Net:
    """Return our network."""
    return jn.serial(*map(_layer, layers))


def _layer(layer: a.Layer) -> Any:
    match layer:
        case a.Dense(features):
            return jn.dense(features)
        case a.Conv(features, window, stride, padding, bias):
            return jn.conv(features, window, stride=stride, padding=padding, use_bias=bias)
        case a.Double(features):
            return jn.conv_transpose(features, 3, stride=2, padding=1, output_padding=1)
        case a.Pool(window, stride, padding):
            return jn.max_pool(window, stride=stride, padding=padding)
        case a.Norm():
            return jn.batch_norm()
        case a.Relu():
            return jax.nn.relu
        case a.Flatten():
            return jn.flatten
        case a.Fold(shape):
            return jn.unflatten(shape)
        case a.Mean():
            return jn.global_avg_pool
        case a.Recurrent(cell, features, last):
            made = jn.lstm_cell(features) if cell == "lstm" else jn.gru_cell(features)
            return jn.recurrent(made, return_sequences=not last)
        case a.Residual(body, shortcut):
            return jn.residual(network(body), network(shortcut) if shortcut else None, jax.nn.relu)
        case a.Transformer(vocabulary, length, blocks, heads, features):
            sizes: Any = {"layers": blocks, "heads": heads, "features": features}
            return jn.models.gpt2(vocabulary=vocabulary, length=length, **sizes)


def single(layers: a.Layers) -> jn.Net:
    """Return our network of a single layer."""
    (layer,) = layers
    return jn.as_net(_layer(layer))


def net_of(work: Work) -> jn.Net:
    """Return the network of a piece of work."""
    net = network(work.layers) if work.net is None else work.net()
    return jn.cast(net) if work.precision == "bfloat16" else net


def train(work: Work, *, scan: bool) -> Contestant:
    """Return our contestant: with `scan` each epoch is one call, else each step."""
    program = _program(work)
    state = jax.block_until_ready(jax.jit(jn.train.Program.start)(program, jax.random.key(0)))
    return _contestant(work, _epochs(work, program, state) if scan else _steps(work, state), state.params)


def evaluate(work: Work, *, folded: bool) -> Contestant:
    """Return our contestant that evaluates the network on each batch, with its batch norms folded or not."""
    net = net_of(work)
    params, state = net.init(jax.random.key(0), stepping.batch(work))
    contestant = _contestant(work, lambda: None, params)
    if folded:
        net, params, state = jn.fold_batch_norm(net, params, state)
    call = jax.jit(lambda params, state, x: net.apply(params, state, x)[0])
    parts = jnp.split(jnp.asarray(work.x), work.steps)

    def turn() -> None:
        for part in parts:
            jax.block_until_ready(call(params, state, part))

    return replace(contestant, turn=turn)


def decode(work: Work) -> Contestant:
    """Return our contestant that continues texts by the most probable tokens."""
    net, prompts = net_of(work), jnp.asarray(work.x)
    params, state = jax.jit(net.init)(jax.random.key(0), prompts)

    def turn() -> jax.Array:
        return jax.block_until_ready(jn.decoding.sample(net, params, state, prompts, work.tokens, temperature=0))

    return _contestant(work, turn, params)


def sweep(work: Work, rates: np.ndarray, strategy: Strategy | None = None) -> Contestant:
    """Return our contestant of a sweep, a trial per rate, side by side or in turn; `sweep` chooses by default."""

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        return _program(work, hp["lr"])

    params, _ = jax.eval_shape(net_of(work).init, jax.random.key(0), stepping.batch(work))
    return _contestant(work, lambda: jn.sweeps.sweep(trial, grid={"lr": rates}, strategy=strategy), params, len(rates))


def one_by_one(work: Work, trials: int) -> Contestant:
    """Return our contestant that trains a network for each seed, one after another, by one compiled program."""
    program, whole = _program(work), jax.jit(lambda program, key: program(key))
    keys = list(jax.random.split(jax.random.key(0), trials))
    params = jax.eval_shape(program, keys[0])[0].params
    return _contestant(work, lambda: jax.block_until_ready([whole(program, key) for key in keys]), params, trials)


def start(work: Work, *, jit: bool) -> Contestant:
    """Return our contestant of initialization."""
    net, x = net_of(work), jax.ShapeDtypeStruct((1, *work.shape), jnp.float32)
    make = jax.jit(lambda key: net.init(key, x)) if jit else lambda key: net.init(key, x)
    params, _ = jax.eval_shape(make, jax.random.key(0))
    return _contestant(work, lambda: jax.block_until_ready(make(jax.random.key(0))), params)


def flops(work: Work, *, train: bool = True) -> int:
    """Return the floating-point operations of a turn's gradients, or outputs, used for all contestants."""
    step = jn.inspect.flops(network(work.layers), stepping.batch(work), train_step=train)
    return work.epochs * step * len(work.x) // work.batch_size


def multiply_adds(work: Work, *, train: bool = True) -> int:
    """Return the multiply-adds of a turn's gradients, or outputs: of convolutions and matrix products."""
    net, x = network(work.layers), stepping.batch(work)
    if not train:
        return work.epochs * jn.inspect.multiply_adds(net, x) * len(work.x) // work.batch_size

    def gradient(made: Any, x: jax.Array) -> Any:
        params, state = made
        return jax.grad(lambda params: net.apply(params, state, x, train=True)[0].sum())(params)

    made = jax.eval_shape(net.init, jax.random.key(0), x)
    return work.epochs * jn.inspect.multiply_adds(gradient, x, params=made) * len(work.x) // work.batch_size


def _program(work: Work, rate: Any = 1e-3) -> jn.train.Program:
    loss = jn.losses.cross_entropy if work.classifies else jn.losses.squared_error
    loss = jn.losses.sequence(loss) if work.classifies and work.y.ndim == 2 else loss
    optimizer, data = stepping.optimizer(work, rate), (work.x, work.y)
    objective = jn.objective(loss)
    return jn.train.program(net_of(work), objective, optimizer, data, epochs=work.epochs, batch_size=work.batch_size)


def _epochs(work: Work, program: jn.train.Program, state: jn.train.TrainState) -> Any:
    epoch_fn, held = jax.jit(jn.train.Program.run_epoch, donate_argnums=1), [state]

    def turn() -> None:
        for _ in range(work.epochs):
            held[0], _ = epoch_fn(program, held[0])
        jax.block_until_ready(held[0])

    return turn


def _steps(work: Work, state: jn.train.TrainState) -> Any:
    recipe = _program(work).recipe
    one = jn.train.make_train_step(recipe.net, recipe.objective, stepping.optimizer(work), recipe.options)

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: jax.Array, y: jax.Array, chosen: jax.Array) -> tuple[Any]:
        return (one(state, jn.train.Batch(x[chosen], y[chosen], jnp.ones(len(chosen))))[0],)

    return stepping.looped(work, step, (state,))


def _contestant(work: Work, turn: Any, params: Any, trials: int = 1) -> Contestant:
    counted, parameters = jn.inspect.multiply_adds(net_of(work), stepping.batch(work)), stepping.count(params)
    return Contestant(work, turn, parameters, counted, BIASES, trials)
