"""Folders of images, against torchvision's reader and transforms."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from PIL import Image, ImageOps

import jaxnets as jn
from jaxnets.data.datasets import local
from tests.oracle import integers, witness
from tests.peers import PEERS, torchvision_models

# Upright, wide, gray, with transparency, and one deeper inside its class's folder: (file, height, width, mode)
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
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        jn.data.image_folder(folder / "nowhere")
    with pytest.raises(jn.NetError, match="resize ≥ size=9, got 8"):
        jn.data.image_folder(folder, size=9, resize=8)
    with pytest.raises(jn.NetError, match="size ≥ 1"):
        jn.data.image_folder(folder, size=0)


def add(root: Path, name: str, pixels: Any = 0, **options: Any) -> Path:
    """Write a picture of given numbers, or of one number, to `root/name`."""
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.new("L", (4, 4), pixels)
    picture.save(file, **options)
    return file


def labels_of(folder: jn.data.ImageFolder) -> dict[str, int]:
    return {Path(file).stem: int(label) for file, label in zip(folder.pictures, folder.labels, strict=True)}


def test_what_systems_leave_behind_is_passed_over(tmp_path):
    for file in ("cat/c.png", "dog/d.png", "dog/more/e.png"):
        add(tmp_path, file)
    for hidden in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", ".git"):
        for place in ("", "dog"):
            add(tmp_path, f"./{place}/{hidden}/x.png")
    for file in (".DS_Store", "Thumbs.db", "desktop.ini", "._c.png"):
        for place in ("", "cat"):
            add(tmp_path, f"./{place}/{file}", format="PNG")
    folder = jn.data.image_folder(tmp_path)
    assert (folder.classes, labels_of(folder)) == (("cat", "dog"), {"c": 0, "d": 1, "e": 1})


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = tmp_path / "set"
    for file in ("set/cat/c.png", "set/dog/d.png", "elsewhere/e.png", "birds/deep/b.png"):
        add(tmp_path, file)
    (root / "bird").symlink_to(tmp_path / "birds")
    for link, to in [
        ("cat/all", root), ("dog/all", root), ("cat/me", root / "cat"), ("dog/up", tmp_path),
        ("dog/also", "../../elsewhere"), ("dog/again", "../../elsewhere"), ("bird/loop", tmp_path / "birds"),
    ]:  # fmt: skip
        (root / link).symlink_to(to)
    folder = jn.data.image_folder(root)
    assert len(folder) == 4
    assert labels_of(folder) == {"b": 0, "c": 1, "d": 2, "e": 2}
    (root / "ant").symlink_to(root / "gone")
    with pytest.raises(jn.NetError, match=r"finds the broken link .*ant; remove it"):
        jn.data.image_folder(root)
    (root / "ant").unlink()
    (root / "cat" / "dogs").symlink_to(root / "dog")
    with pytest.raises(jn.NetError, match=r"finds .*dog in two classes, cat and dog"):
        jn.data.image_folder(root)


@pytest.mark.parametrize(("name", "order"), [("x.png", "<"), ("x.tif", "<"), ("x.tiff", ">"), ("x.pgm", "<")])
def test_sixteen_bits_keep_their_scale(tmp_path, name, order):
    values = np.array([[100, 20000], [40000, 65535]], np.uint16)
    add(tmp_path, f"gray/{name}", Image.fromarray(values.astype(f"{order}u2")))
    image, _ = jn.data.image_folder(tmp_path, size=2, resize=2)[0]
    assert (image.shape, image.dtype) == ((2, 2, 3), np.float32)
    np.testing.assert_allclose(255 * image, np.repeat(values[..., None] / 257, 3, axis=2), rtol=1e-6)
    image, _ = jn.data.image_folder(tmp_path, size=2, resize=2, grayscale=True)[0]
    np.testing.assert_allclose(image[..., 0], values / 65535, rtol=1e-6)
    upper = values >> 8  # with less depth the same picture is nearly the same
    add(tmp_path, "other/y.png", Image.fromarray(upper.astype(np.uint8)))
    near = jn.data.image_folder(tmp_path, size=3, resize=3)
    np.testing.assert_allclose(near[0][0], near[1][0], atol=1.5 / 255)


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (Image.fromarray(np.eye(3, dtype=np.float32)), {}),
        (Image.fromarray(70000 * np.eye(3, dtype=np.int32)), {}),
        (Image.fromarray(9 * np.eye(3, dtype=np.uint16)), {"tiffinfo": {262: 0}}),  # 0 is white
    ],
)
def test_values_without_a_known_white_are_refused(tmp_path, picture, options):
    add(tmp_path, "one/odd.tif", picture, **options)
    with pytest.raises(jn.NetError, match=r"image_folder can't decode .*one/odd.tif: .*white"):
        jn.data.image_folder(tmp_path)[0]


def modes() -> dict[str, tuple[Image.Image, np.ndarray]]:
    """Return pictures of six pixels in many modes, and their red, green and blue by each mode's formula."""
    rgb = integers(1, 6, 3, high=256).astype(np.uint8)
    gray, alpha = integers(1, 6, high=256, seed=1).astype(np.uint8), integers(1, 6, high=256, seed=2).astype(np.uint8)
    cmyk = integers(1, 6, 4, high=256, seed=3).astype(np.uint8)
    bits = gray > 127
    palette = Image.fromarray(np.arange(6, dtype=np.uint8)[None], "L")
    palette.putpalette(rgb[0].ravel().tolist())
    ink = cmyk.astype(float)
    three = np.repeat(gray[..., None], 3, axis=2)
    return {
        "1": (Image.fromarray(bits), 255.0 * np.repeat(bits[..., None], 3, axis=2)),
        "L": (Image.fromarray(gray), three),
        "LA": (Image.fromarray(np.stack([gray, alpha], -1), "LA"), three),
        "P": (palette, rgb),
        "RGB": (Image.fromarray(rgb), rgb),
        "RGBA": (Image.fromarray(np.concatenate([rgb, alpha[..., None]], -1)), rgb),
        "CMYK": (Image.fromarray(cmyk, "CMYK"), (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255),
    }


@pytest.mark.parametrize("mode", [*modes(), "P with transparency"])
def test_every_mode_becomes_red_green_and_blue(tmp_path, mode):
    picture, want = modes()[mode.partition(" ")[0]]
    options = {"transparency": bytes([0, 50, 100, 150, 200, 250])} if " " in mode else {}
    wide = picture.resize((6, 6), Image.Resampling.NEAREST)
    assert wide.mode == mode.partition(" ")[0]
    add(tmp_path, f"one/x.{'tif' if mode == 'CMYK' else 'png'}", wide, **options)
    image, _ = jn.data.image_folder(tmp_path, size=6, resize=6)[0]
    np.testing.assert_allclose(255 * image, np.broadcast_to(want, (6, 6, 3)), atol=1.0 if mode == "CMYK" else 1e-4)
    gray, _ = jn.data.image_folder(tmp_path, size=6, resize=6, grayscale=True)[0]
    assert gray.shape == (6, 6, 1)
    np.testing.assert_allclose(255 * gray[..., 0], 255 * image @ [0.299, 0.587, 0.114], atol=1.0)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_pictures_are_turned_as_their_tag_says(tmp_path, ending):
    pixels = integers(2, 3, 3, high=256).astype(np.uint8).repeat(8, 0).repeat(8, 1)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        add(tmp_path, f"one/{orientation}.{ending}", Image.fromarray(pixels), exif=exif)
    folder = jn.data.image_folder(tmp_path, size=16, resize=16)
    for number in range(8):
        with Image.open(folder.pictures[number]) as image:
            want = ImageOps.exif_transpose(image).convert("RGB")
        left, top = (want.width - 16) // 2, (want.height - 16) // 2
        want = np.asarray(want.crop((left, top, left + 16, top + 16)), np.float32) / np.float32(255)
        np.testing.assert_array_equal(folder[number][0], want)
    assert len({folder[number][0].tobytes() for number in range(8)}) == 8


def test_a_picture_beyond_pillows_limit_is_named(tmp_path, monkeypatch):
    add(tmp_path, "one/vast.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 7)  # it has 16
    with pytest.raises(jn.NetError, match=r"can't decode .*one/vast.png: Image size \(16 pixels\) exceeds limit"):
        jn.data.image_folder(tmp_path)[0]


def test_labels_are_those_of_the_classes_given(tmp_path):
    for file in ("train/cat/c.png", "train/dog/d.png", "train/eel/e.png", "val/cat/c.png", "val/eel/e.png"):
        add(tmp_path, file)
    train = jn.data.image_folder(tmp_path / "train")
    assert labels_of(jn.data.image_folder(tmp_path / "val")) == {"c": 0, "e": 1}
    held_out = jn.data.image_folder(tmp_path / "val", classes=train.classes)
    assert (held_out.classes, labels_of(held_out)) == (train.classes, {"c": 0, "e": 2})
    back = jn.data.image_folder(tmp_path / "train", classes=["eel", "dog", "cat"])
    assert labels_of(back) == {"c": 2, "d": 1, "e": 0}
    for classes, words in [
        (["cat", "dog"], r"finds the folder eel in .*not in classes=\('cat', 'dog'\)"),
        (["cat", "dog", "eel", "cat"], "expects distinct classes"),
        ("cat", "a sequence of names, got 'cat'"),
        ([0, 1, 2], "a sequence of names"),
        ([], "a sequence of names"),
    ]:
        with pytest.raises(jn.NetError, match=f"image_folder .*{words}"):
            jn.data.image_folder(tmp_path / "train", classes=classes)
    (tmp_path / "none" / "cat").mkdir(parents=True)
    with pytest.raises(jn.NetError, match=r"expects pictures .* of cat, dog in .*none, found none"):
        jn.data.image_folder(tmp_path / "none", classes=["cat", "dog"])


def test_slices_and_indices_are_folders_of_their_own(tmp_path):
    for number in range(6):
        add(tmp_path, f"{'ab'[number % 2]}/{number}.png", 40 * number)
    whole = jn.data.image_folder(tmp_path, size=2, resize=2, grayscale=True)
    numbers = [int(Path(file).stem) for file in whole.pictures]
    assert numbers == [0, 2, 4, 1, 3, 5]
    mask = np.array([True, False, True, False, False, True])
    for index in (slice(1, 4), slice(None, None, -2), [4, 0, 0], np.array([-1, 2]), jax.numpy.array([3, 1]), mask, []):
        part = whole[index]
        chosen = np.array(numbers)[index]
        assert isinstance(part, jn.data.ImageFolder)
        assert part.classes == whole.classes
        found = [(round(255 * image[0, 0, 0].item() / 40), label.item()) for image, label in part]
        assert found == [(number, number % 2) for number in chosen]
    assert whole[-1][1] == whole[np.int64(5)][1] == whole[np.array(5)][1] == 1
    assert len(whole[1:][[0, 1]]) == 2
    for index in (6, -7, [6], [[0], [1]], 1.5):
        with pytest.raises((IndexError, TypeError)):
            whole[index]  # pyright: ignore


def test_a_program_asks_for_a_stream(tmp_path):
    for file in ("cat/c.png", "dog/d.png"):
        add(tmp_path, file)
    folder = jn.data.image_folder(tmp_path)
    net, objective = jn.models.mlp([4], 2), jn.objective(jn.losses.cross_entropy)
    pair = np.ones((1, 2)), np.array([0])
    for data, validation in ((folder, None), (folder[:1], None), (pair, folder)):
        with pytest.raises(
            jn.NetError, match=r"^program expects .*got ImageFolder; .*jn.data.stream\(data, batch_size\)"
        ):
            jn.train.program(net, objective, optax.sgd(0.1), data, epochs=1, batch_size=1, validation=validation)


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

        def select(self, which: np.ndarray) -> list[Any]:
            return [self[number] for number in which]

    monkeypatch.setattr(local, "load", lambda repository, download: {"train": Rows(), "validation": Rows()})
    monkeypatch.delenv("JAXNETS_DATA", raising=False)
    train, validation = jn.data.imagenet(size=14, resize=20)
    assert (len(train), train.classes) == (2, ("fish", "shark"))
    image, label = validation[0]
    assert label == 1
    np.testing.assert_array_equal(image, pixels[0, 3:17, 8:22].astype(np.float32) / np.float32(255))
    both = validation[::-1]
    np.testing.assert_array_equal(both.labels, [0, 1])
    np.testing.assert_array_equal(both[1][0], image)


def test_some_of_the_classes_and_some_of_their_images(tmp_path):
    for name in ("ant", "bee", "cat", "dog"):
        for number in range(5):
            add(tmp_path, f"{name}/{name}{number}.png")
    few = jn.data.image_folder(tmp_path, classes=["dog", "bee"], others="skip")
    assert few.classes == ("dog", "bee")
    assert labels_of(few) == {f"{name}{k}": label for label, name in enumerate(("dog", "bee")) for k in range(5)}
    taken, again = few.take(2, seed=1), few.take(2, seed=1)
    assert labels_of(taken) == labels_of(again)
    assert np.bincount(taken.labels).tolist() == [2, 2]
    assert labels_of(taken).items() <= labels_of(few).items()
    assert len({frozenset(labels_of(few.take(2, seed=seed))) for seed in range(20)}) > 5
    assert labels_of(few.take(9)) == labels_of(few)
    with pytest.raises(jn.NetError, match=r"leave it out by others=\"skip\""):
        jn.data.image_folder(tmp_path, classes=["dog"])
    with pytest.raises(jn.NetError, match=r"finds no folder cow in .*, but ant, bee, cat, dog"):
        jn.data.image_folder(tmp_path, classes=["dog", "cow"], others="skip")
    with pytest.raises(jn.NetError, match=r"expects others as 'error' or 'skip', got 'drop'"):
        jn.data.image_folder(tmp_path, classes=["dog"], others=untyped("drop"))
    with pytest.raises(jn.NetError, match=r"expects per_class ≥ 1, got 0"):
        few.take(0)


def untyped(value: Any) -> Any:
    return value
