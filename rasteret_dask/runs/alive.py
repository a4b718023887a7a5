"""Whether a run whose record has no end is still at work: the record says who is at it, and now and then that he still is.

A process that is killed, or that finds the disk full, writes no end; the state stays ``running``. Whoever looks later
knows by the last sign of life.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from rasteret_dask.errors import PipelineError

log = logging.getLogger(__name__)

PERIOD: Final = 60.0
"""Seconds from one sign of life to the next."""

SILENCE: Final = 5 * PERIOD
"""Seconds without one after which a run is taken for broken off; a store may be slow to take the record."""

RUNNING, BROKEN = "running", "broken off"


def sign() -> dict[str, Any]:
    """Who is at work, and when: a host, a process there, and a moment in UTC."""
    seen = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "seen": seen}


class Pulse:
    """Gives a sign of life every :data:`PERIOD`, from a thread of its own, until it is stopped.

    Parameters
    ----------
    give : callable
        Writes a sign down; called from the thread.
    """

    def __init__(self, give: Callable[[Mapping[str, Any]], None]) -> None:
        self._give = give
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="rasteret-dask-pulse", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for a sign that is just being written."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(PERIOD):
            try:
                self._give(sign())
            except PipelineError as problem:  # as a disk that is full: the run itself will meet it
                log.warning("no sign of life: %s", problem)


def standing(document: Mapping[str, Any], now: dt.datetime | None = None) -> tuple[str, str]:
    """The state of a recorded run as it is, not only as it was written.

    Parameters
    ----------
    document : mapping
        What its record says.
    now : datetime, optional
        With a time zone; this moment by default.

    Returns
    -------
    state, note : str
        ``broken off`` where ``running`` stands and nobody is at it any more. The note says why, or
        who is at it.
    """
    state = str(document["state"])
    if state != RUNNING:
        return state, str(document.get("error", ""))
    who = document.get("alive")
    if not isinstance(who, Mapping):
        return state, "it gives no sign of life: it may have been killed"
    here = who["host"] == socket.gethostname()
    at = f"process {who['pid']} of {who['host']}"
    seen = dt.datetime.fromisoformat(str(who["seen"]))
    silent = ((now or dt.datetime.now(dt.UTC)) - seen).total_seconds()
    last = f"the last sign of life is of {who['seen']}"
    if here and not _lives(int(who["pid"])):
        return BROKEN, f"no end was written: {at} is gone; {last}"
    if silent > SILENCE:
        return BROKEN, f"no end was written by {at}; {last}"
    return state, f"by {at}; {last}"


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
