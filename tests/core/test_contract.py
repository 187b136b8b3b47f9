"""Networks of one's own that break the contract of `init` and `apply`: the error names the layer and both forms."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import jaxnets as jn

KEY, X = jax.random.key(0), jnp.ones((2, 3))


def stateless(key: Any, x: Any) -> Any:
    return {}, {}


def stateful(key: Any, x: Any) -> Any:
    return {}, {"mean": jnp.zeros(3), "steps": jnp.zeros((), jnp.int32)}


def identity(params: Any, state: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
    return x, state


def returning(change: Any) -> Any:
    return lambda params, state, x, *, key=None, train=False: (x, change(state))


def used(net: jn.Net) -> Any:
    params, state = net.init(KEY, X)
    return net.apply(params, state, X, key=KEY, train=True)


PAIR = r"expects init to return \(params, state\), two dicts, got "
TAKES = r"expects apply to take \(params, state, x, \*, key=None, train=False\), got "
LIKE = "expects apply to return a state like the one it got, got "
BREACHES: dict[str, tuple[Any, Any, str]] = {
    "init without state": (lambda key, x: {"scale": jnp.ones(3)}, identity, PAIR + r"dict; without state, params, {}$"),
    "init of arrays": (lambda key, x: (X, X), identity, PAIR + r"\(\w+ \(2, 3\) float32, "),
    "init of nothing": (lambda key, x: None, identity, PAIR + "None"),
    "init without x": (lambda key: ({}, {}), identity, r"expects init to take \(key, x\), got init\(key\); write init"),
    "apply without key": (
        stateless,
        lambda params, state, x, train=False: (x, state),
        TAKES + r".*x, train=False\); write",
    ),
    "apply without options": (
        stateless,
        lambda params, state, x: (x, state),
        TAKES + r"apply\(params, state, x\); write ",
    ),
    "apply without state": (
        stateless,
        lambda params, state, x, *, key=None, train=False: x,
        r"expects apply to return \(y, state\), got the array \(2, 3\) float32 alone; without state, y, state",
    ),
    "another dtype": (
        stateful,
        returning(lambda state: state | {"mean": state["mean"].astype(jnp.bfloat16)}),
        LIKE + r"mean \(3,\) bfloat16 for \(3,\) float32; keep .*astype",
    ),
    "another shape": (stateful, returning(lambda state: state | {"mean": X}), LIKE + r"mean \(2, 3\) .* for \(3,\) "),
    "a name more": (stateful, returning(lambda state: state | {"more": X}), LIKE + r"more \(2, 3\) float32 for none"),
    "a name less": (stateful, returning(lambda state: {"mean": state["mean"]}), LIKE + r"steps missing for \(\) int32"),
    "no state": (stateful, returning(lambda state: None), LIKE + "mean missing for"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_names_the_layer_and_both_forms(breach: str) -> None:
    init, apply, words = BREACHES[breach]
    net = jn.serial(stem=jn.dense(3), body=jn.serial(own=jn.Net(init, apply, "own(3)")))
    with pytest.raises(jn.NetError, match=r"^body/own: own\(3\) " + words):
        used(net)


def test_a_layer_whose_init_returns_a_pair_is_told_of_net() -> None:
    net = jn.serial(own=jn.layer(stateless, lambda params, x: x, label="own"))
    with pytest.raises(
        jn.NetError, match=r"^own: own expects init to return a dict of arrays, got .*jn\.Net\(init, apply"
    ):
        net.init(KEY, X)


def test_what_keeps_the_contract_passes() -> None:
    net = jn.Net(stateful, returning(lambda state: {"steps": state["steps"] + 1, "mean": state["mean"] + 1}))
    params, state = net.init(KEY, X)
    _, after = net.apply(params, jax.device_get(state), X)
    assert after["steps"] == 1
    assert net.apply(params, state=after, x=X)[1]["steps"] == 2
    # Alone, and without options, a function may leave them out.
    short: Any = lambda params, state, x: (x, state)  # noqa: E731
    assert jn.Net(stateless, short).apply({}, {}, X)[0] is X
