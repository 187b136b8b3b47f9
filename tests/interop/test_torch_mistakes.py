"""What `from_torch` and `to_torch` say when they are given the wrong thing."""

import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.interop import from_torch, to_torch
from tests.interop.test_torch import equal
from tests.models.weights import draw
from tests.oracle import TORCH, floats

X = floats(2, 8, 8, 3)
KEY = jax.random.key(1)


def small(classes: int = 3) -> jn.Net:
    return jn.serial(conv=jn.conv(4, 3), bn=jn.batch_norm(), head=jn.serial(flatten=jn.flatten, fc=jn.dense(classes)))


def weights(classes: int = 3) -> dict[str, np.ndarray]:
    net = small(classes)
    return to_torch(net, *draw(net, X), X)


def rejected(message: str, source: Any, net: jn.Net | None = None, **options: Any) -> None:
    with pytest.raises(jn.NetError, match=message):
        from_torch(small() if net is None else net, source, X, **options)


def test_one_error_lists_what_is_missing_unexpected_and_misshapen():
    tensors = weights() | {"extra.weight": np.zeros(2), "conv.weight": np.zeros((4, 3, 5, 5))}
    del tensors["bn.running_var"]
    rejected(
        r"missing bn\.running_var; unexpected extra\.weight; "
        r"misshapen conv\.weight \(4, 3, 5, 5\) for \(4, 3, 3, 3\); pass the weights of the same",
        tensors,
    )


def test_weights_of_another_model_are_rejected():
    net, x = jn.models.lenet5(), floats(1, 28, 28, 1)
    other = to_torch(net, *draw(net, x), x)
    rejected(r"missing conv\.weight.*unexpected conv1\.weight, conv1\.bias, conv2", other)
    rejected(r"missing bn1\.weight, .* and \d+ more; unexpected conv1\.bias", other, jn.models.resnet18())


def test_another_number_of_classes_is_taken_only_when_asked_for():
    tensors = weights(5)
    rejected(
        r"misshapen head\.fc\.weight \(5, 144\) for \(3, 144\), head\.fc\.bias \(5,\) for \(3,\); "
        r'for another number of classes pass fresh="head/fc/\*\*", key=key',
        tensors,
    )
    params, state = from_torch(small(), tensors, X, fresh="head/fc/**", key=KEY)
    drawn, _ = small().init(KEY, X)
    equal(params["head"], drawn["head"])
    want, want_state = from_torch(small(5), tensors, X)
    equal((params["conv"], params["bn"], state), (want["conv"], want["bn"], want_state))
    for name in ("head.fc.weight", "head.fc.bias"):
        del tensors[name]
    equal(from_torch(small(), tensors, X, fresh="head/**", key=KEY), (params, state))


def test_fresh_needs_a_key_and_a_pattern_that_matches():
    with pytest.raises(jn.NetError, match=r"needs a key to initialize arrays, got none; pass key="):
        from_torch(small(), weights(), X, fresh="head/**")
    rejected(r"fresh 'fc/\*\*' matches no path; paths are bn/bias", weights(), fresh="fc/**", key=KEY)


def test_fresh_statistics_and_parts_of_a_layer():
    tensors = weights()
    params, state = from_torch(small(), tensors, X, fresh=("bn/{mean,var}", "conv/bias"), key=KEY)
    np.testing.assert_array_equal(state["bn"]["var"], np.ones(4))
    np.testing.assert_array_equal(params["conv"]["kernel"], np.moveaxis(tensors["conv.weight"], (0, 1), (-1, -2)))


def test_names_are_replaced_and_left_out_only_where_they_are():
    tensors = weights()
    theirs = {name.replace("head.fc", "classifier").replace("conv.", "stem."): t for name, t in tensors.items()}
    rename = {"classifier": "head.fc", "stem": "conv"}
    equal(from_torch(small(), theirs, X, rename=rename), from_torch(small(), tensors, X))
    net = small()
    assert set(to_torch(net, *from_torch(net, tensors, X), X, rename=rename)) == set(theirs)
    rejected(
        r"expects names of tensors in rename=, got classifier, stem; names are conv\.weight", tensors, rename=rename
    )
    rejected("expects one tensor per name, got two of 'bn.weight'", tensors, rename={"conv.weight": "bn.weight"})
    extra = tensors | {"aux.fc.weight": np.zeros(2), "aux.fc.bias": np.zeros(2)}
    equal(from_torch(small(), extra, X, ignore="aux/**"), from_torch(small(), tensors, X))
    rejected(r"ignore='aux/\*\*' matches no tensor", tensors, ignore="aux/**")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_named_in_a_warning(bad: float):
    tensors = weights()
    tensors["conv.weight"][0, 0, 0, 0] = tensors["bn.running_var"][1] = bad
    with pytest.warns(UserWarning, match=r"from_torch: NaN or infinite numbers in conv\.weight, bn\.running_var$"):
        params, _ = from_torch(small(), tensors, X)
    assert not np.isfinite(params["conv"]["kernel"]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_safetensors_are_read_directly(tmp_path: Path, dtype: str):
    from safetensors.numpy import save_file

    tensors = {name: t.astype(dtype) if t.dtype == np.float32 else t for name, t in weights().items()}
    save_file(tensors, tmp_path / "net.safetensors", {"format": "pt"})
    equal(from_torch(small(), tmp_path / "net.safetensors", X), from_torch(small(), tensors, X))
    equal(from_torch(small(), str(tmp_path / "net.safetensors"), X), from_torch(small(), tensors, X))


def parts(folder: Path, files: dict[str, dict[str, np.ndarray]], listed: Any = None) -> Path:
    """Write tensors into several files, and an index of them."""
    from safetensors.numpy import save_file

    for name, tensors in files.items():
        save_file(tensors, folder / name)
    found = {name: file for file, tensors in files.items() for name in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": found if listed is None else listed}))
    return index


def test_a_model_in_several_files_is_read_by_its_index(tmp_path: Path):
    tensors = {name: value for name, value in weights().items() if "num_batches" not in name}
    names = sorted(tensors)
    first, second = ({name: tensors[name] for name in half} for half in (names[::2], names[1::2]))
    index = parts(tmp_path, {"model-1-of-2.safetensors": first, "model-2-of-2.safetensors": second})
    equal(from_torch(small(), index, X), from_torch(small(), tensors, X))

    def listed(**changed: str) -> dict[str, str]:
        return json.loads(index.read_text())["weight_map"] | changed

    double = {"a.safetensors": first, "b.safetensors": second | {names[0]: tensors[names[0]]}}
    rejected(f"expects in 'a.safetensors' what .* lists, got other tensors: {names[0]}", parts(tmp_path, double))
    index = parts(tmp_path, {"a.safetensors": first, "b.safetensors": second})
    parts(tmp_path, {}, listed(**{"x.weight": "a.safetensors"}))
    rejected("expects in 'a.safetensors' what .* lists, got other tensors: x.weight", index)
    parts(tmp_path, {}, {name: file for name, file in listed().items() if name not in ("x.weight", names[1])})
    rejected(f"expects in 'b.safetensors' what .* lists, got other tensors: {names[1]}", index)
    (tmp_path / "b.safetensors").unlink()
    rejected(r"expects 'b\.safetensors' beside the index .*, got no such file; download all parts", index)


@pytest.mark.parametrize("file", ["../a.safetensors", "/a.safetensors", "b/../../a.safetensors", "..\\a", "C:\\a"])
def test_an_index_reads_nothing_outside_its_folder(tmp_path: Path, file: str):
    (tmp_path / "inside").mkdir()
    parts(tmp_path, {"a.safetensors": {"w": np.ones(1)}})
    rejected("expects files beside the index", parts(tmp_path / "inside", {}, {"w": file}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 10**5])
def test_an_index_that_is_none_is_rejected(tmp_path: Path, text: str):
    (tmp_path / "index.json").write_text(text)
    rejected("expects an index", tmp_path / "index.json")


def test_truncated_corrupt_and_missing_files_are_rejected(tmp_path: Path):
    from safetensors.numpy import save

    content, file = save(weights()), tmp_path / "net.safetensors"
    header = b'{"conv.weight": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}'
    for bad in (b"", content[:7], content[:100], content[:-1], struct.pack("<Q", len(header)) + header + b"\0" * 4):
        file.write_bytes(bad)
        rejected("expects a complete safetensors file", file)
    with pytest.raises(FileNotFoundError, match="none"):
        from_torch(small(), tmp_path / "none.pt", X)


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_a_file_of_pytorch_is_read_only_by_its_safe_loader(tmp_path: Path):
    import pickle

    file, ran = tmp_path / "net.pt", tmp_path / "ran"
    file.write_bytes(pickle.dumps({"conv.weight": Code(ran)}, protocol=2))
    if not TORCH:
        rejected("needs PyTorch to read .*net.pt; install torch, or save the weights as safetensors", file)
        return
    import torch

    rejected("expects a PyTorch file of tensors only", file)
    assert not ran.exists()
    torch.save({"conv.weight": Code(ran)}, file)
    rejected("expects a PyTorch file of tensors only", file)
    assert not ran.exists()
    tensors = {name: torch.tensor(value) for name, value in weights().items()}
    torch.save(tensors, file)
    equal(from_torch(small(), file, X), from_torch(small(), weights(), X))
    file.write_bytes(file.read_bytes()[:-200])
    rejected("expects a PyTorch file of tensors only", file)
    half = {name: value.bfloat16() if value.is_floating_point() else value for name, value in tensors.items()}
    torch.save({"epoch": 3, "state_dict": half}, file)
    rejected("expects tensors by name, got nested dicts; pass one of the dicts inside: 'state_dict'", file)
    as_numpy = {name: value.astype(jnp.bfloat16) if value.ndim else value for name, value in weights().items()}
    equal(from_torch(small(), half, X), from_torch(small(), as_numpy, X))


def test_without_pytorch_its_files_are_rejected_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "net.pt").write_bytes(b"PK")
    rejected(r"needs PyTorch to read .*; install torch, or save the weights as safetensors", tmp_path / "net.pt")


def test_something_else_is_rejected():
    rejected(r"expects tensors by name or a path, got list", [1, 2])
    rejected(r"expects tensors by name, got int for 'epoch'", {"epoch": 3})
    rejected(r"missing conv\.weight", {})


@pytest.mark.parametrize(
    ("net", "label"),
    [
        (jn.serial(a=jn.ensemble(jn.dense(3), 2)), "ensemble"),
        (jn.serial(a=jn.repeat(jn.serial(jn.repeat(jn.dense(4), 2)), 2)), "repeat"),
        (jn.serial(a=jn.maxout(3)), "maxout"),
        (jn.serial(a=jn.recurrent(jn.lstm_cell(3, peepholes=True))), "lstm_cell"),
        (jn.serial(a=jn.recurrent(jn.gru_cell(3, reset_after=False))), "gru_cell"),
    ],
    ids=["ensemble", "repeat", "maxout", "lstm", "gru"],
)
def test_layers_without_a_counterpart_are_named(net: jn.Net, label: str):
    x = floats(1, 4, 4)
    params, state = draw(net, x)
    with pytest.raises(jn.NetError, match=rf"a.*{label}.*has no counterpart in PyTorch"):
        to_torch(net, params, state, x)
    with pytest.raises(jn.NetError, match="has no counterpart in PyTorch"):
        from_torch(net, {}, x)


def test_a_network_that_was_cut_is_converted_whole():
    with pytest.raises(jn.NetError, match="serial up to bn leaves out head; convert the whole network"):
        from_torch(small().upto("bn"), weights(), X)


def test_parameters_of_another_network_are_not_written():
    net = small()
    params, state = draw(net, X)
    with pytest.raises(
        jn.NetError, match=re.escape("to_torch expects the network's arrays, got others: params/head/fc/bias")
    ):
        to_torch(small(7), params, state, X)
    with pytest.raises(jn.NetError, match=r"got others: state/bn/mean, state/bn/var"):
        to_torch(net, params, {}, X)


def test_mistakes_with_a_transformer_are_told_in_its_own_names():
    net, x = jn.serial(layers=jn.repeat(jn.encoder_block(8, 2), 2)), floats(1, 3, 8)
    params, state = draw(net, x)
    tensors = to_torch(net, params, state, x)
    tensors["layers.0.self_attn.in_proj_weight"] = np.zeros((16, 8), np.float32)
    tensors["layers.1.linear3.weight"] = tensors.pop("layers.1.linear1.weight")
    message = (
        "missing layers.1.linear1.weight; unexpected layers.1.linear3.weight; "
        "misshapen layers.0.self_attn.in_proj_weight (16, 8) for (24, 8); pass the weights of the same"
    )
    with pytest.raises(jn.NetError, match=re.escape(message)):
        from_torch(net, tensors, x)
    with pytest.raises(jn.NetError, match=r"^names expects one of torch, torchvision, .*, jaxnets, got 'keras'"):
        to_torch(net, params, state, x, names="keras")
    decoder, pair = jn.serial(block=jn.decoder_block(8, 2)), (x, x)
    with pytest.raises(jn.NetError, match=r"block: decoder_block\(8, 2\) has no counterpart in names='timm'"):
        to_torch(decoder, *draw(decoder, pair), pair, names="timm")


def test_a_part_of_what_is_fused_may_be_fresh():
    net, x = jn.serial(block=jn.encoder_block(8, 2)), floats(1, 3, 8)
    tensors = to_torch(net, *draw(net, x), x)
    params, _ = from_torch(net, tensors, x, fresh="block/attention/value/**", key=KEY)
    drawn, _ = net.init(KEY, x)
    want, _ = from_torch(net, tensors, x)
    want["block"]["attention"]["value"] = drawn["block"]["attention"]["value"]
    equal(params, want)
    del tensors["block.self_attn.in_proj_weight"], tensors["block.self_attn.in_proj_bias"]
    params, _ = from_torch(net, tensors, x, fresh="block/attention/{query,key,value}/**", key=KEY)
    equal(params["block"]["attention"]["query"], drawn["block"]["attention"]["query"])
