"""Batches from a Dask cluster: the same, in order, bounded, and with errors that say where."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Demo
from distributed import Client, LocalCluster
from sampling import queries
from torchgeo.datasets import stack_samples
from torchgeo.samplers import RandomBatchGeoSampler
from vision import Sent

from rasteret_dask.errors import SourceError
from rasteret_dask.integrations.clusterloader import ClusterLoader
from rasteret_dask.integrations.torchgeo import to_torchgeo_dataset
from rasteret_dask.testing.server import Fault

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            preload="vision",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def images(batches: Any) -> torch.Tensor:
    return torch.cat([batch["image"] for batch in batches])


def test_batches_of_a_cluster(client: Client, demo: Demo, zone33: Any) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red", "nir"])
    asked = queries(dataset, 22)
    expected = stack_samples(to_torchgeo_dataset(zone33, ["red", "nir"]).__getitems__(asked))
    loader = ClusterLoader(Sent(dataset), asked, 4)
    assert len(loader) == 6
    demo.server.reset()
    batches = list(loader)
    assert demo.server.counters().requests > 0
    # The trainer read nothing: all of it came from the workers.
    assert dataset.cache.size == 0
    assert [len(batch["image"]) for batch in batches] == [4, 4, 4, 4, 4, 2]
    assert batches[0]["image"].dtype == torch.uint16
    assert torch.equal(images(batches), expected["image"])
    # What a trainer does with them: in place as well.
    batches[0]["image"].view(torch.int16).add_(1)
    sampler = RandomBatchGeoSampler(dataset, 32, batch_size=4, length=12)
    shapes = [tuple(b["image"].shape) for b in ClusterLoader(Sent(dataset), sampler, None)]
    assert shapes == [(4, 2, 32, 32)] * 3


def test_pairs_and_transforms(client: Client, zone33: Any) -> None:
    both = to_torchgeo_dataset(zone33, ["red"]) & to_torchgeo_dataset(
        zone33, ["scl"], is_image=False, transforms=Halved()
    )
    asked = queries(both, 6)
    [expected, found] = [
        stack_samples(both.__getitems__(asked)),
        next(iter(ClusterLoader(Sent(both), asked, 6, client=client))),
    ]
    assert torch.equal(found["image"], expected["image"])
    assert torch.equal(found["mask"], expected["mask"])
    assert found["mask"].dtype == torch.float32


class Halved:
    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        return {**sample, "mask": sample["mask"] / 2}


class Noted:
    """Leaves a file for every chip that was read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        (self.folder / f"{time.time_ns()}-{os.getpid()}").touch()
        return sample


def test_no_more_than_asked_for_is_under_way(client: Client, zone33: Any, tmp_path: Path) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"], transforms=Noted(tmp_path))
    loader = ClusterLoader(Sent(dataset), queries(dataset, 20), 1, ahead=3)
    batches = iter(loader)
    next(batches)
    # One was taken and the next was begun in its place; nothing more comes, however long one waits.
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    assert len(list(tmp_path.iterdir())) == 4
    batches.close()
    # Whoever stops early leaves nothing on the cluster.
    while client.who_has() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not client.who_has()


class Gated:
    """Waits as long as a file says that the gate is shut, for half a minute at most; says that it came, and that it is done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        (self.folder / f"came-{time.time_ns()}-{os.getpid()}").touch()
        deadline = time.monotonic() + 30
        while (self.folder / "shut").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        (self.folder / f"done-{time.time_ns()}-{os.getpid()}").touch()
        return sample


def test_who_stops_early_waits_for_nothing(client: Client, zone33: Any, tmp_path: Path) -> None:
    dataset = to_torchgeo_dataset(zone33, ["red"], transforms=Gated(tmp_path))
    batches = iter(ClusterLoader(Sent(dataset), queries(dataset, 1) * 8, 1, ahead=4))
    next(batches)
    wait_for(tmp_path, "done-*", 5)
    (tmp_path / "shut").touch()
    next(batches)  # begins one more, which stays at the gate
    wait_for(tmp_path, "came-*", 6)
    batches.close()
    assert len(list(tmp_path.glob("done-*"))) == 5
    (tmp_path / "shut").unlink()


def wait_for(folder: Path, pattern: str, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob(pattern))) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(list(folder.glob(pattern))) >= count


def test_errors_say_where(client: Client, demo: Demo, zone33: Any) -> None:
    item = demo.items("33TTN")[1]
    dataset = to_torchgeo_dataset(zone33, ["red"], cache_bytes=0)
    bad = [q for q in queries(dataset, 40) if q[2].start == dataset.index.index[1].left][:4]
    demo.server.configure(faults=[Fault("status", match=f"{item}/B04.tif", status=404)])
    try:
        with pytest.raises(SourceError) as caught:
            list(ClusterLoader(Sent(dataset), bad, 2))
    finally:
        demo.server.configure(faults=[])
    # The error itself, not its text: unlike a DataLoader's.
    assert (caught.value.item, caught.value.band) == (item, "red")
    assert f"{item}/B04.tif" in str(caught.value.url)


class Deadly:
    """Kills its worker, once."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        try:
            self.mark.touch(exist_ok=False)
        except FileExistsError:
            return sample
        os._exit(1)


def test_a_worker_dies(client: Client, zone33: Any, tmp_path: Path) -> None:
    whole = to_torchgeo_dataset(zone33, ["red"])
    asked = queries(whole, 16)
    dataset = to_torchgeo_dataset(zone33, ["red"], transforms=Deadly(tmp_path / "dead"))
    found = images(ClusterLoader(Sent(dataset), asked, 4))
    assert (tmp_path / "dead").exists()
    assert torch.equal(found, stack_samples(whole.__getitems__(asked))["image"])
