"""A record as tables of Markdown, in the page between its marks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import targets
from benchmarks.record import Key, Record
from benchmarks.workloads import ALL

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
TOOLS = {
    "floor": "the floor",
    "floor-rows": "the floor, to the last row wanted",
    "ours": "**this package**, lazy",
    "ours-numpy": "this package, NumPy",
    "ours-cluster": "this package, LocalCluster",
    "rasterio-serial": "rasterio, serial",
    "rasterio-16": "rasterio, 16 threads",
    "rioxarray": "rioxarray + Dask",
    "odc-stac": "odc-stac, threads",
    "odc-stac-cluster": "odc-stac, LocalCluster",
    "stackstac": "stackstac",
    "async-geotiff": "async-geotiff",
    "lazycogs": "lazycogs",
    "virtual-tiff": "VirtualiZarr + virtual-tiff",
    "rasteret": "rasteret, index prebuilt",
}
"""What each is called, in the order of the rows."""


def tables(record: Record) -> str:
    """Tables for each setting and latency; then what differs, and what has no number."""
    places = dict.fromkeys((k.setting, k.latency) for k in record.cells())
    lines: list[str] = []
    for setting, latency in sorted(places, key=_order):
        lines += _place(record, setting, latency)
    return "\n".join([*lines, *_pixels(record), *_missing(record)])


def _order(place: tuple[str, int]) -> tuple[int, int]:
    settings = ("s2", "pc", "zstd")
    setting, latency = place
    known = settings.index(setting) if setting in settings else len(settings)
    # 20 ms is where everybody is measured.
    return known, -1 if latency == 20 else latency


def title(setting: str, latency: int) -> str:
    """Of a setting and latency."""
    variant, _, tls = setting.partition("-")
    return f"`{variant}`, {latency} ms a request{', TLS' if tls else ''}"


def _place(record: Record, setting: str, latency: int) -> list[str]:
    keys = [k for k in record.cells() if (k.setting, k.latency) == (setting, latency)]
    names = [name for name in ALL if any(k.workload == name for k in keys)]
    tools = [tool for tool in TOOLS if any(k.tool == tool for k in keys if k.workload in names)]
    if not names:
        return []

    def rows(cell: Callable[[Record, Key], str], chosen: list[str]) -> list[str]:
        return [
            f"| {TOOLS[tool]} | "
            + " | ".join(cell(record, Key(setting, name, latency, tool)) for name in names)
            + " |"
            for tool in chosen
        ]

    head = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines = [f"### {title(setting, latency)}", "", *head, *rows(_seconds, tools), ""]
    peers = [tool for tool in tools if tool not in targets.OWN]
    if peers and "ours" in tools:
        lines += ["Wall (CPU) seconds of each peer over this package's, lazy:", ""]
        lines += [*head, *rows(_over_ours, peers), ""]
    lines += ["Requests; MB received; MB of peak memory:", ""]
    return [*lines, *head, *rows(_asked, tools), ""]


def _seconds(record: Record, key: Key) -> str:
    wall, cpu = record.median(key, "wall"), record.median(key, "cpu")
    if wall is None or cpu is None:
        return "–" if record.of(key) else ""
    floor = replace(key, tool="floor")
    walls, cpus = targets.ratio(record, key, floor), targets.ratio(record, key, floor, "cpu")
    over = f" ×{walls:.2f} ({cpus:.2f})" if walls and cpus and key.tool != "floor" else ""
    mark = "" if record.verdicts.get(str(key), "equal") == "equal" else " ≠"
    return f"{wall:.2f} ({cpu:.2f}){over}{mark} <sup>{record.rounds(key)}</sup>"


def _over_ours(record: Record, key: Key) -> str:
    mine = replace(key, tool=targets.OURS)
    walls, cpus = targets.ratio(record, key, mine), targets.ratio(record, key, mine, "cpu")
    return f"{walls:.1f} ({cpus:.1f})" if walls and cpus else ""


def _asked(record: Record, key: Key) -> str:
    found = [record.median(key, name) for name in ("requests", "bytes", "rss")]
    if any(number is None for number in found):
        return ""
    requests, size, memory = (number or 0.0 for number in found)
    return f"{requests:,.0f}; {size / 1e6:,.0f}; {memory / 1e6:,.0f}"


def _pixels(record: Record) -> list[str]:
    """What was compared, and what differs."""
    compared = {k: v for k, v in record.verdicts.items() if not k.endswith("/floor")}
    same = sum(word == "equal" for word in compared.values())
    lines = ["### Pixels", ""]
    lines += [
        f"The results of {len(compared)} cells were compared with the floor's in every round: of W6 how many headers, "
        f"of W9 the sum of each chip, of all others every pixel. {same} are equal, bit by bit."
    ]
    found: dict[tuple[str, str, str], list[str]] = {}
    for text, word in sorted(compared.items()):
        if word != "equal":
            setting, workload, latency, tool = text.split("/")
            found.setdefault((workload, tool, word), []).append(f"{setting}, {latency} ms")
    if found:
        lines[-1] += " The others (≠):"
    lines.append("")
    lines += [
        f"- {workload}, {TOOLS[tool].replace('*', '')} ({'; '.join(places)}): {word}"
        for (workload, tool, word), places in found.items()
    ]
    return [*lines, ""] if found else lines


def _missing(record: Record) -> list[str]:
    """Why tools have no number, the same words once."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in record.cells():
        word = record.failed(key)
        if word is not None:
            word = word.removeprefix("UNABLE ")[:200]
            setting = "" if key.setting == "s2" else f" of `{key.setting}`"
            found.setdefault((key.tool, word), []).append(f"{key.workload}{setting}")
    if not found:
        return []
    return [
        "### Where there is no number (–)",
        "",
        *(
            f"- {TOOLS[tool].replace('*', '')}, {', '.join(dict.fromkeys(names))}: {word}"
            for (tool, word), names in sorted(found.items())
        ),
        "",
    ]


def stages(record: Record) -> str:
    """What the parts of a measurement took, where it has parts: medians."""
    lines = []
    for key in record.cells():
        parts = [g["stages"] for g in record.of(key) if isinstance(g, dict) and g.get("stages")]
        if parts:
            middle = {n: statistics.median(p[n] for p in parts) for n in parts[0]}
            words = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in middle.items())
            lines.append(f"- {key.workload}, {title(key.setting, key.latency)}: {words}")
    return "\n".join(["### Parts", "", *lines, ""]) if lines else ""


def told(record: Record) -> str:
    """Everything that stands between the marks."""
    commands = "\n".join(f"    {command}" for command in record.commands)
    count = sum(record.rounds(key) for key in record.cells())
    versions = record.versions()
    used = "; ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return (
        f"{record.where}; {count} measurements by\n\n{commands}\n\n{used and f'Versions: {used}.'}\n\n"
        f"### Where it should be\n\n{targets.table(record)}\n"
        "![Wall seconds over the floor's](images/benchmarks.png)\n\n"
        "In the tables: wall seconds (CPU seconds) × the floor's wall (the floor's CPU); raised, the rounds "
        "of which these are the medians. A ratio is the median of those of the rounds.\n\n"
        f"{tables(record)}\n{stages(record)}"
    )


def write(record: Record, page: Path = PAGE) -> None:
    """Replace what stands between the marks of the page."""
    begin, end = "<!-- table -->", "<!-- /table -->"
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, tail = rest.partition(end)
    page.write_text(f"{head}{begin}\n\n{told(record)}\n{end}{tail}", encoding="utf-8")
