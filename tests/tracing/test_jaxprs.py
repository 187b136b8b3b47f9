"""Everything that the package uses of JAX without a promise of JAX is listed here, and exists in the installed JAX."""

import ast
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Literal, Primitive
from jax.sharding import Mesh, PartitionSpec

import jaxnets as jn
from jaxnets.inspect import connections, flops, receptive_field
from jaxnets.tracing import jaxprs

PACKAGE = Path(jn.__file__).parent
OUTSIDE = ("jax._src", "jax.core", "jax.experimental", "jax.extend", "jax.interpreters")  # of JAX's public interface
NAMES = {
    "jax.core.Tracer": "to recognize values that are known only when a program runs",
    "jax.experimental.multihost_utils.process_allgather": "to gather the results of a sweep over several processes",
    "jax.extend.core.ClosedJaxpr": "to read programs",
    "jax.extend.core.InconclusiveDimensionOperation": "export: sizes that a free batch size leaves unknown",
    "jax.extend.core.Jaxpr": "to read programs",
    "jax.extend.core.Literal": "to read programs",
    "jax.extend.core.jaxpr_as_fun": "export: what jax2onnx converts",
    "jax.extend.core.Primitive": "the convolutions of ops.conv.primitives",
    "jax.extend.random.define_prng_impl": "draws of core/draws.py that start anywhere in a stream",
    "jax.extend.random.threefry_2x32": "the same draws",
    "jax.interpreters.ad": "the derivatives of ops.conv.primitives",
    "jax.interpreters.ad.defbilinear": "the same derivatives",
    "jax.interpreters.ad.instantiate_zeros": "the derivative of ops.conv.fused",
    "jax.interpreters.ad.primitive_jvps": "the same derivative",
    "jax.interpreters.batching": "vmap of ops.conv.primitives",
    "jax.interpreters.batching.primitive_batchers": "the same vmap",
    "jax.interpreters.mlir": "lowering of ops.conv.primitives by platform",
    "jax.interpreters.mlir.LoweringRuleContext": "the type of what a lowering rule is given",
    "jax.interpreters.mlir.ModuleContext": "says whether a program is exported or sharded: ops.conv.onednn",
    "jax.interpreters.mlir.lower_fun": "the same lowering",
    "jax.interpreters.mlir.register_lowering": "the same lowering",
}
X = jnp.ones((4, 4))
WINDOW: dict[str, Any] = {"window_dimensions": (2, 2), "window_strides": (1, 1), "padding": "VALID"}
DIMENSIONS = {"window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation"}
KEY = jax.random.key(0)


def conv(x: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x[None, None], x[None, None], (1, 1), "VALID")


def sharded(x: jax.Array) -> jax.Array:
    mesh = Mesh(np.array(jax.devices()[:2]), "batch")
    return jax.shard_map(jnp.sin, mesh=mesh, in_specs=PartitionSpec("batch"), out_specs=PartitionSpec("batch"))(x)


def loop(x: jax.Array) -> Any:
    return lax.scan(lambda carry, row: (carry + x[0] * row, row), x[0], x)


def custom(x: jax.Array) -> jax.Array:
    function = jax.custom_vjp(jnp.sin)
    function.defvjp(lambda x: (x, x), lambda x, ct: (x * ct,))
    return function(x)


# For each primitive the parameters that are read, and a function whose program contains it.
PARAMS: dict[str, tuple[set[str], Callable[[jax.Array], Any]]] = {
    "scan": ({"jaxpr", "length", "reverse"}, loop),
    "while": (
        {"cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts"},
        lambda x: lax.while_loop(lambda x: x.max() < 3, lambda x: x + 1, x),
    ),
    "cond": (
        {"branches", "branches_platforms"},
        lambda x: lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
    ),
    "jit": ({"name", "jaxpr"}, jax.jit(jnp.sin)),
    "remat2": ({"jaxpr"}, jax.checkpoint(jnp.sin)),
    "custom_jvp_call": ({"call_jaxpr"}, jax.nn.relu),
    "custom_vjp_call": ({"call_jaxpr"}, custom),
    "shard_map": ({"mesh", "jaxpr"}, sharded),
    "broadcast_in_dim": ({"broadcast_dimensions"}, lambda x: lax.broadcast_in_dim(x, (2, 4, 4), (1, 2))),
    "concatenate": ({"dimension"}, lambda x: jnp.concatenate([x, x])),
    "conv_general_dilated": (
        {"dimension_numbers", "window_strides", "padding", "lhs_dilation", "rhs_dilation", "batch_group_count"},
        conv,
    ),
    "cumsum": ({"axis", "reverse"}, lax.cumsum),
    "dot_general": ({"dimension_numbers"}, lambda x: x @ x),
    "fft": ({"fft_lengths"}, jnp.fft.fft),
    "gather": ({"dimension_numbers", "slice_sizes"}, lambda x: x[jnp.array([0, 1])]),
    "pad": ({"padding_config"}, lambda x: jnp.pad(x, 1)),
    "reduce": ({"dimensions"}, lambda x: lax.reduce(x, jnp.float32(0), lambda a, b: a + 2 * b, (0,))),
    "reduce_sum": ({"axes"}, lambda x: x.sum()),
    "reduce_window": (
        DIMENSIONS,
        lambda x: lax.reduce_window(x, jnp.float32(0), lambda a, b: a + 2 * b, **WINDOW),
    ),
    "reduce_window_max": (DIMENSIONS, lambda x: lax.reduce_window(x, -jnp.inf, lax.max, **WINDOW)),
    "select_and_scatter_add": (
        {"window_dimensions"},
        jax.grad(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, **WINDOW).sum()),
    ),
    "rev": ({"dimensions"}, lambda x: x[::-1]),
    "slice": ({"start_indices", "strides"}, lambda x: x[1:]),
    "sort": ({"dimension"}, jnp.sort),
    "split": ({"axis"}, lambda x: jnp.split(x, 2)),
    "squeeze": ({"dimensions"}, lambda x: lax.squeeze(x[:1], (0,))),
    "stack": ({"axis"}, lambda x: jnp.stack([x, x])),
    "tile": ({"reps"}, lambda x: jnp.tile(x, (2, 1))),
    "transpose": ({"permutation"}, lambda x: x.T),
    "unstack": ({"axis"}, jnp.unstack),
    # core/draws.py follows keys, and recognizes draws by the name and the program of `jit`.
    "random_fold_in": (set(), lambda _: jax.random.fold_in(KEY, 1)),
    "random_split": (set(), lambda _: jax.random.split(KEY)),
    "random_wrap": (set(), lambda _: jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32))),
    "random_unwrap": (set(), lambda _: jax.random.key_data(KEY)),
}
# Either says which inputs of a scan are constants, carries and stacked inputs.
SPLITS = ({"ft_in"}, {"num_consts", "num_carry"})
# Undocumented attributes of equations.
INSIDE = {"ctx", "get_bind_params", "source_info"}


@functools.cache
def sources() -> list[tuple[Path, ast.Module]]:
    return [(file, ast.parse(file.read_text())) for file in sorted(PACKAGE.rglob("*.py"))]


def test_undocumented_names_are_listed():
    found = set()
    for _, tree in sources():
        own: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OUTSIDE):
                own |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                own |= {alias.name for alias in node.names if alias.name.startswith(OUTSIDE)}
        modules = {name.rpartition(".")[2]: name for name in own if name.startswith("jax.interpreters")}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                own.add(f"{modules[node.value.id]}.{node.attr}")
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and _root(node) == "jax":
                written = ast.unparse(node)
                own |= {written} if written.startswith(OUTSIDE) else set()
        found |= own
    assert found == set(NAMES)


def test_one_file_knows_equations_loops_branches_and_calls():
    inner = set.union(*(PARAMS[name][0] for name in ("scan", "while", "cond", "jit", "shard_map")), *SPLITS)
    for file, tree in sources():
        if file != Path(jaxprs.__file__):
            nodes = [*ast.walk(tree)]
            assert not INSIDE & {node.attr for node in nodes if isinstance(node, ast.Attribute)}, file
            keys = (node.slice for node in nodes if isinstance(node, ast.Subscript) and _is_params(node.value))
            assert not {key.value for key in keys if isinstance(key, ast.Constant)} & (inner - {"reverse"}), file


def test_parameters_of_primitives_are_listed():
    """In files that read programs, each key of `params` is a literal, and in the table."""
    found = set()
    for file, tree in sources():
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        if not (names & {"eqns", "primitive"} or file.parent.name in ("inspect", "tracing")):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Subscript) and _is_params(node.value):
                key = node.slice
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                if not _is_params(node.func.value):
                    continue
                key = node.args[0]
            elif isinstance(node, ast.Compare) and _is_params(node.comparators[0]):
                key = node.left
            else:
                continue
            assert isinstance(key, ast.Constant), f"{file.name}:{node.lineno}: {ast.unparse(node)}"
            found.add(key.value)
    listed = set.union(*(keys for keys, _ in PARAMS.values()), *SPLITS)
    assert found == listed - {"call_jaxpr"}  # which `body_of` finds without its name


def _root(node: ast.expr) -> str:
    """Return the name that attributes are looked up on, "" where it is another expression."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_params(node: ast.expr) -> bool:
    """Tell by its name whether an expression is the parameters of an equation."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in ("p", "params", "settings")


def equation_of(function: Callable[..., Any], name: str) -> Any:
    """Return the first equation of a primitive in a function's program, inside calls too."""
    waiting: list[Any] = [jax.make_jaxpr(function)(X)]
    for jaxpr in waiting:
        for equation in jaxprs.opened(jaxpr)[0].eqns:
            if equation.primitive.name == name:
                return equation
            if (body := jaxprs.body_of(equation)) is not None:
                waiting.append(body)
    raise AssertionError(f"no {name} in {waiting[0]}")


LATER = {"stack", "unstack"}  # primitives since JAX 0.10.1 or 0.10.2


@pytest.mark.parametrize("name", [name for name in PARAMS if name not in LATER or hasattr(lax, f"{name}_p")])
def test_primitives_have_the_parameters_that_are_read(name: str):
    keys, function = PARAMS[name]
    equation = equation_of(function, name)
    assert keys <= set(equation.params)
    if name == "scan":
        assert any(split <= set(equation.params) for split in SPLITS)
    values = [atom.val if isinstance(atom, Literal) else np.zeros(atom.aval.shape, atom.aval.dtype)
              for atom in equation.invars if not jnp.issubdtype(atom.aval.dtype, jax.dtypes.prng_key)]  # fmt: skip
    if len(values) == len(equation.invars):  # evaluated as an interpreter does
        made = jaxprs.bind(equation, *values)
        assert [each.shape for each in made] == [var.aval.shape for var in equation.outvars]


def test_parts_of_a_scan():
    x = jnp.arange(12.0).reshape(4, 3)

    def turns(x: jax.Array) -> Any:
        return lax.scan(lambda c, row: ((c[0] + x[1, 2] * row, c[1] + 1), row * c[0]), (x[0], 0), x, reverse=True)

    equation = next(each for each in jax.make_jaxpr(turns)(x).eqns if each.primitive.name == "scan")
    scan = jaxprs.scan_parts(equation)
    consts, carry, sliced = scan.inputs([var.aval.shape for var in equation.invars])
    assert (carry, sliced) == ([(3,), ()], [(4, 3)])
    assert len(consts) == scan.consts == 1
    assert (scan.length, scan.reverse) == (4, True)
    inner = [var.aval.shape for var in scan.body.jaxpr.invars]
    assert scan.inputs(inner)[1:] == ([(3,), ()], [(3,)])
    assert scan.outputs([var.aval.shape for var in equation.outvars]) == ([(3,), ()], [(4, 3)])


def unary(name: str, *, rank: int = 0) -> Callable[[jax.Array], jax.Array]:
    """Return the identity as an unknown primitive of arrays of at least some rank."""
    primitive = Primitive(name)
    primitive.def_impl(lambda x: x)

    @primitive.def_abstract_eval
    def _(x: Any) -> Any:
        if len(x.shape) < rank:
            raise TypeError(f"expects {rank} axes")
        return x

    return primitive.bind


def test_an_unknown_elementwise_primitive_costs_one_operation_per_element():
    new = unary("newly_made")
    x = jnp.ones((2, 5, 3))

    def function(x: jax.Array) -> jax.Array:
        return new(new(x) + 1)

    with pytest.warns(UserWarning, match="newly_made, a primitive of JAX, has no rule") as caught:
        assert flops(function, x) == 3 * 30
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="newly_made"):
        field = receptive_field(lambda x: jnp.cumsum(function(x), 1), x)
    assert field.intervals[0].tolist() == [[0] * 5, [*range(5)]]
    assert field.unknown == ()
    with pytest.warns(UserWarning, match="newly_made"):
        assert connections(function, x) == 0
    with pytest.warns(UserWarning, match="newly_made"):
        assert jn.summary(function, x).notes == ()


def test_any_other_unknown_primitive_is_reported():
    with pytest.raises(jn.NetError, match=r"be counted: whole_rows in the function has no known cost; jn\.summary"):
        flops(unary("whole_rows", rank=1), X)
    assert not jaxprs.is_elementwise(equation_of(jnp.sort, "sort"))  # which takes a scalar, but names an axis
    assert not jaxprs.is_elementwise(equation_of(jnp.linalg.cholesky, "cholesky"))
    assert not jaxprs.is_elementwise(equation_of(lambda x: jax.pure_callback(lambda x: x, x, x), "pure_callback"))
    field = receptive_field(unary("whole_rows", rank=1), jnp.ones((1, 5, 1)))
    assert (field.unknown, field.size) == (("whole_rows",), (5,))


def test_one_less_a_square_is_counted_without_a_warning():
    """The derivative of tanh contains a primitive `one_minus_square` since JAX 0.11 or 0.12."""
    slope = flops(jax.grad(lambda x: jnp.tanh(x).sum()), X)  # 16 numbers, and the sum that is not used
    assert slope == 15 + 16 * (3 if hasattr(lax, "one_minus_square_p") else 5)
