"""What a run was made of, as short texts by name, to check that a resumed run is the same."""

import hashlib
import json
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxnets.core.errors import NetError
from jaxnets.data.contents import crc
from jaxnets.data.loader import Stream
from jaxnets.train.program import Program, traced_epoch
from jaxnets.train.state import TrainState, is_key

COMPUTED = "what is computed (optimizer, learning rate, ...)"
NUMBERS = "numbers written into what is computed"
FEW = 12  # changed numbers that a message lists; if there are more, other operations have changed
REWRITTEN = ("jax", "platform", "devices")  # a change of these changes how the same computation is written
MACHINE = (*REWRITTEN, "cores")  # a change of these may change the last bits
_ADDRESS = re.compile(r"\b0x[0-9a-f]+")  # in the text of a function or an object


def to_host(leaf: Any) -> np.ndarray:
    """Return a NumPy copy of an array, or of the data of a random key."""
    return np.array(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def checksum(array: Any) -> int:
    """Return the CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def fingerprint(program: Program, key: Any) -> tuple[dict[str, str], TrainState, dict[str, Any]]:
    """Return what a run is made of, and the shapes and dtypes of its train state and of an epoch's values.

    JAX keeps the trace of the epoch, so the first epoch need not be traced again.
    """
    if jax.process_count() > 1:
        raise NetError(f"saves runs of one process, and there are {jax.process_count()}", label="checkpoint")
    state = jax.eval_shape(lambda key: program.start(key), key)  # noqa: PLW0108 (JAX keeps the program of a method)
    epoch = traced_epoch(program, state)
    keys = {"key": f"{jax.random.key_impl(key)} {jax.random.key_data(key).tolist()}"}
    return described(program, epoch.jaxpr) | keys, state, epoch.out_info[1]


def described(program: Program, epoch: ClosedJaxpr) -> dict[str, str]:
    """Return what a program is made of, except for its key; `epoch` is the jaxpr of what it computes."""
    stream = program.stream
    validation = None if stream is None else stream.validation
    digest, numbers = _digest(epoch)
    return {
        **{name: _ADDRESS.sub("", text) for name, text in program.recipe.settings.items()},
        "stopping": repr(program.stopping),
        "data": _contents(program.train) if stream is None else _streamed(stream.batches),
        "validation": _contents(program.validation) if validation is None else _streamed(validation),
        COMPUTED: digest,
        NUMBERS: json.dumps(numbers),
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "cores": str(_cores()) if jax.default_backend() == "cpu" else "any",
        "devices": str(_devices(program)),
    }


def _digest(closed: ClosedJaxpr) -> tuple[str, Counter[str]]:
    """Return a hash of all operations with their parameters and constants, and the real numbers among the operands."""
    digest, numbers, seen = hashlib.sha256(), Counter[str](), dict[int, int]()

    def add(*texts: Any) -> None:
        digest.update(_ADDRESS.sub("", " ".join(map(str, texts))).encode() + b"\n")

    def add_jaxpr(jaxpr: Jaxpr) -> None:
        if id(jaxpr) in seen:  # all calls of a function share its jaxpr
            add("jaxpr", seen[id(jaxpr)])
            return
        seen[id(jaxpr)] = len(seen)
        variables: dict[Any, int] = {}  # numbered by first occurrence: their names are not stable

        def name(atom: Any) -> str:
            if not isinstance(atom, Literal):
                return f"{variables.setdefault(atom, len(variables))}:{atom.aval}"
            value = np.asarray(atom.val)
            if value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.floating):
                numbers[f"{float(value):.6g}"] += 1
            return f"{value.tolist()}:{atom.aval}"

        add("jaxpr", *map(name, (*jaxpr.constvars, *jaxpr.invars)))
        for equation in jaxpr.eqns:
            add(equation.primitive, *map(name, equation.invars), "->", *map(name, equation.outvars))
            for parameter, value in sorted(equation.params.items()):
                add(parameter)
                add_value(value)
        add("return", *map(name, jaxpr.outvars))

    def add_value(value: Any) -> None:
        if isinstance(value, ClosedJaxpr):
            add_jaxpr(value.jaxpr)
            for constant in value.consts:
                digest.update(to_host(constant).tobytes())
        elif isinstance(value, Jaxpr):
            add_jaxpr(value)
        elif isinstance(value, tuple | list):
            add(len(value))
            for each in value:
                add_value(each)
        elif isinstance(value, set | frozenset):
            add(*sorted(map(str, value)))  # the order of a set differs between processes
        elif callable(value):
            add(getattr(value, "__qualname__", type(value).__name__))
        else:
            add(value)

    add_value(closed)
    return digest.hexdigest()[:12], numbers


def _cores() -> int:
    """Return how many processor cores this process may use; on a CPU, XLA divides its work by their number."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices(program: Program) -> int:
    """Return how many devices the data are on."""
    arrays = [leaf for leaf in jax.tree.leaves(program.train) if isinstance(leaf, jax.Array)]
    return max((len(leaf.devices()) for leaf in arrays), default=1)


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the differences by name, as `before → now`; for texts of several lines, the lines that differ.

    >>> changes({"epochs": "10", "mix": "none"}, {"epochs": "20", "mix": "none"})
    {'epochs': '10 → 20'}
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name) and name != NUMBERS]
    # On another platform the same computation has another hash. Sharding over devices does not change its numbers.
    rewritten = [name for name in names if name in REWRITTEN]
    if rewritten and (rewritten != ["devices"] or before.get(NUMBERS) == now.get(NUMBERS)):
        names = [name for name in names if name != COMPUTED]
    found = {name: _change(before.get(name, "nothing"), now.get(name, "nothing")) for name in names}
    if COMPUTED in found and NUMBERS in before and NUMBERS in now:
        # Numbers say more than hashes, if few of them changed.
        old, new = (Counter(json.loads(each[NUMBERS])) for each in (before, now))
        removed, added = list(old - new), list(new - old)
        if 0 < len(removed) + len(added) <= FEW:
            found[COMPUTED] = f"{', '.join(removed) or 'nothing'} → {', '.join(added) or 'nothing'}"
    return found


def check_same(
    before: Mapping[str, str], now: Mapping[str, str], *, place: str, other: tuple[str, str], accept: bool = False
) -> None:
    """Compare what a saved run was made of with what this one is made of.

    If they differ, `other` says what the checkpoint at `place` is, and what to do about it.

    Raises:
        NetError: if they differ.

    Warns:
        UserWarning: if only the machine differs, or the difference is accepted.
    """
    found = changes(before, now)
    text = "".join(f"\n  {name}: {change}" for name, change in found.items())
    if found and all(name in MACHINE for name in found):
        warnings.warn(f"{place} was written elsewhere, the last bits may differ from here on:{text}", stacklevel=5)
    elif found and accept:
        warnings.warn(f"{place} resumes with another configuration:{text}", stacklevel=5)
    elif found:
        raise NetError(f"{other[0]}:{text}\n{other[1]}", label=place)


def _change(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    if len(old) < 2 and len(new) < 2:
        return f"{before} → {now}"
    removed, added = [line for line in old if line not in new], [line for line in new if line not in old]
    texts = ("; ".join(line.lstrip("│├└─ ") for line in lines) or "nothing" for lines in (removed, added))
    return " → ".join(texts)


def _streamed(stream: Stream) -> str:
    """Return what a stream reads, as far as is known without reading all of it."""
    reading = stream.reading
    how = ", ".join(f"{name}={value}" for name, value in reading.mark.items())
    return f"stream({how}), {reading.contents['source']}, transforms {reading.contents['transforms']}"


def _contents(data: Any) -> str:
    leaves = jax.tree.leaves(data)
    return f"{len(leaves[0])} examples, CRC-32 {crc(leaves)}" if leaves else "none"
