"""What the page says of PyTorch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import jaxnets as jn
from tests.coming_from.page import Checks, Row, W, apply, close, descend, differ, first, images, last, pulled, rows
from tests.oracle import floats, integers, variables

ROWS = rows("PyTorch")
checks = Checks()


@pytest.mark.promotes
@pytest.mark.parametrize("there", ROWS)
@pytest.mark.slow_cases(
    'nn.CTCLoss(reduction="none")',
    "nn.LSTM(3, 4, batch_first=True)",
    "nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 6, 3))",
)
def test_row(there: str):
    checks[there](ROWS[there])


def test_every_row_is_checked():
    assert set(checks) == set(ROWS)


def code(row: Row, **names: Any) -> Any:
    """Return what their code gives."""
    import torch

    torch.manual_seed(0)
    return row.theirs(nn=torch.nn, optim=torch.optim, F=torch.nn.functional, **names)


def run(row: Row, *inputs: Any, **tensors: Any) -> Any:
    """Return their module's output for given tensors, as arrays."""
    import torch

    module = code(row)
    with torch.no_grad():
        for name, value in tensors.items():
            module.get_parameter(name).copy_(torch.tensor(value))
        y = module(*(torch.tensor(each) for each in inputs))
    return y.numpy() if isinstance(y, torch.Tensor) else y


def drawn(net: jn.Net, x: Any) -> Any:
    """Return a network's initial parameters and state."""
    return jax.tree.map(np.asarray, jax.jit(net.init)(jax.random.key(0), x))


@checks.row("nn.Linear(3, 8)")
def linear(row: Row):
    x, kernel, bias = floats(5, 3), floats(3, 8), floats(8)

    def theirs():
        module = code(row)
        size = np.array([float(each.detach().abs().max()) for each in (module.weight, module.bias)])
        uniform = ((size * 3**0.5 > 0.5) & (size <= 3**-0.5)).all()
        return {"y": run(row, x, weight=kernel.T, bias=bias), "uniform": np.float32(uniform)}

    want = row.answers(theirs)
    assert want["uniform"] == 1
    close(apply(row.ours(), x, {"kernel": kernel, "bias": bias}), want["y"])
    wide = drawn(jn.dense(1000), np.ones((1, 400), np.float32))[0]
    assert not wide["bias"].any()
    assert abs(float(wide["kernel"].std()) - 400**-0.5) < 0.01 * 400**-0.5
    assert float(abs(wide["kernel"]).max()) > 2 * 400**-0.5


@checks.row("nn.Sequential(nn.Linear(3, 16), nn.GLU())")
def gated_dense(row: Row):
    x, kernel, bias = floats(5, 3), floats(3, 16), floats(16)
    want = row.answers(lambda: {"y": run(row, x, **{"0.weight": kernel.T, "0.bias": bias})})["y"]
    up, gate = ({"kernel": kernel[:, half], "bias": bias[half]} for half in (slice(8), slice(8, 16)))
    close(apply(row.ours(), x, {"gate": gate, "up": up}), want)


def convolution(row: Row, shape: tuple[int, ...], order: tuple[int, ...], channels: int = 3) -> None:
    x, kernel, bias = images(2, 6, 6, channels), floats(*shape), floats(shape[-1])
    want = row.answers(lambda: {"y": run(row, first(x), weight=kernel.transpose(order), bias=bias)})
    close(apply(row.ours(), x, {"kernel": kernel, "bias": bias}), last(want["y"]))


@checks.row("nn.Conv2d(3, 6, 5)")
def conv(row: Row):
    convolution(row, (5, 5, 3, 6), (3, 2, 0, 1))


@checks.row("nn.Conv2d(3, 6, 3, stride=2, padding=1)")
def conv_strided(row: Row):
    convolution(row, (3, 3, 3, 6), (3, 2, 0, 1))
    x, params = images(), {"kernel": floats(3, 3, 3, 6), "bias": floats(6)}
    same = jn.conv(6, 3, stride=2, padding="SAME")
    differ(apply(same, x, params), apply(row.ours(), x, params))
    close(apply(same, x, params), apply(jn.conv(6, 3, stride=2, padding=((0, 1), (0, 1))), x, params))


@checks.row("nn.Conv2d(4, 4, 3, groups=4)")
def depthwise(row: Row):
    convolution(row, (3, 3, 1, 4), (3, 2, 0, 1), channels=4)


@checks.row("nn.ConvTranspose2d(3, 6, 4, stride=2, padding=1)")
def conv_transpose(row: Row):
    convolution(row, (4, 4, 3, 6), (2, 3, 0, 1))


@checks.row("nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.Flatten(2))")
def patch_embed(row: Row):
    x, kernel, bias = images(), floats(2, 2, 3, 8), floats(8)
    tensors = {"0.weight": kernel.transpose(3, 2, 0, 1), "0.bias": bias}
    want = row.answers(lambda: {"y": run(row, first(x), **tensors)})["y"]
    close(apply(row.ours(), x, {"kernel": kernel, "bias": bias}), want.swapaxes(1, 2))


@checks.row("nn.utils.parametrizations.weight_norm(nn.Linear(3, 8))")
def weight_norm(row: Row):
    x, kernel, bias, scale = floats(5, 3), floats(3, 8), floats(8, seed=1), floats(8, seed=2)
    originals = {"original0": scale[:, None], "original1": kernel.T}
    tensors = {"bias": bias} | {f"parametrizations.weight.{name}": value for name, value in originals.items()}
    want = row.answers(lambda: {"y": run(row, x, **tensors)})["y"]
    close(apply(row.ours(), x, {"kernel": kernel, "bias": bias, "scale": scale}), want)


@checks.row("nn.utils.parametrizations.spectral_norm(nn.Linear(3, 8))")
@checks.row("nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 6, 3))")
def spectral_norm(row: Row):
    dense = "Linear" in row.there
    x = floats(5, 3) if dense else images()
    params = {"kernel": floats(*((3, 8) if dense else (3, 3, 3, 6))), "bias": floats(8 if dense else 6)}
    weight = params["kernel"].T if dense else params["kernel"].transpose(3, 2, 0, 1)

    def theirs():
        import torch

        module = code(row).train()
        with torch.no_grad():
            module.parametrizations.weight.original.copy_(torch.tensor(weight))
            module.bias.copy_(torch.tensor(params["bias"]))
        for _ in range(200):
            module(torch.tensor(x if dense else first(x)))
        return {"y": module.eval()(torch.tensor(x if dense else first(x))).detach().numpy()}

    want = row.answers(theirs)["y"]
    net: Any = row.ours()
    _, state = jax.jit(net.init)(jax.random.key(0), x)
    train = jax.jit(lambda state: net.apply(params, state, x, train=True))
    for _ in range(200):
        state = train(state)[1]
    y = apply(net, x, params, state)
    if dense:
        return close(y, want)
    differ(y, last(want))
    as_matrix = np.linalg.norm(weight.reshape(6, -1), 2)
    close(apply(jn.conv(6, 3), x, params | {"kernel": params["kernel"] / as_matrix}), last(want))


@checks.row("nn.PixelShuffle(2)")
def pixel_shuffle(row: Row):
    x = images(2, 3, 4, 8)
    close(apply(row.ours(), x), last(row.answers(lambda: {"y": run(row, first(x))})["y"]))


@checks.row("nn.Upsample(scale_factor=2)")
@checks.row('nn.Upsample((4, 9), mode="bilinear")')
def resize(row: Row):
    x = images(2, 7, 5, 3)
    want = last(row.answers(lambda: {"y": run(row, first(x))})["y"])
    close(apply(row.ours(), x), want)
    if "bilinear" in row.there:
        differ(apply(jn.resize((4, 9), method="bilinear"), x), want)


@checks.row("nn.MaxPool2d(2)")
@checks.row("nn.AvgPool2d(3, 2, padding=1)")
@checks.row("nn.AdaptiveAvgPool2d(4)")
@checks.row("nn.AdaptiveMaxPool2d(4)")
@checks.row("nn.LocalResponseNorm(3, alpha=0.5)")
def pool(row: Row):
    x = images(2, 7, 7, 3)
    close(apply(row.ours(), x), last(row.answers(lambda: {"y": run(row, first(x))})["y"]))


@checks.row("nn.Flatten()")
def flatten(row: Row):
    x = images()
    want = row.answers(lambda: {"y": run(row, first(x))})["y"]
    found = row.ours()(x)
    np.testing.assert_array_equal(found, x.reshape(2, -1))
    np.testing.assert_array_equal(first(np.asarray(found).reshape(x.shape)).reshape(2, -1), want)
    differ(found, want)


@checks.row("nn.BatchNorm2d(3, momentum=0.2)")
def batch_norm(row: Row):
    x, more = images(), images(seed=1)

    def theirs():
        import torch

        module = code(row)
        module(torch.tensor(first(x)))
        y = module(torch.tensor(first(more)))
        mean, var = module.running_mean, module.running_var
        shown = module.eval()(torch.tensor(1e-3 * first(x)))
        return {"y": y.detach().numpy(), "mean": mean.numpy(), "var": var.numpy(), "shown": shown.detach().numpy()}

    want, net = row.answers(theirs), row.ours()
    params, state = drawn(net, x)
    step = jax.jit(lambda state, x: net.apply(params, state, x, train=True))
    _, state = step(state, x)
    y, state = step(state, more)
    close(y, last(want["y"]))
    close(state["mean"], want["mean"])
    close(state["var"], want["var"])
    close(apply(net, 1e-3 * x, params, state), last(want["shown"]))


@checks.row("nn.LayerNorm(3)")
@checks.row("nn.GroupNorm(3, 6)")
def norm(row: Row):
    x = 1e-3 * images(2, 4, 4, 6 if "Group" in row.there else 3)  # so small that ε is seen
    grouped = "Group" in row.there
    want = row.answers(lambda: {"y": last(run(row, first(x))) if grouped else run(row, x)})["y"]
    width = x.shape[-1]
    close(apply(row.ours(), x, {"scale": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}), want)


@checks.row("nn.RMSNorm(3, eps=1e-6)")
def rms_norm(row: Row):
    x, params = 1e-3 * images(), {"scale": np.ones(3, np.float32)}

    def theirs():
        import torch

        return {"y": run(row, x), "default": torch.nn.RMSNorm(3)(torch.tensor(x)).detach().numpy()}

    want = row.answers(theirs)
    close(apply(row.ours(), x, params), want["y"])
    close(apply(jn.rms_norm(epsilon=1.2e-7), x, params), want["default"], 1e-3)
    differ(want["default"], want["y"])


@checks.row("nn.MultiheadAttention(6, 2, batch_first=True)")
def attention(row: Row):
    x, kernel, bias, out = floats(2, 5, 6), floats(6, 18), floats(18), {"kernel": floats(6, 6), "bias": floats(6)}

    def theirs():
        import torch

        layer = row.theirs(nn=torch.nn)
        weights = {"in_proj_weight": kernel.T, "in_proj_bias": bias}
        weights |= {"out_proj.weight": out["kernel"].T, "out_proj.bias": out["bias"]}
        layer.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})
        return {"y": layer(*[torch.tensor(x)] * 3)[0].detach().numpy()}

    thirds = zip(("query", "key", "value"), np.split(kernel, 3, 1), np.split(bias, 3))
    params = {name: {"kernel": part, "bias": shift} for name, part, shift in thirds} | {"out": out}
    close(apply(row.ours(), x, params), row.answers(theirs)["y"])


@checks.row("nn.TransformerEncoderLayer(6, 2, 12, batch_first=True)")
@checks.row("nn.TransformerDecoderLayer(6, 2, 12, batch_first=True)")
def blocks(row: Row):
    """Of equal weights; theirs lets a decoder look ahead unless it gets a mask."""
    net, decoder = row.ours(), "Decoder" in row.there
    x = (floats(2, 5, 6), floats(2, 4, 6, seed=1)) if decoder else floats(2, 5, 6)
    params, state = variables(net, x, scale=0.3)

    def theirs():
        import torch

        layer = row.theirs(nn=torch.nn).eval()
        weights = jn.interop.to_torch(net, params, state, x)
        layer.load_state_dict({name: torch.tensor(weight) for name, weight in weights.items()})
        given = [torch.tensor(each) for each in (x if decoder else [x])]
        later = {"tgt_mask": torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)} if decoder else {}
        return {"y": layer(*given, **later).detach().numpy(), "unmasked": layer(*given).detach().numpy()}

    want, y = row.answers(theirs), apply(net, x, params, state)
    close(y[0] if decoder else y, want["y"])
    if decoder:
        assert len(y) == 2
        differ(want["unmasked"], want["y"])


@checks.row("nn.Dropout(0.2)")
@checks.row("nn.Dropout2d(0.2)")
def dropout(row: Row):
    """Both keep 0.8 of the values, scaled by 1 / 0.8, and whole channels where they say so."""
    x = np.ones((50, 5, 5, 40), np.float32)

    def told(y: np.ndarray) -> dict[str, Any]:
        kept = np.float32(abs((y > 0).mean() - 0.8) < 0.03)
        return {"kept": kept, "largest": y.max(), "whole": np.float32((y == y[:, :1, :1]).all())}

    want = row.answers(lambda: told(last(run(row, first(x)))))
    found = told(np.asarray(apply(row.ours(), x, key=jax.random.key(0), train=True)))
    assert {name: float(value) for name, value in want.items()} == {name: float(each) for name, each in found.items()}
    assert found["kept"] == 1
    np.testing.assert_array_equal(apply(row.ours(), x), x)
    with pytest.raises(jn.NetError, match="key"):
        apply(row.ours(), x, train=True)


@checks.row("nn.Embedding(500, 20)")
def embed(row: Row):
    indices, table = integers(3, 4, high=500), floats(500, 20)

    def theirs():
        drawn = code(row).weight
        normal = np.float32(abs(float(drawn.detach().std()) - 1) < 0.05)
        return {"y": run(row, indices.astype(np.int64), weight=table), "normal": normal}

    want = row.answers(theirs)
    assert want["normal"] == 1
    close(apply(row.ours(), indices, {"embedding": table}), want["y"])
    assert abs(float(drawn(row.ours(), indices)[0]["embedding"].std()) - 1) < 0.05


@checks.row("nn.LSTM(3, 4, batch_first=True)")
def lstm(row: Row):
    x = floats(2, 5, 3)
    tensors = {
        "weight_ih_l0": floats(16, 3), "weight_hh_l0": floats(16, 4),
        "bias_ih_l0": floats(16), "bias_hh_l0": floats(16, seed=1),
    }  # fmt: skip

    def theirs():
        y, (hidden, cell) = run(row, x, **tensors)
        return {"y": y.numpy(), "hidden": hidden.numpy(), "cell": cell.numpy()}

    want, net = row.answers(theirs), row.ours()
    params, _ = drawn(net, x)
    np.testing.assert_array_equal(params["bias"], [0] * 4 + [1] * 4 + [0] * 8)
    mine = {
        "kernel": tensors["weight_ih_l0"].T, "recurrent_kernel": tensors["weight_hh_l0"].T,
        "bias": tensors["bias_ih_l0"] + tensors["bias_hh_l0"],
    }  # fmt: skip
    y, carry = apply(net, x, mine)
    close(y, want["y"])
    close(carry[0], want["cell"][0])
    close(carry[1], want["hidden"][0])


@checks.row("nn.GRU(3, 4, batch_first=True)")
def gru(row: Row):
    x, w, u, b, c = floats(2, 5, 3), floats(12, 3), floats(12, 4), floats(12), floats(12, seed=1)
    tensors = {"weight_ih_l0": w, "weight_hh_l0": u, "bias_ih_l0": b, "bias_hh_l0": c}
    want = row.answers(lambda: {"y": run(row, x, **tensors)[0].numpy()})["y"]
    inside = np.arange(12) >= 8
    mine = {"kernel": w.T, "recurrent_kernel": u.T, "bias": b + np.where(inside, 0, c), "recurrent_bias": c[8:]}
    close(apply(row.ours(), x, mine), want)


@checks.row("nn.GELU()")
def gelu(row: Row):
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    want = row.answers(lambda: {"y": run(row, x)})["y"]
    close(jax.jit(row.ours())(x), want, 1e-6)
    differ(jax.nn.gelu(x), want, 2e-4)


LOGITS, LABELS = floats(6, 4), integers(6, high=4)
LIKE = np.abs(floats(6, 4, seed=1)) / 4


@checks.row("nn.CrossEntropyLoss()")
@checks.row("nn.CrossEntropyLoss(label_smoothing=0.1)")
@checks.row("nn.BCEWithLogitsLoss()")
@checks.row("nn.BCELoss()")
@checks.row("nn.MSELoss()")
@checks.row("nn.SmoothL1Loss(beta=0.5)")
@checks.row("nn.MultiMarginLoss()")
def loss(row: Row):
    labels = "Cross" in row.there or "Margin" in row.there
    targets = LABELS.astype(np.int64) if labels else LIKE
    outputs = scipy.special.expit(LOGITS) if "BCELoss" in row.there else LOGITS
    want = row.answers(lambda: {"mean": run(row, outputs, targets)})["mean"]
    ours = jax.jit(row.ours())
    found = np.asarray(ours(outputs, LABELS if labels else LIKE))
    assert found.shape == (6,)
    close(found.mean() / (4 if "Margin" in row.there else 1), want)
    if row.there == "nn.CrossEntropyLoss()":
        maps, places = floats(2, 5, 5, 4), integers(2, 5, 5, high=4)
        each, flat = (np.asarray(ours(*both)) for both in ((maps, places), (maps.reshape(-1, 4), places.ravel())))
        close(each.mean(), flat.mean())


@checks.row('nn.KLDivLoss(reduction="batchmean")')
def kl_divergence(row: Row):
    log_p, q = scipy.special.log_softmax(LOGITS, -1), scipy.special.softmax(2 * LIKE, -1)
    close(np.mean(jax.jit(row.ours())(log_p, q)), row.answers(lambda: {"mean": run(row, log_p, q)})["mean"])


@checks.row('nn.CTCLoss(reduction="none")')
def ctc(row: Row):
    logits, labels = floats(2, 7, 4), np.array([[1, 3, 2], [2, 2, 0]])
    lengths, sizes = np.array([7, 6]), np.array([3, 2])

    def theirs():
        import torch

        log_p = torch.tensor(logits).log_softmax(-1).transpose(0, 1)
        rest = [torch.tensor(each) for each in (labels, lengths, sizes)]
        mean = torch.nn.CTCLoss()(log_p, *rest)
        return {"each": code(row)(log_p, *rest).numpy(), "mean": mean.numpy()}

    want = row.answers(theirs)
    found = row.ours()(jn.Padded(jnp.asarray(logits), lengths), jn.Padded(jnp.asarray(labels), sizes))
    close(found, want["each"])
    close((found / sizes).mean(), want["mean"])


@checks.row("optim.SGD(p, 0.1, momentum=0.9)")
@checks.row("optim.SGD(p, 0.1, weight_decay=0.2)")
@checks.row("optim.Adam(p, 0.1)")
@checks.row("optim.AdamW(p, 0.1)")
@checks.row("optim.RMSprop(p, 0.1)")
def optimizer(row: Row):
    def theirs():
        import torch

        p = torch.nn.Parameter(torch.tensor(W))
        steps = code(row, p=[p])
        for _ in range(4):
            p.grad = torch.tensor(pulled(p.detach().numpy()))
            steps.step()
        return {"w": p.detach().numpy()}

    want, ours = row.answers(theirs)["w"], row.ours()
    if "l2" in row.here:
        penalty = jax.jit(jax.grad(ours[1]))
        close(descend(ours[0], W, lambda w: pulled(w) + penalty({"kernel": w})["kernel"]), want)
        assert not np.any(penalty({"kernel": W, "bias": W})["bias"])
        return
    close(descend(ours, W, pulled), want)
    if "W(" in row.there:
        differ(descend(optax.adamw(0.1), W, pulled), want)
    if "RMS" in row.there:
        differ(descend(optax.rmsprop(0.1), W, pulled), want)
