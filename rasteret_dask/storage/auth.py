"""Credentials as recipes: what travels is a name and parameters; the secret is made where it is used, when it is used.

A recipe turns the URL of a file into a :class:`Grant`: a query or headers, and when they expire. Grants are kept for each scope (a bucket,
a container, a host), renewed before they expire, and asked for once at a time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

MARGIN = 300.0
"""Seconds before its end at which a grant is renewed at the earliest; a tenth to a fifth of its life if that is less."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A secret that opens some URLs for some time. It can be neither printed nor pickled.

    Parameters
    ----------
    query : str
        Appended to the URL, without a question mark.
    headers : mapping of str to str
        Sent with the request.
    expires : float, optional
        Seconds since 1970.
    """

    query: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires: float | None = None

    def __reduce__(self) -> Any:
        raise TypeError("a credential does not leave the process that it was made in")

    def sign(self, url: str) -> str:
        """Return the URL with the query."""
        if not self.query:
            return url
        return f"{url}{'&' if '?' in url else '?'}{self.query}"


class Recipe(Protocol):
    """Makes grants."""

    def scope(self, url: str) -> str | None:
        """Return what a grant for this URL is good for, or None if the URL needs none."""

    async def mint(self, url: str, scope: str) -> Grant:
        """Make a grant."""


class Keeper:
    """The grants of one recipe in one process. Lives on the event loop, so no locks but for asking once at a time.

    Parameters
    ----------
    recipe : Recipe
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._grants: dict[str, tuple[Grant, float]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def grant(self, url: str, scope: str) -> Grant:
        """Return a grant that has some life left."""
        found = self._fresh(scope)
        if found is not None:
            return found
        lock = self._locks.setdefault(scope, asyncio.Lock())
        async with lock:
            found = self._fresh(scope)
            if found is None:
                found = await self.recipe.mint(url, scope)
                self._grants[scope] = (found, renewal(found, time.time(), random.random()))
        return found

    def _fresh(self, scope: str) -> Grant | None:
        found = self._grants.get(scope)
        return found[0] if found is not None and time.time() < found[1] else None

    def forget(self, scope: str, grant: Grant | None) -> None:
        """Drop a grant that was refused, unless it has been replaced already."""
        found = self._grants.get(scope)
        if found is not None and found[0] is grant:
            del self._grants[scope]


def renewal(grant: Grant, now: float, draw: float) -> float:
    """Return when a grant is to be renewed: before its end, and not at the same moment in every process.

    Parameters
    ----------
    grant : Grant
    now : float
        Seconds since 1970.
    draw : float
        A random number in [0, 1).
    """
    if grant.expires is None:
        return float("inf")
    margin = min(MARGIN, 0.2 * (grant.expires - now))
    return grant.expires - margin * (0.5 + 0.5 * draw)
