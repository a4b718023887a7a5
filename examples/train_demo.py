# ruff: noqa: T201 -- a script that reports to its terminal
"""Train a small network on the demo data, on the CPU: ``python examples/train_demo.py``.

A landscape is generated and served on loopback; its headers are indexed; then a network learns to tell its classes (band ``scl``) from its
colours, chip by chip, straight from the files.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn
from torchgeo.datasets import GeoDataset
from torchgeo.samplers import RandomGeoSampler

import rasteret_dask as rd
from rasteret_dask.integrations.chiploader import ChipLoader
from rasteret_dask.integrations.torchgeo import to_torchgeo_dataset
from rasteret_dask.testing.catalog import write_demo_catalog
from rasteret_dask.testing.server import RangeServer

CLASSES = 12
"""Of Sentinel-2's scene classification; 0 is no data, which the loss leaves out."""


class Network(nn.Module):
    """Three convolutions: enough to tell water from wood."""

    def __init__(self, bands: int, classes: int, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(bands, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, classes, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[N, C, H, W]`` to scores of classes."""
        scores: torch.Tensor = self.layers(image)
        return scores


def dataset(folder: Path, server: RangeServer) -> GeoDataset:
    """Images and classes of one place, pixel on pixel."""
    collection = rd.build_from_stac(
        name="train-demo",
        static_catalog=f"{server.url}/catalog.json",
        workspace_dir=folder / "workspace",
    )
    # The tiles lie in two zones; target_crs= would warp them into one.
    one_zone = collection.subset(proj_epsg=32633)
    images = to_torchgeo_dataset(one_zone, ["blue", "green", "red", "nir"], dtype="float32")
    classes = to_torchgeo_dataset(one_zone, ["scl"], is_image=False, dtype="int64")
    return images & classes


def train(data: GeoDataset, steps: int, batch: int = 8, size: int = 64) -> list[float]:
    """Return the loss of every step."""
    torch.manual_seed(0)
    sampler = RandomGeoSampler(data, size, length=steps * batch)
    network = Network(4, CLASSES)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    losses = []
    for number, sample in enumerate(ChipLoader(data, sampler, batch)):
        loss = criterion(network(sample["image"] / 3000.0), sample["mask"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if number % 5 == 0 or number == steps - 1:
            print(f"step {number:3d}  loss {losses[-1]:.3f}", flush=True)
    return losses


def main(arguments: Sequence[str] | None = None) -> list[float]:
    """Generate, index, train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_demo_catalog(folder, size=512)
        with RangeServer(folder) as server:
            data = dataset(folder, server)
            server.reset()
            losses = train(data, options.steps)
            seen = server.counters()
    print(f"{seen.requests} requests, {seen.bytes / 1e6:.1f} MB; no header among them")
    return losses


if __name__ == "__main__":
    main()
