"""Folders of pictures, against torchvision's reader and transforms."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import jaxnets as jn
from jaxnets.data import hub
from tests.oracle import integers, witness
from tests.peers import PEERS, torchvision_models

# Upright, wide, grey, with transparency, and one deeper inside its class's folder: (file, height, width, mode)
PICTURES = [
    ("cat/z.png", 40, 30, "RGB"),
    ("cat/deep/b.PNG", 21, 55, "L"),
    ("ant/c.bmp", 33, 33, "RGB"),
    ("ant/d.png", 9, 12, "RGBA"),
    ("dog/e.png", 50, 20, "P"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, (name, height, width, mode) in enumerate(PICTURES):
        file = tmp_path / "set" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        depth = {"L": (), "P": (), "RGB": (3,), "RGBA": (4,)}[mode]
        pixels = integers(height, width, *depth, high=256, seed=place).astype(np.uint8)
        image = Image.fromarray(pixels)
        (image.convert("P") if mode == "P" else image).save(file)
    (tmp_path / "set" / "cat" / "notes.txt").write_text("not a picture")
    return tmp_path / "set"


def test_pictures_equal_torchvisions(folder):
    def theirs() -> dict[str, np.ndarray]:
        torchvision_models()
        from torchvision import datasets, transforms

        square = transforms.Compose([transforms.Resize(18), transforms.CenterCrop(16)])
        found = datasets.ImageFolder(str(folder), square)
        return {
            "images": np.stack([np.asarray(image) for image, _ in found]),
            "labels": np.array([label for _, label in found], np.int32),
        }

    want = witness("image_folder", theirs, installed=PEERS)
    pictures = jn.data.image_folder(folder, size=16, resize=18)
    assert (len(pictures), pictures.classes) == (5, ("ant", "cat", "dog"))
    images, labels = zip(*(pictures[index] for index in range(5)), strict=True)
    assert images[0].dtype == np.float32
    assert labels[0].dtype == np.int32
    np.testing.assert_array_equal(np.stack(images), want["images"].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(labels, want["labels"])
    assert jn.data.image_folder(folder).resize == 256


def test_a_folder_rejects(folder):
    (folder / "cat" / "z.png").write_bytes((folder / "cat" / "z.png").read_bytes()[:200])
    (folder / "ant" / "c.bmp").write_bytes(b"no picture")
    pictures = jn.data.image_folder(folder, size=8)
    for index, name in [(0, "c.bmp"), (2, "z.png")]:
        with pytest.raises(jn.NetError, match=f"image_folder can't decode .*{name}"):
            pictures[index]
    (folder / "empty").mkdir()
    with pytest.raises(jn.NetError, match=r"image_folder expects pictures .*empty, found none"):
        jn.data.image_folder(folder)
    with pytest.raises(jn.NetError, match="subfolder for each class"):
        jn.data.image_folder(folder / "empty")
    with pytest.raises(FileNotFoundError, match="is no folder"):
        jn.data.image_folder(folder / "nowhere")
    with pytest.raises(jn.NetError, match="resize ≥ size=9, got 8"):
        jn.data.image_folder(folder, size=9, resize=8)
    with pytest.raises(jn.NetError, match="size ≥ 1"):
        jn.data.image_folder(folder, size=0)


def test_says_what_to_install(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'jaxnets\[data\]'"):
        jn.data.image_folder(folder)


def test_imagenet_checks_its_classes(tmp_path):
    def add(part: str, name: str) -> None:
        (tmp_path / "imagenet" / part / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / "imagenet" / part / name / "one.jpeg")

    for part in ("train", "val"):
        for name in ("n02", "n01"):
            add(part, name)
    train, validation = jn.data.imagenet(tmp_path, size=2, verify=False)
    assert train.classes == validation.classes == ("n01", "n02")
    image, label = validation[1]
    assert label == 1
    np.testing.assert_allclose(image, np.broadcast_to([1.0, 0.0, 0.0], (2, 2, 3)), atol=0.02)  # JPEG rounds
    with pytest.raises(jn.NetError, match=r"expects 1000 classes in .*found 2"):
        jn.data.imagenet(tmp_path)
    add("val", "n03")
    with pytest.raises(jn.NetError, match=r"same classes .*but n03 is in one"):
        jn.data.imagenet(tmp_path, verify=False)


def test_imagenet_from_the_hubs_cache(monkeypatch):
    """Rows are decoded one at a time, cut like files, and named by the set's own classes."""
    pixels = integers(2, 20, 30, 3, high=256).astype(np.uint8)

    class Rows:
        features = {"label": SimpleNamespace(names=["fish", "shark"])}  # noqa: RUF012  # a stand-in, never changed

        def __getitem__(self, which: Any) -> Any:
            if which == "label":
                return [1, 0]
            return {"image": Image.fromarray(pixels[which])}

    monkeypatch.setattr(hub, "load", lambda repository, download: {"train": Rows(), "validation": Rows()})
    monkeypatch.delenv("JAXNETS_DATA", raising=False)
    train, validation = jn.data.imagenet(size=14, resize=20)
    assert (len(train), train.classes) == (2, ("fish", "shark"))
    image, label = validation[0]
    assert label == 1
    np.testing.assert_array_equal(image, pixels[0, 3:17, 8:22].astype(np.float32) / np.float32(255))
