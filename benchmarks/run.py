"""Measure any tools on any work, in turns: ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.campaign import TLS, Campaign, Stretch
from benchmarks.data import VARIANTS, folder, generate
from benchmarks.measure import machine
from benchmarks.ours import OURS
from benchmarks.page import PAGE
from benchmarks.peers import TOOLS
from benchmarks.record import Record
from benchmarks.workloads import ALL, PARTS

__all__ = ["PAGE", "common", "finish", "machine", "plan", "record_of"]


def plan(options: argparse.Namespace) -> list[Stretch]:
    """Round after round of everything that was asked for."""
    settings = [v + TLS if options.tls else v for v in options.variants]
    return [
        Stretch(setting, name, latency, tuple(options.tools), turn + 1)
        for turn in range(options.rounds)
        for setting in settings
        for latency in options.latency
        for name in options.workloads
    ]


def common(parser: argparse.ArgumentParser) -> None:
    """Arguments that every campaign has."""
    parser.add_argument("--tools", type=_listed, default=None, help=f"of {[*TOOLS, *OURS]}")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one measurement")
    parser.add_argument(
        "--python", type=_environments, default={},
        help="TOOL=INTERPRETER,… for tools of their own; TOOL@WORKLOAD=… for one workload",
    )  # fmt: skip
    parser.add_argument("--data", default=None, help="where the images are")
    parser.add_argument(
        "--json", type=Path, help="keep the raw numbers here after each measurement, and go on"
    )
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} and its plot")


def record_of(options: argparse.Namespace, module: str) -> Record:
    """What was measured before, if anything; the command as a reader would give it."""
    # Interpreters and paths are the machine's own and say nothing to a reader.
    hidden = {"--python", "--json", "--data"}
    words = sys.argv[1:]
    shown = [
        w for w, before in zip(words, ["", *words]) if w not in hidden and before not in hidden
    ]
    return Record.at(options.json, shlex.join(["python", "-m", module, *shown]))


def finish(record: Record, options: argparse.Namespace) -> None:
    """Show the tables, and write the page."""
    print()
    print(page.told(record))
    if options.page:
        # Not at the top: it needs matplotlib.
        from benchmarks import plot

        page.write(record)
        plot.draw(record)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument(
        "--workloads", type=_listed, default=["W1", "W2", "W4"], help=f"of {[*ALL, *PARTS]}"
    )
    parser.add_argument("--variants", type=_listed, default=["s2"], help=f"of {[*VARIANTS]}")
    parser.add_argument(
        "--latency", type=_numbers, default=[20], help="ms a request, as 0,20,60,100"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tls", action="store_true", help="https")
    options = parser.parse_args(words)
    options.tools = options.tools or [*TOOLS, *OURS]
    data = folder(options.data)
    generate(data)
    record = record_of(options, "benchmarks.run")
    Campaign(record, options.python, options.limit).go(plan(options), data)
    finish(record, options)


def _listed(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _numbers(text: str) -> list[int]:
    return [int(word) for word in _listed(text)]


def _environments(text: str) -> dict[str, str]:
    pairs = (pair.split("=", 1) for pair in _listed(text))
    return dict(pairs)


if __name__ == "__main__":
    main()
