"""What the libraries of stores raise, in words that everybody knows."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

from rasteret_dask.errors import RasteretError

T = TypeVar("T")


def ask(
    function: Callable[..., T], *args: Any, passes: tuple[type[Exception], ...] = (), **more: Any
) -> T:
    """Call something that asks a store; errors of the store's own library become OSErrors.

    Libraries have classes of their own for a store that refuses or does not answer (Azure's are no OSErrors), and whoever is
    ready for a store that fails cannot know them all. Their text may hold a signed URL, so only the name of the class is kept.

    Parameters
    ----------
    function : callable
    *args, **more
        What it is called with.
    passes : tuple of exception classes
        Those that come through as they are, beside OSErrors and our own.

    Raises
    ------
    OSError
    """
    known: tuple[type[Exception], ...] = (OSError, RasteretError, MemoryError, *passes)
    try:
        return function(*args, **more)
    except known:
        raise
    except Exception as error:  # noqa: BLE001 (raised below, as another)
        name = type(error).__name__
    # Out here nothing is being handled any more: tblib pickles that as well.
    raise OSError(errno.EIO, name)


def reason_of(error: OSError) -> str:
    """Why a store refused, as it may be shown: the whole text of its error may hold a signature."""
    return error.strerror or type(error).__name__
