"""Files: lossless, atomic, never overwritten by default; malformed ones are rejected."""

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxnets as jn
from jaxnets.interop.safetensors import FORMAT, digest


def trees():
    net = jn.serial(fc=jn.dense(3), inner=jn.serial(jn.batch_norm(), jn.dense(2)))
    return net.init(jax.random.key(0), jnp.ones((2, 4)))


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_round_trip_is_lossless(tmp_path):
    params, state = trees()
    metadata = {"epochs": 3, "name": "a/b", "nested": [1, 2.5, None]}
    jn.save(tmp_path / "net.safetensors", (params, state), metadata=metadata)
    loaded = jn.load(tmp_path / "net.safetensors")
    equal(loaded[:2], (params, state))
    assert loaded[2] == metadata
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.safetensors"]


def test_equal_networks_give_equal_files(tmp_path):
    for k in range(8):
        jn.save(tmp_path / str(k), trees(), metadata={"a": 1, "b": 2})
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


IN_SAFETENSORS = (
    "bool int8 uint8 int16 uint16 int32 uint32 float16 bfloat16 float32 complex64 float8_e4m3fn float8_e5m2"
)
AS_BYTES = "int2 uint2 int4 uint4 float4_e2m1fn float8_e4m3b11fnuz float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
WIDE = "int64 uint64 float64 complex128"  # NumPy's alone without x64
DTYPES = [jnp.dtype(name) for name in f"{IN_SAFETENSORS} {AS_BYTES} {WIDE}".split()]


def same_bits(left: Any, right: Any) -> None:
    """Compare trees of arrays in dtype, shape and every bit, NaN's too."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        whole = jnp.issubdtype(a.dtype, jnp.integer)  # those of 4 bits have 4 more that mean nothing
        a, b = (np.asarray(each).astype(np.int64 if whole else each.dtype) for each in (a, b))
        assert a.tobytes() == b.tobytes()


NARROW = {"bool": (0, 2), "int2": (-2, 2), "uint2": (0, 4), "int4": (-8, 8), "uint4": (0, 16), "float4_e2m1fn": (0, 16)}


def of_any_bits(dtype: np.dtype, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw an array whose bits are random as far as its dtype has them: NaN, infinities and -0 among them."""
    low, high = NARROW.get(dtype.name, (0, 256))
    raw = np.random.default_rng(seed).integers(low, high, (*shape, dtype.itemsize), np.int16)
    return np.frombuffer(raw.astype(np.uint8).tobytes(), dtype).reshape(shape)


def arrays(draw: Any) -> np.ndarray:
    array = of_any_bits(
        draw(st.sampled_from(DTYPES)),
        draw(st.lists(st.integers(0, 3), max_size=3).map(tuple)),
        draw(st.integers(0, 999)),
    )
    form = draw(st.sampled_from(("whole", "transposed", "strided", "reversed")))
    if array.ndim == 0 or form == "whole":
        return array
    return {"transposed": array.T, "strided": array[::2], "reversed": array[..., ::-1]}[form]


NAMES = st.text(min_size=1, max_size=4).filter(lambda name: "/" not in name) | st.sampled_from(
    ("params", ".", "é", "é")
)
TREES = st.recursive(
    st.composite(arrays)(), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
).filter(lambda tree: isinstance(tree, dict))


@pytest.mark.filterwarnings("ignore:load .*NaN or infinite")
@hypothesis.settings(max_examples=30)
@hypothesis.given(TREES, TREES)
def test_any_tree_comes_back_to_the_bit(params, state):
    file = Path(tempfile.mkdtemp(), "tree")
    jn.save(file, (params, state))
    same_bits(jn.load(file)[:2], (params, state))


@pytest.mark.filterwarnings("ignore:load .*NaN or infinite")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_keeps_its_bits(tmp_path, dtype):
    array = of_any_bits(dtype, (5, 40), 1)
    jn.save(tmp_path / "x", ({"a": array}, {}))
    found = jn.load(tmp_path / "x")[0]["a"]
    same_bits(found, array)
    assert isinstance(found, np.ndarray) == (dtype.name in WIDE.split())


def test_numbers_wider_than_jax_holds_do_not_change(tmp_path):
    jn.save(tmp_path / "x", ({"n": np.array([2**40 + 1]), "x": np.array(1e300), "z": np.array(1e300j)}, {}))
    found, *_ = jn.load(tmp_path / "x")
    assert found["n"].tolist() == [2**40 + 1]
    assert (found["x"], found["z"]) == (1e300, 1e300j)
    with jax.enable_x64():
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(jn.load(tmp_path / "x")[0]))


def test_big_endian_numbers_keep_their_values(tmp_path):
    jn.save(tmp_path / "x", ({"a": np.arange(3, dtype=">f4"), "b": np.arange(3, dtype=">c16")}, {}))
    found, *_ = jn.load(tmp_path / "x")
    assert found["a"].tolist() == found["b"].tolist() == [0, 1, 2]
    assert (found["a"].dtype, found["b"].dtype) == (np.dtype("<f4"), np.dtype("<c16"))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_draw_the_same(tmp_path, impl):
    keys = jax.random.split(jax.random.key(3, impl=impl), 2)
    jn.save(tmp_path / "x", ({}, {"key": keys, "old": jax.random.PRNGKey(1)}))
    found = jn.load(tmp_path / "x")[1]
    assert found["key"].dtype == keys.dtype
    np.testing.assert_array_equal(jax.random.bits(found["key"][1]), jax.random.bits(keys[1]))
    equal(found["old"], jax.random.PRNGKey(1))


def test_empty_dicts_come_back(tmp_path):
    params = {"relu": {}, "block": {"a": {}, "b": {"c": {}}}, "fc": {"bias": jnp.ones(1)}}
    jn.save(tmp_path / "x", (params, {"relu": {}}))
    equal(jn.load(tmp_path / "x")[:2], (params, {"relu": {}}))


def test_any_flipped_bit_is_noticed(tmp_path):
    params = {"a": jnp.arange(3.0), "b": {}, "c": jnp.ones(3, jnp.int4), "k": jax.random.key(0), "n": jnp.arange(3)}
    jn.save(tmp_path / "x", (params, {}), metadata={"epochs": 3})
    whole = (tmp_path / "x").read_bytes()
    for place in range(len(whole)):
        flipped = whole[place] ^ (1 << place % 8)
        (tmp_path / "y").write_bytes(whole[:place] + bytes([flipped]) + whole[place + 1 :])
        with pytest.raises(jn.NetError, match=r"load .*y"):
            jn.load(tmp_path / "y")
    end = bytearray(whole)
    end[-1] ^= 1
    (tmp_path / "y").write_bytes(end)
    with pytest.raises(jn.NetError, match="damaged file"):
        jn.load(tmp_path / "y")


def entry(tensors: dict[str, np.ndarray], form: str = FORMAT) -> dict[str, str]:
    """Return a safetensors entry as `save` writes it for any tensors."""
    header = {"format": form, "metadata": {}}
    return {"jaxnets": json.dumps(header | {"sha256": digest(header, tensors)})}


def test_files_of_another_format_are_rejected(tmp_path):
    tensors = {"params/a": np.ones(1, np.float32)}
    save_file(tensors, tmp_path / "x", entry(tensors, "jaxnets/2"))
    with pytest.raises(jn.NetError, match=f"expects a file of format {FORMAT}, got 'jaxnets/2'"):
        jn.load(tmp_path / "x")


def test_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    jn.save("~/net", ({"a": jnp.ones(1)}, {}))
    assert (tmp_path / "net").is_file()
    equal(jn.load("~/net")[0], {"a": jnp.ones(1)})


@pytest.mark.parametrize("refusal", [PermissionError(1, "Operation not permitted"), NotImplementedError()])
def test_a_drive_without_hard_links_will_do(tmp_path, monkeypatch, refusal):
    def refuse(self, target):
        raise refusal

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    jn.save(tmp_path / "net", ({"a": jnp.ones(1)}, {}))
    equal(jn.load(tmp_path / "net")[0], {"a": jnp.ones(1)})
    with pytest.raises(FileExistsError, match="exists"):
        jn.save(tmp_path / "net", ({"a": jnp.zeros(1)}, {}))
    monkeypatch.setattr(Path, "exists", lambda self: False)  # one that appears meanwhile
    with pytest.raises(FileExistsError):
        jn.save(tmp_path / "net", ({"a": jnp.zeros(1)}, {}))
    equal(jn.load(tmp_path / "net")[0], {"a": jnp.ones(1)})
    assert [each.name for each in tmp_path.iterdir()] == ["net"]


def test_metadata_may_hold_numpys_scalars_and_nothing_else_that_json_does_not(tmp_path):
    given = {"loss": np.float32(0.5), "n": np.int64(3), "best": jnp.asarray(2.0), "on": np.True_, "t": (1, {"u": None})}
    jn.save(tmp_path / "x", ({}, {}), metadata=given)
    assert jn.load(tmp_path / "x")[2] == {"loss": 0.5, "n": 3, "best": 2.0, "on": True, "t": [1, {"u": None}]}
    loop: dict[str, Any] = {}
    loop["a"] = loop
    for wrong, message in (
        ({"a": {"b": [1, np.ones(2)]}}, r"got ndarray .* at metadata/a/b/1; .*tolist"),
        ({"a": float("inf")}, "got float inf at metadata/a"),
        ({"a": np.float32("nan")}, "got float nan at metadata/a"),
        ({"a": {1: 2}}, "expects strings as names in JSON, got 1 at metadata/a"),
        ({"a": Path("x")}, "at metadata/a"),
        ([1], "expects metadata as a dict, got list"),
        (loop, "at most 100 levels"),
    ):
        with pytest.raises(jn.NetError, match=f"^save .*{message}"):
            jn.save(tmp_path / "y", ({}, {}), metadata=wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "y").exists()


def test_nothing_is_overwritten_unasked(tmp_path):
    file = tmp_path / "net"
    jn.save(file, ({"a": jnp.zeros(2)}, {}))
    with pytest.raises(FileExistsError, match="overwrite=True"):
        jn.save(file, ({"a": jnp.ones(2)}, {}))
    np.testing.assert_array_equal(jn.load(file)[0]["a"], [0, 0])
    jn.save(file, ({"a": jnp.ones(2)}, {}), overwrite=True)
    np.testing.assert_array_equal(jn.load(file)[0]["a"], [1, 1])


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    file = tmp_path / "net"
    jn.save(file, ({"a": jnp.zeros(2)}, {}))

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        jn.save(file, ({"a": jnp.ones(2)}, {}), overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["net"]
    np.testing.assert_array_equal(jn.load(file)[0]["a"], [0, 0])


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        jn.save(tmp_path / "none" / "net", ({"a": jnp.zeros(2)}, {}))
    with pytest.raises(FileNotFoundError, match="net"):
        jn.load(tmp_path / "net")


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        ([1.0], "got list at params/a; convert it by jnp.asarray"),
        ((jnp.ones(1),), "got tuple at params/a"),
        (None, "got NoneType at params/a"),
        (1.0, "got float at params/a"),
        (np.array(["x"]), "got str32 at params/a"),
        (np.array([None]), "got object at params/a"),
        (np.array(["2020"], "M8[D]"), r"got datetime64\[D\] at params/a"),
        (np.ones(1, [("x", "f4")]), "got void32 at params/a"),
    ],
)
def test_leaves_of_something_else_are_rejected(tmp_path, leaf, message):
    with pytest.raises(jn.NetError, match=f"^save expects .*{message}"):
        jn.save(tmp_path / "x", ({"a": leaf}, {}))
    assert not list(tmp_path.iterdir())


def test_names_that_are_none_are_rejected(tmp_path):
    for name in ("a/b", "", 1, "\ud800"):
        with pytest.raises(jn.NetError, match="without '/'"):
            jn.save(tmp_path / "x", ({name: jnp.ones(1)}, {}))
    with pytest.raises(jn.NetError, match="JSON"):
        jn.save(tmp_path / "x", ({"a": jnp.ones(1)}, {}), metadata={"loss": float("nan")})
    with pytest.raises(jn.NetError, match="outside of jit"):
        jax.jit(lambda a: jn.save(tmp_path / "x", ({"a": a}, {})))(jnp.ones(1))
    assert not list(tmp_path.iterdir())


def written(file: Path, header: str, data: bytes = b"") -> Path:
    """Write a safetensors file by hand."""
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
    return file


def test_odd_names_and_headers_are_rejected(tmp_path):
    one = np.ones(1, np.float32)
    for names, message in (
        (("params",), "expects tensors of params or state, got 'params'"),
        (("a",), "expects tensors of params or state, got 'a'"),
        (("params/a", "params/a/b"), "finds a tensor 'params/a/b' inside another"),
    ):
        tensors = dict.fromkeys(names, one)
        save_file(tensors, tmp_path / "x", entry(tensors))
        with pytest.raises(jn.NetError, match=f"^load .*{message}"):
            jn.load(tmp_path / "x")
    for text in ("[]", f'{{"format": "{FORMAT}", "metadata": 1}}', f'{{"format": "{FORMAT}"}}', "{", "[" * 10**5, "1"):
        save_file({}, tmp_path / "x", {"jaxnets": text})
        with pytest.raises(jn.NetError, match=r"^load .*header"):
            jn.load(tmp_path / "x")
    tensor = '"params/a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    for header in (f"{{{tensor}, {tensor}}}", f'{{"__metadata__": {{"jaxnets": {{"format": 1}}}}, {tensor}}}', "[]"):
        with pytest.raises(jn.NetError, match=r"^load "):
            jn.load(written(tmp_path / "x", header, b"\0" * 4))


@pytest.mark.parametrize("keep", [0, 4, 9, 60, -1])
def test_truncated_files_are_rejected(tmp_path, keep):
    jn.save(tmp_path / "whole", ({"a": jnp.ones(20)}, {}))
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(content[:keep])
    with pytest.raises(jn.NetError, match="expects a complete safetensors file"):
        jn.load(tmp_path / "cut")


def test_other_files_are_rejected(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "foreign")
    with pytest.raises(jn.NetError, match="format"):
        jn.load(tmp_path / "foreign")
    tensors = {"weights/a": np.ones(2, np.float32)}
    save_file(tensors, tmp_path / "other", entry(tensors))
    with pytest.raises(jn.NetError, match="expects tensors of params or state, got 'weights/a'"):
        jn.load(tmp_path / "other")
    (tmp_path / "text").write_text("this is no tensor")
    with pytest.raises(jn.NetError, match="expects a complete"):
        jn.load(tmp_path / "text")
    header = json.dumps({"params/a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "corrupt").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(jn.NetError, match="expects a complete"):
        jn.load(tmp_path / "corrupt")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_loaded_with_a_warning(tmp_path, bad):
    params, state = (
        {"fc": {"bias": jnp.array([1.0, bad]), "kernel": jnp.ones(2)}},
        {"mean": jnp.array([bad])},
    )
    jn.save(tmp_path / "net", (params, state))
    with pytest.warns(UserWarning, match=r"load .*net: NaN or infinite numbers in params/fc/bias, state/mean$"):
        loaded = jn.load(tmp_path / "net")
    equal(loaded[:2], (params, state))
