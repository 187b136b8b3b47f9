"""A small run with checkpoints in processes that may be killed: `python -m tests.train.mortal`, driven by stdin.

The packages are imported once. For each line, a folder and the bytes that a file may have there, a process is forked
before JAX has started any thread; it says its number, trains, writes what came of it, and ends. Then its exit status is
told.
"""

import os
import resource
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from tests.oracle import floats, integers

EPOCHS = 40


class Slow:
    """Examples that take their time, so that an epoch of a stream can be broken off."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple:
        time.sleep(0.002)
        return floats(10, 4)[index], integers(10, high=3)[index]


def streamed() -> jn.train.Program:
    """Return a program whose data and validation are streams."""
    net = jn.serial(norm=jn.batch_norm(), drop=jn.dropout(0.3), out=jn.dense(3))
    held_out = jn.data.stream((floats(6, 4, seed=1), integers(6, high=3, seed=1)), 4)
    adam, objective = optax.adam(0.05), jn.objective(jn.losses.cross_entropy)
    batches = jn.data.stream(Slow(), 4, seed=2, epochs=None)
    return jn.train.program(net, objective, adam, batches, epochs=EPOCHS, validation=held_out)


def program(epochs: int = EPOCHS) -> jn.train.Program:
    """Return a program with state, dropout, momentum, an average, early stopping, and an array in its history."""
    net = jn.serial(norm=jn.batch_norm(), drop=jn.dropout(0.3), out=jn.dense(3))
    return jn.train.program(
        net,
        jn.objective(jn.losses.cross_entropy),
        optax.sgd(0.05, momentum=0.9),
        (floats(10, 4), integers(10, high=3)),
        epochs=epochs,
        batch_size=4,
        metrics={"confusion": jn.metrics.confusion_matrix(3)},
        validation=(floats(6, 4, seed=1), integers(6, high=3, seed=1)),
        stopping=jn.train.early_stopping("validation/loss", patience=epochs),
        ema_decay=0.9,
    )


def arrays(run: jn.train.TrainState, history: dict[str, np.ndarray], one: jn.train.Program) -> dict[str, np.ndarray]:
    """Return every bit of what came of a run, and the batch that would come next."""
    everything = {"run": run, "history": history, "next": one.next_batch(run)}
    leaves = jn.paths.paths(everything)
    return {
        path: np.asarray(jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for path, leaf in leaves.items()
    }


def train(folder: Path) -> None:
    """Train, going on from the checkpoints in a folder, and write the result beside them."""
    one = streamed() if folder.name.startswith("streamed") else program()
    keep = jn.train.checkpoint(folder / "checkpoints", best="validation/loss", overhead=None)
    run, history = jn.train.run(one, key=jax.random.key(7), callbacks=[keep])
    folder.mkdir(exist_ok=True)
    np.savez(folder / "part.npz", allow_pickle=False, **arrays(run, history, one))
    (folder / "part.npz").rename(folder / "result.npz")


if __name__ == "__main__":
    import orbax.checkpoint  # noqa: F401 (so that it is read once)

    for line in sys.stdin:
        if child := os.fork():
            print(child, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        signal.signal(signal.SIGINT, signal.default_int_handler)
        name, room = line.split()
        folder = Path(name)
        jax.config.update("jax_compilation_cache_dir", str(folder.parent / "cache"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        if int(room):
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # of what Orbax's threads say of it there are pages
        try:
            train(folder)
        except OSError as error:
            os.write(1, f"{error}\n".encode())
            os._exit(3)
        os._exit(0)
