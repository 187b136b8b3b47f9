"""The whole of a network against PyTorch, in float64: in evaluation, in training, its state, its gradients.

In float32, gradients through batch norms over a few places differ by percents between any two libraries.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxnets as jn
from tests.models.weights import digest, draw, from_torch, to_torch
from tests.once import once
from tests.oracle import floats, witness
from tests.peers import PEERS

SHARES = {"logits": 1.0, "aux1": 0.3, "aux2": 0.3, "AuxLogits": 0.4}


def wide(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def answers(net: jn.Net, params: Any, state: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return outputs in evaluation and in training, the state after it, and gradients; trees as digests."""

    def loss(params: Any, state: Any, x: Any) -> tuple[jax.Array, Any]:
        outputs, after = net.apply(params, state, x, train=True)
        outputs = outputs if isinstance(outputs, Mapping) else {"logits": outputs}
        parts = [SHARES[name] * (y * wide(floats(*y.shape))).sum() for name, y in outputs.items()]
        return jnp.stack(parts).sum(), (outputs, after)

    def run(params: Any, state: Any, x: Any) -> tuple:
        return net.apply(params, state, x)[0], *jax.grad(loss, has_aux=True)(params, state, x)

    with jax.enable_x64(True):
        given = wide((params, state, x))
        evaluated, gradients, (outputs, after) = once(run, *given)
        return {
            "evaluation": np.asarray(evaluated),
            **{f"training {name}": np.asarray(y) for name, y in outputs.items()},
            **({"state": digest(after)} if after else {}),
            "gradients": digest(gradients),
        }


def channels_last(y: Any) -> Any:
    """Return PyTorch's maps `(batch, channels, height, width)` in our order, any other output as it is."""
    return y.permute(0, 2, 3, 1) if y.ndim == 4 else y


def peers_answers(model: Any, tensors: Mapping[str, np.ndarray], x: np.ndarray, flattened: Any, heads: Any) -> dict:
    """Return the same of a PyTorch module whose outputs in training are the logits and the heads."""
    import torch

    model = model.double()
    loaded = model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()}, strict=False)
    assert not loaded.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in loaded.missing_keys)
    images = torch.tensor(x).double().permute(0, 3, 1, 2)
    evaluated = channels_last(model.eval()(images).detach())
    outputs = model.train()(images)
    outputs = map(channels_last, outputs if isinstance(outputs, tuple) else (outputs,))
    outputs = dict(zip(("logits", *heads), outputs, strict=True))
    parts = [SHARES[name] * (y * torch.tensor(floats(*y.shape))).sum() for name, y in outputs.items()]
    torch.stack(parts).sum().backward()
    gradients, _ = from_torch({name: p.grad for name, p in model.named_parameters()}, flattened=flattened)
    _, state = from_torch(dict(model.state_dict()), flattened=flattened)
    return {
        "evaluation": evaluated.numpy(),
        **{f"training {name}": y.detach().numpy() for name, y in outputs.items()},
        **({"state": digest(state)} if state else {}),
        "gradients": digest(gradients),
    }


def agree(name: str, net: jn.Net, x: np.ndarray, make: Callable[[], Any], flattened: Any = {}, heads: Any = ()):  # noqa: B006
    params, state = draw(net, x)
    tensors = to_torch(params, state, flattened=flattened)
    theirs = witness(name, lambda: peers_answers(make(), tensors, x, flattened, heads), installed=PEERS)
    ours = answers(net, params, state, x)
    assert set(ours) == set(theirs)
    for what, values in theirs.items():
        assert ours[what].shape == values.shape
        np.testing.assert_allclose(ours[what], values, rtol=0, atol=1e-10 * np.abs(values).max(), err_msg=what)
