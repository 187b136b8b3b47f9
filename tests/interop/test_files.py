"""Files: lossless, whole or not at all, nothing overwritten, nothing malformed accepted."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnets as jn


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
    jn.save(tmp_path / "net.safetensors", params, state, metadata)
    loaded = jn.load(tmp_path / "net.safetensors")
    equal(loaded[:2], (params, state))
    assert loaded[2] == metadata
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.safetensors"]


def test_equal_networks_give_equal_files(tmp_path):
    for k in range(8):
        jn.save(tmp_path / str(k), *trees(), {"a": 1, "b": 2})
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "int8", "int32", "uint32", "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_every_dtype_and_shape(tmp_path, dtype, shape):
    array = jnp.ones(shape, dtype)
    jn.save(tmp_path / "x", {"a": array})
    equal(jn.load(tmp_path / "x")[0], {"a": array})


def test_transposed_arrays_keep_their_values(tmp_path):
    array = np.arange(6.0, dtype=np.float32).reshape(2, 3).T
    jn.save(tmp_path / "x", {"a": array})
    np.testing.assert_array_equal(jn.load(tmp_path / "x")[0]["a"], array)


def test_nothing_is_overwritten_unasked(tmp_path):
    file = tmp_path / "net"
    jn.save(file, {"a": jnp.zeros(2)})
    with pytest.raises(FileExistsError, match="overwrite=True"):
        jn.save(file, {"a": jnp.ones(2)})
    np.testing.assert_array_equal(jn.load(file)[0]["a"], [0, 0])
    jn.save(file, {"a": jnp.ones(2)}, overwrite=True)
    np.testing.assert_array_equal(jn.load(file)[0]["a"], [1, 1])


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    file = tmp_path / "net"
    jn.save(file, {"a": jnp.zeros(2)})

    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        jn.save(file, {"a": jnp.ones(2)}, overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["net"]
    np.testing.assert_array_equal(jn.load(file)[0]["a"], [0, 0])


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        jn.save(tmp_path / "none" / "net", {"a": jnp.zeros(2)})
    with pytest.raises(FileNotFoundError, match="net"):
        jn.load(tmp_path / "net")


def test_trees_of_something_else_are_rejected(tmp_path):
    with pytest.raises(jn.NetError, match="list at params/a"):
        jn.save(tmp_path / "x", {"a": [1.0]})
    with pytest.raises(jn.NetError, match="without '/'"):
        jn.save(tmp_path / "x", {"a/b": jnp.ones(1)})
    with pytest.raises(ValueError, match="JSON"):
        jn.save(tmp_path / "x", {"a": jnp.ones(1)}, metadata={"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0, 4, 9, 60, -1])
def test_truncated_files_are_rejected(tmp_path, keep):
    jn.save(tmp_path / "whole", {"a": jnp.ones(20)})
    content = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut").write_bytes(content[:keep])
    with pytest.raises(jn.NetError, match="no whole safetensors file"):
        jn.load(tmp_path / "cut")


def test_other_files_are_rejected(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2, np.float32)}, tmp_path / "foreign")
    with pytest.raises(jn.NetError, match="format"):
        jn.load(tmp_path / "foreign")
    save_file(
        {"weights/a": np.ones(2, np.float32)},
        tmp_path / "other",
        {"jaxnets": '{"format": "jaxnets/1", "metadata": {}}'},
    )
    with pytest.raises(jn.NetError, match="neither params nor state"):
        jn.load(tmp_path / "other")
    (tmp_path / "text").write_text("this is no tensor")
    with pytest.raises(jn.NetError, match="no whole"):
        jn.load(tmp_path / "text")
    header = json.dumps({"params/a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "corrupt").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    with pytest.raises(jn.NetError, match="no whole"):
        jn.load(tmp_path / "corrupt")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_loaded_with_a_warning(tmp_path, bad):
    params, state = (
        {"fc": {"bias": jnp.array([1.0, bad]), "kernel": jnp.ones(2)}},
        {"mean": jnp.array([bad])},
    )
    jn.save(tmp_path / "net", params, state)
    with pytest.warns(UserWarning, match=r"load .*net: NaN or infinite numbers in params/fc/bias, state/mean$"):
        loaded = jn.load(tmp_path / "net")
    equal(loaded[:2], (params, state))
