"""What a run was made of, as short text by name, so that a run that goes on can be told from another."""

import hashlib
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.core.errors import NetError
from jaxnets.data.contents import crc
from jaxnets.data.loader import Stream
from jaxnets.train.program import Program, traced_epoch
from jaxnets.train.state import TrainState

COMPUTED = "what is computed (optimizer, learning rate, ...)"
NUMBERS = "numbers written into what is computed"
FEW = 12  # numbers that changed, as many as can be read
REWRITTEN = ("jax", "platform", "devices")  # with another of these what is computed is written otherwise
MACHINE = (*REWRITTEN, "cores")  # with another of these the last bits may differ
_NUMBER = re.compile(r"(?<![\w.])(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?):f\d+\[\]")  # a literal of a jaxpr
_texts: WeakKeyDictionary[Any, str] = WeakKeyDictionary()  # of jaxprs
_ADDRESS = re.compile(r"\b0x[0-9a-f]+")


def is_key(leaf: Any) -> bool:
    """Tell whether an array, or its shape and dtype, is of typed random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(leaf: Any) -> np.ndarray:
    """Return an array as a NumPy array of its own memory; a random key as its data."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def checksum(array: Any) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def fingerprint(program: Program, key: Any) -> tuple[dict[str, str], TrainState, dict[str, Any]]:
    """Return what a run is made of, and the shapes and dtypes of the run and of a epoch's values.

    What is computed stands as a hash over the epoch's jaxpr, which has every number that is written into it. JAX
    keeps the trace, so that the first epoch need not make it again.
    """
    if jax.process_count() > 1:
        raise NetError(f"saves runs of one process, and there are {jax.process_count()}", label="checkpoint")
    run = jax.eval_shape(lambda key: program.start(key), key)  # noqa: PLW0108 (JAX keeps the program of a method)
    epoch = traced_epoch(program, run)
    keys = {"key": f"{jax.random.key_impl(key)} {jax.random.key_data(key).tolist()}"}
    return described(program, epoch.jaxpr) | keys, run, epoch.out_info[1]


def described(program: Program, epoch: Any) -> dict[str, str]:
    """Return what a program is made of, but for its key; `epoch` is the closed jaxpr of what it computes."""
    stream = program.stream
    held_out = None if stream is None else stream.held_out
    text = _text(epoch.jaxpr)
    digest = hashlib.sha256(text.encode())
    for constant in epoch.consts:
        digest.update(to_host(constant).tobytes())
    numbers = Counter(f"{float(number):.6g}" for number in _NUMBER.findall(text))
    return {
        **{name: _ADDRESS.sub("", text) for name, text in program.recipe.settings.items()},
        "stopping": repr(program.stopping),
        "data": _contents(program.train) if stream is None else _streamed(stream.batches),
        "validation": _contents(program.validation) if held_out is None else _streamed(held_out),
        COMPUTED: digest.hexdigest()[:12],
        NUMBERS: json.dumps(numbers),
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "cores": str(_cores()) if jax.default_backend() == "cpu" else "any",
        "devices": str(_devices(program)),
    }


def _cores() -> int:
    """Return how many processors this process may use, by which XLA parts what it computes on a CPU."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(program: Program) -> int:
    """Return how many devices the data lie on."""
    arrays = [leaf for leaf in jax.tree.leaves(program.train) if isinstance(leaf, jax.Array)]
    return max((len(leaf.devices()) for leaf in arrays), default=1)


def _text(jaxpr: Any) -> str:
    if jaxpr not in _texts:
        _texts[jaxpr] = _ADDRESS.sub("", str(jaxpr))
    return _texts[jaxpr]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return what differs, by name, as `before → now`; of texts of many lines, the lines that differ.

    >>> changes({"epochs": "10", "mix": "none"}, {"epochs": "20", "mix": "none"})
    {'epochs': '10 → 20'}
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name) and name != NUMBERS]
    rewritten = [name for name in names if name in REWRITTEN]
    if rewritten and (rewritten != ["devices"] or before.get(NUMBERS) == now.get(NUMBERS)):
        names = [name for name in names if name != COMPUTED]
    found = {name: _change(before.get(name, "nothing"), now.get(name, "nothing")) for name in names}
    if COMPUTED in found and NUMBERS in before and NUMBERS in now:
        old, new = (Counter(json.loads(each[NUMBERS])) for each in (before, now))
        gone, come = list(old - new), list(new - old)
        if 0 < len(gone) + len(come) <= FEW:  # more of them are of other operations
            found[COMPUTED] = f"{', '.join(gone) or 'nothing'} → {', '.join(come) or 'nothing'}"
    return found


def _change(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    if len(old) < 2 and len(new) < 2:
        return f"{before} → {now}"
    gone, come = [line for line in old if line not in new], [line for line in new if line not in old]
    return f"{'; '.join(map(_line, gone)) or 'nothing'} → {'; '.join(map(_line, come)) or 'nothing'}"


def _line(line: str) -> str:
    return line.lstrip("│├└─ ")


def _streamed(stream: Stream) -> str:
    """Return what a stream reads, as far as can be told without reading it through."""
    reading = stream.reading
    how = ", ".join(f"{name}={value}" for name, value in reading.mark.items())
    return f"stream({how}), {reading.contents['source']}, transforms {reading.contents['transforms']}"


def _contents(data: Any) -> str:
    leaves = jax.tree.leaves(data)
    return f"{len(leaves[0])} examples, CRC-32 {crc(leaves)}" if leaves else "none"
