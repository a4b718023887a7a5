"""Exports to object stores, and loading them back: real servers on loopback."""

from __future__ import annotations

from pathlib import Path

from test_stores import store  # noqa: F401 -- a fixture

import rasteret_dask as rd
from rasteret_dask.testing.stores import Store


def test_what_is_exported_loads(austria: Path, tmp_path: Path, store: Store) -> None:  # noqa: F811
    here = rd.build(
        "earthsearch/sentinel-2-l2a",
        name="here",
        static_catalog=str(austria / "catalog.json"),
        workspace_dir=tmp_path,
        bands=["red"],
    )
    url = f"{store.url}/exported"
    here.export(url, partition_by="year", storage=store.storage)
    back = rd.load(url, storage=store.storage)
    assert back.to_table(["id", "B04_metadata"]).equals(here.to_table(["id", "B04_metadata"]))
    assert len(back.subset(date_range="2023-08-15", year=2023)) == 2
    assert back.resolve_bands(["red"]) == [("red", "B04")]
