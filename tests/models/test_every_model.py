"""What is known of every model without running it: its parameter tree and its counts."""

import jax
import pytest

import jaxnets as jn
from tests.models import classics, dense_prediction, generative, inceptions, lenets, recurrents, resnets
from tests.models.row import Row
from tests.oracle import golden

ROWS: list[Row] = [
    *classics.ROWS,
    *generative.ROWS,
    *dense_prediction.ROWS,
    *inceptions.ROWS,
    *lenets.ROWS,
    *resnets.ROWS,
    *recurrents.ROWS,
]

each_row = pytest.mark.parametrize("row", ROWS, ids=str)


def test_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


@each_row
def test_parameter_tree_is_golden_and_counts_are_exact(row: Row):
    net = row.make()
    params, state = jax.eval_shape(net.init, jax.random.key(0), row.x)
    rows = [
        f"{kind} {path} {leaf.shape} {leaf.dtype}"
        for kind, tree in (("params", params), ("state", state))
        for path, leaf in jn.select.paths(tree).items()
    ]
    golden(f"models/{row.name}", "\n".join([repr(net), *rows]) + "\n")
    assert jn.inspect.count_parameters(params) == row.parameters
    if row.multiply_adds is not None:
        assert jn.inspect.multiply_adds(net, row.x, params=params, state=state) == row.multiply_adds


IMAGES_ALONE = [
    row
    for row in (*classics.ROWS, *inceptions.ROWS, *lenets.ROWS, *resnets.ROWS)
    if not row.name.startswith(("linear", "mlp", "perceptron", "cnn"))  # which take any axes
]


@pytest.mark.parametrize("row", IMAGES_ALONE, ids=str)
def test_a_forgotten_axis_is_told(row: Row):
    x = jax.ShapeDtypeStruct(row.x.shape[:-1], row.x.dtype)
    words = (
        r"^[\w/]+: conv\(.* expects \(batch, height, width, channels\), got \(1, \d+, \d+\); add the axis .* x\[None\]"
    )
    with pytest.raises(jn.NetError, match=words):
        jax.eval_shape(row.make().init, jax.random.key(0), x)
