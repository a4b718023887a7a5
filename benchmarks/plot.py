"""The plot of the page: wall seconds over those of the floor, for each workload and tool.

python -m benchmarks.plot RECORD.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.page import PAGE, TOOLS
from benchmarks.record import Key, Record
from benchmarks.workloads import ALL

PICTURE = PAGE.parent / "images" / "benchmarks.png"
TICKS = (0.2, 0.5, 1, 2, 5, 10, 20, 50)


def draw(record: Record, picture: Path = PICTURE) -> None:
    """One row of bars a setting and latency; the floor is the line at 1; logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    keys = record.cells()
    rows = list(dict.fromkeys((k.setting, k.latency) for k in keys if k.tool != "floor"))
    # Where only this package was measured beside one peer, a table says it better.
    rows = [row for row in rows if len({k.tool for k in keys if (k.setting, k.latency) == row}) > 5]
    if not rows:
        return
    tools = [t for t in TOOLS if t != "floor" and any(k.tool == t for k in keys)]
    figure, axes = pyplot.subplots(
        len(rows), 1, figsize=(11, 3.6 * len(rows)), squeeze=False, layout="constrained"
    )
    for axis, (setting, latency) in zip(axes[:, 0], rows, strict=True):
        _bars(axis, record, setting, latency, tools, pyplot.get_cmap("tab20"))
    found: dict[str, Any] = {}
    for axis in axes[:, 0]:
        handles, labels = axis.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    figure.legend(found.values(), found.keys(), loc="outside right upper", fontsize=8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _bars(
    axis: Any, record: Record, setting: str, latency: int, tools: list[str], colours: Any
) -> None:
    def wall(name: str, tool: str) -> float | None:
        return record.median(Key(setting, name, latency, tool), "wall")

    names = [name for name in ALL if wall(name, "floor")]
    for place, tool in enumerate(tools):
        for at, name in enumerate(names):
            base, mine = wall(name, "floor"), wall(name, tool)
            if not base or not mine:
                continue
            x = at + (place - (len(tools) - 1) / 2) * 0.8 / len(tools)
            ratio = mine / base
            axis.bar(
                x, abs(ratio - 1.0), 0.8 / len(tools), bottom=min(1.0, ratio),
                color=colours(place), label=tool,
            )  # fmt: skip
    axis.axhline(1.0, color="black", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("wall ÷ floor's")
    axis.set_title(f"{setting}, {latency} ms a request", fontsize=10)


if __name__ == "__main__":
    draw(Record.at(Path(sys.argv[1]), "") if len(sys.argv) > 1 else sys.exit(__doc__))
