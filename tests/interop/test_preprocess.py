"""Preprocessing in files: what a new process predicts from raw examples is what this one does."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from PIL import Image

import jaxnets as jn
from jaxnets.data import Image as ImageStep
from jaxnets.data import Preprocess, Scaling, Text
from jaxnets.interop.safetensors import digest
from tests.oracle import floats, variables

X = floats(6, 3, scale=4.0) + np.float32(7)
PICTURES = [np.arange(h * w * 3, dtype=np.uint8).reshape(h, w, 3) for h, w in ((9, 14), (12, 8))]
NET = jn.serial(flatten=jn.flatten, out=jn.dense(2))
WORDS = json.dumps(
    {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "good": 1, "bad": 2}, "unk_token": "[UNK]"},
    }
)


def words(tmp_path: Path) -> jn.data.Tokenizer:
    (tmp_path / "tokenizer.json").write_text(WORDS)
    return jn.data.tokenizer(tmp_path / "tokenizer.json")


READER = jn.serial(embed=jn.embed(9, 4), read=jn.recurrent(jn.gru_cell(3), return_sequences=False), out=jn.dense(2))
ROWS = {
    "width": [1.0, 3.0, None],
    "color": ["red", "blue", "red"],
    "born": ["2020-01-01", "2021-02-03", "2022-03-04"],
    "kind": ["cat", "dog", "cat"],
    "price": [1.5, 2.25, 4.0],
}
TABLE = jn.data.table({name: ROWS[name] for name in ("width", "color", "born", "kind")}, target="kind", split=None)
STEPS: dict[str, Any] = {
    "scaling": lambda _: (NET, Preprocess(jn.data.standardize(X), classes=("no", "yes")), X),
    "scaling alone": lambda _: (NET, jn.data.rescale(X), X),
    "no steps": lambda _: (NET, Preprocess(targets=Scaling(np.array([5.0]), np.array([3.0]))), X),
    "images": lambda _: (NET, Preprocess(ImageStep(4, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3)), PICTURES),
    "grayscale": lambda _: (NET, Preprocess([ImageStep(4, resize=6, grayscale=True)], classes=["a", "b"]), PICTURES),
    "table": lambda _: (
        NET,
        TABLE.encoder,
        {"width": [2.0, None], "color": ["red", "green"], "born": ["2020-01-01"] * 2},
    ),
    "table of prices": lambda _: (NET, jn.data.table(ROWS, target="price", split=None).encoder, ROWS),
    "characters": lambda _: (READER, jn.data.characters("abcde", unknown="?"), ["abc", "ex"]),
    "words": lambda path: (READER, Preprocess(Text(words(path), 4), ["-", "+"]), ["good good bad fine good", "bad"]),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_file_predicts_what_was_saved(name: str, tmp_path: Path):
    net, preprocess, raw = STEPS[name](tmp_path)
    x = preprocess(raw)
    made = variables(net, x)
    jn.save(tmp_path / "net", made, net=net, preprocess=preprocess, metadata={"a": 1})
    saved = jn.load(tmp_path / "net")
    params, state, metadata, again = saved
    assert again == net
    assert metadata == {"a": 1}
    assert re.fullmatch(r"Saved\([\d,]+ parameters, (with state, )?net=.*, preprocess=.*, metadata a\)", repr(saved))
    assert jax.tree.map(np.shape, (params, state)) == jax.tree.map(np.shape, made)
    jax.tree.map(np.testing.assert_array_equal, saved.preprocess(raw), x)
    outputs = jn.predict(net, made, x)
    np.testing.assert_array_equal(saved.outputs(raw), outputs)
    assert saved.predict(raw, batch_size=1).shape[0] == outputs.shape[0]
    decodes = isinstance(preprocess, Preprocess | jn.data.TableEncoder)
    wanted = preprocess.decode(outputs) if decodes else outputs
    np.testing.assert_array_equal(saved.predict(raw), wanted)


def test_a_new_process_predicts(tmp_path: Path):
    image = ImageStep(4, mean=(0.4, 0.5, 0.6), std=(0.2,) * 3)
    preprocess = Preprocess((image, Scaling(jnp.zeros((1, 1, 3)), jnp.full((1, 1, 3), 2.0))), classes=("cat", "dog"))
    files = [str(tmp_path / f"{number}.png") for number in range(len(PICTURES))]
    for file, picture in zip(files, PICTURES, strict=True):
        Image.fromarray(picture).save(file)
    x = preprocess(files)
    np.testing.assert_allclose(x, (preprocess.inputs[0](PICTURES)) / 2, rtol=1e-6)
    made = variables(NET, x)
    jn.save(tmp_path / "net", made, net=NET, preprocess=preprocess)
    code = "import sys, jaxnets as jn; print(*jn.load(sys.argv[1]).predict(sys.argv[2:]))"
    printed = subprocess.check_output([sys.executable, "-c", code, tmp_path / "net", *files], text=True)
    assert printed.split() == preprocess.decode(jn.predict(NET, made, x)).tolist()


def test_tokens_of_a_file_are_those_of_the_library(tmp_path: Path):
    tokenizer = words(tmp_path)
    jn.save(tmp_path / "net", ({}, {}), preprocess=Text(tokenizer, 3))
    tokens = jn.load(tmp_path / "net").preprocess(["good other", "bad bad bad bad"])
    want = [each.ids for each in tokenizers.Tokenizer.from_str(WORDS).encode_batch(["good other", "bad bad bad bad"])]
    assert tokens.values.tolist() == [[*want[0], 0], want[1][:3]]
    assert tokens.lengths.tolist() == [2, 3]


def test_an_image_is_that_of_a_folder(tmp_path: Path):
    (tmp_path / "a").mkdir()
    Image.fromarray(PICTURES[0]).save(tmp_path / "a" / "0.png")
    image, _ = jn.data.image_folder(tmp_path, size=5)[0]
    np.testing.assert_array_equal(ImageStep(5)([tmp_path / "a" / "0.png"])[0], image)
    scaled = ImageStep(5, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))(PICTURES[:1])[0]
    mean, std = (np.array(each, np.float32)[None, None] for each in ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)))
    np.testing.assert_allclose(scaled, (image - mean) / std, rtol=1e-4, atol=1e-6)


def test_classes_are_those_of_the_largest_output():
    decode = Preprocess(classes=["a", "b", "c"]).decode
    assert decode([[0.1, 3.0, 2.0], [0.5, 0.1, 0.2]]).tolist() == ["b", "a"]
    assert decode(np.zeros((2, 4, 3))).shape == (2, 4)
    assert Preprocess(classes=["no", "yes"]).decode([[-1.0], [2.0]]).tolist() == ["no", "yes"]
    assert Preprocess(targets=Scaling(np.array(5.0), np.array(2.0))).decode(floats(2)).shape == (2,)


def saved(tmp_path: Path, **options: Any) -> Any:
    jn.save(tmp_path / "net", variables(NET, X), **options)
    return jn.load(tmp_path / "net")


ABS: Any = np.abs
OWN = jn.data.Tokenizer({"a": 0}, lambda texts, _: [[0]], lambda rows, _: ["a"], "own")
MISTAKES: dict[str, tuple[Any, str]] = {
    "no net": (lambda path: saved(path).predict(X), r"Saved has no network; save it by jn\.save\(path, state, net=net"),
    "not a step": (
        lambda path: saved(path, preprocess=lambda x: x),
        r"save\(preprocess=\) can't write <lambda> at preprocess; steps are Preprocess, Scaling",
    ),
    "a tuple": (lambda path: saved(path, preprocess=(np.abs,)), r"save expects a function of raw .* jn\.data\.Prepro"),
    "own step": (
        lambda path: saved(path, preprocess=Preprocess((np.abs,))),
        r"can't write absolute at preprocess/inputs/0",
    ),
    "own tokenizer": (lambda path: saved(path, preprocess=OWN), r"can't write own of 1 tokens at preprocess; use"),
    "NaN": (
        lambda path: saved(path, net=NET, preprocess=Preprocess(classes=["a", "b"])).predict(X * np.float32("nan")),
        r"Labels expects outputs of a network, got NaN",
    ),
    "outputs": (lambda _: Preprocess(classes=["a", "b", "c"]).decode(X[:, :2]), r"expects outputs \(\.\.\., 3\), one"),
    "classes": (lambda _: Preprocess(classes=["a", "a"]), r"expects distinct names of classes"),
    "a text as classes": (
        lambda _: Preprocess(classes="ab"),
        r"expects names as classes, or targets, got 'ab'",
    ),
    "both": (
        lambda _: Preprocess(classes=["a"], targets=Scaling(0.0, 1.0)),
        r"expects names as classes, or targets, got \['a'\] and Scaling",
    ),
    "targets": (lambda _: Preprocess(targets=np.abs), r"expects a Scaling for targets, got the function"),
    "no call": (lambda _: Preprocess(3), r"Preprocess expects steps, raw -> arrays, for inputs, got int 3"),
    "a path": (lambda _: ImageStep(4)("cat.png"), r"Image expects a list of pictures, got str 'cat.png'; write \[pict"),
    "no picture": (lambda _: ImageStep(4)(["none.png"]), r"Image can't decode none.png"),
    "floats": (lambda _: ImageStep(4)([np.zeros((5, 5))]), r"expects uint8 .* float64; a float from 0 to 1 is \(255"),
    "std": (lambda _: ImageStep(4, std=(1.0, 0.0, 1.0)), r"Image expects std as 3 numbers > 0, got"),
    "mean": (lambda _: ImageStep(4, mean=(1.0,)), r"Image expects mean as 3 numbers, got"),
    "resize": (lambda _: ImageStep(4, resize=3), r"Image expects resize ≥ size=4, got 3"),
    "text": (lambda _: Text(OWN, 0), r"Text expects length ≥ 1, got 0"),
    "no tokenizer": (lambda _: Text(ABS, 3), r"Text expects a tokenizer, got the function"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, tmp_path: Path):
    mistake, message = MISTAKES[name]
    with pytest.raises(jn.NetError, match=message):
        mistake(tmp_path)
    assert not [file for file in tmp_path.iterdir() if file.name != "net"]


FORGED = [
    {"step": "Path", "fields": {}},
    {"step": "Image", "fields": {"size": -1}},
    {"step": "Scaling", "fields": {"other": 1}},
    {"step": "Scaling", "fields": {"offset": {"array": "nowhere", "numpy": True}, "scale": 1}},
    {"call": "os.system", "args": ["true"]},
    {"tokenizer": ["x", "tokenizers", "{}"]},
    {"tokenizer": ["x", "pickle", "x"]},
    [1],
]


@pytest.mark.parametrize("content", FORGED)
def test_a_forged_file_is_refused(content: Any, tmp_path: Path):
    import safetensors.numpy

    header = {"format": "jaxnets/3", "metadata": {}, "empty": [], "dtypes": {}, "keys": {}, "preprocess": content}
    text = json.dumps(header | {"sha256": digest(header, {})})
    (tmp_path / "net").write_bytes(safetensors.numpy.save({}, {"jaxnets": text}))
    with pytest.raises(jn.NetError, match=r"load .*/net expects|load .*/net .*size"):
        jn.load(tmp_path / "net")


@pytest.mark.parametrize("classes", [np.array([7, 3]), np.array(["no", "yes"]), list(np.array([False, True]))])
def test_classes_of_numpy_are_saved(classes: Any, tmp_path: Path):
    made = NET.init(jax.random.key(0), X)
    jn.save(tmp_path / "a.safetensors", made, net=NET, preprocess=Preprocess(classes=classes))
    want = np.asarray(classes)[np.asarray(NET.apply(*made, X)[0]).argmax(1)]
    np.testing.assert_array_equal(jn.load(tmp_path / "a.safetensors").predict(X), want)


def test_one_picture_is_no_batch_of_gray_ones():
    with pytest.raises(jn.NetError, match=r"can't tell one picture from several gray ones, .*; write picture\[None\]"):
        ImageStep(4)(PICTURES[0])
