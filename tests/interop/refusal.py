"""What is said where a network has other settings than a module."""

import re
from collections.abc import Callable
from typing import Any

import pytest

import jaxnets as jn


def refused(message: str, load: Callable[[], Any]) -> None:
    with pytest.raises(jn.NetError, match=re.escape(f"expects the module's settings, got others: {message};")):
        load()
