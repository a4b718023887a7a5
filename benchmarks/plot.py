"""The plot of the page: wall seconds over those of the floor, of everybody at 20 ms, and of a few at every latency.

python -m benchmarks.plot RECORD.json
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.page import PAGE, TOOLS, title
from benchmarks.record import Key, Record
from benchmarks.targets import FLOOR, OWN, ratio
from benchmarks.workloads import ALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

PICTURE = PAGE.parent / "images" / "benchmarks.png"
LATENCY = 20
"""At which everybody is measured."""
TICKS = (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100, 200)
OURS = {"ours": ("#0b4f9e", "o"), "ours-numpy": ("#4a90d9", "D"), "ours-cluster": ("#8fc1ee", "s")}
MARKERS = "^v<>PXph*d"
COLOURS = (
    "#444444", "#d62728", "#ff7f0e", "#2ca02c", "#7a4ba0", "#8c564b", "#e377c2", "#a0a000", "#00808a", "#c02080",
)  # fmt: skip
"""Of the peers; blue is this package's own."""
FAINT = "#d8d8d8"


def draw(record: Record, picture: Path = PICTURE) -> None:
    """The points of each setting, those of `s2` across the whole width; below them lines over the latencies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    settings = [s for s in _settings(record) if len(_tools(record, s)) > 1]
    lines = _lined(record)
    if not settings:
        return
    rows = [settings[:1], *(settings[k : k + 2] for k in range(1, len(settings), 2))]
    heights = [4.2, *[3.2] * (len(rows) - 1), *[2.6] * bool(lines)]
    figure = pyplot.figure(figsize=(12, sum(heights) + 1), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    looks = _looks()
    for part, row in zip(parts, rows, strict=False):
        # A setting gets width for its workloads.
        widths = [len(_workloads(record, setting)) for setting in row]
        axes = part.subplots(1, len(row), squeeze=False, width_ratios=widths)[0]
        for axis, setting in zip(axes, row, strict=True):
            _points(axis, record, setting, looks)
    if lines:
        _latencies(parts[-1], record, lines, looks)
    _legend(figure, parts, looks)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def _settings(record: Record) -> list[str]:
    found = dict.fromkeys(k.setting for k in record.cells() if k.latency == LATENCY)
    return sorted(found, key=lambda setting: (setting != "s2", setting != "pc", setting))


def _tools(record: Record, setting: str) -> list[str]:
    there = {k.tool for k in record.cells() if (k.setting, k.latency) == (setting, LATENCY)}
    return [tool for tool in TOOLS if tool in there and not tool.startswith("floor")]


def _workloads(record: Record, setting: str) -> list[str]:
    return [n for n in ALL if record.median(Key(setting, n, LATENCY, "floor"), "wall")]


def _looks() -> dict[str, tuple[str, str]]:
    """Colour and marker of each tool, the same in every panel."""
    peers = [tool for tool in TOOLS if tool not in OWN]
    return OURS | dict(zip(peers, zip(COLOURS, MARKERS, strict=True), strict=True))


def _points(axis: Axes, record: Record, setting: str, looks: dict[str, tuple[str, str]]) -> None:
    names, tools = _workloads(record, setting), _tools(record, setting)
    for place, tool in enumerate(tools):
        found = [
            (at + ((place + 0.5) / len(tools) - 0.5) * 0.8, over)
            for at, name in enumerate(names)
            if (over := _over_floor(record, Key(setting, name, LATENCY, tool)))
        ]
        colour, marker = looks[tool]
        size = 64 if tool in OURS else 40
        axis.scatter(
            [x for x, _ in found], [y for _, y in found], s=size, color=colour, marker=marker,
            label=_plain(tool), zorder=3, edgecolor="white", linewidth=0.4,
        )  # fmt: skip
    for at in range(1, len(names)):
        axis.axvline(at - 0.5, color=FAINT, linewidth=0.8)
    axis.set_xlim(-0.5, len(names) - 0.5)
    axis.set_xticks(range(len(names)), names)
    _ratios(axis)
    axis.set_ylabel("wall ÷ the floor's")
    axis.set_title(title(setting, LATENCY).replace("`", ""), fontsize=10)


def _ratios(axis: Axes) -> None:
    """A logarithmic axis with ticks that people read; the floor is the line at 1."""
    axis.set_yscale("log")
    axis.axhline(1.0, color="black", linewidth=1.0)
    low, high = axis.get_ylim()
    low, high = min(low, 0.65), max(high, 2.2)
    ticks = [tick for tick in TICKS if low <= tick <= high]
    axis.set_ylim(low, high)
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)


def _over_floor(record: Record, key: Key) -> float | None:
    return ratio(record, key, Key(key.setting, key.workload, key.latency, "floor"))


def _lined(record: Record) -> list[str]:
    """Workloads of `s2` that were measured at several latencies."""
    found: dict[str, set[int]] = {}
    for key in record.cells():
        if (key.setting, key.tool) == ("s2", "ours") and _over_floor(record, key):
            found.setdefault(key.workload, set()).add(key.latency)
    return [name for name in ALL if len(found.get(name, ())) > 1]


def _latencies(
    part: SubFigure, record: Record, names: list[str], looks: dict[str, tuple[str, str]]
) -> None:
    axes = part.subplots(1, len(names), squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        for tool in ("ours", "ours-cluster", "rasterio-16", "async-geotiff"):
            found = sorted(
                (key.latency, over)
                for key in record.cells()
                if (key.setting, key.workload, key.tool) == ("s2", name, tool)
                and (over := _over_floor(record, key))
            )
            colour, marker = looks[tool]
            axis.plot(
                [x for x, _ in found], [y for _, y in found], color=colour, marker=marker,
                markersize=4, linewidth=1.2,
            )  # fmt: skip
        for tool, other, quantity, factor in FLOOR:
            if (tool, other, quantity) == ("ours", name, "wall"):
                axis.axhline(factor, color=looks["ours"][0], linestyle=":", linewidth=1.2)
        axis.set_xticks((0, 20, 60, 100))
        _ratios(axis)
        axis.tick_params(labelsize=8)
        axis.set_title(name, fontsize=9)
    axes[0].set_ylabel("wall ÷ the floor's")
    part.supxlabel("ms a request (dots: where this package, lazy, should be)", fontsize=9)


def _legend(figure: Figure, parts: Any, looks: dict[str, tuple[str, str]]) -> None:
    found: dict[str, Any] = {}
    for part in parts:
        for axis in part.get_axes():
            handles, labels = axis.get_legend_handles_labels()
            found |= dict(zip(labels, handles, strict=True))
    names = [_plain(tool) for tool in looks if _plain(tool) in found]
    figure.legend(
        [found[name] for name in names], names, loc="outside upper center", ncols=5, fontsize=9,
        frameon=False,
    )  # fmt: skip


def _plain(tool: str) -> str:
    return TOOLS[tool].replace("*", "")


if __name__ == "__main__":
    draw(Record.at(Path(sys.argv[1]), "") if len(sys.argv) > 1 else sys.exit(__doc__))
