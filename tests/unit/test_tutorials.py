"""The tutorials run as they stand, cell by cell in a kernel, as whoever opens them would run them."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[2] / "docs" / "tutorials"


@pytest.mark.parametrize("name", ["first-cube", "points-and-tables"])
def test_tutorials_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The notebooks leave their images where temporary files belong.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(TUTORIALS / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert sum(bool(cell.outputs) for cell in cells) >= 5
    # A reader should see results, not warnings.
    said = [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert not said


def test_tutorials_are_kept_without_results() -> None:
    """The site runs them; results in the repository would only grow old."""
    for path in TUTORIALS.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), f"{path.name}: clear the outputs"
