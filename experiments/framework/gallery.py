"""The gallery of models: writes the tables and diagrams of docs/models.md from the networks themselves.

    python -m experiments.framework.gallery            # rewrites what stands between the page's markers
    python -m experiments.framework.gallery --check    # writes nothing; fails if the page is out of date

Takes about ten seconds on one core; nothing is trained, compiled or allocated.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import jaxnets as jn
from jaxnets import Net, models

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@dataclass(frozen=True)
class Entry:
    """A row of a table.

    Attributes:
        call: an expression over `jn.models` that makes the network.
        shape: shape of one input, without the batch axis; a pair of shapes for a pair of inputs.
        source: the publication; "after" where the layers differ from the paper's.
        dtype: dtype of the input.
        shown: what the table shows instead of a long call.
    """

    call: str
    shape: tuple[Any, ...]
    source: str = ""
    dtype: Any = jnp.float32
    shown: str = ""

    @property
    def net(self) -> Net:
        """The network."""
        return eval(self.call, vars(models).copy())

    @property
    def x(self) -> Any:
        """The spec of a batch of one input."""
        return spec(self.shape, self.dtype)

    @property
    def size(self) -> str:
        """The shape as a cell of the table."""
        shapes = self.shape if isinstance(self.shape[0], tuple) else [self.shape]
        return ", ".join("×".join(map(str, shape)) for shape in shapes)


def spec(shape: tuple[Any, ...], dtype: Any = jnp.float32) -> Any:
    """Return the spec of one input of a shape, or a tuple of them."""
    if isinstance(shape[0], tuple):
        return tuple(spec(each, dtype) for each in shape)
    return jax.ShapeDtypeStruct((1, *shape), dtype)


def versions(names: str, shape: tuple[int, ...], source: str) -> list[Entry]:
    """Return a row for each name."""
    return [Entry(f"{name}()", shape, source) for name in names.split()]


DIGIT, LARGE, CIFAR = (28, 28, 1), (224, 224, 3), (32, 32, 3)
PIXELS, STEPS, TOKENS = (784,), (50, 12), (64,)
LECUN, SIMONYAN = "LeCun et al. 1998", "Simonyan & Zisserman 2014"
SZEGEDY, RETHINKING = "Szegedy et al. 2015", "Szegedy et al. 2016"
HE, PREACTIVATION = "He et al. 2015", "He et al. 2016"
HOCHREITER = "Hochreiter & Schmidhuber 1997"
HINTON, KINGMA = "Hinton & Salakhutdinov 2006", "Kingma & Welling 2014"
FCN8S = 'fcn(21, vgg16()["features"], skips=("23", "16"), features=4096, kernel_size=7)'
TABLES: dict[str, list[Entry]] = {
    "dense": [
        Entry("linear(10)", DIGIT, "Cox 1958"),
        Entry("perceptron(10)", DIGIT, "Rosenblatt 1958"),
        Entry("mlp((300, 100), 10)", DIGIT, "Rumelhart et al. 1986"),
    ],
    "convolutional": [
        Entry("lenet5_1998()", (32, 32, 1), LECUN),
        Entry("lenet5()", DIGIT, f"after {LECUN}"),
        Entry("cnn((32, 64), 10)", DIGIT, "after LeCun et al. 1989"),
        Entry("alexnet_2012()", (227, 227, 3), "Krizhevsky et al. 2012"),
        Entry("alexnet()", LARGE, "after Krizhevsky 2014"),
        *versions("vgg11 vgg13 vgg16 vgg19", LARGE, SIMONYAN),
        Entry("vgg16(batch_norm=True)", LARGE, f"after {SIMONYAN}"),
        Entry("googlenet_2014()", LARGE, SZEGEDY),
        Entry("googlenet()", LARGE, f"after {SZEGEDY}"),
        Entry("googlenet(auxiliary=True)", LARGE, f"after {SZEGEDY}"),
        Entry("inception_v2()", LARGE, "Ioffe & Szegedy 2015"),
        Entry("inception_v3()", (299, 299, 3), RETHINKING),
        Entry("inception_v3(auxiliary=True)", (299, 299, 3), RETHINKING),
        *versions("inception_v4 inception_resnet_v2", (299, 299, 3), "Szegedy et al. 2017"),
        *versions("densenet121", LARGE, "Huang et al. 2017"),
        *versions("mobilenet_v2", LARGE, "Sandler et al. 2018"),
        *versions("efficientnet_b0", LARGE, "Tan & Le 2019"),
        *versions("convnext_tiny", LARGE, "Liu et al. 2022"),
    ],
    "residual": [
        *versions("resnet18 resnet34", LARGE, HE),
        *versions("resnet50 resnet101 resnet152", LARGE, f"after {HE}"),
        Entry('resnet50(version="1")', LARGE, HE),
        *versions("resnet18_v2 resnet34_v2 resnet50_v2 resnet101_v2 resnet152_v2", LARGE, PREACTIVATION),
        *versions("resnext50_32x4d resnext101_32x8d resnext101_64x4d", LARGE, "Xie et al. 2016"),
        *versions("wide_resnet50_2 wide_resnet101_2", LARGE, "Zagoruyko & Komodakis 2016"),
        *[Entry(f"resnet_cifar({depth})", CIFAR, HE) for depth in (20, 32, 44, 56, 110)],
        Entry('resnet_cifar(56, shortcut="B")', CIFAR, HE),
        Entry('resnet_cifar(56, shortcut="C")', CIFAR, HE),
        Entry("plain_cifar(56)", CIFAR, HE),
    ],
    "transformers": [
        *versions("vit_b_16 vit_b_32 vit_l_16", LARGE, "Dosovitskiy et al. 2021"),
        Entry("deit_tiny()", LARGE, "Touvron et al. 2021"),
    ],
    "text": [
        *[
            Entry(f'gpt2("{size}")', TOKENS, "Radford et al. 2019", jnp.int32)
            for size in ("small", "medium", "large", "xl")
        ],
        Entry("llama(32000, 4096, 32, 32)", TOKENS, "Touvron et al. 2023", jnp.int32),
        Entry("llama(32000, 2048, 22, 32, kv_heads=4)", TOKENS, "Zhang et al. 2024", jnp.int32),
        Entry('bert("base")', TOKENS, "Devlin et al. 2019", jnp.int32),
        Entry('bert("large", "words")', TOKENS, "Devlin et al. 2019", jnp.int32),
        Entry('sentence_encoder(20000, 2048, pool="max", embedding=300)', TOKENS, "Conneau et al. 2017", jnp.int32),
        Entry(
            'siamese(sentence_encoder(20000, 2048, pool="max", embedding=300), 3, hidden=512)',
            (TOKENS, TOKENS),
            "after Conneau et al. 2017",
            jnp.int32,
        ),
        Entry("transformer(37000)", (TOKENS, TOKENS), "Vaswani et al. 2017", jnp.int32),
    ],
    "sequences": [
        Entry("rnn(128, 9)", STEPS, "Elman 1990"),
        Entry("lstm(128, 9)", STEPS, HOCHREITER),
        Entry("gru(128, 9)", STEPS, "Cho et al. 2014"),
        Entry("lstm(128, num_outputs=1, bidirectional=True)", STEPS, f"after {HOCHREITER}"),
        Entry("language_model(256, 512, layers=2)", TOKENS, "after Mikolov et al. 2010", jnp.int32),
        Entry("encoder_decoder(256, 256, 512)", (TOKENS, TOKENS), "Sutskever et al. 2014", jnp.int32),
        Entry("attentive_encoder_decoder(256, 256, 512)", (TOKENS, TOKENS), "after Luong et al. 2015", jnp.int32),
        Entry(
            "pointer_generator(256, 512, copies=16, unknown=1)", (TOKENS, TOKENS), "after See et al. 2017", jnp.int32
        ),
        Entry("conv_gru(28)", (101, 40), "after Amodei et al. 2016"),
        Entry("conv_transformer(28)", (101, 40), "after Mohamed et al. 2019"),
    ],
    "generative": [
        Entry("autoencoder((28, 28, 1), (1000, 500, 250), 30)", DIGIT, f"after {HINTON}"),
        Entry("conv_autoencoder((28, 28, 1))", DIGIT, "after Masci et al. 2011"),
        Entry("vae((28, 28, 1))", DIGIT, KINGMA),
        Entry("conv_vae((28, 28, 1))", DIGIT, f"after {KINGMA}"),
        Entry("dcgan((28, 28, 1))", DIGIT, "after Radford et al. 2016"),
        Entry("rbm(500)", PIXELS, "Hinton 2002"),
        Entry("dbn((500, 500, 2000), 10)", PIXELS, "Hinton et al. 2006"),
        Entry("dbm((500, 1000))", PIXELS, "Salakhutdinov & Hinton 2009"),
    ],
    "pictures": [
        Entry("unet(2)", (256, 256, 1), "after Ronneberger et al. 2015"),
        Entry("fcn(21)", LARGE, "after Long et al. 2015"),
        Entry(FCN8S, LARGE, "Long et al. 2015", shown='fcn(21, vgg16()["features"], …)'),
        Entry("landmarks(5)", (96, 96, 1), "after Toshev & Szegedy 2014"),
        Entry('landmarks(5, head="heatmap")', (96, 96, 1), "after Nibali et al. 2018"),
        Entry("fcos(10)", (256, 256, 1), "after Tian et al. 2019"),
        Entry("frame_predictor(10)", (10, 64, 64, 1), "after Shi et al. 2015"),
        Entry("visual_questions(10)", ((32, 32, 3), (20, 11)), "after Yang et al. 2016"),
        Entry('visual_questions(10, "film", widths=(16, 32, 32))', ((32, 32, 3), (20, 11)), "after Perez et al. 2018"),
    ],
}
INCEPTION = 'googlenet()["inception3a"]', (28, 28, 192)
DIAGRAMS: dict[str, tuple[Entry, int]] = {  # and how many levels of layers are opened
    "lenet5_1998": (Entry("lenet5_1998()", (32, 32, 1)), 1),
    "googlenet-inception3a": (Entry(*INCEPTION), 2),
    "resnet18-layer2": (Entry('resnet18()["layer2"]', (56, 56, 64)), 3),
    "unet": (Entry("unet(2, widths=(64, 128, 256))", (256, 256, 1)), 1),
}


def counts(entry: Entry) -> tuple[int, int]:
    """Return how many parameters and multiply-adds a network has."""
    net, x = entry.net, entry.x
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    return jn.inspect.count_parameters(params), jn.inspect.multiply_adds(net, x, params=params, state=state)


def row(entry: Entry) -> str:
    """Return a row of a table in Markdown."""
    parameters, products = counts(entry)
    return f"| `{entry.shown or entry.call}` | {entry.size} | {parameters:,} | {products:,} | {entry.source} |"


def table(entries: list[Entry]) -> str:
    """Return a table in Markdown."""
    head = "| network | input | parameters | multiply-adds | source |\n| --- | --- | ---: | ---: | --- |"
    return "\n".join([head, *map(row, entries)])


def module_table() -> str:
    """Return the summary of GoogLeNet's first module in Markdown."""
    entry = Entry(*INCEPTION)
    return jn.summary(entry.net, entry.x, depth=2, columns=("output", "parameters", "multiply_adds")).markdown()


def diagram(entry: Entry, depth: int) -> str:
    """Return a diagram as a fenced block."""
    return f"```mermaid\n{jn.plot.diagram(entry.net, entry.x, depth=depth)}```"


def between(page: str, name: str, text: str) -> str:
    """Return a page with a text between its markers `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def written() -> str:
    """Return the page with all tables and diagrams up to date."""
    page = PAGE.read_text(encoding="utf-8")
    for name, entries in TABLES.items():
        page = between(page, name, table(entries))
    for name, (entry, depth) in DIAGRAMS.items():
        page = between(page, name, diagram(entry, depth))
    return between(page, "inception3a", module_table())


def main(check: bool) -> int:
    """Write the page; or, to check, return 1 if it is out of date."""
    page = written()
    stale = PAGE.read_text(encoding="utf-8") != page
    if stale:
        print(f"{'out of date' if check else 'written'}: docs/{PAGE.name}")
        if not check:
            PAGE.write_text(page, encoding="utf-8")
    return int(check and stale)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
