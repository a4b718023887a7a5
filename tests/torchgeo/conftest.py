"""What the tests of the TorchGeo integration share. Run by ``python tests/torchgeo/run.py``."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rasteret_dask as rd
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import RangeServer

if importlib.util.find_spec("torch") is None:
    # The default run has no torch; nothing here is for it.
    collect_ignore_glob = ["test_*.py"]
else:
    import vision  # noqa: F401 -- makes torchvision importable

DATES = ("2023-07-03", "2023-07-08", "2023-07-13")


@dataclass
class Demo:
    """A generated catalogue behind a server, and the collection made of it."""

    root: Path
    server: RangeServer
    collection: Any

    def path(self, item: str, band: str) -> Path:
        """Of an asset's file."""
        name = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "scl": "SCL"}[band]
        return self.root / item / f"{name}.tif"

    def items(self, tile: str) -> list[str]:
        """Ids of the items of one tile, by time."""
        table = self.collection.to_table(["id"])
        return [i for i in table.column("id").to_pylist() if tile in i]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    root = tmp_path_factory.mktemp("demo")
    write_demo_catalog(root, size=512, dates=DATES, blocksize=128)
    with RangeServer(root, log=True) as server:
        collection = rd.build_from_stac(
            name="demo",
            static_catalog=f"{server.url}/catalog.json",
            workspace_dir=root / "workspace",
        )
        yield Demo(root, server, collection)


@pytest.fixture
def zone33(demo: Demo) -> Any:
    """The items of one tile, in EPSG:32633."""
    return demo.collection.subset(id_in=demo.items("33TTN"))


@pytest.fixture
def zone32(demo: Demo) -> Any:
    """The items of the other, in EPSG:32632."""
    return demo.collection.subset(id_in=demo.items("32TQT"))
