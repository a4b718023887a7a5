"""Tables that stand in the docs between marks, as ``<!-- memory -->`` and ``<!-- /memory -->``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

CLUSTERS = Path(__file__).resolve().parents[1] / "docs" / "clusters.md"


def put(name: str, lines: Sequence[str], page: Path = CLUSTERS) -> None:
    """Replace what stands between the marks of a name by a table, and say on how many cores it was made."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} has no marks {begin} and {end}")
    body = "\n".join([*lines, "", f"({os.cpu_count()} cores.)"])
    page.write_text(f"{head}{begin}\n{body}\n{end}{tail}", encoding="utf-8")
