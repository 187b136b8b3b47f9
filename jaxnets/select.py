"""Patterns over slash-joined paths, one language for penalties, decay, freezing and summaries."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxnets.errors import NetError

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

    `*` stands for any characters within one name, `?` for one of them, `[abc]` for one of a set, `**` for
    any number of whole names (none included), `{kernel,bias}` for alternatives. The pattern must match the
    whole path.

    >>> matches("**/kernel", "layer1/0/conv1/kernel"), matches("**/kernel", "kernel")
    (True, True)
    >>> matches("layer1/*/kernel", "layer1/0/conv1/kernel"), matches(("conv*/**", "fc/bias"), "fc/bias")
    (False, True)
    """
    patterns = [pattern] if isinstance(pattern, str) else pattern
    return any(re.fullmatch(_expression(each), path) for each in patterns)


_TOKENS = re.compile(r"\*\*/|/\*\*|\*\*|\*|\?|\[[^]]+\]|\{[^}]*\}|[^*?\[{]+|.")


def _expression(pattern: str) -> str:
    special = {"**/": "(?:[^/]+/)*", "/**": "(?:/[^/]+)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = ""
    for token in _TOKENS.findall(pattern):
        if token in special:
            expression += special[token]
        elif token.startswith("[") and len(token) > 2:
            expression += "[" + ("^" if token[1] == "!" else "") + token[1:].lstrip("!").replace("\\", r"\\")
        elif token.startswith("{") and len(token) > 1:
            expression += "(?:" + "|".join(_expression(option) for option in token[1:-1].split(",")) + ")"
        else:
            expression += re.escape(token)
    return expression


def select(tree: Any, pattern: Pattern) -> dict[str, Any]:
    """Return the leaves whose paths match, by path.

    Raises:
        NetError: if a pattern matches nothing; the paths there are listed.

    >>> select({"fc": {"kernel": 1, "bias": 2}}, "**/kernel")
    {'fc/kernel': 1}
    """
    leaves = paths(tree)
    for each in [pattern] if isinstance(pattern, str) else pattern:
        if not any(matches(each, path) for path in leaves):
            have = ", ".join(list(leaves)[:20]) + (", …" if len(leaves) > 20 else "")
            raise NetError(f"matches no parameter; the paths are: {have or 'none'}", label=f"pattern {each!r}")
    return {path: leaf for path, leaf in leaves.items() if matches(pattern, path)}


def mask(pattern: Pattern) -> Callable[[Any], Any]:
    """Return a function `tree -> tree of bools` that is true where a pattern matches.

    It is what Optax takes as a mask: `optax.adamw(1e-3, mask=jn.select.mask("**/kernel"))`.

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
