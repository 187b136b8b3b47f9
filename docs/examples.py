"""A Griffe extension that shows the examples in docstrings as code: `>>>` lines would be Markdown's quotations."""

import inspect
import re
from typing import Any

from griffe import Docstring, Extension, Object

EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Examples(Extension):
    """Put every run of lines that begins with `>>>` into a fenced block."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of one function, class, attribute or module."""
        if obj.docstring is not None:
            fence(obj.docstring)


def fence(docstring: Docstring) -> None:
    """Fence the examples of a docstring in place."""
    text = inspect.cleandoc(docstring.value)
    docstring.value = EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", text)
