"""The whole campaign within a budget of minutes: ``python -m benchmarks.quick --minutes 110 --json FILE --page``.

Everything is measured once before any of it is measured again, so that whatever time is left, the rows stand next to each other; three
rounds of everything take an hour and a quarter on two quiet cores. A measurement that would not end in time is not begun; the same command
with the same ``--json`` goes on with what is missing.
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
EVERY = (
    *OURS, "floor-rows", "rasterio-16", "async-geotiff", "odc-stac",
    "rasteret", "odc-stac-cluster", "stackstac", "lazycogs", "virtual-tiff", "rioxarray",
)  # fmt: skip
W1_TO_7 = ALL[:7]
CLOSE = ("floor", "ours", "ours-cluster", "rasterio-16")
WINDOWS = ("W1", "W2", "W4", "W7")


@dataclass(frozen=True)
class Pass:
    """Some workloads by some tools, in turns."""

    setting: str
    latencies: tuple[int, ...]
    workloads: tuple[str, ...]
    tools: tuple[str, ...]


OTHERS = (100, 60, 0)
"""Latencies beside the 20 ms at which everybody is measured; the farthest from it first."""

EVERYTHING = (
    Pass("s2", (20,), W1_TO_7, EVERY),
    Pass("pc", (20,), WINDOWS, (*OURS, "rasterio-16", "odc-stac", "rasteret", "async-geotiff")),
    # Beside rasterio's threads, async-geotiff is the quickest peer for these.
    Pass("s2", OTHERS, ("W1", "W2", "W6"), (*CLOSE, "async-geotiff")),
    Pass("s2", OTHERS[1:], ("W3", "W4", "W5", "W7"), CLOSE),
    # Far away, where few requests at once take longest, those who have many.
    Pass("s2", (100,), ("W4", "W7"), (*CLOSE, "async-geotiff")),
    Pass("s2", (100,), ("W5",), (*CLOSE, "async-geotiff", "rasteret")),
    Pass("s2", (100,), ("W3",), (*CLOSE, "odc-stac")),
    Pass("s2", (100,), ("W1", "W2", "W3"), ("rasterio-serial",)),
    Pass("s2", (20,), ("W8",), ("floor", "ours", "odc-stac", "stackstac", "lazycogs")),
    Pass("s2", (20,), ("W8-one",), ("ours",)),
    Pass("s2", (100,), ("NDVI",), ("ours",)),
    Pass(
        f"s2{TLS}", (20,), ("W1", "W2", "W6"), (*OURS, "rasterio-16", "odc-stac", "async-geotiff")
    ),
    Pass("zstd", (20,), WINDOWS, (*OURS[:3], "rasterio-16", "async-geotiff")),
    Pass("s2", (20,), ("W9",), ("floor", "ours", "rasterio-16")),
)

ROUNDS = 3

PLAN = tuple((part, rounds) for rounds in range(1, ROUNDS + 1) for part in EVERYTHING)
"""Everything once, then everything again: what is measured together in one round stands within half an hour of the rest."""


def stretches(
    tools: list[str] | None, workloads: list[str], settings: list[str]
) -> Iterator[Stretch]:
    """The plan, or what is asked for of it."""
    for part, rounds in PLAN:
        if part.setting not in settings:
            continue
        chosen = tuple(tool for tool in part.tools if tools is None or tool in tools)
        for latency in part.latencies:
            for name in part.workloads:
                if name in workloads and chosen:
                    yield Stretch(part.setting, name, latency, chosen, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    common(parser)
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--workloads", type=lambda text: text.split(","), default=[*ALL, *PARTS])
    everything = list(dict.fromkeys(part.setting for part in EVERYTHING))
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
