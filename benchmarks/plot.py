"""The plot of the page: wall seconds over those of the floor, for each workload and tool.

python -m benchmarks.plot RESULT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.run import PAGE, median

PICTURE = PAGE.parent / "images" / "benchmarks.png"


def draw(result: dict[str, Any], picture: Path = PICTURE) -> None:
    """One row of bars a variant; the floor is the line at 1; logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    options, latency = result["options"], result["options"]["latency"][0]
    variants, tools = options["variants"], [t for t in options["tools"] if t != "floor"]
    figure, axes = pyplot.subplots(
        len(variants), 1, figsize=(11, 3.6 * len(variants)), squeeze=False, layout="constrained"
    )
    colours = pyplot.get_cmap("tab20")
    for axis, variant in zip(axes[:, 0], variants, strict=True):
        names = [
            name
            for name in options["workloads"]
            if median(result["runs"].get(f"{variant}/{name}/{latency}/floor", []), "wall")
        ]
        for place, tool in enumerate(tools):
            for at, name in enumerate(names):
                base = median(result["runs"][f"{variant}/{name}/{latency}/floor"], "wall")
                wall = median(result["runs"].get(f"{variant}/{name}/{latency}/{tool}", []), "wall")
                if not wall or not base:
                    continue
                x = at + (place - (len(tools) - 1) / 2) * 0.8 / len(tools)
                bottom = min(1.0, wall / base)
                axis.bar(
                    x, abs(wall / base - 1.0), 0.8 / len(tools), bottom=bottom,
                    color=colours(place), label=tool,
                )  # fmt: skip
        axis.axhline(1.0, color="black", linewidth=0.8)
        axis.set_yscale("log")
        ticks = (0.2, 0.5, 1, 2, 5, 10, 20, 50)
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xticks(range(len(names)), names)
        axis.set_ylabel("wall ÷ floor's")
        axis.set_title(f"{variant}, {latency} ms a request", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    if unique:
        figure.legend(unique.values(), unique.keys(), loc="outside right upper", fontsize=8)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
