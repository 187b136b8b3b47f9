"""A small program, compiled: what two processes do to see whether the compilation cache works.

The second one runs this file by its path, so that it needs nothing but JAX:
`python -P compilation_probe.py FOLDER PLATFORM CPU_DEVICES` prints as JSON what became of it.
"""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp

HIT, MISS = "/jax/compilation_cache/cache_hits", "/jax/compilation_cache/cache_misses"
KEEP_ALL = {"jax_persistent_cache_min_compile_time_secs": 0.0, "jax_persistent_cache_min_entry_size_bytes": -1}


def told(name: str) -> Any:
    """Return a setting of JAX."""
    return getattr(jax.config, name)


@contextmanager
def settings(values: dict[str, object]) -> Iterator[None]:
    """Have settings of JAX for a while."""
    before = {name: told(name) for name in values}
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def probe(device: Any) -> tuple[list[str], list[str]]:
    """Compile the program, and return the cache's events and warnings."""
    events: list[str] = []

    def heard(event: str, **_: object) -> None:
        if event in (HIT, MISS):
            events.append(event)

    def jaxnets_probe(x: jax.Array) -> jax.Array:  # its name is a part of the key
        return jnp.tanh(x @ x).sum()

    x = jax.ShapeDtypeStruct((16, 16), jnp.float32, sharding=jax.sharding.SingleDeviceSharding(device))
    jax.monitoring.register_event_listener(heard)
    try:
        with settings(KEEP_ALL), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            jax.jit(jaxnets_probe).lower(x).compile()
    finally:
        jax.monitoring.unregister_event_listener(heard)
    return events, [str(each.message) for each in caught]


if __name__ == "__main__":
    folder, platform, devices = sys.argv[1:]
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_num_cpu_devices", int(devices))
    print(json.dumps(probe(jax.local_devices(backend=platform)[0])))
