"""The training side of a collection: a door that opens only where TorchGeo is installed."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from rasteret_dask.errors import ArgumentError


class Training:
    """Methods of :class:`~rasteret_dask.Collection` that lead to training."""

    def to_torchgeo_dataset(
        self,
        bands: Sequence[str] | str | None = None,
        *,
        chip_size: int | tuple[int, int] | None = None,
        time_series: bool = False,
        label_field: str | None = None,
        split: str | Sequence[str] | None = None,
        split_column: str = "split",
        geometries: Any = None,
        geometry_crs: Any = None,
        target_crs: Any = None,
        resolution: float | tuple[float, float] | None = None,
        allow_resample: bool = False,
        is_image: bool = True,
        transforms: Any = None,
        **options: Any,
    ) -> Any:
        """Train straight from the collection: a TorchGeo ``GeoDataset`` of chips (``docs/torchgeo.md``).

        Parameters
        ----------
        bands : sequence of str, optional
            Channels, in this order; all by default.
        chip_size : int or (rows, columns), optional
            Pixels of every chip; otherwise the sampler says how large they are.
        time_series : bool
            ``[T, C, H, W]`` instead of ``[C, H, W]``.
        label_field : str, optional
            A column of ``geometries`` (painted into ``mask``) or of the collection (``label``).
        split, split_column : optional
            Rows of a split.
        geometries, geometry_crs : optional
            Where chips are drawn from.
        target_crs, resolution, allow_resample : optional
            Needed when the items' CRSs or the bands' resolutions differ.
        is_image : bool
            ``image``; otherwise ``mask``.
        transforms : callable, optional
            Of each sample.
        **options
            ``all_touched``, ``background``, ``cache_bytes``; ``groupby``, ``mosaic``, ``sortby``, ``resampling``, ``overviews``, ``dtype``,
            ``masked``, ``scale``, ``harmonize``, ``mask``, ``nodata``, ``fill_value``, ``missing``, ``on_error``, ``ledger`` and
            ``storage`` as in :meth:`get_xarray`; filters of :meth:`subset`.

        Returns
        -------
        torchgeo.datasets.GeoDataset

        Raises
        ------
        ArgumentError
            If TorchGeo is not installed, or CRSs or resolutions differ and nothing says what to do about it.
        """
        try:
            found = importlib.import_module("rasteret_dask.integrations.torchgeo")
        except ModuleNotFoundError as error:
            raise ArgumentError(
                f"training needs {error.name}", hint='pip install "rasteret-dask[torchgeo]"'
            ) from None
        return found.to_torchgeo_dataset(
            self,
            bands,
            chip_size=chip_size,
            time_series=time_series,
            label_field=label_field,
            split=split,
            split_column=split_column,
            geometries=geometries,
            geometry_crs=geometry_crs,
            target_crs=target_crs,
            resolution=resolution,
            allow_resample=allow_resample,
            is_image=is_image,
            transforms=transforms,
            **options,
        )
