"""IDX and CIFAR files in a local folder: small ones written here in the published formats, whole and damaged."""

import gzip
import hashlib
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets.data.datasets import cifar, local, mnist

STEMS = list(mnist.SUMS["mnist"])
CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


@pytest.fixture(autouse=True)
def nothing_elsewhere(monkeypatch):
    """No set of the machine's own gets into a test."""
    monkeypatch.delenv(local.VARIABLE, raising=False)
    monkeypatch.setattr(local, "load", lambda repository, download: None)


def packed(array: np.ndarray, kind: str = "u1") -> bytes:
    """Write an array as the format's description says."""
    header = struct.pack(">HBB", 0, CODES[kind], array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(f">{kind}").tobytes()


def digits(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    sizes = {"train": 6, "t10k": 3}
    return {
        stem: random.integers(0, 256, (sizes[stem.split("-")[0]], 28, 28))
        if "images" in stem
        else random.integers(0, 10, sizes[stem.split("-")[0]])
        for stem in STEMS
    }


def written(folder: Path, arrays: dict[str, np.ndarray], *, end: str = "", pack=lambda content: content) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for stem, array in arrays.items():
        (folder / f"{stem}{end}").write_bytes(pack(packed(array)))
    return folder


def check_digits(found, arrays) -> None:
    for (images, labels), prefix in zip(found, ("train", "t10k"), strict=True):
        pixels = arrays[f"{prefix}-images-idx3-ubyte"][..., None]
        assert (images.dtype, labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(images, pixels.astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(labels, arrays[f"{prefix}-labels-idx1-ubyte"])


def test_read_idx_finds_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "array").write_bytes(packed(np.arange(3, dtype="u1"), "u1"))
    np.testing.assert_array_equal(jn.data.read_idx("~/array"), [0, 1, 2])


@given(st.lists(st.integers(0, 5), max_size=4), st.sampled_from(sorted(CODES)), st.booleans())
def test_read_idx_gives_back_what_was_packed(tmp_path_factory, shape, kind, zipped):
    array = np.random.default_rng(0).integers(-100, 100, shape).astype(kind)
    file = tmp_path_factory.mktemp("idx") / "array"
    file.write_bytes(gzip.compress(packed(array, kind)) if zipped else packed(array, kind))
    found = jn.data.read_idx(file)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "begins with 00 00"),
        (b"\x89PNG\r\n", "with 89 50 4e 47"),
        (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "with 00 00 07 01"),
        (packed(np.arange(6))[:-1], "expects 14 bytes in .*, got 13: it is damaged"),
        (packed(np.arange(6)) + b"!", "expects 14 bytes in .*, got 15"),
        (bytes([0, 0, 8, 3, 0, 0]), "expects 16 bytes in .*, got 6"),
        (gzip.compress(packed(np.arange(6)), mtime=0)[:-9], "can't unpack"),
        (b"\x1f\x8b" + bytes(40), "can't unpack"),
    ],
    ids=["empty", "png", "type", "short", "long", "header", "half a gzip", "no gzip"],
)
def test_read_idx_rejects(content, words, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(jn.NetError, match=f"read_idx .*{words}"):
        jn.data.read_idx(tmp_path / "file")


@pytest.mark.parametrize("place", ["", "mnist", "MNIST/raw", "mnist/MNIST/raw"])
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_mnist_from_a_folder(place, end, pack, tmp_path):
    arrays = digits()
    written(tmp_path / place, arrays, end=end, pack=pack)
    check_digits(jn.data.mnist(tmp_path, verify=False), arrays)
    check_digits(jn.data.mnist(str(tmp_path), verify=False), arrays)


def test_the_variable_names_the_folder_of_all_sets(tmp_path, monkeypatch):
    first, second = digits(0), digits(1)
    written(tmp_path / "mnist", first)
    written(tmp_path / "fashion_mnist", {stem.replace("-idx", ".idx"): array for stem, array in second.items()})
    monkeypatch.setenv(local.VARIABLE, str(tmp_path))
    check_digits(jn.data.mnist(verify=False), first)
    check_digits(jn.data.fashion_mnist(verify=False), second)


def test_sums_are_checked_and_sets_of_one_name_told_apart(tmp_path, monkeypatch):
    sums = {name: {} for name in mnist.SUMS}
    for seed, name in enumerate(sums):
        for stem, array in digits(seed).items():
            sums[name][stem] = hashlib.md5(packed(array)).hexdigest()
    monkeypatch.setattr(mnist, "SUMS", sums)
    folder = written(tmp_path, digits(0), end=".gz", pack=gzip.compress)
    check_digits(jn.data.mnist(folder), digits(0))  # the sum of the content, so gzip's own header does not matter
    with pytest.raises(jn.NetError, match=r"fashion_mnist .*it is the file of mnist, which has the same name"):
        jn.data.fashion_mnist(folder)
    changed = digits(0)
    changed[STEMS[3]][0] ^= 1
    with pytest.raises(jn.NetError, match=r"published MD5 sum .* of .*t10k-labels.*damaged.*verify=False"):
        jn.data.mnist(written(tmp_path / "changed", changed))
    check_digits(jn.data.mnist(tmp_path / "changed", verify=False), changed)


def test_a_made_up_set_is_not_taken_for_the_published_one(tmp_path):
    with pytest.raises(jn.NetError, match=r"mnist expects the published MD5 sum .*train-images-idx3-ubyte"):
        jn.data.mnist(written(tmp_path, digits()))


@pytest.mark.parametrize(
    ("stem", "array", "words"),
    [
        (STEMS[0], np.zeros((6, 32, 32)), r"images \(examples, 28, 28\)"),
        (STEMS[0], np.zeros((5, 28, 28)), r"got \(5, 28, 28\) and \(6,\)"),
        (STEMS[1], np.full(6, 10), "labels from 0 to 9"),
    ],
)
def test_mnist_rejects(stem, array, words, tmp_path):
    with pytest.raises(jn.NetError, match=f"mnist expects .*{words}"):
        jn.data.mnist(written(tmp_path, digits() | {stem: array}), verify=False)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100", "imagenet"])
def test_absent_sets_say_what_was_expected_and_where(name, tmp_path, monkeypatch):
    load = getattr(jn.data, name)
    with pytest.raises(FileNotFoundError, match=rf"{name} is not here.*no folder.*{local.VARIABLE}.*'jaxnets\[hub\]'"):
        load()
    with pytest.raises(FileNotFoundError, match=f"Expected: .*Looked in: {tmp_path}, {tmp_path}/{name}"):
        load(tmp_path)
    monkeypatch.setenv(local.VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"Looked in: {tmp_path}/{name}"):
        load()


def test_one_missing_file_is_named(tmp_path):
    written(tmp_path, digits())
    (tmp_path / STEMS[2]).unlink()
    with pytest.raises(FileNotFoundError, match=rf"Expected: {STEMS[2]} \(or .gz\)\. Looked"):
        jn.data.mnist(tmp_path)


# --- CIFAR

LAYOUTS = {"cifar10": cifar.CIFAR10, "cifar100": cifar.CIFAR100}


def records(name: str, images: int = 2) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return labels (images, label bytes) and pixels (images, 32, 32, 3) of each file."""
    layout, random = LAYOUTS[name], np.random.default_rng(0)
    return {
        file: (
            np.stack([random.integers(0, classes, images) for classes in layout.classes], 1),
            random.integers(0, 256, (images, 32, 32, 3)),
        )
        for file in layout.train + layout.test
    }


def packed_records(labels: np.ndarray, pixels: np.ndarray) -> bytes:
    """Write each image as the format's description says: labels, then the red, the green and the blue plane."""
    return b"".join(
        bytes(label.tolist()) + b"".join(bytes(image[:, :, color].ravel().tolist()) for color in range(3))
        for label, image in zip(labels, pixels, strict=True)
    )


def unpacked(folder: Path, made: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, (labels, pixels) in made.items():
        (folder / file).write_bytes(packed_records(labels, pixels))
    return folder


def archive(file: Path, made: dict) -> bytes:
    with tarfile.open(file, "w:gz") as tar:
        for name, (labels, pixels) in made.items():
            content = packed_records(labels, pixels)
            member = tarfile.TarInfo(f"inner/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.read_bytes()


def check_records(found, name: str, made: dict, column: int) -> None:
    layout = LAYOUTS[name]
    for (images, labels), files in zip(found, (layout.train, layout.test), strict=True):
        assert (images.dtype, labels.dtype) == (np.float32, np.int32)
        pixels = np.concatenate([made[file][1] for file in files])
        np.testing.assert_array_equal(images, pixels.astype(np.float32) / np.float32(255))
        np.testing.assert_array_equal(labels, np.concatenate([made[file][0][:, column] for file in files]))


@pytest.mark.parametrize(("name", "inner"), [("cifar10", "cifar-10-batches-bin"), ("cifar100", "cifar-100-binary")])
def test_cifar_from_files_and_archive(name, inner, tmp_path, monkeypatch):
    made, load, layout = records(name), getattr(jn.data, name), LAYOUTS[name]
    last = len(layout.classes) - 1
    check_records(load(unpacked(tmp_path / "plain", made), verify=False), name, made, last)
    unpacked(tmp_path / "deep" / name / inner, made)
    check_records(load(tmp_path / "deep", verify=False), name, made, last)
    content = archive(tmp_path / layout.archive, made)
    check_records(load(tmp_path, verify=False), name, made, last)
    if name == "cifar100":
        check_records(jn.data.cifar100(tmp_path, coarse=True, verify=False), name, made, 0)
    with pytest.raises(jn.NetError, match=f"{name} expects the published MD5 sum {layout.md5}"):
        load(tmp_path)
    (tmp_path / layout.archive).write_bytes(content[: len(content) // 2])
    with pytest.raises(jn.NetError, match=r"can't unpack .* it is damaged"):
        load(tmp_path, verify=False)
    known = replace(layout, md5=hashlib.md5(content).hexdigest())
    (tmp_path / layout.archive).write_bytes(content)
    monkeypatch.setattr(cifar, name.upper(), known)
    with pytest.raises(jn.NetError, match=f"{name} expects 50000 images"):  # the archive passes, its size does not
        load(tmp_path)


def test_cifar_rejects(tmp_path):
    made = records("cifar10")
    folder = unpacked(tmp_path, made)
    whole = (folder / "data_batch_2.bin").read_bytes()
    for content, words in [
        (whole[:-1], r"multiple of 3073 bytes in data_batch_2\.bin"),
        (b"", r"multiple of 3073 bytes in data_batch_2\.bin"),
        (bytes([10]) + whole[1:], "labels from 0 to 9 .* got 10"),
    ]:
        (folder / "data_batch_2.bin").write_bytes(content)
        with pytest.raises(jn.NetError, match=f"cifar10 expects .*{words}"):
            jn.data.cifar10(folder, verify=False)
    (folder / "data_batch_2.bin").unlink()
    with pytest.raises(jn.NetError, match=r"lacks data_batch_2\.bin"):
        jn.data.cifar10(folder)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-python.tar.gz"),
        ("cifar10", "cifar-10-batches-py/data_batch_1"),
        ("cifar100", "cifar-100-python/train"),
    ],
)
def test_pickles_are_refused_unopened(name, file, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(jn.NetError, match=f"{name} does not read .*pickle.*binary version, {LAYOUTS[name].archive}"):
        getattr(jn.data, name)(tmp_path)
