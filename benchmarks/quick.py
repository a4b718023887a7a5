"""The whole campaign within a budget of minutes: ``python -m benchmarks.quick --minutes 12 --page``.

What matters most is measured first, and each stretch of work once before any of it is measured again, so that whatever
time is left, the rows stand next to each other. A measurement that would not end in time is not begun. The processes of
one stretch load and warm up together, and then work one after another while the others wait.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from argparse import Namespace
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import plot, run
from benchmarks.data import aliases, folder, generate
from benchmarks.ours import build
from benchmarks.workloads import make
from rasteret_dask.testing.server import RangeServer

TOOLS = (
    "floor", "ours", "ours-numpy", "ours-cluster", "rasterio-16", "odc-stac", "odc-stac-cluster",
    "stackstac", "async-geotiff", "rasteret",
)  # fmt: skip
LATENCY = 20

Pass = tuple[str, str]  # variant, workload
PASSES: tuple[tuple[Pass, ...], ...] = (
    # Every workload once, the cheap ones first; then the ones that are cheap to repeat.
    tuple(("s2", name) for name in ("W1", "W2", "W3", "W6", "W5", "W4", "W7")),
    (("pc", "W1"), ("pc", "W2")),
    tuple(("s2", name) for name in ("W1", "W2", "W3", "W6", "W5")),
    (("pc", "W4"),),
    tuple(("s2", name) for name in ("W1", "W2", "W3", "W6", "W5")),
    (("pc", "W1"), ("pc", "W2"), ("s2", "W4"), ("s2", "W7")),
)


def campaign(options: argparse.Namespace) -> dict[str, Any]:
    """As ``run.campaign``, in the order of `PASSES` and until time is up."""
    until = time.monotonic() + options.minutes * 60
    data = folder(options.data)
    generate(data)
    os.environ["RASTERET_BENCH_DATA"] = str(data)
    passes = [
        [(variant, name) for variant, name in passed if name in options.workloads]
        for passed in PASSES
    ][: options.passes]
    pairs = list(dict.fromkeys(pair for passed in passes for pair in passed))
    names: dict[str, str] = {}
    for variant, name in pairs:
        work = make(name, variant)
        names |= aliases([*work.scenes, *work.warm().scenes])
    keys = Recorder(options)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as scratch,
        RangeServer(data, aliases=names) as server,
    ):
        os.environ["RASTERET_BENCH_COLLECTIONS"] = scratch
        for variant, name in pairs:
            build(Path(scratch), server.url, [variant], [name])
        server.configure(latency=LATENCY / 1000)
        for passed in passes:
            for variant, name in passed:
                keys.stretch(server, name, variant, Path(scratch), until)
    said = vars(options) | {
        "variants": list(dict.fromkeys(variant for variant, _ in pairs)),
        "workloads": [name for name in options.workloads if name in {name for _, name in pairs}],
        "latency": [LATENCY],
        "tls": False,
        "rounds": f"1 to {max([len(v) for v in keys.runs.values()] or [0])}",
    }
    return {
        "runs": keys.runs, "verdicts": keys.verdicts, "where": run.machine(), "options": said,
        "left": keys.left,
    }  # fmt: skip


class Recorder:
    """What was measured so far, how long each took, and what there was no time for."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.runs: dict[str, list[Any]] = defaultdict(list)
        self.verdicts: dict[str, str] = {}
        self.took: dict[str, float] = {}
        self.left: list[str] = []

    def stretch(
        self, server: RangeServer, name: str, variant: str, scratch: Path, until: float
    ) -> None:
        """All tools on one workload: those that can are made ready together, then work in turns."""
        children = {}
        for tool in self.options.tools:
            key = f"{variant}/{name}/{LATENCY}/{tool}"
            if self.runs[key] and isinstance(self.runs[key][0], str):
                continue
            # Twelve seconds: until all are ready. What a first measurement takes is not known.
            if until - time.monotonic() < 12 + self.took.get(key, 0.0):
                self.left.append(key)
                continue
            keep = scratch / f"{variant}-{name}-{tool}.npz"
            # W7's pixels are compared by checksum; 1 GB a tool is not written.
            kept = None if name == "W7" or self.runs[key] else keep
            python = self.options.python.get(tool, sys.executable)
            children[tool] = run.start(server, tool, name, variant, kept, python)
        failed = {tool: run.wait(child) for tool, child in children.items()}
        for tool, child in children.items():
            remaining = until - time.monotonic()
            key = f"{variant}/{name}/{LATENCY}/{tool}"
            if failed[tool] is None and remaining < max(self.took.get(key, 0.0), 1.0):
                child.kill()
                child.communicate()
                self.left.append(key)
                continue
            began = time.monotonic()
            limit = min(self.options.limit, remaining)
            got = failed[tool] or run.finish(server, child, limit)
            self.took[key] = time.monotonic() - began
            if isinstance(got, str) and limit < self.options.limit and got.startswith("more"):
                self.left.append(key)
                continue
            self.runs[key].append(got)
            self.verify(key, got, scratch)
            run.say(key, got, self.verdicts.get(key, ""))

    def verify(self, key: str, got: Any, scratch: Path) -> None:
        """Compare the pixels of a first measurement with the floor's."""
        variant, name, _, tool = key.split("/")
        if not isinstance(got, dict) or len(self.runs[key]) > 1:
            return
        if name == "W7":
            first = (self.runs[f"{variant}/{name}/{LATENCY}/floor"] or [None])[0]
            same = isinstance(first, dict) and first["result"] == got["result"]
            self.verdicts[key] = "equal" if same else "differs"
            return
        kept, reference = (scratch / f"{variant}-{name}-{t}.npz" for t in (tool, "floor"))
        if kept.exists() and reference.exists():
            self.verdicts[key] = run.compare(kept, reference)
            if tool != "floor":
                kept.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--passes", type=int, default=len(PASSES), help="of the plan, at most")
    parser.add_argument("--tools", type=run.listed, default=list(TOOLS))
    parser.add_argument(
        "--workloads", type=run.listed, default=["W1", "W2", "W3", "W4", "W5", "W6", "W7"]
    )
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one measurement")
    parser.add_argument("--python", type=run.environments, default={}, help="TOOL=INTERPRETER,…")
    parser.add_argument("--data", default=None)
    parser.add_argument("--json", type=Path, help="also keep the raw numbers here")
    parser.add_argument("--page", action="store_true", help="write docs/benchmarks.md and its plot")
    options = parser.parse_args()
    result = campaign(Namespace(**vars(options)))
    if options.json:
        run.save(result, options.json)
    print()
    print(run.table(result))
    if result["left"]:
        print("No time was left for:", ", ".join(dict.fromkeys(result["left"])))
    if options.page:
        # Interpreters are the machine's own and say nothing to a reader.
        run.write_page(result, f"python -m benchmarks.quick --minutes {options.minutes:g}")
        plot.draw(result)


if __name__ == "__main__":
    main()
