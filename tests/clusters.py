# ruff: noqa: T201 -- a script that reports to its terminal
"""Check the profiles of clusters against the libraries that start them: ``python tests/clusters.py [pytest arguments]``.

The libraries bring some fifty packages, so they have an environment of their own, ``.venv-clusters``, made once and again when
``pyproject.toml`` has changed. No test may be skipped in it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-clusters"
TOOLS = ["psutil>=5.9", "pytest>=8", "pytest-timeout>=2.3"]
TESTS = ["tests/unit/cluster/test_remote.py", "tests/distributed/test_batch.py"]


def install() -> bool:
    """Make the environment; False when pip could not."""
    stamp = HOME / ".installed"
    if stamp.exists() and stamp.stat().st_mtime >= (ROOT / "pyproject.toml").stat().st_mtime:
        return True
    python = str(HOME / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [
        [sys.executable, "-m", "venv", str(HOME)],
        [*pip, *TOOLS, "-e", f"{ROOT}[clusters]"],
    ]
    for command in commands:
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            return False
    stamp.touch()
    return True


def main() -> int:
    if not install():
        print("FAILED: the libraries could not be installed")
        return 1
    command = [str(HOME / "bin" / "python"), "-m", "pytest", "-q", "-rs", *TESTS, *sys.argv[1:]]
    done = subprocess.run(command, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE)
    print(done.stdout)
    if " skipped" in done.stdout.splitlines()[-1]:
        print("FAILED: something was skipped")
        return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
