"""Where the figures should be, and where they are: each target computed from a record, as tables of Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from benchmarks.record import Key, Record
from benchmarks.workloads import ALL

OURS = "ours"
CLUSTER = "ours-cluster"
OWN = ("floor", "floor-rows", OURS, "ours-numpy", CLUSTER)
GDAL = ("rasterio-16", "rioxarray", "odc-stac", "odc-stac-cluster", "stackstac")
LATENCIES = (0, 20, 60, 100)

FLOOR = (
    (OURS, "W1", "cpu", 0.8), (OURS, "W1", "wall", 0.9),
    (OURS, "W2", "cpu", 0.8), (OURS, "W2", "wall", 0.9),
    (OURS, "W4", "cpu", 0.9), (OURS, "W4", "wall", 0.9),
    (OURS, "W5", "cpu", 1.25), (OURS, "W5", "wall", 1.25),
    (OURS, "W6", "cpu", 2.0), (OURS, "W6", "wall", 2.0),
    (OURS, "W7", "cpu", 1.25), (OURS, "W7", "wall", 1.25),
    *((CLUSTER, name, "wall", 1.5) for name in ("W1", "W2", "W3", "W4", "W5", "W6", "W7")),
)  # fmt: skip
"""At most so many times what the floor takes, under `s2`, at every latency: who, work, quantity, factor."""

AHEAD = 1.01
"""More than as fast, in the digits that are printed."""

RASTERET = {"W1": 2.0, "W2": 2.0, "W4": 3.0, "W5": 7.0, "W6": 5.0, "W7": 5.0}
"""At least so many times as fast as rasteret."""

PC = {"W2": 5.0, "W4": 5.0, "W7": 3.5}
"""At least so many times as fast as every peer that is made of GDAL, on 15 bits a sample."""

SERIAL = ("W1", "W2", "W3")
SERIAL_FACTOR = 25.0


@dataclass(frozen=True)
class Check:
    """One target: a figure of the record, and the line it should be on one side of; `figure` is None where nothing was measured."""

    target: str
    place: str
    figure: float | None
    limit: float
    at_most: bool
    unit: str = "×"
    about: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure, as it is printed, is on the right side."""
        if self.figure is None:
            return False
        shown = round(self.figure, 2)
        return shown <= self.limit if self.at_most else shown >= self.limit

    def __str__(self) -> str:
        if self.figure is None:
            return "–"
        sign = "✓" if self.met else "✗"
        number = (
            f"{self.unit}{self.figure:.2f}"
            if self.unit == "×"
            else f"{self.figure:.2f} {self.unit}"
        )
        return f"{number} {sign}{self.about and f' ({self.about})'}"


def ratio(record: Record, key: Key, other: Key, name: str = "wall") -> float | None:
    """One cell over another: the median over the rounds that both have. A machine is not as quick in one round as in the next."""
    rounds = zip(record.of(key), record.of(other))
    found = [
        mine[name] / theirs[name]
        for mine, theirs in rounds
        if isinstance(mine, dict) and isinstance(theirs, dict) and theirs[name]
    ]
    return statistics.median(found) if found else None


def against_floor(record: Record) -> dict[str, list[Check]]:
    """For each target a check at each latency."""
    found = {}
    for tool, name, quantity, factor in FLOOR:
        who = "on a LocalCluster, " if tool == CLUSTER else ""
        said = {"cpu": "CPU", "wall": "wall"}[quantity]
        target = f"{name}, {who}{said} at most {factor:g} × the floor's"
        found[target] = [
            Check(
                target,
                f"{latency} ms",
                ratio(record, Key("s2", name, latency, tool), Key("s2", name, latency, "floor"), quantity),
                factor,
                at_most=True,
            )
            for latency in LATENCIES
        ]  # fmt: skip
    return found


def against_peers(record: Record) -> dict[str, list[Check]]:
    """For each workload a check wherever this package stands beside a peer."""
    measured = _measured(record)
    found: dict[str, list[Check]] = {}
    for name in ALL:
        factor = 1.5 if name == "W3" else AHEAD
        target = f"{name}{' (by 1.5 ×)' if name == 'W3' else ''}"
        for place in dict.fromkeys(measured.values()):
            mine = Key(place[0], name, place[1], OURS)
            peer = measured.get(mine) and _quickest(record, mine)
            if peer:
                check = _ahead(record, target, peer, factor, named=True)
                check = replace(check, about=f"{check.about}, of {_peers(record, mine)}")
            else:
                check = Check(target, _place(mine), None, factor, at_most=False)
            found.setdefault(target, []).append(check)
    return found


def others(record: Record) -> Iterator[Check]:
    """Every other target."""
    for name, factor in RASTERET.items():
        target = f"{name}: at least {factor:g} times as fast as rasteret"
        yield _ahead(record, target, Key("s2", name, 20, "rasteret"), factor)
    for name in SERIAL:
        target = f"{name}: at least {SERIAL_FACTOR:g} times as fast as serial rasterio"
        yield _ahead(record, target, Key("s2", name, 100, "rasterio-serial"), SERIAL_FACTOR)
    for name, factor in PC.items():
        target = f"{name}: at least {factor:g} times as fast as every peer made of GDAL that was measured"
        peer = _quickest(record, Key("pc", name, 20, OURS), GDAL)
        yield _ahead(record, target, peer or Key("pc", name, 20, GDAL[0]), factor, named=True)
    yield from _lazy(record)
    yield _stages(
        record, "NDVI's two bands take about as long as one (at most 1.25 ×)",
        (Key("s2", "NDVI", 100, OURS), "two"), (Key("s2", "NDVI", 100, OURS), "one"), 1.25,
    )  # fmt: skip


def _measured(record: Record) -> dict[Key, tuple[str, int]]:
    """Where this package stands beside peers: its cells, each with its setting and latency."""
    return {
        key: (key.setting, key.latency)
        for key in record.cells()
        if key.tool == OURS and record.median(key, "wall") and _quickest(record, key) is not None
    }


def _peers(record: Record, key: Key) -> int:
    """How many peers did the same work."""
    place = (key.setting, key.workload, key.latency)
    return sum(
        (peer.setting, peer.workload, peer.latency) == place
        and peer.tool not in OWN
        and record.median(peer, "wall") is not None
        for peer in record.cells()
    )


def _quickest(record: Record, key: Key, tools: tuple[str, ...] | None = None) -> Key | None:
    """The peer that did the same work in the least time."""
    found = [
        (over, peer)
        for peer in record.cells()
        if (peer.setting, peer.workload, peer.latency) == (key.setting, key.workload, key.latency)
        and (peer.tool in tools if tools is not None else peer.tool not in OWN)
        and (over := ratio(record, peer, key)) is not None
    ]
    return min(found)[1] if found else None


def _ahead(record: Record, target: str, peer: Key, factor: float, *, named: bool = False) -> Check:
    mine = Key(peer.setting, peer.workload, peer.latency, OURS)
    figure = ratio(record, peer, mine)
    about = peer.tool if named and figure is not None else ""
    return Check(target, _place(peer), figure, factor, at_most=False, about=about)


def _place(key: Key) -> str:
    return f"`{key.setting}`, {key.latency} ms"


def _lazy(record: Record) -> Iterator[Check]:
    whole, alone = Key("s2", "W8", 20, OURS), Key("s2", "W8-one", 20, OURS)
    opened = record.stage(whole, "open")
    target = "W8: opening takes less than 1 s"
    yield Check(target, _place(whole), opened, 1.0, at_most=True, unit="s")
    target = "W8: its window takes at most 2 × that of a collection of one scene"
    yield _stages(record, target, (whole, "window"), (alone, "window"), 2.0)


def _stages(
    record: Record, target: str, mine: tuple[Key, str], other: tuple[Key, str], limit: float
) -> Check:
    a, b = record.stage(*mine), record.stage(*other)
    figure = a / b if a and b else None
    return Check(target, _place(mine[0]), figure, limit, at_most=True)


def table(record: Record) -> str:
    """All targets; what was not measured has a dash."""
    floor, peers, single = against_floor(record), against_peers(record), list(others(record))
    rows = [*floor.values(), *peers.values(), single]
    measured = [check for row in rows for check in row if check.figure is not None]
    lines = [
        f"{sum(check.met for check in measured)} of {len(measured)} measured targets are met (✓).",
        "",
        "This package, lazy, over the floor under `s2`:",
        "",
        *_matrix(floor),
        "",
        "Ahead of the fastest peer: its wall seconds over this package's, lazy; in brackets which it is, and of how "
        "many that were measured there.",
        "",
        *(_matrix(peers) if any(peers.values()) else ()),
        "",
        "And:",
        "",
        "| | where | measured |",
        "|---|---|---|",
        *(f"| {check.target} | {check.place} | {check} |" for check in single),
        "",
    ]
    return "\n".join(lines)


def _matrix(rows: dict[str, list[Check]]) -> list[str]:
    places = [check.place for check in next(iter(rows.values()))]
    return [
        "| | " + " | ".join(places) + " |",
        "|---" * (len(places) + 1) + "|",
        *(f"| {target} | " + " | ".join(map(str, row)) + " |" for target, row in rows.items()),
    ]
