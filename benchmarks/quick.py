"""The whole campaign within a budget of minutes: ``python -m benchmarks.quick --minutes 35 --json FILE --page``.

What matters most is measured first, and each stretch of work once before any of it is measured again, so that whatever time is left, the
rows stand next to each other: three rounds for the floor and for this package, one for peers that are slow. A measurement that would not
end in time is not begun; the same command with the same ``--json`` goes on with what is missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.campaign import TLS, Campaign, Stretch
from benchmarks.data import folder, generate
from benchmarks.run import common, finish, record_of
from benchmarks.workloads import ALL, PARTS

OURS = ("floor", "ours", "ours-numpy", "ours-cluster")
CORE = (*OURS, "floor-rows", "rasterio-16", "async-geotiff")
EVERY = (
    *CORE, "odc-stac", "rasteret", "odc-stac-cluster", "stackstac", "lazycogs", "virtual-tiff", "rioxarray",
)  # fmt: skip
W1_TO_7 = ALL[:7]
SHORT = ("W1", "W2", "W3", "W5", "W6")
WINDOWS = ("W1", "W2", "W4", "W7")


@dataclass(frozen=True)
class Pass:
    """Some workloads by some tools: one measurement more of each that has fewer than `rounds`."""

    setting: str
    latencies: tuple[int, ...]
    workloads: tuple[str, ...]
    tools: tuple[str, ...]
    rounds: int


OTHERS = (100, 60, 0)
"""Latencies beside the 20 ms at which everybody is measured; the farthest from it first."""

PLAN = (
    # Everybody once; three rounds of what stands closest; what peers claim, and what they find hard.
    Pass("s2", (20,), W1_TO_7, EVERY, 1),
    Pass("pc", (20,), WINDOWS, (*OURS, "rasterio-16", "odc-stac", "rasteret", "async-geotiff"), 1),
    Pass("s2", OTHERS, W1_TO_7, ("floor", "ours", "ours-cluster", "rasterio-16"), 1),
    Pass("s2", (100,), ("W1", "W2", "W3"), ("rasterio-serial",), 1),
    Pass("s2", (20,), ("W8",), ("floor", "ours", "odc-stac", "stackstac"), 1),
    Pass("s2", (20,), ("W8-one",), ("ours",), 1),
    Pass("s2", (100,), ("NDVI",), ("ours",), 1),
    Pass("s2", (20,), W1_TO_7, CORE, 2),
    Pass(f"s2{TLS}", (20,), ("W1", "W2", "W6"), (*OURS, "rasterio-16", "odc-stac"), 1),
    Pass("zstd", (20,), WINDOWS, (*OURS[:3], "rasterio-16"), 1),
    Pass("s2", (20,), ("W9",), ("floor", "ours", "rasterio-16"), 1),
    Pass("s2", (20,), W1_TO_7, CORE, 3),
    Pass("s2", (20,), W1_TO_7, EVERY, 2),
    Pass("s2", (20,), W1_TO_7, EVERY, 3),
    # Then more rounds: the cheap ones first.
    Pass("s2", OTHERS, SHORT, ("floor", "ours", "ours-cluster"), 2),
    Pass("s2", (20,), ("W8", "W8-one"), ("floor", "ours"), 2),
    Pass("s2", (100,), ("NDVI",), ("ours",), 2),
    Pass("s2", OTHERS, SHORT, ("floor", "ours", "ours-cluster"), 3),
    Pass("s2", (20,), ("W8", "W8-one"), ("floor", "ours"), 3),
    Pass("s2", (100,), ("NDVI",), ("ours",), 3),
    Pass("pc", (20,), WINDOWS, OURS[:3], 2),
    Pass("s2", OTHERS, ("W4", "W7"), ("floor", "ours"), 2),
    Pass(f"s2{TLS}", (20,), ("W1", "W2", "W6"), OURS[:3], 2),
    Pass("zstd", (20,), WINDOWS, OURS[:3], 2),
    Pass("pc", (20,), WINDOWS, OURS[:3], 3),
    Pass("s2", OTHERS, ("W4", "W7"), ("floor", "ours"), 3),
    Pass(f"s2{TLS}", (20,), ("W1", "W2", "W6"), OURS[:3], 3),
    Pass("zstd", (20,), WINDOWS, OURS[:3], 3),
    Pass("s2", (20,), ("W9",), ("floor", "ours", "rasterio-16"), 2),
    Pass("pc", (20,), ("W1", "W2", "W4"), ("rioxarray", "stackstac"), 1),
    Pass("s2", (20,), ("W9",), ("floor", "ours", "rasterio-16"), 3),
    Pass("s2", OTHERS, W1_TO_7, ("rasterio-16", "async-geotiff", "ours-cluster"), 3),
)


def stretches(
    tools: list[str] | None, workloads: list[str], settings: list[str]
) -> Iterator[Stretch]:
    """The plan, or what is asked for of it."""
    for part in PLAN:
        if part.setting not in settings:
            continue
        chosen = tuple(tool for tool in part.tools if tools is None or tool in tools)
        for latency in part.latencies:
            for name in part.workloads:
                if name in workloads and chosen:
                    yield Stretch(part.setting, name, latency, chosen, part.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument("--minutes", type=float, default=35.0)
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=[*ALL, *PARTS])
    everything = list(dict.fromkeys(part.setting for part in PLAN))
    parser.add_argument("--settings", type=lambda text: text.split(","), default=everything)
    options = parser.parse_args()
    until = time.monotonic() + options.minutes * 60
    data = folder(options.data)
    generate(data)
    record = record_of(options, "benchmarks.quick")
    campaign = Campaign(record, options.python, options.limit, until)
    campaign.go(list(stretches(options.tools, options.workloads, options.settings)), data)
    finish(record, options)
    if campaign.left:
        print("No time was left for:", ", ".join(map(str, dict.fromkeys(campaign.left))))


if __name__ == "__main__":
    main()
