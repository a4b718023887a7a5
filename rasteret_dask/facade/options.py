"""What a method calls its options, said once: in its signature."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any


def options_of(method: Callable[..., Any], *besides: str) -> frozenset[str]:
    """Names of the arguments that a method takes by name alone.

    Parameters
    ----------
    method : callable
    *besides : str
        Names to leave out.
    """
    named = signature(method).parameters.items()
    return frozenset(n for n, p in named if p.kind is Parameter.KEYWORD_ONLY).difference(besides)
