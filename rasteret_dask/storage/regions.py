"""Whether data lies in the cluster's region: every byte from another one takes longer and is billed."""

from __future__ import annotations

import re
import warnings
from typing import Final
from urllib.parse import urlsplit

import dask

from rasteret_dask.errors import RasteretWarning
from rasteret_dask.model import StorageOptions

CONFIG: Final = "rasteret-dask.region"
"""Dask's configuration key that holds the cluster's region; profiles set it, or ``DASK_RASTERET_DASK__REGION``."""

_HOST = re.compile(r"(?:^|\.)s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com$")


def region_of(url: str, options: StorageOptions) -> str | None:
    """Return the region in which a file lies, as far as its address or the options say; else None."""
    parts = urlsplit(url)
    if parts.scheme in ("s3", "s3a"):
        return options.options.get("region")
    found = _HOST.search(parts.hostname or "")
    return None if found is None else found[1]


def warn_elsewhere(url: str, options: StorageOptions) -> None:
    """Warn when a file is known to lie in another region than the cluster.

    Warns
    -----
    RasteretWarning
    """
    warn_region(region_of(url, options))


def warn_region(there: str | None) -> None:
    """The same, of a region that is known already.

    Warns
    -----
    RasteretWarning
    """
    here = dask.config.get(CONFIG, None)
    if here is not None and there is not None and there != here:
        warnings.warn(
            f"the data lies in {there} and the cluster in {here}: reads take longer, and the bytes "
            "between regions are billed; start the cluster where the data is",
            RasteretWarning,
            stacklevel=4,
        )
