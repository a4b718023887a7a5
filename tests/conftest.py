"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scenes and conformance files that lies beside the checkout."""
    named = os.environ.get("RASTERET_TEST_DATA")
    folder = Path(named) if named else _BESIDE
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"RASTERET_TEST_DATA names {folder}, which is not there")
    pytest.skip("no test data beside the checkout; set RASTERET_TEST_DATA to run this test")


@pytest.fixture(scope="session")
def austria(shared_data: Path) -> Path:
    """Real Sentinel-2 scenes: a static STAC catalogue."""
    return shared_data / "s2-austria"


@pytest.fixture(scope="session")
def corpus(shared_data: Path) -> Path:
    """Real and conformance TIFFs, STAC documents and recorded API conversations."""
    return shared_data / "corpus"
