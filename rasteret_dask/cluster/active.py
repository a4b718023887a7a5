"""Which client Dask computes on, and how a task waits for tasks of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import dask
from dask.base import get_scheduler
from distributed import Client, rejoin, secede
from distributed.client import _current_client
from distributed.worker import thread_state


@contextmanager
def computing_on(client: Client | None) -> Iterator[None]:
    """Whatever Dask computes within the block is computed on a client, which need not be Dask's default.

    Parameters
    ----------
    client : distributed.Client, optional
        None changes nothing.
    """
    if client is None:
        yield
        return
    # What `Client.as_current` does, but for what it sets for all threads: one that computes elsewhere would find no client.
    token = _current_client.set(client)
    try:
        # A scheduler that was set comes before the current client. It is set for all threads, so only where it must be.
        set_as_well = nullcontext() if _is_active(client) else dask.config.set(scheduler=client)
        with set_as_well:
            yield
    finally:
        _current_client.reset(token)


def _is_active(client: Client) -> bool:
    return getattr(get_scheduler(), "__self__", None) is client


@contextmanager
def slot_given_back() -> Iterator[None]:
    """Within the block a task waits for other tasks, and its worker may run one of those in its place.

    Dask does so where something is computed, but not where futures are waited for: such a task would keep the very thread
    that they need. Elsewhere than in a task nothing happens.
    """
    given = _give_back()
    try:
        yield
    finally:
        if given:
            rejoin()


def _give_back() -> bool:
    if getattr(thread_state, "key", None) is None:
        return False
    try:
        secede()
    except (AttributeError, KeyError):
        return False  # a thread of another pool, or one that has left its own already
    return True
