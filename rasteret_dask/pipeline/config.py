"""What a pipeline file may say: typed values, refused with the path of the key when they mean
nothing.

The keys of a step or an output name its kind (``- reduce: {...}``, ``- zarr: url``). A new kind is
a model here, its name in the union below, and an entry in `steps.STEPS` or `outputs.OUTPUTS`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from rasteret_dask.documents import TAG, Strict, assign, read, substitute, validate

VERSION = 1
How = Literal["median", "mean", "min", "max", "sum", "std", "percentile", "count"]


def _day(value: Any) -> Any:
    """YAML reads 2023-08-01 as a date; the rest of the package takes text."""
    return value.isoformat() if isinstance(value, dt.date | dt.datetime) else value


def _check_bbox(value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 4:
        west, south, east, north = (float(v) for v in value)
        if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
            raise ValueError(
                f"{list(value)} is no box in degrees; expected west, south, east, north "
                "(west > east crosses the antimeridian)"
            )
    return value


def _crs(value: Any) -> Any:
    return f"EPSG:{value}" if isinstance(value, int) and not isinstance(value, bool) else value


Crs = Annotated[str, Field(min_length=1), BeforeValidator(_crs)]
Day = Annotated[str, BeforeValidator(_day)]
DateRange = tuple[Day, Day]
BBox = Annotated[tuple[float, float, float, float], BeforeValidator(_check_bbox)]
Url = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1)]


def _exactly_one(values: Mapping[str, Any], names: Iterable[str], what: str) -> None:
    given = [name for name in names if values[name] is not None]
    if len(given) != 1:
        choices = ", ".join(names)
        met = f"both {' and '.join(given)} are given" if given else "none is given"
        raise PydanticCustomError(
            "key_conflict",
            "{what} takes exactly one of {choices}; {met}",
            {"what": what, "choices": choices, "met": met},
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
        _exactly_one(values, values, "build")
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

    @model_validator(mode="after")
    def _one_way(self) -> Source:
        _exactly_one({"load": self.load, "build": self.build}, ("load", "build"), "collection")
        return self


# --- cube ----------------------------------------------------------------------------------------
class Mask(Strict):
    """Which pixels to drop, by the classes of a band."""

    band: Name
    keep: tuple[int, ...] | None = Field(default=None, min_length=1)
    drop: tuple[int, ...] | None = Field(default=None, min_length=1)
    bits: dict[int | str, int | tuple[int, ...]] | None = Field(
        default=None,
        min_length=1,
        description="Bit, or range as 8-9 → value or values that are kept.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> Mask:
        ways = ("keep", "drop", "bits")
        _exactly_one({way: getattr(self, way) for way in ways}, ways, "mask")
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
    Annotated[Literal["auto", "tile"], Tag(TAG + "word")] | Annotated[Chunks, Tag(TAG + "sizes")],
    Discriminator(
        _chunk_tag,
        custom_error_type="key_conflict",
        custom_error_message="must be auto, tile, or a mapping of time, y and x to sizes",
    ),
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
    resolution: Annotated[float, Field(gt=0)] | None = None
    chunks: ChunkSpec = "auto"
    groupby: Literal["time", "solar_day"] = "time"
    resampling: Name = "nearest"
    masked: bool | None = Field(
        default=None,
        description="NaN for nothing. By default true when there are steps to compute.",
    )
    scale: bool = False
    mask: Mask | None = None

    @model_validator(mode="after")
    def _bands_once(self) -> Cube:
        twice = sorted({band for band in self.bands if self.bands.count(band) > 1})
        if twice:
            raise PydanticCustomError("key_conflict", "bands given twice: {b}", {"b": twice})
        return self


# --- steps ---------------------------------------------------------------------------------------
class ExpressionStep(Strict):
    """New variables from expressions over bands; the rest is dropped unless kept by name."""

    expression: dict[Name, Name] = Field(min_length=1)
    keep: tuple[Name, ...] = ()


class Reduction(Strict):
    """How a dimension disappears; nodata is left out of every statistic."""

    how: How
    dim: Literal["time"] = "time"
    q: Annotated[float, Field(ge=0, le=100)] | None = Field(default=None, description="Percent.")

    @model_validator(mode="after")
    def _needs_q(self) -> Reduction:
        if (self.how == "percentile") != (self.q is not None):
            raise PydanticCustomError(
                "key_conflict", "`q` (0 to 100) belongs to `how: percentile`, and it needs it"
            )
        return self


class ReduceStep(Strict):
    """A reduction of every variable."""

    reduce: Reduction


# --- outputs -------------------------------------------------------------------------------------
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


def _by_key(what: str, *keys: str) -> Discriminator:
    """Tell the member of a union by the one key that only it has."""

    def tag(value: Any) -> str | None:
        present = value if isinstance(value, Mapping) else getattr(value, "model_fields_set", ())
        found = [key for key in keys if key in present]
        return TAG + found[0] if len(found) == 1 else None

    return Discriminator(
        tag,
        custom_error_type="key_conflict",
        custom_error_message=f"{what} is a mapping with exactly one of the keys {', '.join(keys)}",
    )


Step = Annotated[
    Annotated[ExpressionStep, Tag(TAG + "expression")] | Annotated[ReduceStep, Tag(TAG + "reduce")],
    _by_key("a step", "expression", "reduce"),
]
Output = Annotated[
    Annotated[ZarrOutput, Tag(TAG + "zarr")]
    | Annotated[CogOutput, Tag(TAG + "cog")]
    | Annotated[PngOutput, Tag(TAG + "png")],
    _by_key("an output", "zarr", "cog", "png"),
]


class Pipeline(Strict):
    """A whole pipeline: which collection, which cube, what to compute, where it goes."""

    version: Literal[1]
    name: Name = "pipeline"
    description: str = ""
    collection: Source
    cube: Cube
    steps: tuple[Step, ...] = ()
    outputs: tuple[Output, ...] = Field(min_length=1)

    @property
    def masked(self) -> bool:
        """Whether the cube has NaN for nothing: as said, else when something is computed from
        it."""
        return bool(self.steps) if self.cube.masked is None else self.cube.masked


def from_mapping(data: Mapping[str, Any]) -> Pipeline:
    """Make a pipeline from keys and values; the shape of every value is checked, not yet their
    sense together."""
    return validate(Pipeline, data)


def from_file(
    source: Path, sets: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> Pipeline:
    """Read a pipeline, apply ``--set`` assignments, fill in ``${ENV}`` and check every key.

    Raises
    ------
    ConfigError
        With the path of the key and what was expected.
    """
    return from_mapping(substitute(assign(read(source), sets), environment))
