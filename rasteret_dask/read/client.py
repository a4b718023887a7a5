"""The client of a cluster that reads at once make use of, if there is one.

State: ``_alone`` is set in threads that must not make use of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import dask

_alone: ContextVar[bool] = ContextVar("rasteret_dask_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within it this thread reads by itself, whatever client is active.

    It is for tasks: those that wait for tasks of their own would fill a worker. Dask's own configuration would be that of all threads, and
    stay behind where several tasks set it and put it back at once.
    """
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


def active_client() -> Any:
    """Return the active distributed client, if any, without importing distributed; None for a thread that reads :func:`alone`."""
    if _alone.get():
        return None
    get = dask.base.get_scheduler()
    owner = getattr(get, "__self__", None)
    return owner if type(owner).__name__ == "Client" else None
