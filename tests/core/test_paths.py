import fnmatch
from typing import Any

import jax.numpy as jnp
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnets as jn
from jaxnets.core import paths

TREE = {
    "conv1": {"kernel": 1, "bias": 2},
    "layer1": {"0": {"conv1": {"kernel": 3}, "norm": {"scale": 4, "bias": 5}}},
    "fc": {"kernel": 6, "bias": 7},
}

MATCHES = {
    "**/kernel": ("conv1/kernel", "layer1/0/conv1/kernel", "fc/kernel"),
    "kernel": (),
    "*/kernel": ("conv1/kernel", "fc/kernel"),
    "conv1/**": ("conv1/kernel", "conv1/bias"),
    "**/conv1/**": ("conv1/kernel", "conv1/bias", "layer1/0/conv1/kernel"),
    "layer1/**/kernel": ("layer1/0/conv1/kernel",),
    "fc/**/kernel": ("fc/kernel",),
    "fc/kernel/**": ("fc/kernel",),
    "fc/**/**/kernel/**": ("fc/kernel",),
    "**/{scale,bias}": ("conv1/bias", "layer1/0/norm/scale", "layer1/0/norm/bias", "fc/bias"),
    "{fc,layer1/0/norm}/bias": ("fc/bias", "layer1/0/norm/bias"),
    "{fc,layer{1,2}/**}/bias": ("fc/bias", "layer1/0/norm/bias"),
    "{fc/,}**/kernel": ("conv1/kernel", "layer1/0/conv1/kernel", "fc/kernel"),
    "[cf]*/bias": ("conv1/bias", "fc/bias"),
    "[!c]*/bias": ("fc/bias",),
    "?c/bias": ("fc/bias",),
    "layer[0-9]/[0-4]/**/s*": ("layer1/0/norm/scale",),
    "layer1?0?norm?bias": (),
    "layer1[!x]0[/]norm/bias": (),
    "**": tuple(paths.paths(TREE)),
}


@pytest.mark.parametrize("pattern", MATCHES)
def test_what_a_pattern_matches(pattern: str):
    assert {path for path in paths.paths(TREE) if paths.matches(pattern, path)} == set(MATCHES[pattern])


names = st.text("ab-.", min_size=1, max_size=4)


@given(st.text("ab*?[]!-^&|~\\.", max_size=7).filter(lambda p: "**" not in p), names)
def test_within_a_name_it_is_the_standard_librarys(pattern, name):
    assert paths.matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


def by_names(pattern: list[str], path: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return by_names(pattern[1:], path) or (bool(path) and by_names(pattern, path[1:]))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and by_names(pattern[1:], path[1:])


@given(
    st.lists(st.sampled_from(["a", "b*", "?", "*", "[!a]", "**"]), min_size=1, max_size=5), st.lists(names, min_size=1)
)
def test_names_one_by_one(pattern, path):
    assert paths.matches("/".join(pattern), "/".join(path)) == by_names(pattern, path)


@given(st.lists(names, min_size=1), st.lists(names, min_size=1))
def test_a_path_matches_itself_and_nothing_else(path, other):
    assert paths.matches("/".join(path), "/".join(path))
    assert paths.matches("/".join(path), "/".join(other)) == (path == other)


@given(st.lists(st.sampled_from(["a", "b?", "c/d"]), min_size=1, max_size=3), names)
def test_braces_are_the_union(options, name):
    together = paths.matches("x/{" + ",".join(options) + "}", f"x/{name}")
    assert together == any(paths.matches(f"x/{option}", f"x/{name}") for option in options)
    assert together == paths.matches([f"x/{option}" for option in options], f"x/{name}")


def test_braces_that_do_not_close_stand_for_themselves():
    assert paths.matches("{a", "{a")
    assert paths.matches("a}", "a}")
    assert not paths.matches("{a", "a")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("conv**", r"pattern 'conv\*\*' has \*\* beside other"),
    ],
)
def test_patterns_that_mean_nothing(pattern: str, message: str):
    with pytest.raises(jn.NetError, match=message.replace("'conv", "'.*").replace("'a/", "'.*")):
        paths.matches(pattern, "conv1")


def test_select_lists_the_paths_when_any_pattern_matches_none():
    assert paths.select(TREE, ["fc/*", "**/scale"]) == {"fc/bias": 7, "fc/kernel": 6, "layer1/0/norm/scale": 4}
    with pytest.raises(
        jn.NetError, match=r"'\*\*/gamma' matches no parameter; the paths are: conv1/bias, conv1/kernel"
    ):
        paths.select(TREE, ["fc/*", "**/gamma"])
    with pytest.raises(jn.NetError, match="the paths are: none"):
        paths.select({}, "**")
    with pytest.raises(jn.NetError, match=r"19, …$"):
        paths.select({f"{k:02d}": k for k in range(30)}, "x")


def test_one_array_is_a_tree_too():
    assert paths.select(1.0, "**") == {"": 1.0}
    assert not paths.matches("*", "")


def test_mask_is_what_optax_takes():
    params = {"fc": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    decay = optax.add_decayed_weights(0.5, mask=paths.mask("**/kernel"))
    zeros = {"fc": {"kernel": jnp.zeros(2), "bias": jnp.zeros(2)}}
    updates: Any = decay.update(zeros, decay.init(params), params)[0]
    assert updates["fc"]["kernel"].tolist() == [0.5, 0.5]
    assert updates["fc"]["bias"].tolist() == [0.0, 0.0]
