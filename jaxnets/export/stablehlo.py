"""A network as StableHLO, the portable programs of XLA, with its weights: a file that runs with JAX alone.

The file is an uncompressed NumPy archive (`.npz`) of the program, which `jax.export` serialized, the weights by path,
and a header in JSON. It holds no pickle.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.extend.core import InconclusiveDimensionOperation

import jaxnets
from jaxnets.core.errors import NetError, check_count, labeled_as, require, shown
from jaxnets.core.net import Net, Params, State, spec
from jaxnets.data.preprocess import Preprocess, as_preprocess
from jaxnets.export.plain_trees import described, like, plain, with_batch
from jaxnets.interop.files import new_file, new_path
from jaxnets.interop.safetensors import digest

FORMAT = "jaxnets-stablehlo/1"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@labeled_as("export.stablehlo", keep=True)
def stablehlo(
    net: Net,
    params: Params,
    state: State,
    x: Any,
    path: str | Path,
    *,
    platforms: Sequence[str] = ("cpu", "cuda", "tpu"),
    batch: int | Literal["free"] = "free",
    preprocess: Any = None,
    overwrite: bool = False,
) -> None:
    """Write a network in evaluation mode, with its parameters and state, into a file that runs with JAX alone.

    The program is lowered for all platforms on this machine, which needs none of them. `load` reads the file; without
    jaxnets, `jax.export.deserialize` does. The file appears whole or not at all.

    Inputs and outputs are plain trees: a `Padded` is a dict of `values` and `lengths`, and a named tuple, such as the
    carry of a recurrent network, a dict of its fields.

    Args:
        net: the network.
        params: its parameters.
        state: its state, `{}` for none.
        x: a batch of inputs, of which the shapes and dtypes count: arrays or `jax.ShapeDtypeStruct`.
        path: the file; its folder must exist. `~` is the user's home.
        platforms: where the program shall run: any of "cpu", "cuda", "rocm" and "tpu".
        batch: "free" for any batch size, or one that is fixed. Other sizes, such as that of time, are those of `x`.
        preprocess: a `jn.data.Preprocess` or a `Scaling`. What is a JAX function becomes part of the program: each
            `Scaling` after the last other step, the normalization of an `Image`, and the inverse of `targets`; `x` is a
            batch of what these take. Class names are written beside it. Other steps, such as decoding, stay outside.
        overwrite: whether to replace an existing file.

    Raises:
        ModuleNotFoundError: if flatbuffers is not installed, which JAX's export needs.
        FileNotFoundError: if the folder does not exist.
        FileExistsError: if there is a file and `overwrite` is false.
        NetError: for an unknown platform, a batch size below 1, or a network that can't be exported, such as one whose
            shapes depend on the batch size.

    JAX keeps exported programs loadable for six months in later versions ("Export and serialization of staged-out
    computations", JAX documentation).

    >>> import tempfile, jax, jax.numpy as jnp, jaxnets as jn
    >>> net, x = jn.serial(fc=jn.dense(2), softmax=jax.nn.softmax), jnp.ones((1, 3))
    >>> params, state = net.init(jax.random.key(0), x)
    >>> path = tempfile.mkdtemp() + "/net.stablehlo"
    >>> stablehlo(net, params, state, x, path)
    >>> served = load(path)
    >>> served.platforms, served.inputs.shape, served(jnp.ones((5, 3))).shape
    (('cpu', 'cuda', 'tpu'), (batch, 3), (5, 2))
    """
    require("flatbuffers", "export")  # which jax.export serializes with
    new_path(path, overwrite=overwrite)
    platforms = _checked(platforms)
    if batch != "free":
        check_count("batch", batch)
    around = as_preprocess(preprocess)
    weights, inputs, program = lowered(net, params, state, x, platforms, batch, around)
    around.check_outputs(program.out_avals)
    weights = {name: np.asarray(jnp.asarray(array)) for name, array in weights.items()}
    header = {
        "format": FORMAT,
        "jaxnets": jaxnets.__version__,
        "jax": jax.__version__,
        "calling_convention_version": program.calling_convention_version,
        "platforms": platforms,
        "batch": batch,
        "inputs": described(inputs),
        "outputs": described(jax.tree.unflatten(program.out_tree, program.out_avals)),
        "steps_before": [type(step).__name__ for step in around.on_host],
        "classes": around.classes,
        "weights": {name: array.dtype.name for name, array in weights.items()},
    }
    arrays = weights | {"program": np.frombuffer(program.serialize(), np.uint8)}
    header["sha256"] = digest(header, arrays)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    with new_file(path, overwrite=overwrite) as file:
        np.savez(file, allow_pickle=False, **arrays)


@dataclass(frozen=True, eq=False, repr=False)
class Served:
    """A program that `stablehlo` wrote, with its weights: a function of inputs.

    Attributes:
        header: what the file says of itself, as JSON values.
        weights: the arrays by path, `params/fc/kernel`.
        program: the program, `jax.export.Exported`: `program.call(weights, x)`.
    """

    header: Mapping[str, Any]
    weights: Mapping[str, Any]
    program: Any

    def __call__(self, x: Any) -> Any:
        """Return the outputs, a plain tree, for a batch of inputs; each batch size is compiled at its first use.

        Raises:
            NetError: for inputs of another shape or dtype, or a platform that the program was not written for.
        """
        with labeled_as("Served"):
            x = plain(x)
            self._check(x)
            try:
                return self._call(self.weights, x)
            except ValueError as error:
                if "exported for platforms" not in str(error):
                    raise
                given = ", ".join(self.platforms)
                raise NetError(f"runs on {given}, got {jax.default_backend()}; export it with platforms=") from error

    def __repr__(self) -> str:
        return f"Served({self.header['inputs']} -> {self.header['outputs']} on {', '.join(self.platforms)})"

    @cached_property
    def _call(self) -> Any:
        return jax.jit(self.program.call)

    @cached_property
    def inputs(self) -> Any:
        """The shapes and dtypes of the inputs, a plain tree of `jax.core.ShapedArray`."""
        return jax.tree.unflatten(self.program.in_tree, self.program.in_avals)[0][1]

    @cached_property
    def outputs(self) -> Any:
        """The shapes and dtypes of the outputs, likewise."""
        return jax.tree.unflatten(self.program.out_tree, self.program.out_avals)

    @property
    def platforms(self) -> tuple[str, ...]:
        """The platforms that the program was lowered for."""
        return tuple(self.program.platforms)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes, in the order of the outputs, if the preprocessing had them."""
        return None if self.header["classes"] is None else tuple(self.header["classes"])

    @property
    def batch(self) -> int | str:
        """The batch size, "free" for any."""
        return self.header["batch"]

    def _check(self, x: Any) -> None:
        wanted, structure = jax.tree.flatten(self.inputs)
        if structure != jax.tree.structure(x):
            raise NetError(f"expects {self.header['inputs']}, got {described(x)}")
        sizes = set()
        for want, leaf in zip(wanted, jax.tree.leaves(x)):
            # Symbolic sizes, that of the batch, are no integers.
            free = [n for n, size in enumerate(want.shape) if not isinstance(size, int)]
            fits = leaf.ndim == len(want.shape) and all(
                n in free or size == leaf.shape[n] for n, size in enumerate(want.shape)
            )
            if not fits or leaf.dtype != want.dtype:
                raise NetError(f"expects {described(want)}, got {described(leaf)}")
            sizes |= {leaf.shape[n] for n in free}
        if len(sizes) > 1 or sizes == {0}:
            raise NetError(f"expects one batch size of at least 1, got {', '.join(map(str, sorted(sizes)))}")


def load(path: str | Path) -> Served:
    """Read a file that `stablehlo` wrote, checked by its SHA-256. Nothing is compiled before the first call.

    Args:
        path: the file. `~` is the user's home.

    Raises:
        FileNotFoundError: if there is no such file.
        NetError: if the file is truncated, corrupt, of another kind, or of a JAX that this one can't read.

    >>> load("nowhere.stablehlo")
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.stablehlo
    """
    require("flatbuffers", "export")
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    with labeled_as(f"export.load {path}"):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            header = json.loads(arrays.pop("header").tobytes())
            if header["format"] != FORMAT:
                raise NetError(f"expects a file of format {FORMAT}, got {header['format']!r}")
            weights = {name: arrays[name].view(jnp.dtype(dtype)) for name, dtype in header["weights"].items()}
            if header.pop("sha256") != digest(header, weights | {"program": arrays["program"]}):
                raise NetError("finds a damaged file: its content has another SHA-256 than was written; copy it again")
        except NetError:
            raise
        except Exception as error:  # a damaged archive may raise any
            raise NetError(f"expects a whole file that export.stablehlo wrote, got another: {error!r}") from error
        try:
            program = jax.export.deserialize(bytearray(arrays["program"].tobytes()))
            program.mlir_module()  # a StableHLO that is newer fails here
        except Exception as error:  # of a version that this JAX can't read
            made = f"JAX {header['jax']}, calling convention {header['calling_convention_version']}"
            reason = str(error).partition("\n")[0]
            raise NetError(f"can't read a program of {made} by JAX {jax.__version__}: {reason}") from error
        return Served(header, jax.device_put(weights), program)


def _checked(platforms: Any) -> tuple[str, ...]:
    names = (platforms,) if isinstance(platforms, str) else tuple(platforms)
    if not names or not {*names} <= {*PLATFORMS} or len({*names}) < len(names):
        got = ", ".join(map(shown, names)) or "none"
        hint = '; a GPU is "cuda" or "rocm"' if "gpu" in names else ""
        raise NetError(f"expects platforms among {', '.join(PLATFORMS)}, each once, got {got}{hint}")
    return names


def _named(tree: Any) -> tuple[dict[str, Any], Any]:
    """Return the arrays of parameters and state by path, and the function back."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    arrays = {name: leaf for name, (_, leaf) in zip(names, leaves)}
    if len(arrays) < len(names):
        raise NetError("expects names without '/' in parameters and state")
    if keys := [name for name, array in arrays.items() if jnp.issubdtype(array.dtype, jax.dtypes.prng_key)]:
        raise NetError(f"can't export random keys, got one at {keys[0]}")
    return arrays, lambda arrays: jax.tree.unflatten(structure, [arrays[name] for name in names])


def lowered(
    net: Net, params: Params, state: State, x: Any, platforms: tuple[str, ...], batch: int | str, around: Preprocess
) -> tuple[dict[str, Any], Any, Any]:
    """Return the weights by path, the specs of the inputs, a plain tree, and the program; arrays may be specs."""
    x = spec(x)
    size = jax.export.symbolic_shape("batch")[0] if batch == "free" else batch
    inputs = plain(with_batch(x, size))
    weights, restored = _named({"params": params, "state": state})

    def served(weights: dict[str, Any], inputs: Any) -> Any:
        tree = restored(weights)
        y, _ = net.apply(tree["params"], tree["state"], around.in_program(like(x, inputs)))
        return plain(y if around.targets is None else around.targets.inverse(y))

    # Without tracebacks, which would name the source files of this machine.
    frames = jax.config.jax_traceback_in_locations_limit  # type: ignore[attr-defined]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        program = jax.export.export(jax.jit(served), platforms=platforms)(spec(weights), inputs)
        program.serialize()  # refuses custom calls without guarantees
    except NetError:
        raise
    except (ValueError, TypeError, NotImplementedError, InconclusiveDimensionOperation) as error:
        hint = "; give batch= a number" if batch == "free" and "batch" in str(error) else ""
        reason = str(error).partition("\n")[0]
        raise NetError(f"can't be lowered for {', '.join(platforms)}: {reason}{hint}") from error
    finally:
        jax.config.update("jax_traceback_in_locations_limit", frames)
    return weights, inputs, program
