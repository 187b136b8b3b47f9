"""Whole models: the tensors of torchvision's and timm's, each used once, and given back under their names."""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import TIMM_RESNETV2, TIMM_VGG, from_torch, to_torch
from tests.interop.test_torch import equal, tensor
from tests.models import weights
from tests.once import once
from tests.oracle import floats, witness
from tests.peers import PEERS, timm_model, torchvision_models

models = jn.models


@dataclass(frozen=True)
class Peer:
    """A model, and where its counterpart is.

    Attributes:
        name: the counterpart's name, and that of the oracle.
        ours: makes the model.
        options: of the counterpart.
        timm: whether it is timm's rather than torchvision's.
        rename: names that differ.
        names: as for `to_torch`.
        size: height and width of an input.
    """

    name: str
    ours: Callable[[], jn.Net]
    options: Mapping[str, Any] = field(default_factory=dict)
    timm: bool = False
    rename: Mapping[str, str] | None = None
    names: str | None = None
    size: int = 224

    def __str__(self) -> str:
        return ("timm_" if self.timm else "") + self.name

    def make(self) -> Any:
        if self.timm:
            return timm_model(self.name, **self.options)
        return getattr(torchvision_models(), self.name)(**self.options)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the counterpart's tensors by name."""

        def ask() -> dict[str, np.ndarray]:
            import torch

            with torch.device("meta"):
                listed = [f"{name} {tuple(value.shape)}" for name, value in self.make().state_dict().items()]
            return {"listed": np.frombuffer("\n".join(listed).encode(), np.uint8)}

        listed = witness(f"interop/{self}", ask, installed=PEERS)["listed"].tobytes().decode()
        rows = [row.partition(" ") for row in listed.split("\n")]
        return {name: ast.literal_eval(shape) for name, _, shape in rows}


PLAIN = {"init_weights": False}
CHECKED = [
    Peer("alexnet", models.alexnet),
    Peer("vgg11_bn", partial(models.vgg11, batch_norm=True)),
    Peer("googlenet", partial(models.googlenet, auxiliary=True), PLAIN | {"aux_logits": True}),
    Peer("inception_v3", partial(models.inception_v3, auxiliary=True), PLAIN, size=299),
    Peer("resnet18", models.resnet18),
    Peer("resnet50", partial(models.resnet50, scan=True)),
    Peer("resnext50_32x4d", models.resnext50_32x4d),
    Peer("resnext101_32x8d", partial(models.resnext101_32x8d, scan=True)),
    Peer("resnext101_64x4d", partial(models.resnext101_64x4d, scan=True)),
    Peer("wide_resnet50_2", partial(models.wide_resnet50_2, scan=True)),
    Peer("wide_resnet101_2", partial(models.wide_resnet101_2, scan=True)),
    Peer("mobilenet_v2", models.mobilenet_v2),
    Peer("efficientnet_b0", models.efficientnet_b0),
    Peer("densenet121", models.densenet121),
    Peer("convnext_tiny", models.convnext_tiny),
    Peer("vit_b_16", models.vit_b_16),
    Peer("vit_b_32", partial(models.vit_b_32, scan=True)),
    Peer("vit_l_16", partial(models.vit_l_16, scan=True)),
    Peer("deit_tiny_patch16_224", models.deit_tiny, timm=True),
    Peer("vit_base_patch16_224", partial(models.vit_b_16, scan=True), timm=True, names="timm"),
    Peer("vit_base_patch32_224", partial(models.vit_b_32, scan=True), timm=True, names="timm"),
    Peer("vit_large_patch16_224", partial(models.vit_l_16, scan=True), timm=True, names="timm"),
    Peer("vgg11", models.vgg11, timm=True, rename=TIMM_VGG),
    Peer("resnetv2_18", partial(models.resnet18_v2, scan=True), timm=True, rename=TIMM_RESNETV2),
    Peer("resnetv2_50", partial(models.resnet50_v2, scan=True), timm=True, rename=TIMM_RESNETV2),
]


@pytest.mark.parametrize("peer", CHECKED, ids=str)
@pytest.mark.slow_cases(
    "timm_vgg11",
    *("vit_b_16", "vit_l_16", "timm_vit_large_patch16_224", "timm_vit_base_patch16_224"),
    *("vgg11_bn", "inception_v3", "googlenet", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    *("mobilenet_v2", "efficientnet_b0", "densenet121"),
    *("wide_resnet50_2", "wide_resnet101_2", "alexnet", "resnet18", "resnet50", "timm_resnetv2_50"),
)
def test_every_tensor_is_used_once_and_given_back(peer: Peer):
    net, x = peer.ours(), jax.ShapeDtypeStruct((1, peer.size, peer.size, 3), jnp.float32)
    shapes = peer.shapes()
    tensors = {name: np.broadcast_to(np.zeros((), np.int8), shape) for name, shape in shapes.items()}  # of no memory
    params, state = from_torch(net, tensors, x, rename=peer.rename, dtype=jnp.int8)
    assert jax.tree.map(jnp.shape, (params, state)) == jax.tree.map(
        jnp.shape, jax.eval_shape(net.init, jax.random.key(0), x)
    )
    back = to_torch(net, params, state, x, names=peer.names, rename=peer.rename)
    flat = {name: shape for name, shape in shapes.items() if back[name].shape != shape}
    assert set(back) == set(shapes)
    for name, shape in flat.items():  # timm has matrices as convolutions
        assert peer.timm
        assert len(shape) == 4
        assert back[name].shape == (shape[0], np.prod(shape[1:]))


@pytest.mark.parametrize("name", ["resnet18", "inception_v3"])
def test_timm_has_torchvisions_names_but_for_those_of_auxiliary_heads(name: str):
    theirs = next(peer for peer in CHECKED if peer.name == name).shapes()
    own = Peer(name, models.resnet18, timm=True).shapes()
    assert own == {name: shape for name, shape in theirs.items() if not name.startswith("AuxLogits")}


@pytest.mark.parametrize(
    ("net", "size", "channels", "flattened"),
    [
        (models.lenet5(), 28, 1, {"fc1": (5, 5, 16)}),
        (models.alexnet(10, hidden=16), 224, 3, {"classifier/1": (6, 6, 256)}),
        (models.vgg11(10, batch_norm=True, hidden=16), 224, 3, {"classifier/0": (7, 7, 512)}),
    ],
    ids=["lenet5", "alexnet", "vgg11_bn"],
)
@pytest.mark.slow_cases("vgg11_bn")
def test_values_are_those_of_a_conversion_that_is_told_what_was_flattened(net, size, channels, flattened):
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    drawn = weights.draw(net, x)
    tensors = weights.to_torch(*drawn, flattened=flattened)
    equal(jax.tree.map(np.asarray, from_torch(net, tensors, x)), drawn)
    back = to_torch(net, *drawn, x)
    equal({name: back[name] for name in tensors}, tensors)
    assert all(name.endswith("num_batches_tracked") for name in back.keys() - tensors.keys())


def test_logits_are_torchvisions_and_scanned_stages_unroll():
    peer = Peer("resnet18", partial(models.resnet18, 10, scan=True))
    x = floats(2, 32, 32, 3)
    net = peer.ours()
    tensors = {name: tensor(name, shape) for name, shape in peer.shapes().items()}
    tensors |= {"fc.weight": tensor("fc.weight", (10, 512)), "fc.bias": tensor("fc.bias", (10,))}
    tensors |= {name: 0.1 * value for name, value in tensors.items() if value.ndim == 4}

    def ask() -> dict[str, np.ndarray]:
        import torch

        model = torchvision_models().resnet18(num_classes=10).eval()
        model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()})
        with torch.no_grad():
            return {"logits": model(torch.tensor(x).movedim(-1, 1).contiguous()).numpy()}

    want = witness("interop/resnet18_logits", ask, installed=PEERS)["logits"]
    params, state = from_torch(net, tensors, x)
    logits = once(net.apply, params, state, x)[0]
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-5 * np.ptp(want))
    back = to_torch(net, params, state, x)
    equal(back, {name: tensors[name] for name in back})
    equal(jn.to_unstacked(net, params), from_torch(models.resnet18(10), tensors, x)[0])


@pytest.mark.parametrize(
    ("peer", "net"),
    [
        (
            Peer("deit_tiny_patch16_224", models.deit_tiny, {"img_size": 32, "num_classes": 7}, timm=True),
            models.deit_tiny(7, image_size=32, scan=True),
        ),
        (
            Peer("vit_b_32", models.vit_b_32, {"image_size": 64, "num_classes": 7}),
            models.vit_b_32(7, image_size=64),
        ),
    ],
    ids=["timm_deit_tiny", "vit_b_32"],
)
@pytest.mark.slow_cases("vit_b_32")
def test_logits_of_vision_transformers(peer: Peer, net: jn.Net):
    size = peer.options.get("img_size", 64)
    x = floats(2, size, size, 3)
    shapes = {name: value.shape for name, value in to_torch(net, *weights.draw(net, x), x).items()}
    tensors = {name: tensor(name, shape) * (0.1 if len(shape) > 1 else 1) for name, shape in shapes.items()}
    tensors = {name: value.astype(np.float32) for name, value in tensors.items()}

    def ask() -> dict[str, np.ndarray]:
        import torch

        model = peer.make().eval()
        model.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()})
        with torch.no_grad():
            return {"logits": model(torch.tensor(x).movedim(-1, 1).contiguous()).numpy()}

    want = witness(f"interop/{peer}_logits", ask, installed=PEERS)["logits"]
    params, state = from_torch(net, tensors, x)
    logits = once(net.apply, params, state, x)[0]
    np.testing.assert_allclose(logits, want, rtol=0, atol=1e-5 * np.ptp(want))
    equal(to_torch(net, params, state, x), tensors)


def test_older_names_of_torchvision_are_read():
    net, x = models.vit_b_32(2, image_size=32, scan=True), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    specs = jax.eval_shape(net.init, jax.random.key(0), x)
    params, state = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), np.int8), leaf.shape), specs)
    tensors = to_torch(net, params, state, x)
    older = {name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): t for name, t in tensors.items()}
    assert len(older.keys() - tensors.keys()) == 48
    equal(from_torch(net, older, x, dtype=jnp.int8), from_torch(net, tensors, x, dtype=jnp.int8))


@pytest.mark.parametrize("names", ["torchvision", "timm"])
def test_a_vision_transformer_has_its_names_inside_another_network_too(names: str):
    net, x = models.deit_tiny(3, image_size=32, scan=True), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, state = weights.draw(net, x)
    tensors = to_torch(net, params, state, x, names=names)
    token = "cls_token" if names == "timm" else "class_token"
    assert tensors[token].shape == (1, 1, 192)
    inside = jn.serial(backbone=jn.cast(net), relu=jax.nn.relu)
    own = to_torch(inside, {"backbone": params}, state, x, names=names)
    equal({name.removeprefix("backbone."): value for name, value in own.items()}, tensors)
    equal(from_torch(inside, own, x)[0]["backbone"], from_torch(net, tensors, x)[0])


def test_models_of_sequences_have_pytorchs_names():
    x = np.zeros((1, 4), np.int32)
    net = models.lstm(5, 2, layers=2, bidirectional=True, vocabulary=7, embedding=3)
    tensors = to_torch(net, *weights.draw(net, x), x)
    names = [f"lstm.{kind}_{side}_l{k}{end}" for k in range(2) for end in ("", "_reverse")
             for kind in ("weight", "bias") for side in ("ih", "hh")]  # fmt: skip
    assert set(tensors) == {"embedding.weight", *names, "fc.weight", "fc.bias"}
