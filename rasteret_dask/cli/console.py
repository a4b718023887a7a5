"""What the command line shows: progress and errors on stderr, results on stdout."""

from __future__ import annotations

import json
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from rasteret_dask import catalog, resources
from rasteret_dask.errors import ArgumentError, RasteretError, RunInterruptedError
from rasteret_dask.pipeline.account import RunAccount
from rasteret_dask.pipeline.foreach import EachAccount
from rasteret_dask.runs.regions import Repaired

Json = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Known = Annotated[str, typer.Argument(help="A collection: folder, URL or name.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what it would do and read, and do nothing.")
]
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


@contextmanager
def reported(debug: bool, resumes: bool = False) -> Iterator[None]:
    """Turn errors of our own into a short message and an exit code; ``--debug`` shows the
    traceback before it. A command that `resumes` has an option ``--resume``; others find by themselves what is done."""
    again = "what is finished is kept: start the same command again"
    again += " with --resume" if resumes else ""
    try:
        with _ended_by_sigterm():
            yield
    except KeyboardInterrupt:
        typer.echo(f"stopped; {again}", err=True)
        raise typer.Exit(RESUMABLE) from None
    except RasteretError as error:
        if debug:
            traceback.print_exc()
        said = str(error)
        if isinstance(error, RunInterruptedError):
            said = f"{error.message}; {again}"
        err = Console(stderr=True, soft_wrap=True, highlight=False)
        err.print(Text.assemble(("error: ", "bold red"), said))
        raise typer.Exit(_code(error)) from None


def completed(kind: str) -> Callable[[str], list[str]]:
    """What the shell completes: names of files of that kind that ship, as ``pipelines``."""

    def names(incomplete: str) -> list[str]:
        return [name for name in resources.names(kind) if name.startswith(incomplete)]

    return names


def known_datasets(incomplete: str) -> list[str]:
    """What the shell completes: ids of the catalogue."""
    return [key for key in catalog.default() if key.startswith(incomplete)]


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


def show_line(text: Any, values: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one line for a person, or names and values for a program."""
    typer.echo(json.dumps(values, default=str) if as_json else text)


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
    if account.failures:
        typer.echo(
            f"{account.failures} tiles could not be had and are nodata now: "
            f"rasteret-dask repair {account.record}",
            err=True,
        )


def _regions(account: RunAccount) -> str:
    there = account.regions - account.computed
    return f"{account.computed:,}" + (f", and {there:,} that were there" if there else "")


# Of plans, in the order of their keys.
_COUNTS = (
    *("points", "rows", "items", "found", "new", "columns", "files", "looked_at", "headers"),
    *("holes", "regions", "tiles", "requests", "tasks"),
)


def show_plan(plan: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a run would do and cost."""
    if as_json:
        show(plan, as_json=True)
        return
    shown = {key: value for key, value in plan.items() if key != "bands"}
    for key in _COUNTS:
        if key in shown:
            shown[key] = f"{shown[key]:,}"
    if "bytes" in shown:
        shown["bytes"] = human(shown["bytes"])
    if "used_share" in shown:
        shown["used_share"] = f"{shown['used_share']:.0%} of the pixels fetched"
        shown |= {key: ", ".join(shown[key]) or "-" for key in ("steps", "variables")}
    for row in plan.get("bands", ()):
        if isinstance(row, str):  # of a build
            shown["bands"] = ", ".join(plan["bands"])
            break
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
        for unit in told.units:
            if unit.account is not None and unit.account.failures:
                missing = f"{unit.account.failures} tiles could not be had"
                typer.echo(f"{unit.id}: {missing}: rasteret-dask repair {unit.record}", err=True)
    if told.failed:
        raise typer.Exit(FAILED)


def show_repairs(done: Sequence[Repaired], *, as_json: bool) -> None:
    """Print what repairs did; the exit code says whether a hole is left."""
    left = sum(one.failures for one in done)
    if as_json:
        whole = done[0].as_dict() if len(done) == 1 else {"repairs": [d.as_dict() for d in done]}
        show(whole, as_json=True)
    else:
        show(
            {
                "holes": f"{sum(one.holes for one in done):,} tiles that were missing",
                "regions": f"{sum(one.computed for one in done):,}",
                "requests": f"{sum(one.requests for one in done):,}",
                "still missing": f"{left:,}",
            },
            as_json=False,
        )
    for one in done:
        if one.failures:
            typer.echo(
                f"{one.target}: {one.failures} tiles still fail, see {one.ledger}/{one.run}",
                err=True,
            )
    if left:
        raise typer.Exit(FAILED)


def human(size: int) -> str:
    """``1.5 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
