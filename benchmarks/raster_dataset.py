"""TorchGeo's own dataset of the generated scenes: the peer of W9. In a module of its own, so that worker processes can import it."""

from __future__ import annotations

from typing import Any

import pandas as pd
from torchgeo.datasets import RasterDataset

from benchmarks.data import BANDS


class Sentinel2(RasterDataset):  # type: ignore[misc]
    """One file a band, found by their names."""

    filename_regex = r"S2A_\d+_\w+_(?P<date>\d{8})_(?P<band>B\d\d)\.tif"
    separate_files = True
    all_bands = BANDS

    def __getitem__(self, query: Any) -> Any:
        x, y, t = query
        # An instant meets no file in TorchGeo 0.8: give it the day.
        day = pd.Timestamp(t.start).normalize()
        return super().__getitem__((x, y, slice(day, day + pd.Timedelta("1D"))))
