"""Global search without parameters: upper bounds from the steepest slopes seen, and a quadratic model near the best."""

from collections.abc import Mapping

import numpy as np

from jaxnets.sweeps.space import Space, Values

CANDIDATES = 2000
NOISE = 1e-3  # as a fraction of the values' standard deviation, as in dlib


class Lipo:
    """MaxLIPO with a trust region, which suggests several configurations a round.

    Spaces are mapped to the unit cube, a `log_uniform` by its logarithm, integers and choices by their rank. Values v
    at points x bound those elsewhere by U(x) = min_i v_i + √(Σ_d k_d (x_d − x_id)²), where k ≥ 0 is the vector of least
    norm whose bounds all values keep. Suggestions alternate between the maximizer of U among random points and that of
    a quadratic model, fitted to the points next to the best one, in a ball about it, in balls of ½, ¼, … of its radius
    for further ones of a round. The radius doubles if the model's suggestions improve on the best and is halved if
    they don't; it starts anew when the best point is found otherwise. Suggestions without a value are assumed to get
    that of the nearest point with one.

    Malherbe and Vayatis, "Global Optimization of Lipschitz Functions" (2017); the vector k and the trust region are as
    in King, "A Global Optimization Algorithm Worth Using" (2017), dlib's `find_max_global`.
    """

    def __init__(self, space: Mapping[str, Space], seed: int) -> None:
        self.space: dict[str, Space] = dict(space)
        self.random: np.random.Generator = np.random.default_rng(seed)
        self.points: np.ndarray = np.zeros((0, len(space)))
        self.values: np.ndarray = np.zeros(0)  # higher is better; NaN for a failed trial
        self.asked: np.ndarray = self.points
        self.local: np.ndarray = np.zeros(0, bool)
        self.radius: float = 0.0

    def ask(self, count: int) -> Values:
        """Suggest values `(count,)` of each hyperparameter."""
        asked, local = list[np.ndarray](), list[bool]()
        scores = self._scores()
        for place in range(count):
            # Every second suggestion is local, counted over all rounds.
            step = self._near_best(scores, place // 2, asked) if (len(scores) + place) % 2 else None
            local.append(step is not None)
            asked.append(self._by_bound(scores, asked) if step is None else step)
        self.asked, self.local = np.stack(asked), np.asarray(local)
        return {name: _from_unit(each, self.asked[:, place]) for place, (name, each) in enumerate(self.space.items())}

    def tell(self, values: np.ndarray) -> None:
        """Take the values of the latest suggestions, higher is better, NaN for those that failed."""
        before = np.nan_to_num(self.values, nan=-np.inf).max(initial=-np.inf)
        found = np.nan_to_num(values, nan=-np.inf)
        best = int(found.argmax())
        if found[best] > before and not self.local[best]:
            self.radius = 0.0  # the best is now elsewhere
        elif self.local.any():
            self.radius *= 2.0 if found[self.local].max() > before else 0.5
        self.points, self.values = np.concatenate([self.points, self.asked]), np.concatenate([self.values, values])

    def _scores(self) -> np.ndarray:
        """Return the values, those that failed as bad as the worst."""
        worst = np.nan_to_num(self.values, nan=np.inf).min(initial=np.inf)
        return np.where(np.isnan(self.values), worst if np.isfinite(worst) else 0.0, self.values)

    def _snapped(self, points: np.ndarray) -> np.ndarray:
        """Return points `(n, d)` in the cube, moved to the nearest that stand for integers or options."""
        points = np.clip(points, 0, 1)
        for place, each in enumerate(self.space.values()):
            if each.kind in ("integers", "choice") and each.high > each.low:
                steps = each.high - each.low
                points[:, place] = np.round(points[:, place] * steps) / steps
        return points

    def _by_bound(self, scores: np.ndarray, asked: list[np.ndarray]) -> np.ndarray:
        """Return the random point with the highest bound; the first points are random."""
        drawn = self._snapped(self.random.random((CANDIDATES, len(self.space))))
        points = self.points
        if len(points) < 2 or not np.ptp(scores):
            return drawn[0]
        if asked:
            waiting = np.stack(asked)
            nearest = np.square(waiting[:, None] - points[None]).sum(-1).argmin(1)
            points, scores = np.concatenate([points, waiting]), np.concatenate([scores, scores[nearest]])
        slopes = _slopes(self.points[np.isfinite(self.values)], self.values[np.isfinite(self.values)])
        squared = np.square(drawn[:, None] - points[None]) @ slopes  # (candidates, points)
        return drawn[(scores + np.sqrt(squared)).min(1).argmax()]

    def _near_best(self, scores: np.ndarray, halvings: int, asked: list[np.ndarray]) -> np.ndarray | None:
        """Return the maximizer of the quadratic model in the ball, halved some times; `None` with too few points."""
        d = len(self.space)
        terms = (d + 1) * (d + 2) // 2
        if len(scores) < min(terms, 2 * d + 1) + 1:
            return None
        best = self.points[scores.argmax()]
        distance = np.linalg.norm(self.points - best, axis=1)
        near = np.argsort(distance, kind="stable")[: terms + d + 1]
        if self.radius == 0.0:
            self.radius = float(distance[near].max())
        scale = max(float(distance[near].max()), 1e-12)
        upper = np.triu_indices(d)

        def features(x: np.ndarray) -> np.ndarray:
            u = (x - best) / scale
            return np.concatenate([np.ones((len(u), 1)), u, (u[:, :, None] * u[:, None])[:, *upper]], axis=1)

        # The model's error grows with the third power of the distance.
        weights = (distance[near] / scale + self.radius / scale + 1e-6) ** -3.0
        weights /= weights.max()
        spread = float(np.ptp(scores[near])) or 1.0
        target = (scores[near] - scores.max()) / spread
        model = np.linalg.lstsq(weights[:, None] * features(self.points[near]), weights * target, rcond=1e-12)[0]
        curvature = np.zeros((d, d))
        curvature[upper] = model[1 + d :]
        step = scale * _in_ball(model[1 : 1 + d], curvature + curvature.T, self.radius * 0.5**halvings / scale)
        (there,) = self._snapped((best + step)[None])
        new = np.linalg.norm(np.concatenate([self.points, np.reshape(asked, (-1, d))]) - there, axis=1).min() > 1e-9
        return there if new and self.radius > 1e-9 else None


def _slopes(points: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the k ≥ 0 of least norm with Σ_d k_d (x_id − x_jd)² ≥ (v_i − v_j)² for all pairs, but for the noise.

    Of the pairs only those most in want of a larger k are constraints; what is solved by non-negative least squares is
    the dual, Lawson and Hanson, "Solving Least Squares Problems" (1974), chapter 23.
    """
    from scipy.optimize import nnls

    one, other = np.triu_indices(len(points), 1)
    apart = np.square(points[one] - points[other])  # (pairs, d)
    spread = float(values.std()) or 1.0
    want = np.square(np.maximum(np.abs(values[one] - values[other]) / spread - NOISE, 0))
    apart, want = apart[apart.sum(1) > 1e-18], want[apart.sum(1) > 1e-18]
    k, used = np.zeros(points.shape[1]), list[int]()
    for _ in range(50):
        lacking = want - apart @ k
        worst = int((lacking / apart.sum(1)).argmax()) if len(want) else 0
        if not len(want) or lacking[worst] <= 1e-6 * want[worst]:
            break
        used.append(worst)
        length = np.linalg.norm(apart[used], axis=1)
        rows = np.concatenate([apart[used] / length[:, None], np.eye(len(k))])  # k ≥ 0 are the last constraints
        bounds = np.concatenate([want[used] / length, np.zeros(len(k))])
        size = bounds.max()
        system = np.concatenate([rows.T, bounds[None] / size])
        target = np.append(np.zeros(len(k)), 1.0)
        residual = system @ nnls(system, target)[0] - target
        k = np.maximum(-residual[:-1] / residual[-1] * size, 0)
    return k * spread**2


def _in_ball(gradient: np.ndarray, curvature: np.ndarray, radius: float) -> np.ndarray:
    """Return the maximizer of g·u + ½ uᵀ C u over |u| ≤ r, by bisection for the multiplier of the radius."""
    values, vectors = np.linalg.eigh(curvature)
    slope = vectors.T @ gradient

    def at(multiplier: float) -> np.ndarray:
        return vectors @ (slope / (multiplier - values))

    low = max(float(values.max()), 0.0)
    tiny = 1e-12 * max(1.0, float(np.abs(values).max()), float(np.linalg.norm(slope)))
    low += tiny
    if np.linalg.norm(at(low)) <= radius:
        return at(low)
    high = low + float(np.linalg.norm(slope)) / radius
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(at(middle)) > radius else (low, middle)
    return at(high)


def _from_unit(space: Space, share: np.ndarray) -> np.ndarray:
    """Return the values of a hyperparameter for shares in [0, 1] of its space."""
    if space.kind in ("integers", "choice"):
        rank = np.round(space.low + share * (space.high - space.low)).astype(int)
        return np.sort(np.asarray(space.options))[rank] if space.options else rank
    if space.kind == "uniform":
        return space.low + share * (space.high - space.low)
    return np.exp(np.log(space.low) + share * (np.log(space.high) - np.log(space.low)))
