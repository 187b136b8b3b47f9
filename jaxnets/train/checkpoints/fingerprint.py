"""What a run was made of, as short text by name, so that a run that goes on can be told from another."""

import hashlib
import re
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnets.train.program import Program
from jaxnets.train.run import Run

COMPUTED = "what is computed (optimizer, learning rate, ...)"
MACHINE = ("jax", "platform")  # with another of these the last bits may differ
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


def fingerprint(program: Program, key: Any) -> tuple[dict[str, str], Run, dict[str, Any]]:
    """Return what a run is made of, and the shapes and dtypes of the run and of a segment's values.

    What is computed stands as a hash over the segment's jaxpr, which has every number that is written into it. JAX
    keeps the trace, so that the first segment need not make it again.
    """
    run = jax.eval_shape(Program.start, program, key)
    segment = jax.jit(Program.segment, donate_argnums=1).trace(program, run)
    digest = hashlib.sha256(_text(segment.jaxpr.jaxpr).encode())
    for constant in segment.jaxpr.consts:
        digest.update(to_host(constant).tobytes())
    made_of = {
        **{name: _ADDRESS.sub("", text) for name, text in program.recipe.settings.items()},
        "stopping": repr(program.stopping),
        "data": _contents(program.train),
        "validation": _contents(program.validation),
        "key": f"{jax.random.key_impl(key)} {jax.random.key_data(key).tolist()}",
        COMPUTED: digest.hexdigest()[:12],
        "jax": jax.__version__,
        "platform": jax.default_backend(),
    }
    return made_of, run, segment.out_info[1]


@lru_cache(maxsize=8)
def _text(jaxpr: Any) -> str:
    return _ADDRESS.sub("", str(jaxpr))


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return what differs, by name, as `before → now`; of texts of many lines, the lines that differ.

    >>> changes({"epochs": "10", "mix": "none"}, {"epochs": "20", "mix": "none"})
    {'epochs': '10 → 20'}
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if any(name in MACHINE for name in names):  # what is computed is written otherwise there
        names = [name for name in names if name != COMPUTED]
    return {name: _change(before.get(name, "nothing"), now.get(name, "nothing")) for name in names}


def _change(before: str, now: str) -> str:
    old, new = before.splitlines(), now.splitlines()
    if len(old) < 2 and len(new) < 2:
        return f"{before} → {now}"
    gone, come = [line for line in old if line not in new], [line for line in new if line not in old]
    return f"{'; '.join(map(_line, gone)) or 'nothing'} → {'; '.join(map(_line, come)) or 'nothing'}"


def _line(line: str) -> str:
    return line.lstrip("│├└─ ")


def _contents(data: Any) -> str:
    leaves = jax.tree.leaves(data)
    if not leaves:
        return "none"
    total = 0
    for leaf in leaves:
        total = zlib.crc32(f"{total} {leaf.dtype} {leaf.shape} {checksum(np.asarray(leaf))}".encode())
    return f"{len(leaves[0])} examples, CRC-32 {total:08x}"
