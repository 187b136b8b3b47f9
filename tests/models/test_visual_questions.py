"""Answers to questions about pictures against PyTorch: logits and every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from tests.layers.near import near
from tests.oracle import floats, normal_like, witness

X = floats(2, 9, 10, 3), floats(2, 4, 5, seed=1)
SIZES = {"widths": (3, 4), "features": 6, "heads": 2, "kernel_size": 3}


def torch_answers(reader, params):
    import torch

    F = torch.nn.functional
    p = jax.tree.map(lambda leaf: torch.tensor(leaf, dtype=torch.float64, requires_grad=True), params)
    images, questions = (torch.tensor(each, dtype=torch.float64) for each in X)

    def affine(x, part):
        return x @ part["kernel"] + part.get("bias", 0)

    def conv(x, part, stride=1):
        # "SAME": what is odd is added after.
        size = part["kernel"].shape[0]
        need = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[2:]]
        (top, bottom), (left, right) = ((n // 2, n - n // 2) for n in need)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, part["kernel"].permute(3, 2, 0, 1), part["bias"], stride=stride)

    def norm(x, part):
        return F.layer_norm(x, x.shape[-1:], part["scale"], part["bias"], eps=1e-6)

    x = images.movedim(-1, 1)
    for place in (1, 2):
        x = conv(x, p["stem"][f"conv{place}"], 2).relu()
    height, width = x.shape[2:]
    down, along = ((2 * torch.arange(n).double() + 1) / n - 1 for n in (height, width))
    grid = torch.stack([along[None].expand(height, width), down[:, None].expand(height, width)])
    x = torch.cat([x, grid[None].expand(2, 2, height, width)], 1)  # (batch, channels, height, width)
    if reader == "plain":
        vector = affine(x.movedim(1, -1).flatten(1), p["vector"]["fc"]).relu()
        y = torch.cat([vector[:, None].expand(2, 4, 6), questions], -1)
    elif reader == "film":
        z, x = questions.flatten(0, 1), x.repeat_interleave(4, 0)
        for step in "12":
            r = conv(x, p[f"conv{step}a"]).relu()
            h = conv(r, p[f"conv{step}b"])
            gamma, beta = (affine(z, p[f"film{step}"]["film"][name])[:, :, None, None] for name in ("gamma", "beta"))
            x = r + (gamma * h + beta).relu()
        y = x.amax((2, 3)).reshape(2, 4, 6)
    else:
        places = x.flatten(2).movedim(1, -1)
        y = affine(questions, p["embedding"])
        for step in "12":
            part = p[f"attention{step}"]
            query = affine(norm(y, p[f"norm{step}a"]), part["query"])
            key, value = affine(places, part["key"]), affine(places, part["value"])
            heads = [[each[..., 3 * head : 3 * head + 3] for each in (query, key, value)] for head in (0, 1)]
            read = [F.scaled_dot_product_attention(*each) for each in heads]
            y = y + affine(torch.cat(read, -1), part["out"])
            inner = affine(norm(y, p[f"norm{step}b"]), p[f"up{step}"]).relu()
            y = y + affine(inner, p[f"down{step}"])
        y = norm(y, p["norm"])
    y = affine(affine(y, p["fc"]).relu(), p["out"])
    y.backward(torch.tensor(floats(2, 4, 7, seed=2), dtype=torch.float64))
    return {"y": y.detach().numpy()} | {path: np.asarray(leaf.grad) for path, leaf in jn.paths.paths(p).items()}


@pytest.mark.parametrize("reader", ["attention", "film", "plain"])
def test_agrees_with_torch(reader):
    net = jn.models.visual_questions(7, reader, **SIZES)
    params = normal_like(jax.eval_shape(net.init, jax.random.key(0), X)[0], seed=3, scale=0.5)
    expected = witness(f"models/visual_questions_{reader}", lambda: torch_answers(reader, params))

    @jax.jit
    def run(params):
        y, back = jax.vjp(lambda p: net.apply(p, {}, X)[0], params)
        return y, *back(jnp.asarray(floats(2, 4, 7, seed=2)))

    y, gradients = run(params)
    found = {"y": y, **jn.paths.paths(gradients)}
    assert set(found) == set(expected)
    scales = {name: max(1.0, float(np.abs(value).max())) for name, value in expected.items()}
    ours, theirs = ({name: np.asarray(each[name]) / scales[name] for name in expected} for each in (found, expected))
    near(ours, theirs, 1e-5)


MISTAKES = {
    "reader": (lambda: jn.models.visual_questions(3, "lstm"), "^visual_questions expects reader 'attention', 'film'"),  # type: ignore[arg-type]
    "answers": (lambda: jn.models.visual_questions(0), "^visual_questions expects num_answers ≥ 1, got 0"),
    "steps": (lambda: jn.models.visual_questions(3, steps=0), "^visual_questions expects steps ≥ 1, got 0"),
    "heads": (
        lambda: jn.models.visual_questions(3, heads=5),
        "^visual_questions expects features divisible by 5 heads, got 64",
    ),
    "no pair": (lambda: made(X[0]), r"^pair: visual_questions expects a pair \(\(batch, height"),
    "one question": (lambda: made((X[0], X[1][:, 0])), r"\(2, 5\); for one question a picture, questions\[:, None\]"),
    "batches": (lambda: made((X[0], X[1][:1])), r"got \(2, 9, 10, 3\) and \(1, 4, 5\)"),
    "no channels": (lambda: made((X[0][..., 0], X[1])), r"^pair: visual_questions expects \(batch, height, width"),
}


def made(x):
    return jax.eval_shape(jn.models.visual_questions(3).init, jax.random.key(0), x)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake):
    make, words = MISTAKES[mistake]
    with pytest.raises(jn.NetError, match=words):
        make()
