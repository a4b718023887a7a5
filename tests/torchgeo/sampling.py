"""Queries as a sampler draws them."""

from __future__ import annotations

from typing import Any

import torch
from torchgeo.samplers import RandomGeoSampler


def queries(dataset: Any, count: int, size: int = 48, seed: int = 1) -> list[Any]:
    """The same ones each time."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    return list(RandomGeoSampler(dataset, size, length=count, generator=generator))
