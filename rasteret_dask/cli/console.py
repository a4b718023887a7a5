"""What the command line shows: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from rasteret_dask.errors import ArgumentError, RasteretError, RunInterruptedError
from rasteret_dask.pipeline.account import Progress, RunAccount
from rasteret_dask.pipeline.foreach import EachAccount

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key; VALUE is YAML."),
]
Custom = Annotated[
    bool, typer.Option("--allow-custom", help="Let steps by import path run: they are code.")
]

# Exit codes. The last is EX_TEMPFAIL of sysexits.h, which batch systems know: the same command with --resume goes on.
FAILED = 1
MISUSED = 2
RESUMABLE = 75

_EVERY = 10.0


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Turn errors of our own into a short message and an exit code; the traceback needs
    ``--debug``."""
    try:
        with _ended_by_sigterm():
            yield
    except KeyboardInterrupt:
        typer.echo("stopped; what is finished is kept, and --resume goes on from it", err=True)
        raise typer.Exit(RESUMABLE) from None
    except RasteretError as error:
        if debug:
            raise
        err = Console(stderr=True, soft_wrap=True, highlight=False)
        err.print(Text.assemble(("error: ", "bold red"), str(error)))
        raise typer.Exit(_code(error)) from None


def _code(error: RasteretError) -> int:
    if isinstance(error, RunInterruptedError):
        return RESUMABLE
    return MISUSED if isinstance(error, ArgumentError) else FAILED


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: it is how a batch system announces the wall time, some seconds before it kills."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        # Once: the next one ends a process that does not end by itself.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress_shown() -> Iterator[Progress]:
    """Bars in a terminal, plain lines in a log; both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
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
        typer.echo(f"[{now - self._start:7.1f} s] {text}", err=True)
        self._said = now

    def stage(self, text: str) -> None:
        """Say it."""
        self._say(text)

    def update(self, done: int, total: int) -> None:
        """Say it now and then."""
        if time.monotonic() - self._said >= _EVERY:
            self._say(f"  {done} of {total} tasks")


# --- results -------------------------------------------------------------------------------------
def show(values: Mapping[str, Any], *, as_json: bool) -> None:
    """Print names and values: for a program, or aligned for a person."""
    if as_json:
        typer.echo(json.dumps(values, default=str))
        return
    width = max(map(len, values), default=0) + 2
    for name, value in values.items():
        several = value if isinstance(value, list | tuple) else [value]
        for index, one in enumerate(several or ["-"]):
            typer.echo(f"{name if index == 0 else '':<{width}}{one}")


def show_account(account: RunAccount, *, as_json: bool) -> None:
    """Print what a run did."""
    if as_json:
        show(account.as_dict(), as_json=True)
        return
    retries = f", {account.retries} of them again" if account.retries else ""
    show(
        {
            "items": f"{account.items:,}",
            "headers": f"{account.headers:,}",
            "requests": f"{account.requests:,}{retries}",
            "bytes": human(account.bytes),
            "tasks": f"{account.tasks:,}",
            "seconds": f"{account.seconds:.1f}",
            **({"regions": _regions(account)} if account.regions else {}),
            "outputs": list(account.outputs),
            **({"record": account.record} if account.record else {}),
        },
        as_json=False,
    )


def _regions(account: RunAccount) -> str:
    there = account.regions - account.computed
    return f"{account.computed:,}" + (f", and {there:,} that were there" if there else "")


def show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a run would do and cost."""
    if as_json:
        show(plan, as_json=True)
        return
    shown = {key: value for key, value in plan.items() if key != "bands"}
    for key in ("items", "headers", "requests", "tasks"):
        if key in shown:
            shown[key] = f"{shown[key]:,}"
    if "bytes" in shown:
        shown["bytes"] = human(shown["bytes"])
        shown["used_share"] = f"{shown['used_share']:.0%} of the pixels fetched"
        shown |= {key: ", ".join(shown[key]) or "-" for key in ("steps", "variables")}
    for row in plan.get("bands", ()):
        cost = f"{row['requests']:,} requests, {human(row['bytes'])}, {row['tasks']:,} tasks"
        shown[f"  {row['band']}"] = cost
    show(shown, as_json=False)


def show_units(told: EachAccount, *, as_json: bool) -> None:
    """Print how the units went; the exit code says whether all of them did."""
    if as_json:
        show(told.as_dict(), as_json=True)
    else:
        states = [unit.state for unit in told.units]
        counts = {state: states.count(state) for state in dict.fromkeys(states)}
        show({"units": f"{len(states):,}", **counts}, as_json=False)
        for unit in told.failed:
            typer.echo(f"{unit.id}: {unit.error}", err=True)
    if told.failed:
        raise typer.Exit(FAILED)


def human(size: int) -> str:
    """``1.5 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
