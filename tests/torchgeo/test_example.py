"""The example and the tutorial train, and their losses fall."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "train_demo.py"
TUTORIAL = ROOT / "docs" / "tutorials" / "training.ipynb"


def test_the_loss_falls() -> None:
    spec = importlib.util.spec_from_file_location("train_demo", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.main(["--steps", "25"])
    assert len(losses) == 25
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])


def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    # Beside a CPU build of torch, torchvision needs the help that the tests have.
    helped = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import vision"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(helped))
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    [told] = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "requests" in output.get("data", {}).get("text/plain", "")
    ]
    first, last = (float(word) for word in re.findall(r"\d+\.\d\d", told)[:2])
    assert last < 0.8 * first
    drawn = [
        o
        for cell in notebook.cells
        for o in cell.get("outputs", ())
        if "image/png" in o.get("data", {})
    ]
    assert len(drawn) == 2
