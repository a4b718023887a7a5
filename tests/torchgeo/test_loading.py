"""Batches, workers, pairs of datasets, errors: a server counts what is asked of it."""

from __future__ import annotations

import pickle
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
import torchgeo
from conftest import Demo
from packaging.version import Version
from sampling import queries
from torch.utils.data import DataLoader
from torchgeo.datasets import (
    random_grid_cell_assignment,
    stack_samples,
    time_series_split,
)
from torchgeo.samplers import GridGeoSampler, PreChippedGeoSampler, RandomGeoSampler
from vision import Sent

import rasteret_dask as rd
from rasteret_dask.errors import ArgumentError, RasteretError, SourceError, TileReadError
from rasteret_dask.integrations.chiploader import ChipLoader
from rasteret_dask.integrations.clusterloader import ClusterLoader
from rasteret_dask.integrations.torchgeo import to_torchgeo_dataset
from rasteret_dask.read.ledger import read_ledger
from rasteret_dask.testing.cog import make_cog
from rasteret_dask.testing.server import Fault, RangeServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NEW = Version(torchgeo.__version__) >= Version("0.10")


def tiles_of(dataset: Any, asked: list[Any], side: int = 128) -> set[tuple[Any, int, int]]:
    """The tiles (per item) that chips touch; a band has as many."""
    grid = dataset.windows.grid
    found = set()
    for x, y, t in asked:
        rows = [round((grid.top - v) / 10) for v in (y.stop, y.start)]
        cols = [round((v - grid.left) / 10) for v in (x.start, x.stop)]
        for r in range(rows[0] // side, -(-rows[1] // side)):
            for c in range(cols[0] // side, -(-cols[1] // side)):
                found.add((t.start, r, c))
    return found


def asked_twice(demo: Demo) -> list[Any]:
    """Requests for bytes that an earlier one has brought; there must be requests at all."""
    log = sorted((entry.path, entry.start, entry.stop) for entry in demo.server.log())
    assert log
    return [b for a, b in pairwise(log) if a[0] == b[0] and b[1] < a[2]]


def test_a_batch_is_fetched_together(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red", "nir"])
    asked = queries(dataset, 12)
    demo.server.configure(latency=0.2)
    demo.server.reset()
    try:
        samples = dataset.__getitems__(asked)
    finally:
        demo.server.configure(latency=0.0)
    seen = demo.server.counters()
    # Every request is under way before the first is answered, and no tile is asked for twice.
    assert seen.peak_in_flight == seen.requests
    assert not asked_twice(demo)
    assert seen.requests <= 2 * len(tiles_of(dataset, asked))
    one_by_one = to_torchgeo_dataset(zone33, ["red", "nir"], cache_bytes=0)
    for sample, query in zip(samples, asked):
        assert torch.equal(sample["image"], one_by_one[query]["image"])


def test_no_header_is_read_and_neighbours_share_tiles(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    demo.server.reset()
    grid = list(GridGeoSampler(dataset, 64, 64))
    first = grid[: len(grid) // 3]
    for k in range(0, len(first), 8):
        dataset.__getitems__(first[k : k + 8])
    # 4 × 4 tiles of 128 pixels hold 8 × 8 chips of 64; neighbours in the file come in one request.
    assert demo.server.counters().requests <= 16
    assert not asked_twice(demo)
    item = demo.path(demo.items("33TTN")[0], "red")
    with tifffile.TiffFile(item) as image:
        tiles = min(min(page.dataoffsets) for page in image.pages)
    assert min(entry.start for entry in demo.server.log()) >= tiles
    fetched = demo.server.counters().bytes
    assert fetched < item.stat().st_size
    before = demo.server.counters().requests
    dataset.__getitems__(first[:8])
    assert demo.server.counters().requests == before


def test_the_cache_has_a_limit(demo: Demo, zone33: Any) -> None:
    tile = 128 * 128 * 2
    dataset = to_torchgeo_dataset(zone33, ["red"], cache_bytes=6 * tile)
    asked = queries(dataset, 20)
    found = dataset.__getitems__(asked)
    assert 0 < dataset.cache.size <= 6 * tile
    plain = to_torchgeo_dataset(zone33, ["red"], cache_bytes=0)
    for a, b in zip(found, plain.__getitems__(asked)):
        assert torch.equal(a["image"], b["image"])
    assert plain.cache.size == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda d: RandomGeoSampler(d, 64, length=7),
        lambda d: GridGeoSampler(d, 200, 200),
        lambda d: PreChippedGeoSampler(d),
    ],
)
def test_samplers(zone33: Any, make: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    sampler = make(dataset)
    loader = DataLoader(dataset, sampler=sampler, batch_size=3, collate_fn=stack_samples)
    sizes = [len(batch["image"]) for batch in loader]
    assert sum(sizes) == len(sampler) > 0


@pytest.mark.skipif(not NEW, reason="patch samplers came with TorchGeo 0.10")
def test_patch_samplers(zone33: Any) -> None:
    from torchgeo.samplers import GriddedPatchSampler, RandomPatchSampler  # noqa: PLC0415

    dataset = to_torchgeo_dataset(zone33, ["red"], time_series=True)
    grid = GriddedPatchSampler(dataset, size=256)
    assert len(grid) == 4
    for sampler in (RandomPatchSampler(dataset, size=64, length=5), grid):
        loader = DataLoader(dataset, sampler=sampler, batch_size=2, collate_fn=stack_samples)
        shapes = [batch["image"].shape for batch in loader]
        assert sum(shape[0] for shape in shapes) == len(sampler)
        # They say nothing of time, so every date is there.
        assert all(shape[1:3] == (3, 1) for shape in shapes)


def test_batch_sampler(zone33: Any) -> None:
    from torchgeo.samplers import RandomBatchGeoSampler  # noqa: PLC0415

    dataset = to_torchgeo_dataset(zone33, ["red"])
    sampler = RandomBatchGeoSampler(dataset, 32, batch_size=4, length=12)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=stack_samples)
    assert [tuple(batch["image"].shape) for batch in loader] == [(4, 1, 32, 32)] * 3


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_workers(zone33: Any, start: str, workers: int) -> None:
    """The parent has read before: a forked child must not inherit what does not survive a fork."""
    dataset = to_torchgeo_dataset(zone33, ["red", "nir"])
    asked = queries(dataset, 16)
    expected = stack_samples(dataset.__getitems__(asked))["image"]
    loader = DataLoader(
        Sent(dataset),  # type: ignore[arg-type]
        sampler=asked,
        batch_size=4,
        num_workers=workers,
        multiprocessing_context=start,
        collate_fn=stack_samples,
        timeout=250,
    )
    found = torch.cat([batch["image"] for batch in loader])
    assert torch.equal(found, expected)
    here = DataLoader(dataset, sampler=asked, batch_size=4, collate_fn=stack_samples)
    assert torch.equal(torch.cat([batch["image"] for batch in here]), expected)


def test_loader_in_this_process(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"])
    asked = queries(dataset, 11)
    expected = to_torchgeo_dataset(zone33, ["red"]).__getitems__(asked)
    demo.server.reset()
    loader = ChipLoader(dataset, asked, 4)
    assert len(loader) == 3
    batches = list(loader)
    assert [len(b["image"]) for b in batches] == [4, 4, 3]
    found = torch.cat([b["image"] for b in batches])
    assert torch.equal(found, stack_samples(expected)["image"])
    # Batches that are read at the same time do not fetch a tile twice; without a cache they do.
    assert not asked_twice(demo)
    demo.server.reset()
    list(ChipLoader(to_torchgeo_dataset(zone33, ["red"], cache_bytes=0), asked + asked, 4))
    assert asked_twice(demo)
    assert len(list(ChipLoader(dataset, asked, 4, drop_last=True))) == 2
    for _ in ChipLoader(dataset, asked, 2):
        break


def test_the_next_batches_are_there_already(demo: Demo, zone33: Any) -> None:
    """While the first batch is used, the next ones come, and no more than those."""
    dataset = to_torchgeo_dataset(zone33, ["red"])
    asked = list(GridGeoSampler(dataset, 128, 128))[:8]
    batches = iter(ChipLoader(dataset, asked, 1, ahead=3))
    demo.server.reset()
    next(batches)
    deadline = time.monotonic() + 60
    while demo.server.counters().requests < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    assert demo.server.counters().requests == 4
    # Nothing can be fetched any more, and still the three batches are given out.
    demo.server.configure(faults=[Fault("status", match="*.tif", status=404)])
    try:
        assert [len(next(batches)["image"]) for _ in range(3)] == [1, 1, 1]
        with pytest.raises(SourceError):
            next(batches)
    finally:
        demo.server.configure(faults=[])


def test_without_a_cluster(zone33: Any) -> None:
    with pytest.raises(ArgumentError, match="no Dask client"):
        ClusterLoader(to_torchgeo_dataset(zone33, ["red"]), [], 4)
    with pytest.raises(ArgumentError, match="ahead"):
        ClusterLoader(to_torchgeo_dataset(zone33, ["red"]), [], 4, ahead=0)


def test_pickled(zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"], time_series=True)
    asked = queries(dataset, 1)
    expected = dataset.__getitems__(asked)[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert again.cache.size == 0
    found = again.__getitems__(asked)[0]
    assert torch.equal(found["image"], expected["image"])
    assert len(pickle.dumps(dataset)) < 100_000


def test_errors_come_out_of_a_worker(demo: Demo, zone33: Any) -> None:
    item = demo.items("33TTN")[1]
    dataset = to_torchgeo_dataset(zone33, ["red"])
    bad = [q for q in queries(dataset, 40) if q[2].start == dataset.index.index[1].left][:2]
    demo.server.configure(faults=[Fault("status", match=f"{item}/B04.tif", status=404)])
    try:
        with pytest.raises(RasteretError) as caught:
            dataset.__getitems__(bad)
        assert (caught.value.item, caught.value.band) == (item, "red")
        assert f"{item}/B04.tif" in str(caught.value.url)
        loader = DataLoader(
            Sent(dataset),  # type: ignore[arg-type]
            sampler=bad,
            batch_size=2,
            num_workers=1,
            multiprocessing_context="fork",
            collate_fn=stack_samples,
            timeout=120,
        )
        with pytest.raises(SourceError) as told:
            next(iter(loader))
        for text in (item, "'red'", "B04.tif"):
            assert text in str(told.value)
    finally:
        demo.server.configure(faults=[])
    assert dataset.__getitems__(bad)


@pytest.mark.parametrize("series", [False, True])
def test_failures_are_recorded(demo: Demo, zone33: Any, tmp_path: Path, series: bool) -> None:
    item = demo.items("33TTN")[1]
    options = {"time_series": series, "on_error": "record", "ledger": str(tmp_path)}
    dataset = to_torchgeo_dataset(zone33, ["red", "nir"], **options)
    whole = to_torchgeo_dataset(zone33, ["red", "nir"], time_series=series)
    t = dataset.index.index[-1] if series else dataset.index.index[1]
    asked = [(*q[:2], slice(t.left, t.right)) for q in queries(dataset, 4)]
    demo.server.configure(faults=[Fault("status", match=f"{item}/B04.tif", status=404)])
    try:
        found = dataset.__getitems__(asked)
        again = dataset.__getitems__(asked)
    finally:
        demo.server.configure(faults=[])
    rows = read_ledger(str(tmp_path), dataset.run)
    assert set(rows.column("item").to_pylist()) == {item}
    assert set(rows.column("band").to_pylist()) == {"red"}
    assert set(rows.column("step").to_pylist()) == ({1} if series else {0})
    boxes = list(zip(*(rows.column(n).to_pylist() for n in ("row0", "row1", "col0", "col1"))))
    grid = dataset.windows.grid
    for sample, repeated, expected, (x, y, _) in zip(
        found, again, whole.__getitems__(asked), asked
    ):
        image, complete = sample["image"], expected["image"].clone()
        assert torch.equal(image, repeated["image"])
        (complete[1, 0] if series else complete[0])[...] = 0
        assert torch.equal(image, complete)
        row, col = round((grid.top - y.stop) / 10), round((x.start - grid.left) / 10)
        told = np.zeros((48, 48), dtype=bool)
        for r0, r1, c0, c1 in boxes:
            told[max(0, r0 - row) : max(0, r1 - row), max(0, c0 - col) : max(0, c1 - col)] = True
        assert told.all()
    assert (dataset.__getitems__(asked)[0]["image"] != 0).all()


def test_masks_inside_files_are_recorded(tmp_path: Path) -> None:
    """A tile of a file's own mask that fails is a hole like any other."""
    shown = np.ones((128, 128), dtype=bool)
    shown[:, :40] = False
    path = tmp_path / "files" / "a.tif"
    path.parent.mkdir()
    make_cog(
        path,
        np.full((128, 128), 5, dtype="uint8"),
        transform=(10, 0, 500000, 0, -10, 5200000),
        crs="EPSG:32633",
        blocksize=64,
        mask=shown,
    )
    with RangeServer(path.parent) as server:
        item = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "a",
            "bbox": [15.0, 46.9, 15.02, 46.96],
            "geometry": None,
            "properties": {"datetime": "2023-01-01T00:00:00Z"},
            "links": [],
            "assets": {"a": {"href": f"{server.url}/a.tif", "type": "image/tiff"}},
        }
        made = rd.build_from_items([item], name="a", workspace_dir=tmp_path)
        recording = {"on_error": "record", "ledger": str(tmp_path / "ledger"), "fill_value": 7}
        dataset = to_torchgeo_dataset(made, ["a"], **recording)
        x, y, _ = dataset.bounds
        t = dataset.index.index[0]
        whole = dataset[x, y, slice(t.left, t.right)]["image"][0].numpy()
        np.testing.assert_array_equal(whole, np.where(shown, 5, 7))
        dataset = to_torchgeo_dataset(made, ["a"], **recording)
        server.configure(faults=[Fault("status", match="a.tif", status=404)])
        assert (dataset[x, y, slice(t.left, t.right)]["image"] == 7).all()
    # Four tiles of the image, and four of its mask.
    assert len(read_ledger(recording["ledger"], dataset.run)) == 8


def test_workers_record_failures(demo: Demo, zone33: Any, tmp_path: Path) -> None:
    item = demo.items("33TTN")[1]
    dataset = to_torchgeo_dataset(zone33, ["red"], on_error="record", ledger=str(tmp_path))
    t = dataset.index.index[1]
    asked = [(*q[:2], slice(t.left, t.right)) for q in queries(dataset, 4)]
    dataset.__getitems__(asked)
    dataset = to_torchgeo_dataset(zone33, ["red"], on_error="record", ledger=str(tmp_path))
    demo.server.configure(faults=[Fault("status", match=f"{item}/B04.tif", status=404)])
    loader = DataLoader(
        Sent(dataset),  # type: ignore[arg-type]
        sampler=asked,
        batch_size=2,
        num_workers=2,
        multiprocessing_context="fork",
        collate_fn=stack_samples,
        timeout=250,
    )
    try:
        assert all((batch["image"] == 0).all() for batch in loader)
    finally:
        demo.server.configure(faults=[])
    rows = read_ledger(str(tmp_path), dataset.run).to_pylist()
    assert {(row["item"], row["band"]) for row in rows} == {(item, "red")}
    assert all(row["url"].endswith(f"{item}/B04.tif") for row in rows)


def test_a_damaged_tile_is_named(demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["nir"])
    demo.server.configure(faults=[Fault("corrupt", match="*/B08.tif")])
    try:
        with pytest.raises(TileReadError) as caught:
            dataset.__getitems__(queries(dataset, 2))
    finally:
        demo.server.configure(faults=[])
    assert caught.value.tile is not None
    assert caught.value.band == "nir"


def test_transforms_and_plot(zone33: Any) -> None:
    def to_float(sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "image": sample["image"].float() / 10_000}

    dataset = to_torchgeo_dataset(zone33, ["nir", "red", "green", "blue"], transforms=to_float)
    sample = dataset[queries(dataset, 1)[0]]
    assert sample["image"].dtype == torch.float32
    figure = dataset.plot(sample, suptitle="demo")
    # What `plt.show()` shows, as after TorchGeo's own.
    assert plt.gcf() is figure
    assert len(figure.axes) == 1
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.shape == (48, 48, 3)
    red = sample["image"][1].numpy()
    low, high = np.percentile(red, (2, 98))
    np.testing.assert_allclose(drawn[..., 0], np.clip((red - low) / (high - low), 0, 1), atol=1e-5)
    masks = to_torchgeo_dataset(zone33, ["scl"], is_image=False)
    assert masks.plot(masks[queries(masks, 1)[0]]).axes[0].get_title() == "mask"
    plt.close("all")


def test_split(demo: Demo, zone33: Any) -> None:
    table = zone33.to_table()
    table = table.append_column("split", [["train", "val", "train"]])
    made = rd.as_collection(table)
    assert len(to_torchgeo_dataset(made, ["red"], split="train")) == 2
    assert len(to_torchgeo_dataset(made, ["red"], split=["train", "val"])) == 3


def test_splits_of_torchgeo(zone33: Any) -> None:
    """They copy the dataset and give the copy an index of its own."""
    dataset = to_torchgeo_dataset(zone33, ["red"])
    dataset.__getitems__(queries(dataset, 1))
    t = dataset.index.index
    middle = t[1].left - pd.Timedelta("1D")
    spans = [pd.Interval(t[0].left, middle), pd.Interval(middle, t[2].right)]
    before, after = time_series_split(dataset, spans)
    assert [len(before), len(after)] == [1, 2]
    left, right = random_grid_cell_assignment(dataset, [0.5, 0.5], grid_size=4)
    for part in (before, after, left, right):
        [query] = queries(part, 1)
        assert torch.equal(part[query]["image"], dataset[query]["image"])
    # Each item has sixteen cells, of which either part has eight.
    assert [len(left), len(right)] == [24, 24]
