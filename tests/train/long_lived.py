"""A process that trains and evaluates all day: `python -m tests.train.long_lived [fits sweeps evaluations]`.

Each fit and each sweep is of a program unlike those before. In the end it tells the memory mappings and the resident
memory of the process, which must stay below what follows, and ends with status 1 where they do not.
"""

import resource
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import optax

import jaxnets as jn
from tests.oracle import floats, integers

MAPPINGS, BYTES = 5_000, 1.2e9  # Linux gives a process 65,530 mappings
DATA = floats(64, 4), integers(64, high=3)
KEY = jax.random.key(0)


def program(number: int, rate: object = 1e-2) -> jn.train.Program:
    """Return a program that is compiled anew for each number."""
    objective = jn.objective(jn.losses.cross_entropy, jn.regularizers.l2(1e-6 * number))
    return jn.train.program(jn.models.mlp([8], 3), objective, optax.adam(rate), DATA, epochs=2, batch_size=32)  # pyright: ignore[reportArgumentType]


def swept(number: int, hp: dict[str, object]) -> jn.train.Program:
    """Return the program of a sweep."""
    return program(number, hp["lr"])


def begun(number: int) -> tuple[jn.Net, Any, Any]:
    """Return a network with parameters and state, another for each number."""
    net = jn.models.mlp([8 + number], 3)
    return net, *net.init(KEY, DATA[0])


def mappings() -> int:
    """Return how many memory mappings the process has."""
    return Path("/proc/self/maps").read_bytes().count(b"\n")


def main(fits: int, sweeps: int, evaluations: int) -> int:
    """Do as much, and return the exit status."""
    most = 0

    def tell(what: str, number: int) -> None:
        nonlocal most
        most = max(most, mappings())
        if number % 50 == 0:
            size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(f"{what} {number}: at most {most:,} mappings, {size / 1e6:,.0f} MB", flush=True)

    for number in range(1, fits + 1):
        jn.train.run(program(number), key=KEY)
        tell("fit", number)
    for number in range(1, sweeps + 1):
        jn.sweeps.sweep(partial(swept, number), grid={"lr": [0.01, 0.1]})
        tell("sweep", number)
    net, params, state = begun(0)
    for number in range(1, evaluations + 1):
        if number % 100 == 0:  # another network now and then
            net, params, state = begun(number // 100)
        jn.evaluate(net, (params, state), DATA, {"accuracy": jn.metrics.accuracy})
        tell("evaluation", number)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(most >= MAPPINGS or peak >= BYTES)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:] or ("400", "50", "2000"))))
