"""A record as tables of Markdown, in the page between its marks."""

from __future__ import annotations

from pathlib import Path

from benchmarks.record import Key, Record
from benchmarks.workloads import ALL

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
TOOLS = (
    "floor", "ours", "ours-numpy", "ours-cluster", "rasterio-serial", "rasterio-16", "rioxarray",
    "odc-stac", "odc-stac-cluster", "stackstac", "async-geotiff", "lazycogs", "virtual-tiff",
    "rasteret",
)  # fmt: skip
"""In the order of the rows."""


def table(record: Record) -> str:
    """One table for each setting and latency; then what differs, and what has no number."""
    keys = record.cells()
    lines: list[str] = []
    for setting, latency in dict.fromkeys((k.setting, k.latency) for k in keys):
        lines += _table(record, setting, latency)
    differing = {key: word for key, word in record.verdicts.items() if word != "equal"}
    if differing:
        lines += ["Where results differ from the floor's (≠):", ""]
        lines += [f"- `{key}`: {word}" for key, word in sorted(differing.items())] + [""]
    failed = _reasons(record)
    if failed:
        lines += ["Where there is no number (–) there is a reason:", ""]
        lines += [f"- {line}" for line in failed] + [""]
    return "\n".join(lines)


def _table(record: Record, setting: str, latency: int) -> list[str]:
    keys = [k for k in record.cells() if (k.setting, k.latency) == (setting, latency)]
    workloads = [name for name in ALL if any(k.workload == name for k in keys)]
    tools = [name for name in TOOLS if any(k.tool == name for k in keys)]
    variant, _, tls = setting.partition("-")
    lines = [
        f"### `{variant}`, {latency} ms a request{', TLS' if tls else ''}",
        "",
        "| | " + " | ".join(workloads) + " |",
        "|---" * (len(workloads) + 1) + "|",
    ]
    for tool in tools:
        cells = [_cell(record, Key(setting, name, latency, tool)) for name in workloads]
        lines.append(f"| {tool} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(record: Record, key: Key) -> str:
    wall, cpu = record.median(key, "wall"), record.median(key, "cpu")
    if wall is None or cpu is None:
        return "–" if record.of(key) else ""
    ratio = ""
    floor = Key(key.setting, key.workload, key.latency, "floor")
    base, spent = record.median(floor, "wall"), record.median(floor, "cpu")
    if base and spent and key.tool != "floor":
        ratio = f" **×{wall / base:.2f}** ({cpu / spent:.2f})"
    requests, size = record.median(key, "requests") or 0, record.median(key, "bytes") or 0
    peak = record.median(key, "rss") or 0
    mark = "" if record.verdicts.get(str(key), "equal") == "equal" else " ≠"
    rounds = len(record.of(key))
    return (
        f"{wall:.2f} ({cpu:.2f}){ratio}; {requests:.0f}, {size / 1e6:.0f} MB; "
        f"{peak / 1e6:.0f} MB; n={rounds}{mark}"
    )


def _reasons(record: Record) -> list[str]:
    """Why tools have no number, the same words once."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in record.cells():
        word = record.failed(key)
        if word is not None:
            word = word.removeprefix("UNABLE ")[:200]
            found.setdefault((key.tool, word), []).append(key.workload)
    return [
        f"{tool}, {', '.join(dict.fromkeys(names))}: {word}"
        for (tool, word), names in sorted(found.items())
    ]


def stages(record: Record) -> str:
    """What W8's two parts took: opening, and the window."""
    lines = []
    for key in record.cells():
        parts = [g["stages"] for g in record.of(key) if isinstance(g, dict) and g.get("stages")]
        if key.workload == "W8" and parts:
            middle = {n: sorted(p[n] for p in parts)[len(parts) // 2] for n in parts[0]}
            words = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in middle.items())
            lines.append(f"- `{key}`: {words}")
    return "\n".join(["What W8 is made of:", "", *lines, ""]) if lines else ""


def write(record: Record, page: Path = PAGE) -> None:
    """Replace what stands between the marks of the page."""
    begin, end = "<!-- table -->", "<!-- /table -->"
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, _, tail = rest.partition(end)
    commands = "\n".join(f"    {command}" for command in record.commands)
    body = (
        f"\n\n{record.where}.\n\n{commands}\n\n"
        "A cell: wall seconds (CPU seconds), **× the floor's wall** (× the floor's CPU); requests, bytes received; "
        "peak memory of the client; n, the rounds whose medians these are.\n\n"
        f"{table(record)}\n{stages(record)}\n"
        "![Wall seconds of every tool over the floor's](images/benchmarks.png)\n\n"
    )
    page.write_text(head + begin + body + end + tail, encoding="utf-8")
