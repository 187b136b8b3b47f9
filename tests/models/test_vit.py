"""A small vision transformer against torchvision's: logits, deep features and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch, to_torch
from jaxnets.models.vit import _vit
from tests.oracle import floats, variables, witness
from tests.peers import PEERS, torchvision_models

SIZE, PATCH, FEATURES, DEPTH, HEADS, CLASSES = 16, 4, 12, 2, 3, 5
X, WEIGH = floats(2, SIZE, SIZE, 3), floats(2, CLASSES)


def by_torchvision(weights):
    import torch

    model = torchvision_models().VisionTransformer(SIZE, PATCH, DEPTH, HEADS, FEATURES, 4 * FEATURES, 0.0, 0.0, CLASSES)
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    x = torch.tensor(X).permute(0, 3, 1, 2)
    tokens = model._process_input(x)
    features = model.encoder(torch.cat([model.class_token.expand(2, -1, -1), tokens], 1))
    y = model(x)
    (y * torch.tensor(WEIGH)).sum().backward()
    gradients = {name: torch.as_tensor(leaf.grad).numpy() for name, leaf in model.named_parameters()}
    return {"y": y.detach().numpy(), "features": features.detach().numpy(), **gradients}


@pytest.mark.parametrize("scan", [False, True])
def test_logits_features_and_gradients_are_torchvisions(scan):
    unrolled = _vit(PATCH, FEATURES, DEPTH, HEADS, CLASSES, SIZE, 0.0, False)
    params, state = variables(unrolled, X, scale=0.3)
    weights = to_torch(unrolled, params, state, X)
    net = _vit(PATCH, FEATURES, DEPTH, HEADS, CLASSES, SIZE, 0.0, scan)
    given, _ = from_torch(net, weights, X)

    def loss(params):
        y, _ = net.apply(params, {}, X)
        return (y * WEIGH).sum(), (y, net.upto("encoder").apply(params, {}, X)[0])

    (_, (y, features)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(given)
    found = {"y": y, "features": features, **to_torch(net, gradients, {}, X)}
    for name, value in witness("models/vit", lambda: by_torchvision(weights), installed=PEERS).items():
        atol = 1e-5 * max(1.0, float(np.abs(value).max()))
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=atol, err_msg=name)


def test_initial_values_are_torchvisions_in_spread():
    params, _ = jn.models.deit_tiny(7, image_size=32).init(jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    assert not params["heads"]["kernel"].any()
    assert not params["class_token"]["token"].any()
    # A normal cut off at two standard deviations has 0.88 of its spread.
    np.testing.assert_allclose(params["conv_proj"]["kernel"].std(), 0.88 * (16 * 16 * 3) ** -0.5, rtol=0.02)
    np.testing.assert_allclose(params["encoder"]["pos_embedding"]["embedding"].std(), 0.02, rtol=0.1)


def by_timm(positions, size):
    import torch

    torchvision_models()  # timm imports torchvision
    from timm.layers.pos_embed import resample_abs_pos_embed

    return {"positions": resample_abs_pos_embed(torch.tensor(positions)[None], [size, size])[0].numpy()}


@pytest.mark.parametrize("patches", [7, 3, 4])
def test_positions_are_resized_as_by_timm(patches):
    net = _vit(PATCH, FEATURES, DEPTH, HEADS, CLASSES, SIZE, 0.0, False)
    params, _ = variables(net, X)
    given = params["encoder"]["pos_embedding"]["embedding"]
    resized = jn.models.resize_positions(params, patches * PATCH)
    found = resized["encoder"]["pos_embedding"]["embedding"]
    want = witness(f"models/positions_{patches}", lambda: by_timm(given, patches), installed=PEERS)["positions"]
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found[0], given[0])
    others = jax.tree.map(lambda a, b: a is b, {**resized, "encoder": 0}, {**params, "encoder": 0})
    assert jax.tree.all({**others, "encoder": True})
    half = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), params)
    assert (
        jn.models.resize_positions(half, patches * PATCH)["encoder"]["pos_embedding"]["embedding"].dtype == "bfloat16"
    )


def test_positions_are_resized_under_jit_and_as_the_new_network_takes_them():
    params, _ = variables(jn.models.deit_tiny(3, image_size=32), floats(1, 32, 32, 3))
    large, x = jn.models.deit_tiny(3, image_size=64, scan=True), jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    resized = jax.jit(jn.models.resize_positions, static_argnums=1)(params, 64)
    shapes = jax.eval_shape(large.init, jax.random.key(0), x)[0]
    assert jax.tree.map(jnp.shape, jn.to_stacked(large, resized)) == jax.tree.map(jnp.shape, shapes)


def test_positions_that_do_not_fit_are_named_with_the_way_out():
    small, large = jn.models.deit_tiny(3, image_size=32), jn.models.deit_tiny(3, image_size=64)
    x, wide = (jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32) for size in (32, 64))
    params, state = variables(small, x)
    with pytest.raises(jn.NetError, match=r"pos_embed \(1, 5, 192\) for \(1, 17, 192\); .* jn.models.resize_positions"):
        from_torch(large, to_torch(small, params, state, x), wide)
    with pytest.raises(jn.NetError, match=r"^resize_positions expects image_size divisible by .* 16, got 40"):
        jn.models.resize_positions(params, 40)
    with pytest.raises(jn.NetError, match=r"^resize_positions expects the parameters of a vision transformer"):
        jn.models.resize_positions({"fc": params["heads"]}, 64)
    params["encoder"]["pos_embedding"]["embedding"] = np.zeros((6, 192), np.float32)
    with pytest.raises(jn.NetError, match="expects positions of a class token and a square of patches, got 6"):
        jn.models.resize_positions(params, 64)


def test_images_of_another_size_are_refused():
    with pytest.raises(jn.NetError, match=r"^vit_b_16 expects images of 224 × 224, got \(1, 192, 192, 3\); resize"):
        jn.models.vit_b_16().init(jax.random.key(0), jax.ShapeDtypeStruct((1, 192, 192, 3), jnp.float32))
    with pytest.raises(jn.NetError, match="expects image_size divisible by the patch size 32, got 100"):
        jn.models.vit_b_32(image_size=100)
