"""Where results go: every kind of output is an entry of `OUTPUTS`, as every kind of step is in
`steps.STEPS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import geopandas
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import xarray as xr

from rasteret_dask.errors import ConfigError, PipelineError
from rasteret_dask.pipeline.chips import LIST, ChipSet, write_chips
from rasteret_dask.pipeline.results import (
    ArrowOutput,
    ChipsOutput,
    CogOutput,
    CsvOutput,
    Output,
    ParquetOutput,
    PngOutput,
    StacOutput,
    ZarrOutput,
)
from rasteret_dask.pipeline.shape import Shape
from rasteret_dask.pipeline.tables import Table
from rasteret_dask.runs.record import unsigned
from rasteret_dask.storage.ask import ask, reason_of
from rasteret_dask.write import stac
from rasteret_dask.write.cog import write_cog
from rasteret_dask.write.preview import COLORMAPS, write_png
from rasteret_dask.write.target import put_file, resolve, scratch_file
from rasteret_dask.write.zarr import ROOT, write_zarr


@dataclass(frozen=True, slots=True)
class Result:
    """What is to be written, and what has been.

    Parameters
    ----------
    name : str
        Of the pipeline.
    dataset : Dataset
        Lazy, or computed.
    table : Table or ChipSet, optional
        When a step ended in one.
    dates : tuple, optional
        First and last of the items.
    resume : bool
        Go on with what was broken off.
    written : dict of str to str
        Kind (and bands, of the second of a kind) to URL of the outputs so far.
    """

    name: str
    dataset: xr.Dataset
    table: Table | ChipSet | None = None
    dates: tuple[Any, Any] | None = None
    resume: bool = False
    written: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputKind:
    """How one kind of output is checked and written.

    Parameters
    ----------
    key : str
        The key that names it and holds its URL.
    check : callable
        Refuses what this kind cannot hold.
    write : callable
        Writes it, and returns what there is to say of it besides.
    last : str
        What is written last where an output is many files; the output itself where it is one.
    """

    key: str
    check: Callable[[Any, Shape, str], None]
    write: Callable[[Any, Result], Mapping[str, Any]]
    last: str = ""


def url_of(output: Output) -> str:
    """Where it goes."""
    return str(getattr(output, OUTPUTS[type(output)].key))


def is_whole_zarr(output: Output) -> bool:
    """Whether an output is a Zarr store of all variables."""
    return isinstance(output, ZarrOutput) and output.bands is None


def is_there(output: Output) -> bool:
    """Whether it has been written, whole.

    Raises
    ------
    PipelineError
        Its place cannot be read.
    """
    url = f"{url_of(output).rstrip('/')}{OUTPUTS[type(output)].last}"
    try:
        fs, path = ask(resolve, url)
        return bool(fs.exists(path))
    except OSError as error:
        reason = reason_of(error)
        raise PipelineError(f"{unsigned(url)} cannot be looked for: {reason}") from None


def check(output: Output, shape: Shape, path: str) -> None:
    """Refuse an output that cannot hold what the steps make.

    Raises
    ------
    ConfigError
        With the path of the key.
    """
    bands = getattr(output, "bands", None)
    if bands is not None:
        shape.require(bands, f"{path}.bands")
        shape = Shape(bands, shape.time, shape.table, shape.chips)
    OUTPUTS[type(output)].check(output, shape, path)


def write(output: Output, result: Result) -> dict[str, Any]:
    """Write one output, computing what is not computed yet.

    Returns
    -------
    dict
        ``kind``, ``url`` and what there is to say of this kind.
    """
    kind = OUTPUTS[type(output)]
    said = kind.write(output, result)
    note(output, result)
    return {"kind": kind.key, "url": url_of(output), **said}


def note(output: Output, result: Result) -> None:
    """Tell those that come after it that an output is written."""
    name = OUTPUTS[type(output)].key
    if name in result.written:
        name = f"{name}-{'-'.join(getattr(output, 'bands', None) or str(len(result.written)))}"
    result.written[name] = (
        f"{url_of(output).rstrip('/')}/{LIST}" if name == "chips" else url_of(output)
    )


def _selected(output: Any, result: Result) -> xr.Dataset:
    return result.dataset if output.bands is None else result.dataset[list(output.bands)]


# --- checks --------------------------------------------------------------------------------------
def _raster(kind: str, shape: Shape, path: str) -> None:
    if shape.table:
        raise ConfigError(
            f"a {kind} holds a cube, and a step has made a table of it",
            path=path,
            hint="write parquet, arrow or csv",
        )
    if shape.chips:
        raise ConfigError(
            f"a {kind} holds a cube, and a step has made chips of it",
            path=path,
            hint="write chips",
        )


def _flat(kind: str, shape: Shape, path: str) -> None:
    _raster(kind, shape, path)
    if shape.time:
        raise ConfigError(
            f"a {kind} has no time dimension, and the cube still has one here",
            path=path,
            hint="add a step such as - reduce: {how: median, dim: time}, or write zarr",
        )


def _check_zarr(output: ZarrOutput, shape: Shape, path: str) -> None:
    _raster("Zarr store", shape, path)


def _check_cog(output: CogOutput, shape: Shape, path: str) -> None:
    _flat("COG", shape, path)


def _check_png(output: PngOutput, shape: Shape, path: str) -> None:
    _flat("PNG", shape, path)
    if len(shape.variables) not in (1, 3):
        raise ConfigError(
            "a PNG shows one variable, or three as red, green and blue; "
            f"here are {len(shape.variables)}",
            path=f"{path}.bands",
            hint=f"choose among {', '.join(shape.variables)}",
        )
    if output.colormap is not None and len(shape.variables) == 3:
        raise ConfigError("a colour map belongs to one variable", path=f"{path}.colormap")
    if output.colormap is not None and output.colormap not in COLORMAPS:
        raise ConfigError(
            f"no colour map {output.colormap!r}",
            path=f"{path}.colormap",
            hint=f"there are {', '.join(sorted(COLORMAPS))}",
        )
    if (output.vmin is None) != (output.vmax is None):
        raise ConfigError("vmin and vmax are given together or not at all", path=path)
    if output.vmin is not None and output.vmax is not None and output.vmin >= output.vmax:
        raise ConfigError("vmin must be below vmax", path=path)


def _check_table(output: Any, shape: Shape, path: str) -> None:
    if not shape.table:
        raise ConfigError(
            "a table is written, and the steps leave a cube",
            path=path,
            hint="end with a zonal or sample step, or write zarr, cog or png",
        )


def _check_chips(output: Any, shape: Shape, path: str) -> None:
    if not shape.chips:
        raise ConfigError(
            "chips are written, and no step has cut any",
            path=path,
            hint="end with a step such as - chips: {size: 256}",
        )


def _check_nothing(output: Any, shape: Shape, path: str) -> None:
    return None


# --- writing -------------------------------------------------------------------------------------
def _write_zarr(output: ZarrOutput, result: Result) -> Mapping[str, Any]:
    written = write_zarr(_selected(output, result), output.zarr, resume=result.resume)
    return {"regions": written.regions, "computed": written.computed}


def _write_cog(output: CogOutput, result: Result) -> Mapping[str, Any]:
    write_cog(_selected(output, result), output.cog)
    return {}


def _write_png(output: PngOutput, result: Result) -> Mapping[str, Any]:
    look: dict[str, Any] = {"vmin": output.vmin, "vmax": output.vmax, "colormap": output.colormap}
    write_png(_selected(output, result), output.png, **look)
    return {}


def _write_parquet(output: ParquetOutput, result: Result) -> Mapping[str, Any]:
    table = _table(result)
    with scratch_file(".parquet") as path:
        if table.geometry is None:
            pyarrow.parquet.write_table(table.rows, path, compression="zstd")
        else:
            shaped = _shaped(table)
            shaped.to_parquet(path, compression="zstd", write_covering_bbox=True)
        put_file(path, output.parquet)
    return {"rows": table.rows.num_rows}


def _write_arrow(output: ArrowOutput, result: Result) -> Mapping[str, Any]:
    table = _table(result)
    with scratch_file(".arrow") as path:
        if table.geometry is None:
            pyarrow.feather.write_feather(table.rows, path, compression="zstd")
        else:
            _shaped(table).to_feather(path, compression="zstd")
        put_file(path, output.arrow)
    return {"rows": table.rows.num_rows}


def _shaped(table: Table) -> geopandas.GeoDataFrame:
    assert table.geometry is not None  # callers have looked
    frame = table.rows.to_pandas()
    return geopandas.GeoDataFrame(frame, geometry=table.geometry.reset_index(drop=True))


def _write_csv(output: CsvOutput, result: Result) -> Mapping[str, Any]:
    table = _table(result)
    with scratch_file(".csv") as path:
        pyarrow.csv.write_csv(table.rows, path)
        put_file(path, output.csv)
    return {"rows": table.rows.num_rows}


def _table(result: Result) -> Table:
    assert isinstance(result.table, Table)  # `check` has followed the steps
    return result.table


def _write_chips(output: ChipsOutput, result: Result) -> Mapping[str, Any]:
    assert isinstance(result.table, ChipSet)  # as above
    return write_chips(result.table, output.chips, resume=result.resume)


def _write_stac(output: StacOutput, result: Result) -> Mapping[str, Any]:
    stac.write_item(
        output.stac,
        output.id or result.name,
        result.written,
        result.dataset,
        dates=result.dates,
    )
    return {}


OUTPUTS: Mapping[type, OutputKind] = {
    ZarrOutput: OutputKind("zarr", _check_zarr, _write_zarr, f"/{ROOT}"),
    CogOutput: OutputKind("cog", _check_cog, _write_cog),
    PngOutput: OutputKind("png", _check_png, _write_png),
    ParquetOutput: OutputKind("parquet", _check_table, _write_parquet),
    ArrowOutput: OutputKind("arrow", _check_table, _write_arrow),
    CsvOutput: OutputKind("csv", _check_table, _write_csv),
    ChipsOutput: OutputKind("chips", _check_chips, _write_chips, f"/{LIST}"),
    StacOutput: OutputKind("stac", _check_nothing, _write_stac),
}
