"""Seconds to the first training step of deep residual networks, blocks unrolled or scanned, each in a new process.

    python -m experiments.benchmarks.compile_time [WHO ...] [--depths 50 101 152]

Cross entropy, SGD with momentum, 64×64×3, batch 2: tracing, lowering to StableHLO, compiling, and the median of later
steps; the last column is the lines of the lowered program. The compilation cache is off.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

WHO = ("jaxnets", "jaxnets, scan=True", "Flax Linen")
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
PARTS = ("trace s", "lower s", "compile s", "sum s", "step ms", "lines")


def main(who: list[str], depths: list[int], rounds: int = 1) -> None:
    """Time and print the medians."""
    print(f"{'':<32}" + "".join(f"{part:>11}" for part in PARTS), flush=True)
    for depth in depths:
        took = {each: [] for each in who}
        for _ in range(rounds):
            for each in who:
                took[each].append(_child(each, depth))
        for each, rows in took.items():
            trace, lower, compile_, step, lines = np.median(rows, 0)
            seconds = "".join(f"{each:>11.2f}" for each in (trace, lower, compile_, trace + lower + compile_))
            print(f"{f'ResNet-{depth}, {each}':<32}{seconds}{1000 * step:>11.0f}{lines:>11.0f}", flush=True)


def _child(who: str, depth: int) -> list[float]:
    command = [sys.executable, "-m", "experiments.benchmarks.compile_time", who, "--depths", str(depth), "--child"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def first_step(who: str, depth: int) -> list[float]:
    """Return the seconds of tracing, lowering, compiling and a later step, and the lines of the program."""
    import jax

    step, carry = _linen(depth) if who == "Flax Linen" else _ours(depth, scan=who != "jaxnets")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 64, 64, 3)).astype(np.float32), rng.integers(0, 1000, 2)
    carry = jax.block_until_ready(jax.jit(carry)(jax.random.key(0), x))
    times = [time.perf_counter()]
    traced = jax.jit(step, donate_argnums=0).trace(carry, x, y)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    took = []
    for _ in range(8):
        began = time.perf_counter()
        carry = jax.block_until_ready(compiled(carry, x, y))
        took.append(time.perf_counter() - began)
    return [*np.diff(times).tolist(), float(np.median(took[1:])), len(lowered.as_text().splitlines())]


def _ours(depth: int, *, scan: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import jax.numpy as jnp
    import optax

    import jaxnets as jn

    make = {50: jn.models.resnet50, 101: jn.models.resnet101, 152: jn.models.resnet152}[depth]
    # As Linen's step: no weights of the examples, no test for non-finite values.
    options = jn.train.Options(halt_on_nonfinite=False, weighted=False)
    net, optimizer = make(scan=scan), optax.sgd(1e-3, 0.9)
    one = jn.train.make_train_step(net, jn.objective(jn.losses.cross_entropy), optimizer, options)
    return (
        lambda run, x, y: one(run, jn.train.Batch(x, y, jnp.ones(len(y))))[0],
        lambda key, x: jn.train.start(net, optimizer, x, options, key=key),
    )


def _linen(depth: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.benchmarks import networks
    from experiments.benchmarks.peers import in_linen

    net = in_linen.network(networks.resnet(*BLOCKS[depth]), jnp.float32)
    optimizer = optax.sgd(1e-3, 0.9)

    def start(key: Any, x: Any) -> Any:
        shapes = jax.eval_shape(net.init, key, x)  # zeros take the same time, and compile in none
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return variables, optimizer.init(variables["params"])

    def step(carry: Any, x: Any, y: Any) -> Any:
        variables, moments = carry

        def loss(params: Any) -> Any:
            logits, new = net.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        grads, new = jax.grad(loss, has_aux=True)(variables["params"])
        updates, moments = optimizer.update(grads, moments, variables["params"])
        return {"params": optax.apply_updates(variables["params"], updates), **new}, moments

    return step, start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compile times of deep residual networks.")
    parser.add_argument("who", nargs="*", default=WHO, metavar="WHO", help=", ".join(WHO))
    parser.add_argument("--depths", nargs="+", type=int, choices=BLOCKS, default=[*BLOCKS], help="50, 101, 152")
    parser.add_argument("--rounds", type=int, default=1, help="how many times each is measured")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(first_step(arguments.who[0], arguments.depths[0])))
    else:
        main([*arguments.who], arguments.depths, arguments.rounds)
