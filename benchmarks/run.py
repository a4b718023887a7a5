"""Measure everyone on the same work, in turns: ``python -m benchmarks.run --help``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import aliases, folder, generate
from benchmarks.ours import OURS, build
from benchmarks.peers import TOOLS
from benchmarks.workloads import make
from rasteret_dask.testing.server import RangeServer

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
NOTHING = (
    "No campaign has been run yet on a machine that had nothing else to do; "
    "the table is written by `--page`.\n\n"
)
Key = tuple[str, str, int]  # variant, workload, latency in ms


def start(
    server: RangeServer, tool: str, name: str, variant: str, keep: Path | None, python: str
) -> subprocess.Popen[str]:
    """A fresh process that loads its library, warms up and then waits."""
    return subprocess.Popen(
        [python, "-m", "benchmarks.child", tool, name, variant, server.url, str(keep or "-")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(child: subprocess.Popen[str]) -> str | None:
    """Until it is ready; a string says why it will never be."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if line.startswith("READY"):
        return None
    error = child.communicate()[1]
    return line.strip() or (error.strip().splitlines() or ["no word"])[-1]


def finish(server: RangeServer, child: subprocess.Popen[str], limit: float) -> dict[str, Any] | str:
    """Let a process that is ready do its work; a string says why there is no measurement."""
    server.reset()
    try:
        out, error = child.communicate("\n", timeout=limit)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return f"more than {limit:.0f} s"
    if child.returncode < 0:
        return f"ended by signal {-child.returncode}"
    if child.returncode != 0 and not out:
        return (error.strip().splitlines() or ["no word"])[-1]
    seen = server.counters()
    return {
        **json.loads(out.splitlines()[-1]),
        "requests": seen.requests,
        "bytes": seen.bytes,
        "connections": seen.connections,
        "peak": seen.peak_in_flight,
    }


def measure(
    server: RangeServer,
    tool: str,
    name: str,
    variant: str,
    keep: Path | None,
    limit: float,
    python: str,
) -> dict[str, Any] | str:
    """One measurement in a fresh process; a string says why there is none."""
    child = start(server, tool, name, variant, keep, python)
    return wait(child) or finish(server, child, limit)


def compare(mine: Path, reference: Path) -> str:
    """How two results differ, in a word or two."""
    a, b = np.load(mine), np.load(reference)
    words = []
    for name in b.files:
        if name not in a.files or a[name].shape != b[name].shape:
            return "other shape"
        if not np.array_equal(a[name], b[name], equal_nan=a[name].dtype.kind == "f"):
            differs = (a[name] != b[name]).mean()
            most = np.nanmax(np.abs(a[name].astype("f8") - b[name].astype("f8")))
            words.append(f"{name}: {differs:.2%} differ, by at most {most:.3g}")
    return "; ".join(words) or "equal"


def campaign(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds; returns raw measurements by ``variant/workload/latency/tool``."""
    data = folder(options.data)
    generate(data)
    os.environ["RASTERET_BENCH_DATA"] = str(data)
    runs: dict[str, list[Any]] = defaultdict(list)
    verdicts: dict[str, str] = {}
    names = {}
    for variant in options.variants:
        for name in options.workloads:
            work = make(name, variant)
            names |= aliases([*work.scenes, *work.warm().scenes])
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        RangeServer(data, aliases=names, tls=options.tls) as server,
    ):
        os.environ["RASTERET_BENCH_COLLECTIONS"] = scratch
        if any(tool in OURS for tool in options.tools):
            build(Path(scratch), server.url, options.variants, options.workloads)
        for turn in range(options.rounds):
            for variant in options.variants:
                for name in options.workloads:
                    for latency in options.latency:
                        for tool in options.tools:
                            key = f"{variant}/{name}/{latency}/{tool}"
                            if runs[key] and isinstance(runs[key][0], str):
                                continue
                            server.configure(latency=latency / 1000)
                            big = name == "W7"
                            keep = None if turn or big else Path(scratch) / f"{tool}.npz"
                            python = options.python.get(tool, sys.executable)
                            got = measure(server, tool, name, variant, keep, options.limit, python)
                            runs[key].append(got)
                            reference = Path(scratch) / f"{options.tools[0]}.npz"
                            if keep and keep.exists() and isinstance(got, dict):
                                verdicts[key] = compare(keep, reference)
                            elif big and isinstance(got, dict) and not turn:
                                first = runs[f"{variant}/{name}/{latency}/{options.tools[0]}"][0]
                                same = isinstance(first, dict) and first["result"] == got["result"]
                                verdicts[key] = "equal" if same else "differs"
                            say(key, got, verdicts.get(key, ""))
    return {"runs": runs, "verdicts": verdicts, "where": machine(), "options": vars(options)}


def say(key: str, got: dict[str, Any] | str, verdict: str) -> None:
    if isinstance(got, str):
        print(f"{key:40s} {got}", flush=True)
        return
    print(
        f"{key:40s} wall {got['wall']:7.3f}  cpu {got['cpu']:7.3f}  requests {got['requests']:6d}  "
        f"MB {got['bytes'] / 1e6:8.1f}  RSS {got['rss'] / 1e6:6.0f}  {verdict}",
        flush=True,
    )


def machine() -> str:
    cores = os.cpu_count()
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{cores} cores ({model}), Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )


def median(values: list[Any], field: str) -> float | None:
    numbers = [value[field] for value in values if isinstance(value, dict)]
    return statistics.median(numbers) if numbers else None


def table(result: dict[str, Any]) -> str:
    """Markdown: one table for each variant and latency; wall s (CPU s), and ratios to the floor."""
    options, runs = result["options"], result["runs"]
    lines: list[str] = []
    for variant in options["variants"]:
        for latency in options["latency"]:
            lines += [
                f"### `{variant}`, {latency} ms a request{', TLS' if options['tls'] else ''}",
                "",
                "Wall seconds (CPU seconds) × wall of the floor; requests, MB; peak MB of memory.",
                "",
                "| | " + " | ".join(options["workloads"]) + " |",
                "|---" * (len(options["workloads"]) + 1) + "|",
            ]
            for tool in options["tools"]:
                cells = []
                for name in options["workloads"]:
                    key = f"{variant}/{name}/{latency}/{tool}"
                    got = runs.get(key, [])
                    wall, base = median(got, "wall"), None
                    base = median(runs.get(f"{variant}/{name}/{latency}/floor", []), "wall")
                    if wall is None:
                        cells.append("–")
                        continue
                    ratio = f" ×{wall / base:.2f}" if base and tool != "floor" else ""
                    verdict = result["verdicts"].get(key, "")
                    mark = "" if verdict in ("", "equal") else " ≠"
                    cells.append(
                        f"{wall:.2f} ({median(got, 'cpu'):.2f}){ratio}; {median(got, 'requests'):.0f}, "
                        f"{(median(got, 'bytes') or 0) / 1e6:.0f}; "
                        f"{(median(got, 'rss') or 0) / 1e6:.0f}{mark}"
                    )
                lines.append(f"| {tool} | " + " | ".join(cells) + " |")
            lines.append("")
    differing = {key: word for key, word in result["verdicts"].items() if word != "equal"}
    if differing:
        lines += ["Where results differ from the first row's (≠):", ""]
        lines += [f"- `{key}`: {word}" for key, word in differing.items()] + [""]
    failed = {key: got[0] for key, got in runs.items() if got and isinstance(got[0], str)}
    if failed:
        lines += ["Where there is no number (–) there is a reason:", ""]
        lines += [f"- `{key}`: {word[:200]}" for key, word in failed.items()] + [""]
    return "\n".join(lines)


def write_page(result: dict[str, Any], command: str) -> None:
    """Replace what stands between the marks of the page."""
    begin, end = "<!-- table -->", "<!-- /table -->"
    page = PAGE.read_text(encoding="utf-8").replace(NOTHING, "")
    head, _, rest = page.partition(begin)
    _, _, tail = rest.partition(end)
    rounds = result["options"]["rounds"]
    body = (
        f"\n\n{result['where']}; medians of {rounds} rounds; `{command}`\n\n{table(result)}\n\n"
        "![Wall seconds of every tool over the floor's](images/benchmarks.png)\n\n"
    )
    PAGE.write_text(head + begin + body + end + tail, encoding="utf-8")


def save(result: dict[str, Any], path: Path) -> None:
    """Raw numbers, as JSON."""
    path.write_text(json.dumps(result, default=str, indent=1), encoding="utf-8")


def listed(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def environments(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in listed(text))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    everyone = [*TOOLS, *OURS]
    parser.add_argument("--tools", type=listed, default=everyone, help=f"of {everyone}")
    parser.add_argument("--workloads", type=listed, default=["W1", "W2", "W4"])
    parser.add_argument("--variants", type=listed, default=["s2"])
    parser.add_argument("--latency", type=lambda text: [int(v) for v in listed(text)], default=[20])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for one measurement")
    parser.add_argument(
        "--python", type=environments, default={}, help="TOOL=INTERPRETER,… for tools of their own"
    )
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--data", default=None)
    parser.add_argument("--json", type=Path, help="also keep the raw numbers here")
    parser.add_argument("--page", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    result = campaign(options)
    if options.json:
        save(result, options.json)
    print()
    print(table(result))
    if options.page:
        # Not at the top: the plot reads this module.
        from benchmarks import plot

        shown = [word for word in sys.argv[1:] if "=" not in word and word != "--python"]
        write_page(result, "python -m benchmarks.run " + " ".join(shown))
        plot.draw(result)


if __name__ == "__main__":
    main()
