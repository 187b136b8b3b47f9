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
    weights = to_torch(unrolled, *variables(unrolled, X, scale=0.3), X)
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


def test_images_of_another_size_are_refused():
    with pytest.raises(jn.NetError, match=r"conv_proj: .*expects images of 224 × 224, got \(1, 192, 192, 3\); resize"):
        jn.models.vit_b_16().init(jax.random.key(0), jax.ShapeDtypeStruct((1, 192, 192, 3), jnp.float32))
    with pytest.raises(jn.NetError, match="expects image_size divisible by the patch size 32, got 100"):
        jn.models.vit_b_32(image_size=100)
