"""A composed network equals its parts applied by hand."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets.core.net import fold, spec
from tests.once import once
from tests.oracle import floats, variables

KEY = jax.random.key(3)
X = jnp.asarray(floats(4, 6))


def mlp(**extra) -> jn.Net:
    return jn.serial(a=jn.dense(5), relu=jax.nn.relu, **extra, b=jn.dense(2))


def block() -> jn.Net:
    return jn.residual(jn.serial(fc1=jn.dense(6), tanh=jnp.tanh, fc2=jn.dense(6)))


def equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(a, b)


def close(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1.0, float(np.abs(b).max(initial=0.0))))


def noise() -> jn.Net:
    """A layer with state and randomness: counts its calls in training and adds noise."""

    def init(key, x):
        return {}, {"calls": jnp.zeros((), jnp.int32)}

    def apply(params, state, x, *, key=None, train=False):
        if not train:
            return x, state
        assert key is not None
        return x + jax.random.normal(key, x.shape), {"calls": state["calls"] + 1}

    return jn.Net(init, apply, "noise")


def test_serial_equals_its_parts_by_hand():
    params, state = mlp().init(KEY, X)
    y, _ = mlp().apply(params, state, X)
    a, b = params["a"], params["b"]
    by_hand = jax.nn.relu(X @ a["kernel"] + a["bias"][None]) @ b["kernel"] + b["bias"][None]
    close(y, by_hand)
    assert state == {}
    assert set(params) == {"a", "b"}


def test_initial_values_depend_on_the_name_alone():
    params, _ = mlp().init(KEY, X)
    wider, _ = mlp(extra=jn.dense(5)).init(KEY, X)
    equal({name: wider[name] for name in params}, params)
    own, _ = jn.dense(5).init(jax.random.fold_in(KEY, zlib.crc32(b"a")), X)
    equal(params["a"], own)


def test_old_keys_work_and_differ_from_none():
    params, _ = mlp().init(jax.random.PRNGKey(0), X)
    assert params["a"]["kernel"].shape == (6, 5)


def test_each_leaf_is_traced_once_however_deep():
    calls = []

    def counted() -> jn.Net:
        def init(key, x):
            calls.append("init")
            return {"scale": jnp.ones(())}

        def apply(params, x):
            calls.append("apply")
            return x * params["scale"]

        return jn.layer(init, apply)

    net = counted()
    for _ in range(6):
        net = jn.serial(net, jnp.tanh)
    jax.eval_shape(net.init, KEY, X)
    assert calls == ["init", "apply"]


def test_state_and_keys_are_threaded():
    net = jn.serial(first=noise(), fc=jn.dense(3), second=noise())
    params, state = net.init(KEY, X)
    y, after = net.apply(params, state, X, key=KEY, train=True)
    assert {name: int(own["calls"]) for name, own in after.items()} == {"first": 1, "second": 1}
    h = X + jax.random.normal(fold(KEY, "first"), X.shape)
    h = h @ params["fc"]["kernel"] + params["fc"]["bias"][None]
    close(y, h + jax.random.normal(fold(KEY, "second"), h.shape))


def test_residual_adds_and_keeps_names_flat():
    net = jn.residual(jn.serial(fc=jn.dense(3)), shortcut=jn.dense(3, use_bias=False), activation=jax.nn.relu)
    params, state = net.init(KEY, X)
    assert set(params) == {"fc", "downsample"}
    body, _ = jn.serial(fc=jn.dense(3)).apply({"fc": params["fc"]}, {}, X)
    close(net.apply(params, state, X)[0], jax.nn.relu(body + X @ params["downsample"]["kernel"]))


def test_residual_carries_the_state_of_both_sides():
    net = jn.residual(jn.serial(n=noise()), shortcut=noise())
    params, state = net.init(KEY, X)
    _, after = net.apply(params, state, X, key=KEY, train=True)
    assert int(after["n"]["calls"]) == int(after["downsample"]["calls"]) == 1


def test_branches_merge_in_the_order_given():
    net = jn.branches(jn.concatenate, z=jn.dense(2), a=jnp.tanh, m=noise())
    params, state = net.init(KEY, X)
    y, _ = net.apply(params, state, X)
    close(y[:, 2:8], jnp.tanh(X))
    close(y[:, 8:], X)


@pytest.mark.parametrize("train", [False, True])
def test_repeat_equals_serial_with_copied_parameters(train: bool):
    n = 3
    layer = jn.serial(block=block(), noise=noise())
    scanned, unrolled = jn.repeat(layer, n), jn.serial(*[layer] * n)
    params, state = scanned.init(KEY, X)
    equal(jn.unstack(params), unrolled.init(KEY, X)[0])

    def run(net, params, state):
        def loss(params):
            y, after = net.apply(params, state, X, key=KEY, train=train)
            return (y**2).sum(), (y, after)

        return jax.grad(loss, has_aux=True)(params)

    def both(params, state):
        grads, (y, after) = run(scanned, params, state)
        return (jn.unstack(grads), (y, jn.unstack(after))), run(unrolled, jn.unstack(params), jn.unstack(state))

    (grads, (y, after)), (own_grads, (own_y, own_after)) = once(both, params, state)
    close(y, own_y)
    close(grads, own_grads)
    equal(after, own_after)


def test_stack_and_unstack_are_inverse():
    params, _ = jn.serial(block(), block(), block()).init(KEY, X)
    equal(jn.unstack(jn.stack(params)), params)
    assert jn.stack({}) == jn.unstack({}) == {}
    # More than ten copies: "10" sorts before "2" as text, and must not here.
    many, _ = jn.serial(*[jn.dense(6)] * 12).init(KEY, X)
    equal(jn.unstack(jn.stack(many)), many)


def test_compile_size_of_repeat_does_not_grow():
    def size(n):
        net = jn.repeat(block(), n)
        params, state = jax.eval_shape(net.init, KEY, X)
        return len(str(jax.make_jaxpr(lambda p: net.apply(p, state, X)[0])(params)).splitlines())

    assert size(3) == size(30)


def test_ensemble_members_equal_networks_alone():
    net = jn.ensemble(jn.serial(fc=jn.dense(3), noise=noise()), 4)
    alone = jn.serial(fc=jn.dense(3), noise=noise())
    keys = [fold(KEY, str(k)) for k in range(4)]
    started, own = net.init(KEY, X), [alone.init(key, X) for key in keys]

    def run(started, own):
        members = [
            alone.apply(params, state, X, key=key, train=True) for key, (params, state) in zip(keys, own, strict=True)
        ]
        return net.apply(started[0], started[1], X, key=KEY, train=True), members

    (y, after), members = once(run, started, own)
    assert y.shape == (4, 4, 3)
    for k, (own_y, own_after) in enumerate(members):
        equal(jax.tree.map(lambda leaf, k=k: leaf[k], started[0]), own[k][0])
        close(y[:, k], own_y)
        equal(jax.tree.map(lambda leaf, k=k: leaf[k], after), own_after)


def test_remat_has_the_same_gradients_and_computes_again():
    plain, again = block(), jn.remat(block())
    params, state = plain.init(KEY, X)

    def grad(net):
        return jax.grad(lambda p: (net.apply(p, state, X)[0] ** 2).sum())(params)

    close(grad(again), grad(plain))

    def dots(net):
        return str(jax.make_jaxpr(jax.grad(lambda p: (net.apply(p, state, X)[0] ** 2).sum()))(params)).count(
            "dot_general"
        )

    assert dots(again) > dots(plain)


def test_cast_computes_low_and_keeps_parameters_high():
    seen = []

    def spy(x):
        seen.append(x.dtype)
        return x

    net = jn.cast(jn.serial(jn.dense(5), spy, jn.dense(2)), jn.Policy(jnp.float32, jnp.bfloat16, jnp.float32))
    params, state = jax.eval_shape(net.init, KEY, X)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
    seen.clear()
    grads = jax.eval_shape(jax.grad(lambda p: net.apply(p, state, X)[0].sum()), params)
    assert seen == [jnp.bfloat16]
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype(jnp.float32)}
    low = jax.eval_shape(jn.cast(jn.dense(2), jn.Policy(jnp.bfloat16, jnp.bfloat16, jnp.bfloat16)).init, KEY, X)[0]
    assert low["kernel"].dtype == jnp.bfloat16


def test_cast_passes_integers():
    def look(x):
        assert x["index"].dtype == jnp.int32
        return x["value"]

    net = jn.cast(jn.as_net(look))
    y, _ = net.apply({}, {}, {"index": jnp.arange(3), "value": jnp.ones((3, 2))})
    assert y.dtype == jnp.float32


def test_upto_takes_deep_features_with_full_parameters():
    net = jn.serial(stem=jn.dense(6), stage=jn.serial(block(), block()), out=jn.dense(2))
    params, state = net.init(KEY, X)
    stem, _ = net["stem"].apply(params["stem"], {}, X)
    close(net.upto("stem").apply(params, state, X)[0], stem)
    first, _ = net["stage/0"].apply(params["stage"]["0"], {}, stem)
    close(net.upto("stage/0").apply(params, state, X)[0], first)
    inner, _ = net["stage/0/fc1"].apply(params["stage"]["0"]["fc1"], {}, stem)
    close(net.upto("stage/0/fc1").apply(params, state, X)[0], inner)
    equal(net.upto("stage/0").init(KEY, X), (params, state))
    assert jax.tree.leaves(spec(net.upto("stem").upto("stem").apply(params, state, X)[0]))[0].shape == (4, 6)


@pytest.mark.parametrize("wrap", [jn.remat, jn.cast])
def test_upto_reaches_into_wrappers(wrap):
    net = jn.serial(inner=wrap(mlp()), out=jn.dense(1))
    params, state = net.init(KEY, X)
    y, _ = net.upto("inner/a").apply(params, state, X)
    want = X @ params["inner"]["a"]["kernel"] + params["inner"]["a"]["bias"][None]
    np.testing.assert_allclose(y, want, atol=3e-2 if wrap is jn.cast else 1e-6)


def test_upto_keeps_the_whole_state():
    net = jn.serial(first=noise(), second=noise())
    params, state = net.init(KEY, X)
    _, after = net.upto("first").apply(params, state, X, key=KEY, train=True)
    assert spec(after) == spec(state)
    assert (int(after["first"]["calls"]), int(after["second"]["calls"])) == (1, 0)


def test_tree_prints_readably():
    net = jn.serial(jn.flatten, functools.partial(jax.nn.leaky_relu, negative_slope=0.1), out=jn.residual(jn.dense(2)))
    assert repr(net).splitlines() == [
        "serial",
        "├─ 0: flatten",
        "├─ 1: leaky_relu(negative_slope=0.1)",
        "└─ out: residual",
        "   └─ 0: dense(2)",
    ]


def test_traced_numbers_pass_through_every_combinator():
    def scaled(strength):
        layer = jn.as_net(lambda x: x * strength)
        return jn.serial(jn.remat(layer), jn.residual(layer), jn.repeat(layer, 2), lambda x: x)

    def run(strength):
        net = scaled(strength)
        return net.apply(*net.init(KEY, X), X)[0]

    strengths = jnp.array([0.5, 2.0])
    together = jax.vmap(run)(strengths)
    for k, s in enumerate([0.5, 2.0]):
        close(together[k], X * s * (1 + s) * s * s)


@given(
    st.lists(st.sampled_from(["dense", "tanh", "residual", "repeat", "remat"]), min_size=1, max_size=5),
    st.integers(1, 5),
)
def test_nesting_does_not_change_values(kinds: list[str], width: int):
    """A chain of networks equals the same chain cut anywhere into two serials."""
    make = {
        "dense": lambda: jn.dense(width),
        "tanh": lambda: jn.as_net(jnp.tanh),
        "residual": lambda: jn.residual(jn.as_net(jnp.sin)),
        "repeat": lambda: jn.repeat(jnp.sin, 2),
        "remat": lambda: jn.remat(jn.dense(width)),
    }
    nets = [make[kind]() for kind in kinds]
    x = jnp.asarray(floats(2, 3))
    flat = jn.serial(*nets)

    def outputs(params):
        found = []
        for cut in range(1, len(nets)):
            first = {str(k): params[str(k)] for k in range(cut) if str(k) in params}
            second = {str(k - cut): params[str(k)] for k in range(cut, len(nets)) if str(k) in params}
            nested = jn.serial(jn.serial(*nets[:cut]), jn.serial(*nets[cut:]))
            tree = {name: own for name, own in (("0", first), ("1", second)) if own}
            found.append(nested.apply(tree, {}, x)[0])
        return found, flat.apply(params, {}, x)[0]

    found, whole = once(outputs, variables(flat, x)[0])
    for each in found:
        close(each, whole)


def test_a_residual_of_sequences_keeps_their_lengths():
    x = jn.Padded(floats(3, 4, 2), jnp.array([4, 1, 3]))
    net = jn.residual(jn.dense(2), jn.dense(2), jax.nn.relu)
    params, state = variables(net, x)
    y, _ = net.apply(params, state, x)
    alone, _ = net.apply(params, state, x.values)
    assert y.lengths.tolist() == [4, 1, 3]
    np.testing.assert_allclose(y.zeroed(), jn.Padded(alone, x.lengths).zeroed(), rtol=1e-6)
