# ruff: noqa: T201 -- a script that reports to its terminal
"""Install what this interpreter supports and run the TorchGeo tests for real: ``python tests/torchgeo/run.py [pytest arguments]``.

The environment is ``.venv-torchgeo-X.Y``, made once and again when ``pyproject.toml`` or this file has changed. A machine without
room for it says so and skips; anything else that goes wrong is a failure.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOM = 9
"""GB: from 3.12 on torch comes with CUDA, 3 GB to receive and 6 on disk; a CPU build takes 1.5."""

# The last TorchGeo for 3.11 is 0.8.1; these go together, and a CPU build of this torch may be at hand.
OLD = ["torch==2.13.0", "torchvision==0.28.0", "torchgeo==0.8.1", "requests"]
NEW = ["torch", "torchvision", "torchgeo>=0.10"]
TOOLS = [
    "ipykernel>=6.29",
    "matplotlib>=3.8",
    "nbclient>=0.10",
    "packaging",
    "pytest>=8",
    "pytest-timeout>=2.3",
]


def install(home: Path) -> bool:
    """Make the environment; False when pip could not."""
    python, stamp = home / "bin" / "python", home / ".installed"
    asked = max(path.stat().st_mtime for path in (ROOT / "pyproject.toml", Path(__file__)))
    if stamp.exists() and stamp.stat().st_mtime >= asked:
        return True
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    packages = OLD if sys.version_info < (3, 12) else NEW
    commands = [
        [sys.executable, "-m", "venv", str(home)],
        # torch by itself first: what pip finds beside its index is then taken as it is.
        [*pip, packages[0]],
        [*pip, *packages, *TOOLS, "-e", str(ROOT)],
    ]
    for command in commands:
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return False
    stamp.touch()
    return True


def main() -> int:
    home = ROOT / f".venv-torchgeo-{sys.version_info[0]}.{sys.version_info[1]}"
    free = shutil.disk_usage(ROOT).free / 1e9
    if not (home / ".installed").exists() and free < ROOM:
        print(f"SKIPPED: torch and TorchGeo may need {ROOM} GB, and {free:.1f} GB are free")
        return 0
    if not install(home):
        print("FAILED: torch and TorchGeo could not be installed")
        return 1
    python = str(home / "bin" / "python")
    tests = [python, "-m", "pytest", "-q", "tests/torchgeo", *sys.argv[1:]]
    return subprocess.run(tests, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
