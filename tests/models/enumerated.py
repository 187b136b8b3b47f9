"""Tiny Boltzmann machines by brute force, in float64: every state there is, and what follows exactly."""

import itertools

import numpy as np

from tests.oracle import floats


def states(units: int) -> np.ndarray:
    """Return every binary state, `(2^units, units)`."""
    return np.array(list(itertools.product((0.0, 1.0), repeat=units)))


def parameters(*widths: int) -> dict:
    """Return parameters of a machine of these layers, the visible one first, strong enough to matter."""
    layers = {}
    for place, (below, width) in enumerate(itertools.pairwise(widths)):
        layers[str(place)] = {"kernel": floats(below, width, seed=place), "bias": floats(width, seed=10 + place) / 2}
    layers["0"]["visible_bias"] = floats(widths[0], seed=20) / 2
    return layers


def energies(params: dict, *layers: np.ndarray) -> np.ndarray:
    """Return E of a binary machine, by loops over the layers `(states, units)`."""
    total = -layers[0] @ params["0"]["visible_bias"].astype(np.float64)
    for place, (below, above) in enumerate(itertools.pairwise(layers)):
        kernel, bias = (params[str(place)][name].astype(np.float64) for name in ("kernel", "bias"))
        total = total - np.einsum("si,ij,sj->s", below, kernel, above) - above @ bias
    return total


def joint(params: dict, *widths: int) -> tuple[list[np.ndarray], np.ndarray, float]:
    """Return all states of all layers, their probabilities, and log Z."""
    everything = states(sum(widths))
    layers = np.split(everything, np.cumsum(widths)[:-1], axis=1)
    scores = -energies(params, *layers)
    log_z = float(np.logaddexp.reduce(scores))
    return layers, np.exp(scores - log_z), log_z


def marginal(layers: list[np.ndarray], p: np.ndarray) -> np.ndarray:
    """Return p(v) for each state of the visible units, in the order of `states`."""
    units = layers[0].shape[1]
    return np.bincount(indices(layers[0]), p, 2**units)


def indices(v: np.ndarray) -> np.ndarray:
    """Return the place of binary rows in `states`."""
    return (np.asarray(v, np.float64) @ 2.0 ** np.arange(v.shape[-1])[::-1]).astype(int)


def moments(params: dict, layers: list[np.ndarray], p: np.ndarray) -> dict:
    """Return −⟨∂E/∂θ⟩ in the structure of the parameters: the expectations that learning compares."""
    expected = {
        str(place): {"kernel": (below * p[:, None]).T @ above, "bias": p @ above}
        for place, (below, above) in enumerate(itertools.pairwise(layers))
    }
    expected["0"]["visible_bias"] = p @ layers[0]
    return expected


def assert_histogram(v: np.ndarray, p: np.ndarray) -> None:
    """Assert that independent binary rows are distributed by p, each state within 5 standard deviations."""
    counts = np.bincount(indices(v), minlength=len(p))
    assert (np.abs(counts - len(v) * p) < 5 * np.sqrt(len(v) * p * (1 - p)) + 1).all(), (counts / len(v), p)
