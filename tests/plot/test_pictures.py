"""Pictures: drawn from the data given, to scale, and where they should be."""

import jax
import jax.numpy as jnp
import matplotlib.patches
import numpy as np
import pytest

import jaxnets as jn
from jaxnets.inspect import effective_field, receptive_field
from jaxnets.plot import draw_receptive_field, feature_maps
from tests.oracle import floats, variables


def corners(axes) -> tuple[float, float, float, float]:
    box = next(patch for patch in axes.patches if isinstance(patch, matplotlib.patches.Rectangle))
    return (*box.get_xy(), box.get_x() + box.get_width(), box.get_y() + box.get_height())


def test_feature_maps_share_one_scale():
    maps = floats(1, 6, 5, 10)
    figure = feature_maps(maps, image=np.ones((6, 5, 1)), most=9)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["input", "0", "1"]
    assert figure.get_suptitle() == "10 channels of 6×5, the first 9"
    pictures = [axes.images[0] for axes in figure.axes[1:10]]
    np.testing.assert_array_equal(np.asarray(pictures[8].get_array()), maps[0, ..., 8])
    assert {picture.get_clim() for picture in pictures} == {(-np.abs(maps).max(), np.abs(maps).max())}
    positive = feature_maps(np.abs(maps))
    assert positive.axes[0].images[0].get_clim() == (0, np.abs(maps).max())
    with pytest.raises(jn.NetError, match=r"one image, got \(2, 6, 5, 3\)"):
        feature_maps(np.ones((2, 6, 5, 3)))


def test_a_field_is_drawn_where_it_lies():
    net = jn.serial(jn.conv(2, 5, stride=2, padding=2), jn.max_pool(2))
    field = receptive_field(net, jax.ShapeDtypeStruct((1, 32, 24, 3), jnp.float32))
    figure = draw_receptive_field(np.zeros((32, 24, 3)), field, 1, 0)
    axes = figure.axes[0]
    assert corners(axes) == (-2.5, 1.5, 4.5, 8.5)  # left, top, right, bottom: columns -2 to 4, rows 2 to 8
    assert axes.get_title() == "unit (1, 0) of 8 × 6 sees 7 × 7"
    assert axes.get_xlim()[0] < -2.5
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # rows go down
    middle = draw_receptive_field(np.zeros((32, 24)), field)
    assert middle.axes[0].get_title().startswith("unit (4, 3)")
    with pytest.raises(jn.NetError, match=r"8 × 6 units, got \(8, 0\)"):
        draw_receptive_field(np.zeros((32, 24)), field, 8, 0)
    with pytest.raises(jn.NetError, match="one image"):
        draw_receptive_field(np.zeros((2, 32, 24, 3)), field)
    with pytest.raises(jn.NetError, match="map"):
        draw_receptive_field(np.zeros((32, 24)), field, effective=np.zeros((3, 3)))


def test_the_effective_field_lies_in_the_field():
    net = jn.serial(jn.conv(3, 3, padding=1), jnp.tanh, jn.conv(2, 3, padding=1), jn.avg_pool(2))
    x = jnp.asarray(floats(2, 12, 10, 3))
    params, state = variables(net, x)
    heat = np.asarray(effective_field(net, params, state, x, 2, -1))
    (top, bottom), (left, right) = receptive_field(net, x).box(2, -1)
    inside = np.zeros(heat.shape, bool)
    inside[max(top, 0) : bottom + 1, left : right + 1] = True
    assert heat[~inside].max() == 0
    assert (heat[inside] > 0).all()
    by_hand = jax.jit(jax.grad(lambda x: net.apply(params, state, x)[0][:, 2, 4].sum()))(x)
    np.testing.assert_allclose(heat, np.abs(by_hand).sum(-1).mean(0), rtol=1e-5, atol=1e-7)
    figure = draw_receptive_field(x[0], receptive_field(net, x), 2, -1, effective=heat)
    np.testing.assert_allclose(np.asarray(figure.axes[1].images[0].get_array()), heat / heat.max())
    with pytest.raises(jn.NetError, match="a unit of the output"):
        effective_field(net, params, state, x, 6, 0)


def test_pictures_save(tmp_path):
    field = receptive_field(jn.conv(2, 3), np.ones((1, 8, 8, 1), np.float32))
    for figure in (feature_maps(np.ones((4, 4, 3))), draw_receptive_field(np.eye(8), field, effective=np.eye(8))):
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
