"""How a run gets on, for people: bars where there is a screen, lines where there is a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from rasteret_dask.pipeline.account import Progress

_EVERY = 10.0


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Bars in a terminal and in a notebook that has ipywidgets, plain lines in a log; all on stderr.

    Yields
    ------
    Progress
        For ``run(pipeline, progress=…)``.
    """
    console = Console(stderr=True)
    drawn = console.is_jupyter and find_spec("ipywidgets") is not None
    if not (console.is_terminal or drawn):
        yield PlainProgress()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("tasks"),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console) as bars:
        shown = BarProgress(bars)
        yield shown
        shown.finish()


class BarProgress:
    """One bar a stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: Any = None
        self._base = (0, 0)
        self._last = (0, 0)

    def stage(self, text: str) -> None:
        """Finish the bar before, and begin one."""
        self.finish()
        self._base = self._last
        self._task = self._bars.add_task(text, total=None)

    def update(self, done: int, total: int) -> None:
        """Move the bar."""
        self._last = (done, total)
        if self._task is not None:
            total_here = max(total - self._base[0], done - self._base[0])
            self._bars.update(self._task, completed=done - self._base[0], total=total_here or None)

    def finish(self) -> None:
        """Fill the bar: what it stood for is done."""
        if self._task is not None:
            done = max(self._last[0] - self._base[0], 1)
            self._bars.update(self._task, completed=done, total=done)
            self._task = None


class PlainProgress:
    """A line when a stage begins, and one every ten seconds in between."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._said = self._start

    def _say(self, text: str) -> None:
        now = time.monotonic()
        sys.stderr.write(f"[{now - self._start:7.1f} s] {text}\n")
        sys.stderr.flush()
        self._said = now

    def stage(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def update(self, done: int, total: int) -> None:
        """Say it now and then."""
        if time.monotonic() - self._said >= _EVERY:
            self._say(f"  {done} of {total} tasks")
