"""The tables of `docs/coming-from.md`: what stands in their cells is what the tests run."""

import functools
import importlib.util
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from tests.oracle import floats, witness

PAGE = Path(__file__).parent.parent.parent / "docs" / "coming-from.md"
OURS = {"jn": jn, "jax": jax, "jnp": jnp, "optax": optax, "partial": functools.partial}


@dataclass(frozen=True)
class Row:
    """A row of a table: their code, and ours."""

    library: str
    there: str
    here: str

    def ours(self, **names: Any) -> Any:
        """Return what our code gives."""
        return eval(self.here, OURS | names)

    def theirs(self, **names: Any) -> Any:
        """Return what their code gives, where its names mean what is given."""
        return eval(self.there, names)

    def answers(self, compute: Callable[[], Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Return what the library answers, live where it is installed."""
        name = re.sub(r"\W+", "_", self.there).strip("_")
        module = {"PyTorch": "torch", "scikit-learn": "sklearn"}.get(self.library, self.library.lower())
        installed = importlib.util.find_spec(module) is not None
        return witness(f"coming_from/{module}/{name}", compute, installed=installed)


def rows(library: str) -> dict[str, Row]:
    """Return the rows of a library's table by their first cell."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {library}\n")[1].split("\n## ")[0]
    found = {}
    for there, here in re.findall(r"^\| `(.+?)` \| `(.+?)` \| .+ \|$", section, re.MULTILINE):
        assert there not in found, f"{there} has two rows"
        found[there] = Row(library, there, here)
    return found


class Checks(dict[str, Callable[[Row], None]]):
    """A function for each row, by its first cell."""

    def row(self, there: str) -> Callable[[Callable[[Row], None]], Callable[[Row], None]]:
        def add(check: Callable[[Row], None]) -> Callable[[Row], None]:
            assert there not in self, f"{there} has two checks"
            self[there] = check
            return check

        return add


def apply(net: Any, x: Any, params: Any = None, state: Any = None, **options: Any) -> Any:
    """Return a network's output for given parameters."""
    net = jn.serial(layer=net) if callable(net) and not isinstance(net, jn.Net) else net
    return jax.jit(lambda *given: net.apply(*given, **options)[0])(params or {}, state or {}, x)


def close(found: Any, want: Any, tolerance: float = 2e-5) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(want), rtol=tolerance, atol=tolerance)


def differ(found: Any, want: Any, least: float = 1e-3) -> None:
    """Assert that a difference that the page speaks of is there."""
    assert np.abs(np.asarray(found, np.float64) - np.asarray(want, np.float64)).max() > least


W = floats(5)


def pulled(w: Any) -> Any:
    """Return the gradient of a bowl whose sides are of unequal steepness."""
    return w * np.array([4.0, 2.0, 1.0, 0.5, 0.25], np.float32)


def descend(optimizer: optax.GradientTransformation, w: Any, gradient: Callable[[Any], Any], steps: int = 4) -> Any:
    """Return what steps of Optax's make of a parameter."""

    @jax.jit
    def run(w: Any) -> Any:
        memory = optimizer.init(w)
        for _ in range(steps):
            updates, memory = optimizer.update(gradient(w), memory, w)
            w = optax.apply_updates(w, updates)
        return w

    return run(w)


def images(*shape: int, seed: int = 0) -> np.ndarray:
    """Return images, channels last."""
    return floats(*(shape or (2, 6, 6, 3)), seed=seed)


def first(x: Any) -> np.ndarray:
    """Return images with their channels first."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1))


def last(x: Any) -> np.ndarray:
    """Return images with their channels last."""
    return np.ascontiguousarray(np.moveaxis(np.asarray(x), 1, -1))
