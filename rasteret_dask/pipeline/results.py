"""The keys of a pipeline that say where results go: one model for each kind of output.

The key of an output names its kind (``- zarr: url``). A new kind is a model here, its name in the
union below, and an entry in `outputs.OUTPUTS`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Tag

from rasteret_dask.documents import TAG, Strict
from rasteret_dask.pipeline.keys import Name, Url, by_key


class _Output(Strict):
    bands: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="Which variables; all by default."
    )


class ZarrOutput(_Output):
    """A Zarr store of all variables."""

    zarr: Url


class CogOutput(_Output):
    """A cloud-optimised GeoTIFF, one band a variable."""

    cog: Url


class PngOutput(_Output):
    """A picture: one variable through a colour map, or three as red, green and blue."""

    png: Url
    vmin: float | None = None
    vmax: float | None = None
    colormap: Name | None = None


class ParquetOutput(Strict):
    """A table of zones or points; GeoParquet where a row has a geometry of its own."""

    parquet: Url


class ArrowOutput(Strict):
    """The same as an Arrow file (IPC, also called Feather), which others map into memory."""

    arrow: Url


class CsvOutput(Strict):
    """A table of zones or points as text, without geometries."""

    csv: Url


class ChipsOutput(Strict):
    """A folder of GeoTIFFs of equal size, and ``chips.parquet`` that lists them."""

    chips: Url


class StacOutput(Strict):
    """A STAC item that describes the other outputs."""

    stac: Url
    id: Name | None = Field(default=None, description="Of the item; the pipeline's name.")


Output = Annotated[
    Annotated[ZarrOutput, Tag(TAG + "zarr")]
    | Annotated[CogOutput, Tag(TAG + "cog")]
    | Annotated[PngOutput, Tag(TAG + "png")]
    | Annotated[ParquetOutput, Tag(TAG + "parquet")]
    | Annotated[ArrowOutput, Tag(TAG + "arrow")]
    | Annotated[CsvOutput, Tag(TAG + "csv")]
    | Annotated[ChipsOutput, Tag(TAG + "chips")]
    | Annotated[StacOutput, Tag(TAG + "stac")],
    by_key("an output", "zarr", "cog", "png", "parquet", "arrow", "csv", "chips", "stac"),
]
