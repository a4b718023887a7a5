# ruff: noqa: T201 -- a script that reports to its terminal
"""Run the unit tests on every supported Python that is there: ``python tests/matrix.py [pytest
arguments]``.

Each version gets an environment of its own in ``.venv-matrix-X.Y``, made once and installed anew
when ``pyproject.toml`` has changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13")
ROOT = Path(__file__).resolve().parents[1]


def find(version: str) -> str | None:
    """An interpreter of this version: on the path, or where pyenv and uv keep theirs."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    candidates = [
        shutil.which(f"python{version}"),
        *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}"))),
        *sorted(map(str, uv.glob(f"cpython-{version}.*/bin/python{version}"))),
        sys.executable,
    ]
    for candidate in filter(None, candidates):
        # A shim may be on the path and have no Python behind it: ask.
        asked = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if asked.returncode == 0 and asked.stdout.strip() == version:
            return candidate
    return None


def install(version: str, interpreter: str) -> Path | None:
    """The environment's Python; None when it could not be made."""
    home = ROOT / f".venv-matrix-{version}"
    python, stamp = home / "bin" / "python", home / ".installed"
    project = ROOT / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime >= project.stat().st_mtime:
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([interpreter, "-m", "venv", str(home)], [*pip, "-e", f"{ROOT}[dev]"]):
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return None
    stamp.touch()
    return python


def main() -> int:
    rows: list[tuple[str, str, str]] = []
    failed = found = 0
    for version in VERSIONS:
        interpreter = find(version)
        if interpreter is None:
            rows.append((version, "not here", ""))
            continue
        found += 1
        print(f"--- Python {version} ({interpreter})", flush=True)
        python = install(version, interpreter)
        if python is None:
            rows.append((version, "not installable", ""))
            failed += 1
            continue
        started = time.perf_counter()
        tests = [str(python), "-m", "pytest", "-q", "-m", "not slow and not network", "tests/unit"]
        code = subprocess.run([*tests, *sys.argv[1:]], cwd=ROOT, check=False).returncode
        failed += code != 0
        took = f"{time.perf_counter() - started:.0f} s"
        rows.append((version, "passed" if code == 0 else f"failed ({code})", took))
    print("\n| Python | tests | time |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    if not found:
        print("none of", ", ".join(VERSIONS), "is here")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
