"""With the same parameters every library computes the same logits, and writes the same text."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from experiments.benchmarks import architecture as a
from experiments.benchmarks import data, ours
from experiments.benchmarks.peers import PEERS
from experiments.benchmarks.rows import decoding
from experiments.benchmarks.work import Work

pytestmark = pytest.mark.promotes
LAYER = a.Transformer(27, 12, 2, 2, 8)
WORK = Work((LAYER,), *data.text(3, 5), 3, net=lambda: ours.single((LAYER,)), tokens=7)
TRAINERS = [name for name in ("PyTorch", "Flax Linen", "Flax NNX", "Equinox", "Keras") if PEERS[name].installed]
DECODERS = [name for name in decoding.PEERS_OF_DECODING if PEERS[name].installed]
Arrays = Mapping[str, np.ndarray]


def parameters() -> tuple[Any, Arrays]:
    """Return parameters of ours, all random, as they are and by path."""
    params, _ = WORK.net().init(jax.random.key(0), WORK.x)  # pyright: ignore
    key, paths = jax.random.key(0), jn.paths.paths(params)
    # With large biases, or small positions, all tokens written would be the same.
    scales = {"bias": 0.1, "wpe": 8.0}
    drawn = {
        path: scales.get(path.split("/")[-1], scales.get(path.split("/")[0], 1.0)) * jax.random.normal(key, leaf.shape)
        for path, leaf in paths.items()
    }
    drawn = {path: np.asarray(each) for path, each in drawn.items()}
    return jax.tree_util.tree_map_with_path(lambda path, _: drawn["/".join(each.key for each in path)], params), drawn


def logits_of_ours(params: Any) -> np.ndarray:
    return np.asarray(WORK.net().apply(params, {}, WORK.x)[0])  # pyright: ignore


def renamed(arrays: Arrays, *names: tuple[str, str]) -> dict[str, np.ndarray]:
    """Return arrays by the paths of another library, by regular expressions."""
    found = {}
    for path, array in arrays.items():
        for old, new in names:
            path = re.sub(old, new, path)
        found[path] = array
    return found


def in_pytorch(arrays: Arrays) -> Any:
    import torch

    from experiments.benchmarks.peers import in_pytorch

    net = in_pytorch.network((LAYER,), WORK.shape)
    net.load_state_dict({name: torch.tensor(array) for name, array in of_pytorch(arrays).items()})
    with torch.no_grad():
        return net(torch.from_numpy(WORK.x)).numpy()


def of_pytorch(arrays: Arrays) -> dict[str, np.ndarray]:
    found = {path: array.T if path.endswith("kernel") else array for path, array in arrays.items()}
    for path in [path for path in found if "/query/" in path]:
        three = (found.pop(path.replace("query", name)) for name in ("query", "key", "value"))
        found[path.replace("attention/query", "qkv")] = np.concatenate([*three])
    tables = ("wte", "tokens"), ("wpe", "positions"), ("ln_f", "norm"), ("attention/out", "out")
    return renamed(
        found, ("^", "0/"), ("0/h", "0/blocks"), *tables, ("(kernel|scale|embedding)$", "weight"), ("/", ".")
    )


def transformers_net(arrays: Arrays) -> Any:
    import torch

    from experiments.benchmarks.peers import in_transformers

    found = dict(arrays)
    for path in [path for path in found if "/query/" in path]:
        three = (found.pop(path.replace("query", name)) for name in ("query", "key", "value"))
        found[path.replace("query", "c_attn")] = np.concatenate([*three], -1)
    norms = ("norm1", "ln_1"), ("norm2", "ln_2"), ("attention", "attn"), ("up", "mlp/c_fc"), ("down", "mlp/c_proj")
    found = renamed(found, *norms, ("out", "c_proj"), ("(kernel|scale|embedding)$", "weight"), ("/", "."))
    net = in_transformers.network((LAYER,))
    missing = net.transformer.load_state_dict({name: torch.tensor(array) for name, array in found.items()})
    assert not missing.missing_keys
    return net


def in_linen(arrays: Arrays) -> Any:
    from experiments.benchmarks.peers import in_linen

    module = in_linen.network((LAYER,), jnp.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), WORK.x)
    names = ("^", "layers_0/"), ("h/", "block"), ("wte", "tokens"), ("wpe", "positions"), ("ln_f", "norm")
    found = renamed(arrays, *names)

    def of(path: Any, leaf: Any) -> Any:
        return found.pop("/".join(each.key for each in path[1:])).reshape(leaf.shape)

    made = module.apply(jax.tree_util.tree_map_with_path(of, shapes), WORK.x)
    assert not found
    return made


def nnx_model(arrays: Arrays) -> Any:
    from flax import nnx

    from experiments.benchmarks.peers import in_nnx

    model = in_nnx.network((LAYER,), WORK.shape, nnx.Rngs(0))
    names = ("^", "layers/0/"), ("/h/", "/blocks/"), ("wte", "tokens"), ("wpe", "positions"), ("ln_f", "norm")
    found, state = renamed(arrays, *names), nnx.state(model, nnx.Param)
    flat = [(path, leaf, found.pop("/".join(map(str, path)))) for path, leaf in nnx.to_flat_state(state)]
    nnx.update(model, nnx.from_flat_state([(path, leaf.replace(jnp.reshape(x, leaf.shape))) for path, leaf, x in flat]))
    assert not found
    return model


def in_equinox(arrays: Arrays) -> Any:
    import equinox as eqx

    from experiments.benchmarks.peers import in_equinox

    model = in_equinox.network((LAYER,), WORK.shape, jax.random.key(0))
    found = {path: array.T if path.endswith("kernel") else array for path, array in arrays.items()}
    names = ("wte", "tokens"), ("wpe", "positions"), ("ln_f", "norm"), ("attention/out", "attention/output")
    found = renamed(found, *names, (r"h/(\d)", r"blocks[\1]"), ("(query|key|value|output)/", r"\1_proj/"))
    found = renamed(found, ("(kernel|scale|embedding)$", "weight"), ("/", "."), ("^", ".layers[0]."))

    def of(path: Any, leaf: Any) -> Any:
        return jnp.asarray(found.pop(jax.tree_util.keystr(path))) if eqx.is_array(leaf) else leaf

    model = jax.tree_util.tree_map_with_path(of, model)
    assert not found
    return jax.vmap(model)(WORK.x)


def in_keras(arrays: Arrays) -> Any:
    from experiments.benchmarks.peers import in_keras

    inputs = in_keras.keras.Input(WORK.shape, dtype="int32")
    model = in_keras.keras.Model(inputs, in_keras.apply((LAYER,), inputs))
    order = "norm1/scale norm1/bias", *(f"attention/{name}" for name in ("query", "key", "value", "out")), "norm2", "up"
    parts = [part for each in (*order, "down") for part in each.split()]
    paths = ["wte/embedding", "wpe/embedding"]
    for block in range(LAYER.blocks):
        for part in parts:
            ends = (
                ("",) if part.startswith("norm1/") else ("/scale", "/bias") if part == "norm2" else ("/kernel", "/bias")
            )
            paths += [f"h/{block}/{part}{end}" for end in ends]
    paths += ["ln_f/scale", "ln_f/bias"]
    for path, weight in zip(paths, model.weights, strict=True):
        weight.assign(arrays[path].reshape(weight.shape))
    return model(WORK.x)


LOGITS: dict[str, Callable[[Arrays], Any]] = {
    "PyTorch": in_pytorch,
    "Flax Linen": in_linen,
    "Flax NNX": lambda arrays: nnx_model(arrays)(WORK.x),
    "Equinox": in_equinox,
    "Keras": in_keras,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINERS)
def test_everybody_computes_the_same_logits(name: str):
    params, arrays = parameters()
    expected = logits_of_ours(params)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(np.asarray(LOGITS[name](arrays)), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
def test_everybody_writes_the_same_text(name: str):
    params, arrays = parameters()
    expected = jn.decoding.sample(WORK.net(), params, {}, WORK.x, WORK.tokens, temperature=0)  # pyright: ignore
    if name == "transformers":
        from experiments.benchmarks.peers import in_transformers

        written = in_transformers.write(transformers_net(arrays), WORK)
    else:
        from experiments.benchmarks.peers import in_nnx

        model = nnx_model(arrays).layers[0]
        written = in_nnx.writer(model, WORK, scan=name == "Flax NNX, scanned")()
    assert len(set(np.asarray(expected).ravel().tolist())) > 3
    np.testing.assert_array_equal(np.asarray(written), expected)
