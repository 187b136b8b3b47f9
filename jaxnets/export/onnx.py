"""A network as ONNX, a file that many runtimes read, checked by onnxruntime as it is written."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

import jaxnets
from jaxnets import data
from jaxnets.core.errors import NetError, check_count, check_positive, labeled_as, require, shown
from jaxnets.core.net import Net, Params, State, spec
from jaxnets.core.paths import paths
from jaxnets.data.preprocess import Preprocess, as_preprocess
from jaxnets.export.onnx_model import (
    culprit,
    drop_unused,
    lax_alone,
    name_outputs,
    nodes,
    operations,
    quiet,
    reason,
    refused,
    save,
)
from jaxnets.export.onnx_rules import RULES
from jaxnets.export.plain_trees import with_batch
from jaxnets.export.rewriting import rewritten
from jaxnets.interop.files import new_path
from jaxnets.ops.plain import plain

OPSET = 23
SIZES = 1, 3
"""The batch sizes at which a file of free batch is checked."""


class Converted(NamedTuple):
    """What `onnx` has written.

    Attributes:
        files: the file, and that of the weights where they are too large for one.
        inputs: the inputs by name, "float32[batch,28,28,1]".
        outputs: the outputs, likewise.
        opset: the version of ONNX's operations.
        operations: how often the file holds each operation.
        difference: the largest difference between onnxruntime's outputs and the network's, relative to the largest
            number of an output where that is more than 1.
    """

    files: tuple[Path, ...]
    inputs: dict[str, str]
    outputs: dict[str, str]
    opset: int
    operations: dict[str, int]
    difference: float


@labeled_as("export.onnx", keep=True)
def onnx(
    net: Net,
    params: Params,
    state: State,
    x: Any,
    path: str | Path,
    *,
    batch: int | Literal["free"] = "free",
    overwrite: bool = False,
    preprocess: Callable[[Any], Any] | Preprocess | None = None,
    outputs: Callable[[Any], Any] | None = None,
    classes: Sequence[str] | None = None,
    tolerance: float = 1e-5,
) -> Converted:
    """Write a network in evaluation mode, with its parameters and state, as ONNX.

    The file has standard operations only (opset 23), in float32. It is compared with the network in onnxruntime, on
    random input, and appears only if both agree: whole or not at all.

    A single input is called `x`, a single output `y`. Those of a tree are called by their paths: `image` and `age` for
    a dict, `x/0` and `x/1` for a tuple, `x/values` and `x/lengths` for a `Padded`.

    Args:
        net: the network.
        params: its parameters.
        state: its state, `{}` for none.
        x: a batch of inputs, or of what `preprocess` takes. The file is checked with floating-point numbers drawn from
            normal distributions of the same mean and deviation, and with rows of its integers.
        path: the file; its folder must exist. `~` is the user's home. Parameters of more than 2 GB are put into a
            second file, the same name with `.data` behind.
        batch: "free" for any batch size, or one that is fixed. Other sizes, such as that of time, are those of `x`.
        overwrite: whether to replace an existing file.
        preprocess: a function of raw inputs made of JAX's operations, such as a `jn.data.Scaling`, that becomes part of
            the file; of a `jn.data.Preprocess` or another of its steps what `stablehlo` takes along, with its classes.
        outputs: a function of the network's output, such as `jax.nn.softmax`, likewise.
        classes: the names of the classes, written as a JSON list into the file's metadata, under `classes`.
        tolerance: the largest difference that is accepted.

    Raises:
        FileNotFoundError: if the folder does not exist.
        FileExistsError: if there is a file and `overwrite` is false.
        ModuleNotFoundError: without the packages of `jaxnets[onnx]`.
        NetError: for an operation that can't be converted, with its layer; numbers of another precision than float32; a
            batch size below 1; names of classes that are not text, of which two are equal, or not one for each output;
            or if onnxruntime's outputs differ by more than the tolerance.

    The conversion of single operations is that of jax2onnx.

    >>> import tempfile, jax, jax.numpy as jnp, jaxnets as jn, onnxruntime
    >>> net, x = jn.serial(fc=jn.dense(2), tanh=jnp.tanh), jnp.ones((1, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> path = tempfile.mkdtemp() + "/net.onnx"
    >>> made = onnx(net, params, state, x, path, classes=["cat", "dog"])
    >>> made.inputs, made.outputs, made.operations
    ({'x': 'float32[batch,3]'}, {'y': 'float32[batch,2]'}, {'Add': 1, 'Gemm': 1, 'Tanh': 1})
    >>> onnxruntime.InferenceSession(path).run(None, {"x": np.ones((5, 3), np.float32)})[0].shape
    (5, 2)
    """
    path = new_path(path, overwrite=overwrite)
    if batch != "free":
        check_count("batch", batch)
    check_positive("tolerance", tolerance)
    targets = None
    if isinstance(preprocess, Preprocess | data.Image | data.TableEncoder | data.Text | data.Tokenizer):
        around = as_preprocess(preprocess)
        classes = around.classes if classes is None else classes
        preprocess, targets = around.in_program, around.targets
    metadata = {} if classes is None else {"classes": json.dumps(_checked(classes))}
    with quiet():
        for package in ("jax2onnx", "onnxruntime"):
            require(package, "onnx")
    x = jax.tree.map(_example, x)

    def function(x: Any) -> Any:
        y, _ = net.apply(params, state, x if preprocess is None else preprocess(x))
        y = y if targets is None else targets.inverse(y)
        return y if outputs is None else outputs(y)

    with jax.default_matmul_precision("highest"):
        program = _Program(function, x, batch)
        Preprocess(classes=classes).check_outputs([*program.outputs.values()])
        model = program.converted()
        model.metadata_props.update(metadata)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            written = save(model, Path(folder) / path.name)
            difference = program.compared(written[0], tolerance)
            files = tuple(new_path(path.with_name(each.name), overwrite=overwrite) for each in written)
            # The weights come first, so that the file is never without them.
            for temporary, file in reversed([*zip(written, files)]):
                temporary.replace(file)
    return Converted(files, *program.described(), OPSET, operations(model), difference)


class _Program:
    """A function of arrays, traced for a batch size, and a tree of example inputs."""

    def __init__(self, function: Callable[[Any], Any], x: Any, batch: int | str) -> None:
        self.function, self.x, self.batch = function, x, batch
        free = with_batch(spec(x), jax.export.symbolic_shape("batch")[0])
        self.axes = [_free_axis(leaf) for leaf in jax.tree.leaves(free)]
        specs = free if batch == "free" else with_batch(spec(x), batch)
        self.specs, self.structure = jax.tree.flatten(specs)
        try:
            with plain():
                self.jaxpr, y = jax.make_jaxpr(self._tree, return_shape=True)(*self.specs)
        except NetError:
            raise
        except Exception as error:
            if batch != "free" or type(error).__name__ not in _SIZE_UNKNOWN:
                raise
            raise NetError(f"can't be traced for any batch size: {reason(error)}; batch=1 fixes it") from error
        self.inputs = dict(zip(_names(specs, "x"), self.specs))
        self.outputs = dict(zip(_names(y, "y", self.inputs), jax.tree.leaves(y)))
        if not self.outputs or not self.inputs:
            raise NetError("expects a network with at least one input and one output")

    def converted(self) -> Any:
        """Return the function as a model of `onnx_ir`."""
        import jax2onnx

        with quiet(), lax_alone() as known:
            jaxpr = rewritten(self.jaxpr, self.specs, RULES, known)
            try:
                model = jax2onnx.to_onnx(
                    jaxpr_as_fun(jaxpr),
                    self.specs,
                    model_name="network",
                    opset=OPSET,
                    return_mode="ir",
                    input_names=[*self.inputs],
                )
            except Exception as error:  # of many kinds, none documented
                hint = "; a number for batch may help" if self.batch == "free" else ""
                raise NetError(f"can't convert {culprit(error)}: {reason(error)}{hint}") from error
            name_outputs(model.graph, self.outputs)
            drop_unused(model)
        if domains := {node.domain for node in nodes(model)} - {"", "ai.onnx"}:
            raise NetError(f"expects standard operations, got some of {', '.join(sorted(domains))}")
        model.producer_name, model.producer_version = "jaxnets", jaxnets.__version__
        return model

    def compared(self, file: Path, tolerance: float) -> float:
        """Return the largest difference between onnxruntime's outputs and the function's.

        Raises:
            NetError: if it is more than the tolerance.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        with refused("onnxruntime"):
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        run, largest = jax.jit(self._tree), 0.0
        for seed, size in enumerate(SIZES if self.batch == "free" else [self.batch]):
            given = self._drawn(np.random.default_rng(seed), size)
            with refused("onnxruntime"):
                made = session.run([*self.outputs], dict(zip(self.inputs, given)))
            for name, got, want in zip(self.outputs, made, jax.tree.leaves(run(*given)), strict=True):
                difference = _difference(np.asarray(got), np.asarray(want))
                if not difference <= tolerance:
                    raise NetError(
                        f"differs in onnxruntime by {difference:.2g} in the output {name}, more than {tolerance:g}"
                    )
                largest = max(largest, difference)
        return largest

    def described(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the shapes and dtypes of inputs and outputs, as text."""
        inputs, outputs = (
            {name: f"{leaf.dtype.name}[{','.join(map(str, leaf.shape))}]" for name, leaf in each.items()}
            for each in (self.inputs, self.outputs)
        )
        return inputs, outputs

    def _tree(self, *leaves: Any) -> Any:
        return self.function(jax.tree.unflatten(self.structure, leaves))

    def _drawn(self, rng: np.random.Generator, size: Any) -> list[np.ndarray]:
        """Return random inputs of a batch size: normal numbers, and rows of the example's integers."""
        made = []
        sizes = {leaf.shape[axis] for leaf, axis in zip(jax.tree.leaves(self.x), self.axes) if axis is not None}
        rows = rng.integers(0, max(sizes), size)
        for leaf, axis in zip(jax.tree.leaves(self.x), self.axes):
            array = np.asarray(leaf) if axis is None else np.take(np.asarray(leaf), rows, axis)
            if jnp.issubdtype(array.dtype, jnp.floating):
                wide = np.asarray(leaf, np.float64)
                array = (wide.mean() + (wide.std() or 1) * rng.standard_normal(array.shape)).astype(array.dtype)
            made.append(array)
        return made


# JAX's errors for a size that must be known.
_SIZE_UNKNOWN = ("InconclusiveDimensionOperation", "ConcretizationTypeError", "TypeError")


def _example(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.ShapeDtypeStruct) or not hasattr(leaf, "dtype"):
        raise NetError(f"expects arrays for x, got {shown(leaf)}; the file is checked with numbers like theirs")
    leaf = jnp.asarray(leaf)
    if not leaf.size:
        raise NetError(f"expects at least one example, got an empty array {leaf.shape}")
    return leaf


def _free_axis(leaf: jax.ShapeDtypeStruct) -> int | None:
    return next((axis for axis, size in enumerate(leaf.shape) if not isinstance(size, int)), None)


def _names(tree: Any, name: str, taken: Mapping[str, Any] | None = None) -> list[str]:
    found = [*paths(tree)]
    if found == [""]:
        return [name]
    free = isinstance(tree, Mapping) and not (taken and {*found} & {*taken})
    return found if free else [f"{name}/{each}" for each in found]


def _checked(classes: Any) -> list[str]:
    names = [] if isinstance(classes, str) else [*classes]
    if not names or not all(isinstance(each, str) for each in names) or len({*names}) < len(names):
        raise NetError(f"expects classes as a sequence of different names, got {shown(classes)}")
    return names


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest difference, relative to the largest number where that is more than 1; NaN equals NaN."""
    if got.shape != want.shape or got.dtype != want.dtype:
        raise NetError(f"expects {shown(want)}, got {shown(got)} of onnxruntime")
    got, want = got.astype(np.float64), want.astype(np.float64)
    apart = ~((got == want) | (np.isnan(got) & np.isnan(want)))
    scale = np.abs(want[np.isfinite(want)]).max(initial=1.0)
    return float(np.abs(got[apart] - want[apart]).max(initial=0.0) / scale)
