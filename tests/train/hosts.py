"""One of two processes that train together: `python -m tests.train.hosts <port> <number> <file>`.

With the number of one of them at the end, that one has an error.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxnets as jn
from tests.oracle import floats, integers

NET = jn.serial(hidden=jn.dense(8), relu=jax.nn.relu, out=jn.dense(3))
DATA = floats(64, 4), integers(64, high=3)


def program(data: tuple, rate: float = 0.1) -> jn.train.Program:
    """Return a small program."""
    objective = jn.objective(jn.losses.cross_entropy)
    return jn.train.program(NET, objective, optax.sgd(rate), data, epochs=3, batch_size=16, validation=DATA)


def spread() -> jn.train.Program:
    """Return the program on data that lie on the devices of all processes."""
    mesh = Mesh(np.array(jax.devices()), ("all",))
    sharding = NamedSharding(mesh, PartitionSpec("all"))
    x, y = (jax.make_array_from_callback(each.shape, sharding, each.__getitem__) for each in DATA)
    return program((x, y))


def results(mesh: Mesh) -> dict[str, np.ndarray]:
    """Return what comes of a run whose data lie on all devices, and of a sweep that is shared out to them."""

    def placed(array: np.ndarray) -> jax.Array:
        sharding = NamedSharding(mesh, PartitionSpec("all"))
        return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)

    run, history = jn.train.run(program((placed(DATA[0]), placed(DATA[1]))), key=jax.random.key(1))
    found = jn.sweeps.sweep(
        lambda hp: program(DATA, hp["lr"]), grid={"lr": [0.01, 0.1, 0.2, 0.3, 1e30]}, strategy="vmap", mesh=mesh
    )
    return {
        "loss": history["validation/loss"],
        "kernel": np.asarray(run.params["hidden"]["kernel"]),
        "losses": found.history["validation/loss"],
        "kernels": np.asarray(found.runs.params["hidden"]["kernel"]),
        "keys": np.asarray(jax.random.key_data(found.runs.key)),
        "failed": found.failed,
    }


def ends(number: int, act: Callable[[], object]) -> jn.train.Callback:
    """Return a callback that does something after the second epoch, in one of the processes alone."""
    here = number == jax.process_index()
    return jn.train.Callback(on_epoch_end=lambda epoch, run, row: act() if here and epoch == 1 else None)


def broken() -> None:
    """Raise what nobody expects."""
    raise RuntimeError("one process has an error")


if __name__ == "__main__":
    port, number, file, *fails = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_num_cpu_devices", 2)
    address = f"127.0.0.1:{port}"
    jax.distributed.initialize(address, num_processes=2, process_id=int(number), heartbeat_timeout_seconds=10)
    if fails:
        jn.train.run(spread(), key=jax.random.key(1), callbacks=[ends(int(fails[0]), broken)])
    found = results(Mesh(np.array(jax.devices()), ("all",)))
    try:
        jn.train.run(program(DATA), key=jax.random.key(1), callbacks=[jn.train.checkpoint(Path(file).parent / "kept")])
    except jn.NetError as error:
        found["said"] = np.array(str(error))
    for name, act in (("signal", lambda: signal.raise_signal(signal.SIGINT)), ("callback", lambda: True)):
        found[name] = jn.train.run(spread(), key=jax.random.key(1), callbacks=[ends(1, act)])[1]["loss"]
    np.savez(file, allow_pickle=False, **found)
