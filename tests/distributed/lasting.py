"""What tests of killed builds share: what has come to last on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path


def hashes(folder: Path) -> dict[str, str]:
    """All lasting files; what a killed writer was writing has a passing name and is not among
    them."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "drafts" not in path.parts
    }


def parts(where: Path) -> int:
    """How many parts lie there of a collection called `c`."""
    return len(list((where / "c" / "_rasteret" / "parts").rglob("*.part")))
