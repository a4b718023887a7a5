# ruff: noqa: T201 -- a script that reports to its terminal
"""Compare with rasteret 0.4.1, which needs Python 3.12: ``python tests/parity/rasteret.py [pytest arguments]``.

rasteret gets an environment of its own in ``.venv-rasteret``, made once; the tests run in the one of this script.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from matrix import find  # noqa: E402 -- its folder is known only now

VERSION = "0.4.1"


def install(interpreter: str) -> Path | None:
    """The environment's Python; None when it could not be made."""
    home = ROOT / ".venv-rasteret"
    python, stamp = home / "bin" / "python", home / f".rasteret-{VERSION}"
    if stamp.exists():
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([interpreter, "-m", "venv", str(home)], [*pip, f"rasteret=={VERSION}"]):
        if subprocess.run(command, check=False).returncode != 0:
            return None
    stamp.touch()
    return python


def main() -> int:
    interpreter = find("3.12")
    if interpreter is None:
        print("rasteret needs Python 3.12, and there is none")
        return 1
    python = install(interpreter)
    if python is None:
        print(f"rasteret {VERSION} could not be installed")
        return 1
    command = [sys.executable, "-m", "pytest"]
    command += ["tests/parity/test_rasteret.py", *sys.argv[1:]]
    environment = {**os.environ, "RASTERET_PYTHON": str(python)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
