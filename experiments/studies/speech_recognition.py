"""Small networks trained by CTC write down what synthetic speakers say whom they have never heard.

Speakers made by formant synthesis say one or two of twenty words. A convolution with GRUs, and one with a transformer,
read the mel spectrogram and write letters; nobody tells them where a letter is spoken. They are judged by the error
rate of words on clips of other speakers, decoded by the best path and by a beam search, in quiet and in noise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnets as jn
from experiments.framework.drawing import finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Speech recognition by CTC",
    claim="Networks trained by CTC, without alignments, write down at most 5 % of the words of new speakers wrongly.",
    source="Graves et al. (2006); Amodei et al. (2016); Mohamed, Okhonko and Zettlemoyer (2019)",
    refuted_by="a conv–GRU network that gets more than 5 % of the words of speakers wrong whom it has not heard.",
    data="words spoken by formant synthesis (jn.data.spoken_words): 2,400 clips of 150 speakers, 250 of 50 others",
    minutes=2.0,
    reservations=(
        "Sizes, rates and the number of epochs were chosen in trials, judged on other speakers than the test's; "
        "with 12 epochs conv-GRU got 5.0 % (4.6 to 5.7) of such words wrong."
    ),
    concepts=("jn.data.spoken_words", "jn.ops.log_mel", "jn.models.conv_gru", "jn.models.conv_transformer",
              "jn.losses.ctc", "jn.decoding.ctc_beam_search", "jn.metrics.word_error_rate"),
)  # fmt: skip
CLASSES = 28  # the blank, the space and 26 letters
MODELS, DECODERS = ("conv-GRU", "conv-transformer"), ("best path", "beam search")


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 5
    """Networks of each kind."""
    clips: int = 2400
    """Clips to train on."""
    tests: int = 250
    """Clips for the test, the same at each level of noise."""
    epochs: int = 20
    """Epochs of training."""
    width: int = 48
    """Units of each direction of the GRU, and features of the transformer."""
    beam: int = 8
    """Labelings that the beam search keeps."""
    noises: tuple[float, ...] = (30.0, 15.0, 7.5, 0.0)
    """Decibels by which the test clips are louder than the noise in them; the first is judged."""


QUICK = Config(clips=600, tests=100, seeds=2, noises=(30.0, 5.0))
TINY = Config(seeds=2, clips=50, tests=10, epochs=1, width=8, beam=2, noises=(30.0, 5.0))


def run(config: Config) -> Results:
    """Train both kinds, and let them write down the clips of other speakers."""
    sound, texts = clips(config.clips, range(150), (15.0, 40.0), seed=0)
    x, scaling = features(sound, None)
    data = x, jn.data.pad([jn.data.encode_text(text) + 1 for text in texts])
    tests = [clips(config.tests, range(3000, 3050), noise, seed=3) for noise in config.noises]
    heard = [features(each, scaling)[0] for each, _ in tests]
    errors: dict[str, dict[str, Any]] = {}
    letters, losses, written = {}, {}, {}
    for name, net, rate, size in (
        (MODELS[0], jn.models.conv_gru(CLASSES, config.width, layers=1, widths=(config.width,)), 0.008, 50),
        (MODELS[1], jn.models.conv_transformer(CLASSES, config.width, layers=2, widths=(), kernel_size=5,
                                               hidden=2 * config.width), 0.01, 25),
    ):  # fmt: skip
        result = train(net, rate, size, data, config)
        losses[name] = result.history["loss"]

        @jax.jit
        def decode(params: Any, x: Any, net: jn.Net = net) -> Any:
            def one(params: Any) -> Any:
                logits, _ = net.apply(params, {}, x)
                best = jn.decoding.ctc_greedy(logits)
                beam = jn.decoding.ctc_beam_search(logits, beam=config.beam, max_length=16)
                return (best.tokens, best.lengths), (beam.tokens[:, 0], beam.lengths[:, 0])

            return jax.lax.map(one, params)

        params = jax.tree.map(jnp.asarray, result.runs.params)
        said = [read(decode(params, each)) for each in heard]
        errors[name] = {
            decoder: [[100 * jn.metrics.word_error_rate(seed, texts) for seed in noisy[place]]
                      for noisy, (_, texts) in zip(said, tests, strict=True)]
            for place, decoder in enumerate(DECODERS)
        }  # fmt: skip
        letters[name] = [100 * jn.metrics.character_error_rate(seed, tests[0][1]) for seed in said[0][1]]
        written[name] = [noisy[1][0][:2] for noisy in (said[0], said[-1])]
    return {
        "noises": config.noises,
        "errors": errors,  # by decoder, noise and seed
        "letters": letters,
        "loss": losses,
        "pictures": [[np.round(np.asarray(x[row], float), 1) for row in range(2)] for x in (heard[0], heard[-1])],
        "texts": tests[0][1][:2],
        "written": written,
    }


def clips(count: int, speakers: range, noise: Any, seed: int) -> tuple[Any, list[str]]:
    """Return clips with their texts; the same words at each level of noise."""
    spoken = jn.data.spoken_words(count, count=(1, 2), speakers=speakers, noise=noise, seed=seed)
    return jax.tree.map(jnp.asarray, spoken.sound), spoken.texts


@jax.jit
def log_mel(sound: Any) -> Any:
    """Return 24 mel bands each 12.5 ms."""
    return jn.ops.log_mel(sound, 8000, mels=24, window=200, hop=100, size=256, floor=1e-5)


def features(sound: Any, scaling: Any) -> tuple[jn.Padded, Any]:
    """Return the features of clips, each band less a mean and over a deviation, which are made where none are given."""
    x = jax.tree.map(np.asarray, log_mel(sound))
    mean, deviation = (x.values[x.mask].mean(0), x.values[x.mask].std(0)) if scaling is None else scaling
    scaled = np.where(x.mask[..., None], (x.values - mean) / deviation, 0)
    return jn.Padded(scaled.astype(np.float32), x.lengths), (mean, deviation)


def train(net: jn.Net, rate: float, size: int, data: Any, config: Config) -> jn.sweeps.SweepResult:
    """Train networks from all seeds."""
    steps = config.epochs * -(-config.clips // size)

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        schedule = optax.warmup_cosine_decay_schedule(0.0, rate, steps // 10, steps)
        optimizer = optax.chain(optax.clip_by_global_norm(5.0), optax.adam(schedule))
        return jn.train.program(
            net, jn.objective(jn.losses.ctc), optimizer, data, epochs=config.epochs, batch_size=size
        )

    return jn.sweeps.sweep(trial, seeds=config.seeds, strategy="map")


def read(decoded: Any) -> list[list[list[str]]]:
    """Return the texts by decoder and seed."""
    return [
        [
            [jn.data.decode_text(row[:length] - 1) if length else "" for row, length in zip(*seed, strict=True)]
            for seed in zip(*map(np.asarray, decoder), strict=True)
        ]
        for decoder in decoded
    ]


def figure(results: Results) -> "Figure":
    """Draw error rates over noise, and two clips in quiet and in noise with what was written."""
    drawn, (left, right, *pages) = panels(3, 2, width=5, height=2.6)
    noises = results["noises"]
    for place, name in enumerate(MODELS):
        for style, decoder in zip("-:", DECODERS[::-1], strict=True):
            values = np.asarray(results["errors"][name][decoder]).T
            line(left, noises, values, f"{name}, {decoder}", place, linestyle=style)
        losses = np.asarray(results["loss"][name])
        line(right, range(1, losses.shape[1] + 1), losses, name, place)
    left.axhline(5, color="gray", linewidth=0.8)
    left.set_ylim(0, 100)
    left.invert_xaxis()
    finish(left, "Words of speakers never heard", "clip louder than the noise by, dB", "word error rate, %")
    right.set_yscale("log")
    finish(right, "Training", "epoch", "CTC loss per clip")
    for k, page in enumerate(pages):
        noisy, row = divmod(k, 2)
        picture = np.asarray(results["pictures"][noisy][row])
        page.imshow(picture.T, origin="lower", aspect="auto", cmap="magma", extent=(0, 0.0125 * len(picture), 0, 24))
        said = "\n".join(f"{name}: “{results['written'][name][noisy][row]}”" for name in MODELS)
        finish(page, f"“{results['texts'][row]}” at {noises[-noisy]:g} dB\n{said}", "seconds", "mel band")
        page.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by the error rates of words, decoded by beam search, in the least noise."""
    quiet = {
        name: {decoder: np.asarray(each)[0] for decoder, each in errors.items()}
        for name, errors in results["errors"].items()
    }
    (gru, transformer), (path, beam) = (quiet[name] for name in MODELS), DECODERS
    loud = np.asarray(results["errors"][MODELS[0]][beam])[-1]
    least, most = results["noises"][0], results["noises"][-1]
    return judge(
        below(f"word error rate at {least:g} dB, conv-GRU, beam search", gru[beam], 5, "%"),
        below("the same, conv-transformer", transformer[beam], 5, "%", core=False),
        above("conv-GRU, best path less beam search", gru[path] - gru[beam], 0, "%", core=False),
        above(
            "conv-transformer, best path less beam search", transformer[path] - transformer[beam], 0, "%", core=False
        ),
        above("beam search, conv-transformer less conv-GRU", transformer[beam] - gru[beam], 0, "%", core=False),
        above(f"conv-GRU, at {most:g} dB less at {least:g} dB", loud - gru[beam], 0, "%", core=False),
    )
