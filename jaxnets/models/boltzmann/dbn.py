"""Deep belief networks: stacks of restricted Boltzmann machines, trained one after another."""

from collections.abc import Sequence
from typing import Any

import jax

from jaxnets.combinators.serial import serial
from jaxnets.core.dtypes import param_dtype, to_dtype
from jaxnets.core.errors import NetError
from jaxnets.core.keywords import explained
from jaxnets.core.net import Key, Net, Params
from jaxnets.layers import dense
from jaxnets.models.boltzmann.rbm import Visible, contrastive_divergence, gibbs_step, rbm, visible_mean, walk


@explained
def dbn(widths: Sequence[int], num_classes: int | None = None, *, visible: Visible = "bernoulli") -> Net:
    """Return a deep belief network; the hidden probabilities of each machine are the input of the next.

    Pretrain it machine by machine with `jn.train.pretrain_layers` and `dbn_stages`. Fine-tune it like any network: with
    `num_classes` it is a sigmoid multilayer perceptron, `params | {"fc": ...}`, whose visible biases have gradient 0;
    `dbn_to_mlp` renames the rest.

    Args:
        widths: the number of hidden units of each machine, from the input up.
        num_classes: the width of a linear layer `fc` on top. Default: no such layer.
        visible: the kind of visible units of the first machine, as for `rbm`; those of the others are binary.

    Returns:
        A network from `(batch, features)` to `(batch, widths[-1])`, or logits `(batch, num_classes)`. Machines are
        named `0`, `1`, …; `net.upto("0")` returns the features of the first.

    Raises:
        NetError: for no widths.

    Hinton, Osindero and Teh, "A Fast Learning Algorithm for Deep Belief Nets" (2006); Hinton and Salakhutdinov,
    "Reducing the Dimensionality of Data with Neural Networks" (2006), for fine-tuning by gradient descent.

    >>> dbn((500, 500, 2000), 10)
    serial
    ├─ 0: rbm(500)
    ├─ 1: rbm(500)
    ├─ 2: rbm(2000)
    └─ fc: dense(10)
    """
    machines = [rbm(width, visible=kind) for width, kind in _layers(widths, visible)]
    return serial(*machines) if num_classes is None else serial(*machines, fc=dense(num_classes))


def dbn_stages(
    widths: Sequence[int], *, visible: Visible = "bernoulli", steps: int = 1, chains: int = 0
) -> list[tuple[Net, Net]]:
    """Return the stages of a `dbn` for `jn.train.pretrain_layers`: for each machine, the learner and the `rbm`.

    Args:
        widths: as for `dbn`.
        visible: as for `dbn`.
        steps: the steps of the Markov chain, as for `contrastive_divergence`.
        chains: the number of persistent chains, as for `contrastive_divergence`.

    >>> dbn_stages((8, 4), steps=2)
    [(contrastive_divergence(8, steps=2), rbm(8)), (contrastive_divergence(4, steps=2), rbm(4))]
    """
    return [
        (contrastive_divergence(width, visible=kind, steps=steps, chains=chains), rbm(width, visible=kind))
        for width, kind in _layers(widths, visible)
    ]


def dbn_to_mlp(params: Params) -> Params:
    """Return the parameters of `mlp(widths, num_classes, activation=jax.nn.sigmoid)` from those of a `dbn`.

    Machine `0` becomes `fc1` and so on, `fc` becomes the last layer, and visible biases are dropped. Without `fc`, use
    the last layer of a new multilayer perceptron: `fresh | dbn_to_mlp(params)`.

    Args:
        params: the parameters of a `dbn`, from `jn.train.pretrain_layers` or fine-tuning.

    >>> import jax, jax.numpy as jnp
    >>> params, _ = jax.eval_shape(dbn((5, 4), 3).init, jax.random.key(0), jnp.ones((1, 6)))
    >>> {name: sorted(layer) for name, layer in dbn_to_mlp(params).items()}
    {'fc1': ['bias', 'kernel'], 'fc2': ['bias', 'kernel'], 'fc3': ['bias', 'kernel']}
    """
    machines = [params[name] for name in _machine_names(params)]
    layers = [*machines, params["fc"]] if "fc" in params else machines
    return {
        f"fc{number}": {name: each[name] for name in ("kernel", "bias")} for number, each in enumerate(layers, start=1)
    }


def dbn_sample(key: Key, params: Params, v: jax.Array, *, steps: int, visible: Visible = "bernoulli") -> jax.Array:
    """Draw examples from a deep belief network: a Markov chain in its top machine, then one pass down.

    Probabilities and draws are in float32 for narrower `v`.

    Args:
        key: the random key.
        params: the parameters of a `dbn`; `fc` is ignored.
        v: `(batch, features)`, the start of the chains: any examples, whose features are passed to the top machine.
        steps: the number of steps of the chain, at least 1.
        visible: the kind of visible units of the first machine.

    Returns:
        The means of the visible units given the layer above, in the shape of `v`; with a single machine, its samples.

    Raises:
        NetError: for parameters without machines.

    Hinton, Osindero and Teh, "A Fast Learning Algorithm for Deep Belief Nets" (2006), section 2.

    >>> import jax, jax.numpy as jnp, jaxnets as jn
    >>> v = jnp.ones((2, 6))
    >>> params, _ = jn.models.dbn((5, 4)).init(jax.random.key(0), v)
    >>> jax.jit(dbn_sample, static_argnames="steps")(jax.random.key(1), params, v, steps=10).shape
    (2, 6)
    """
    names = _machine_names(params)
    kinds: list[Any] = [visible, *["bernoulli"] * (len(names) - 1)]
    widths = [params[name]["bias"].shape[0] for name in names]
    wide = param_dtype(v)
    params, x = to_dtype(params, wide), v.astype(wide)
    # Up to the input of the top machine.
    if len(names) > 1:
        x, _ = dbn(widths[:-1], visible=visible).apply({n: params[n] for n in names[:-1]}, {}, x)
    first, *rest = jax.random.split(key, len(names))
    x = walk(lambda key, x: gibbs_step(key, params[names[-1]], x, visible=kinds[-1]), first, x, steps)
    # Down through the machines below it: a sample of each, and the mean of the last.
    for name, kind, each in zip(names[-2::-1], kinds[-2::-1], rest):
        mean = visible_mean(params[name], x, kind)
        x = mean if name == names[0] else jax.random.bernoulli(each, mean).astype(wide)
    return x.astype(v.dtype)


def _machine_names(params: Params) -> list[str]:
    """Return the names of the machines of a deep belief network, from the input up.

    Raises:
        NetError: if there are none.
    """
    names = sorted((name for name in params if name.isdecimal()), key=int)
    if not names:
        raise NetError(f"expects the parameters of a dbn, got {', '.join(params) or 'none'}", label="dbn")
    return names


def _layers(widths: Sequence[int], visible: Visible) -> list[tuple[int, Visible]]:
    """Return the number of hidden units and the kind of visible units of each machine."""
    if not widths:
        raise NetError("expects at least one width, got none", label="dbn")
    return [(width, "bernoulli" if place else visible) for place, width in enumerate(widths)]
