"""Variational autoencoders of any encoder and decoder."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnets.combinators import Layer, build_child
from jaxnets.errors import NetError, labelled_as
from jaxnets.layers.checks import check_train_key, param_dtype
from jaxnets.leaf import lift
from jaxnets.net import Apply, Key, Net, Params, State, apply_child, compose, fold
from jaxnets.recorded import recorded


@recorded
def variational(encoder: Layer, decoder: Layer) -> Net:
    """Return the variational autoencoder of an encoder and a decoder: q(z|x) = N(mean, e^log_variance), p(x|z).

    In training the decoder sees z = mean + e^(log_variance / 2) · ε with ε ~ N(0, 1), in evaluation the mean.
    `jn.losses.negative_elbo` is the loss, with the input as the target. New examples come from the prior:
    `net["decoder"].apply(params["decoder"], {}, jax.random.normal(key, (n, code)))`; codes from `net.upto("encoder")`.

    Args:
        encoder: a network that gives a dict of `mean` and `log_variance`, of one shape.
        decoder: a network from a code to a reconstruction: logits for the Bernoulli likelihood, means for the Gaussian.

    Returns:
        A network that gives a dict of `reconstruction`, `mean` and `log_variance`, and needs a key in training.

    Raises:
        NetError: if the encoder gives anything else, or for training without a key.

    Kingma and Welling, "Auto-Encoding Variational Bayes" (2014), section 2.4.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> net = variational(jn.branches(dict, mean=jn.dense(2), log_variance=jn.dense(2)), jn.dense(5))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 5)))
    >>> y, _ = net.apply(params, state, jnp.ones((3, 5)), key=jax.random.key(1), train=True)
    >>> jn.losses.negative_elbo(y, jnp.ones((3, 5))).shape
    (3,)
    """
    whole = {"encoder": lift(encoder), "decoder": lift(decoder)}

    def build(key: Key, x: Any) -> tuple[Params, State, Any]:
        params, state = {}, {}
        code = _posterior(build_child(whole["encoder"], "encoder", key, x, params, state))
        y = build_child(whole["decoder"], "decoder", key, code["mean"], params, state)
        return params, state, {"reconstruction": y, **code}

    def run(parts: Mapping[str, Net], params: Params, state: State, x: Any, key: Key | None, train: bool) -> Any:
        y, new_state = x, dict(state)
        code: dict[str, Any] = {}
        for name, part in parts.items():
            y, inner = apply_child(part, name, params, state, y, key=key, train=train)
            new_state |= {name: inner} if inner else {}
            if name == "encoder" and "decoder" in parts:
                code = _posterior(y)
                y = _sample(fold(key, "code"), **code) if train else code["mean"]
        return y, code, new_state

    def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
        y, code, state = run(whole, params, state, x, key, train)
        return {"reconstruction": y, **code}, state

    def cut(path: tuple[str, ...]) -> Apply:
        last, *inside = path
        parts = dict(whole) if last == "decoder" else {"encoder": whole["encoder"]}
        parts[last] = parts[last].upto("/".join(inside)) if inside else parts[last]

        def apply(params: Params, state: State, x: Any, *, key: Key | None = None, train: bool = False) -> Any:
            y, _, state = run(parts, params, state, x, key, train)
            return y, state

        return apply

    return compose(build, apply, label="variational", children=whole, cut=cut)


def _posterior(code: Any) -> dict[str, Any]:
    names = sorted(code) if isinstance(code, Mapping) else type(code).__name__
    if names != ["log_variance", "mean"] or jnp.shape(code["mean"]) != jnp.shape(code["log_variance"]):
        raise NetError(
            f"expects an encoder that gives a dict of mean and log_variance of one shape, got {names}; end it in "
            f"jn.branches(dict, mean=jn.dense(n), log_variance=jn.dense(n))",
            label="variational",
        )
    return {name: code[name] for name in ("mean", "log_variance")}


def _sample(key: Key | None, mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    with labelled_as("variational"):
        check_train_key(key)
    noise = jax.random.normal(key, mean.shape, param_dtype(mean)).astype(mean.dtype)  # type: ignore[arg-type]  # it is there
    return mean + jnp.exp(log_variance / 2) * noise
