"""The keys of a pipeline that say which collection, and which cube of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.documents import TAG, Strict
from rasteret_dask.pipeline.keys import (
    LIST,
    MAPPING,
    NUMBER,
    TEXT,
    BBox,
    Crs,
    DateRange,
    Name,
    Url,
    by_type,
    exactly_one,
)


# --- collection ----------------------------------------------------------------------------------
class Build(Strict):
    """A collection to build (or to reuse, when the same one is there already)."""

    dataset: Name | None = Field(default=None, description="An entry of the catalogue of datasets.")
    stac_api: Url | None = Field(
        default=None, description="A STAC API to search; needs `collection`."
    )
    static_catalog: Url | None = Field(
        default=None, description="catalog.json of a static catalogue."
    )
    collection: Name | None = Field(default=None, description="The STAC collection to search.")
    name: Name = Field(description="What to call the collection in the workspace.")
    bbox: BBox | None = None
    date_range: DateRange | None = None
    band_map: dict[str, str] | None = Field(default=None, description="Band name → STAC asset key.")
    query: dict[str, Any] | None = Field(default=None, description="STAC query extension.")
    workspace_dir: str | None = None
    force: bool = Field(default=False, description="Replace a collection of that name.")

    @model_validator(mode="after")
    def _one_source(self) -> Build:
        values = {n: getattr(self, n) for n in ("dataset", "stac_api", "static_catalog")}
        if self.dataset is not None and self.static_catalog is not None:
            values["dataset"] = None  # the dataset then only says what the bands are called
        exactly_one(values, values, "build")
        if self.stac_api is not None and self.collection is None:
            raise PydanticCustomError(
                "key_conflict", "stac_api needs `collection`: the STAC collection to search"
            )
        if self.stac_api is None and self.static_catalog is None and self.collection is not None:
            raise PydanticCustomError(
                "key_conflict", "`collection` belongs to stac_api; the dataset names its own"
            )
        return self


class Subset(Strict):
    """Which items of the collection to use; nothing is read for it."""

    bbox: BBox | None = None
    date_range: DateRange | None = None
    cloud_cover_lt: float | None = Field(default=None, gt=0, le=100)
    geometries: str | None = Field(default=None, description="A vector file: items that touch it.")


class Source(Strict):
    """The collection: built or loaded, then narrowed."""

    load: Url | None = Field(default=None, description="A collection that exists: folder or URL.")
    build: Build | None = None
    subset: Subset | None = None
    storage: str | None = Field(
        default=None,
        description="How its rasters are reached: a storage profile, YAML file or one that ships.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Source:
        exactly_one({"load": self.load, "build": self.build}, ("load", "build"), "collection")
        return self


# --- cube ----------------------------------------------------------------------------------------
class Mask(Strict):
    """Which pixels to drop, by the classes of a band."""

    band: Name
    keep: tuple[int, ...] | None = Field(default=None, min_length=1)
    drop: tuple[int, ...] | None = Field(default=None, min_length=1)
    dilate: float | None = Field(
        default=None, ge=0, description="Metres by which dropped pixels grow."
    )
    bits: dict[int | str, int | tuple[int, ...]] | None = Field(
        default=None,
        min_length=1,
        description="Bit, or range as 8-9 → value or values that are kept.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Mask:
        ways = ("keep", "drop", "bits")
        exactly_one({way: getattr(self, way) for way in ways}, ways, "mask")
        return self


class Chunks(Strict):
    """Pixels and steps in one chunk; -1 takes the whole length."""

    time: Annotated[int, Field(ge=-1)] | None = None
    y: Annotated[int, Field(ge=-1)] | None = None
    x: Annotated[int, Field(ge=-1)] | None = None


def _chunk_tag(value: Any) -> str | None:
    if isinstance(value, str):
        return TAG + "word"
    return TAG + "sizes" if isinstance(value, Mapping | Chunks) else None


ChunkSpec = Annotated[
    Annotated[Literal["auto", "tile", "tiles"], Tag(TAG + "word")]
    | Annotated[Chunks, Tag(TAG + "sizes")],
    Discriminator(
        _chunk_tag,
        custom_error_type="key_conflict",
        custom_error_message="must be auto, tile, tiles, or a mapping of time, y and x to sizes",
    ),
]


Mosaic = Literal["first", "last", "min", "max", "mean", "median", "count"]
Method = Literal["nearest", "bilinear", "cubic", "average", "mode", "min", "max", "q1", "med", "q3"]
GroupBy = Annotated[
    Annotated[Name, Tag(TEXT)] | Annotated[tuple[Name, ...], Field(min_length=1), Tag(LIST)],
    by_type("must be time, solar_day, id, a period as 1MS, a column, or a list of columns"),
]
Resampling = Annotated[
    Annotated[Method, Tag(TEXT)] | Annotated[dict[Name, Method], Tag(MAPPING)],
    by_type("must be a method, or a mapping of bands to methods"),
]
Overviews = Annotated[
    Annotated[Literal["auto", "off"], Tag(TEXT)] | Annotated[int, Field(ge=0), Tag(NUMBER)],
    by_type("must be auto, off, or a level: 0, 1, …"),
]
Length = Annotated[float, Field(gt=0)]
Resolution = Annotated[
    Annotated[Length, Tag(NUMBER)] | Annotated[tuple[Length, Length], Tag(LIST)],
    # Text may be a number that came from the environment.
    Discriminator(lambda value: LIST if isinstance(value, list | tuple) else NUMBER),
]


class Cube(Strict):
    """The arguments of `Collection.get_xarray`."""

    bands: tuple[Name, ...] = Field(min_length=1)
    bbox: BBox | None = None
    geometries: str | None = Field(
        default=None, description="A vector file to crop to and mask by."
    )
    all_touched: bool = False
    crs: Crs | None = None
    resolution: Resolution | None = Field(
        default=None, description="Of a pixel, in units of the CRS: one number, or x and y."
    )
    anchor: tuple[float, float] | None = Field(
        default=None, description="x and y of any pixel corner of the grid."
    )
    chunks: ChunkSpec = "auto"
    groupby: GroupBy = Field(
        default="time",
        description="What becomes one time step: time, solar_day, id, a period as 1MS, or columns.",
    )
    mosaic: Mosaic = Field(default="first", description="How items of one step become one.")
    mosaic_mask: Literal["band", "all"] = Field(
        default="band",
        description="all: all bands of a pixel come from one item, the first valid in every band.",
    )
    early_exit: bool = Field(
        default=False,
        description="Read the items of a step one by one, and stop once every pixel is filled.",
    )
    sortby: Name | None = Field(
        default=None, description="A column that ranks the items of a step; -column turns it round."
    )
    resampling: Resampling = Field(
        default="nearest", description="One for all bands, or by band, '*' for the rest."
    )
    overviews: Overviews = "auto"
    properties: tuple[Name, ...] = Field(
        default=(), description="STAC properties that become coordinates on time."
    )
    missing: Literal["raise", "nodata"] = Field(
        default="raise", description="What to do about items that lack a band."
    )
    nodata: float | None = Field(default=None, description="What the files mean by nothing.")
    fill_value: float | None = Field(
        default=None, description="What the cube holds where there is nothing."
    )
    dtype: Name | None = Field(default=None, description="Of the pixels, as NumPy names it.")
    masked: bool | None = Field(
        default=None,
        description="NaN for nothing. By default true when there are steps to compute.",
    )
    scale: bool = False
    decode: bool = Field(
        default=False,
        description="Stored numbers to values where that is no straight line (AlphaEarth).",
    )
    harmonize: Literal["sentinel-2"] | None = None
    offsets: dict[Name, float] | None = Field(
        default=None,
        description="Sentinel-2 offsets (0 or -1000) by item, over what the rules would say.",
    )
    mask: Mask | None = None
    on_error: Literal["raise", "record"] = Field(
        default="raise",
        description="What to do about tiles that cannot be had: record makes nodata and a row of "
        "the ledger of each.",
    )
    ledger: Url | None = Field(
        default=None, description="The ledger's folder, for on_error: record."
    )

    @model_validator(mode="after")
    def _recorded_somewhere(self) -> Cube:
        if (self.on_error == "record") != (self.ledger is not None):
            raise PydanticCustomError("key_conflict", "on_error: record and ledger go together")
        return self

    @model_validator(mode="after")
    def _bands_once(self) -> Cube:
        twice = sorted({band for band in self.bands if self.bands.count(band) > 1})
        if twice:
            raise PydanticCustomError("key_conflict", "bands given twice: {b}", {"b": twice})
        return self
