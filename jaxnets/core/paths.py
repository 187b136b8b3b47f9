"""Patterns over slash-joined paths, for penalties, weight decay, freezing and summaries."""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax

from jaxnets.core.errors import NetError

Pattern = str | Sequence[str]


def paths(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by slash-joined path, `{"conv1/kernel": ..., ...}`.

    >>> paths({"fc": {"kernel": 1, "bias": 2}})
    {'fc/bias': 2, 'fc/kernel': 1}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def matches(pattern: Pattern, path: str) -> bool:
    """Tell whether a path matches a pattern, or any of several.

    The pattern must match the whole path.

    | pattern | matches |
    | --- | --- |
    | `*` | any characters within one name |
    | `?` | one character |
    | `[abc]`, `[a-c]` | one character of a set |
    | `[!abc]` | one character outside of a set |
    | `**` in place of a name | any number of names, including none |
    | `{kernel,bias}` | one of several alternatives, which may hold slashes and braces |

    All other characters match themselves. Among several patterns, one with `!` in front excludes what it matches:
    `("**", "!head/**")` is everything but the head.

    Raises:
        NetError: for `**` beside other characters of a name.

    >>> matches("**/kernel", "layer1/0/conv1/kernel"), matches("**/kernel", "kernel")
    (True, True)
    >>> matches("layer1/*/kernel", "layer1/0/conv1/kernel"), matches(("conv*/**", "fc/bias"), "fc/bias")
    (False, True)
    >>> matches(("**", "!head/**"), "head/bias"), matches(("**", "!head/**"), "fc/bias")
    (False, True)
    """
    patterns = [pattern] if isinstance(pattern, str) else pattern
    names = path.split("/") if path else []
    # True for each pattern with `!` that matches: it excludes the path.
    met = [each.startswith("!") for each in patterns if _fits_any(each.removeprefix("!"), names)]
    return bool(met) and not any(met)


def _fits_any(pattern: str, names: list[str]) -> bool:
    """Tell whether names match one of the patterns that a pattern with braces stands for."""
    options = [plain.split("/") for plain in _plain(pattern)]
    if any("**" in name and name != "**" for option in options for name in option):
        raise NetError("has ** beside other characters; write it in place of a name", label=f"pattern {pattern!r}")
    return any(_fits(option, names) for option in options)


def _fits(pattern: list[str], names: list[str]) -> bool:
    """Tell whether names match those of a pattern without braces, one by one."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return _fits(pattern[1:], names) or (bool(names) and _fits(pattern, names[1:]))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _fits(pattern[1:], names[1:])


def _plain(pattern: str) -> list[str]:
    """Return the patterns that one with braces stands for; the innermost braces are expanded first."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [plain for option in braces[1].split(",") for plain in _plain(before + option + after)]


def select(tree: Any, pattern: Pattern) -> dict[str, Any]:
    """Return the leaves whose paths match, by path.

    Raises:
        NetError: if a pattern matches nothing; the error lists the paths.

    >>> select({"fc": {"kernel": 1, "bias": 2}}, "**/kernel")
    {'fc/kernel': 1}
    """
    leaves = paths(tree)
    for each in [pattern] if isinstance(pattern, str) else pattern:
        if not any(matches(each.removeprefix("!"), path) for path in leaves):
            have = ", ".join(list(leaves)[:20]) + (", …" if len(leaves) > 20 else "")
            raise NetError(f"matches no parameter; the paths are: {have or 'none'}", label=f"pattern {each!r}")
    return {path: leaf for path, leaf in leaves.items() if matches(pattern, path)}


def mask(pattern: Pattern) -> Callable[[Any], Any]:
    """Return a function `tree -> tree of bools`, true where a pattern matches.

    Optax takes it as a mask: `optax.adamw(1e-3, mask=jn.paths.mask("**/kernel"))`.

    Raises:
        NetError: when called, if a pattern matches nothing.

    >>> mask("**/kernel")({"fc": {"kernel": 1.0, "bias": 2.0}})
    {'fc': {'bias': False, 'kernel': True}}
    """

    def mask_fn(tree: Any) -> Any:
        chosen = select(tree, pattern)
        structure = jax.tree.structure(tree)
        return jax.tree.unflatten(structure, [path in chosen for path in paths(tree)])

    return mask_fn
