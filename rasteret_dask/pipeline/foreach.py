"""A pipeline once for each row of a table: tiles, districts, years.

Each unit is a run with a record of its own, so a unit that failed stops nobody, and `resume` does
only what is not done. Shards share nothing: a job array needs no network between its nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import geopandas
from distributed import Client

from rasteret_dask.documents import validate
from rasteret_dask.errors import (
    ConfigError,
    EmptySelectionError,
    RasteretError,
    RunInterruptedError,
    WorkersKilledError,
)
from rasteret_dask.pipeline import outputs
from rasteret_dask.pipeline.account import Progress, RunAccount, Silence
from rasteret_dask.pipeline.check import check
from rasteret_dask.pipeline.config import Foreach, Pipeline
from rasteret_dask.pipeline.inputs import read_rows
from rasteret_dask.pipeline.run import record_url, run

_PLACE = re.compile(r"\{([^{}\s]+)\}")
# Where a column's value may stand.
_TEMPLATES = ("name", "description", "collection", "cube", "outputs", "record")


@dataclass(frozen=True, slots=True)
class Unit:
    """One row.

    Parameters
    ----------
    id : str
    pipeline : Pipeline
        With the row's values filled in, and no `foreach`.
    area : GeoDataFrame, optional
        What the cube is cropped to.
    """

    id: str
    pipeline: Pipeline
    area: geopandas.GeoDataFrame | None


@dataclass(frozen=True, slots=True)
class UnitStatus:
    """How one unit went.

    Parameters
    ----------
    id, state, record : str
        ``done``, ``there`` (done before), ``empty`` (no item) or ``failed``.
    error : str, optional
    account : RunAccount, optional
    """

    id: str
    state: str
    record: str
    error: str | None = None
    account: RunAccount | None = None


@dataclass(frozen=True, slots=True)
class EachAccount:
    """How all units of a shard went.

    Parameters
    ----------
    pipeline : str
    units : tuple of UnitStatus
    """

    pipeline: str
    units: tuple[UnitStatus, ...]

    @property
    def failed(self) -> tuple[UnitStatus, ...]:
        """Those that went wrong."""
        return tuple(unit for unit in self.units if unit.state == "failed")

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


def every_shard(pipeline: Pipeline) -> Pipeline:
    """The same over all rows, whatever part of them was asked for."""
    assert pipeline.foreach is not None  # callers have looked
    whole = pipeline.foreach.model_copy(update={"shard": None})
    return pipeline.model_copy(update={"foreach": whole})


def units(pipeline: Pipeline, *, allow_custom: bool = False) -> list[Unit]:
    """The units of this shard, each checked as a pipeline.

    Raises
    ------
    ConfigError
        The table, a template or the pipeline of a unit makes no sense; nothing has run.
    """
    each = pipeline.foreach
    assert each is not None  # callers have looked
    frame = read_rows(each.table, "foreach.table")
    if each.id not in frame.columns:
        known = ", ".join(map(str, frame.columns))
        raise ConfigError(f"no column {each.id!r}", path="foreach.id", hint=f"there are {known}")
    document = pipeline.model_dump(mode="json", exclude_none=True, exclude={"foreach"})
    made: list[Unit] = []
    taken: dict[str, str] = {}
    # A row of numbers alone would have one type for all of them: 7 would be called 7.0.
    rows = frame if isinstance(frame, geopandas.GeoDataFrame) else frame.astype(object)
    for position in range(len(frame)):
        row = rows.iloc[position]
        unit = _unit(pipeline, each, document, row, frame)
        check(unit.pipeline, allow_custom=allow_custom)
        for index, output in enumerate(unit.pipeline.outputs):
            url = outputs.url_of(output)
            if url in taken:
                raise ConfigError(
                    f"{unit.id} and {taken[url]} would both write {url}",
                    path=f"outputs[{index}]",
                    hint=f"put {{{each.id}}} into it; no two rows may have the same",
                )
            taken[url] = unit.id
        made.append(unit)
    if each.shard is None:
        return made
    first, _, count = each.shard.partition("/")
    if int(first) >= int(count):
        raise ConfigError("i/n counts from 0 to n - 1", path="foreach.shard")
    return made[int(first) :: int(count)]


def _unit(
    pipeline: Pipeline, each: Foreach, document: Mapping[str, Any], row: Any, frame: Any
) -> Unit:
    named = str(row[each.id])
    shaped = isinstance(frame, geopandas.GeoDataFrame)
    shape = frame.geometry.name if shaped else None
    values = {str(column): row[column] for column in frame.columns if column != shape}
    filled = {
        key: _fill(value, values, key) if key in _TEMPLATES else value
        for key, value in document.items()
    }
    filled.setdefault("name", pipeline.name)
    area = None
    own = pipeline.cube.bbox is not None or pipeline.cube.geometries is not None
    if each.crop and not own and shaped:
        if frame.crs is None:
            raise ConfigError(f"{each.table} has no CRS", path="foreach.table")
        if row[shape] is None or row[shape].is_empty:
            raise ConfigError(
                f"{named} has no geometry to crop the cube to",
                path="foreach.table",
                hint="take the row out, or set foreach.crop: false",
            )
        area = geopandas.GeoDataFrame({each.id: [named]}, geometry=[row[shape]], crs=frame.crs)
        for step in filled.get("steps", ()):  # zones of no file are the row itself, by its name
            if "zonal" in step and "polygons" not in step["zonal"]:
                step["zonal"].setdefault("id", each.id)
    return Unit(named, validate(Pipeline, filled), area)


def _fill(value: Any, values: Mapping[str, Any], path: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill(one, values, f"{path}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_fill(one, values, f"{path}[{index}]") for index, one in enumerate(value)]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        column = match.group(1)
        if column not in values:
            raise ConfigError(
                f"{{{column}}} is no column of the table",
                path=path,
                hint=f"there are {', '.join(values)}",
            )
        text = str(values[column])
        if path.startswith(("outputs", "record")) and (
            not text or text in (".", "..") or "/" in text or "\\" in text
        ):
            raise ConfigError(f"{column} is {text!r}, which is no part of a file name", path=path)
        return text

    return _PLACE.sub(put, value)


def run_each(
    pipeline: Pipeline,
    *,
    client: Client | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    allow_custom: bool = False,
) -> EachAccount:
    """Run every unit of this shard, one after the other.

    Parameters
    ----------
    pipeline : Pipeline
        With `foreach`.
    client, progress, resume, allow_custom
        As in `run.run`.

    Returns
    -------
    EachAccount
        A unit that failed is in it with its error, and has stopped nobody.

    Raises
    ------
    ConfigError
        Before the first unit runs.
    RunInterruptedError
        The cluster was lost; units that are done are not run again by `resume`.
    """
    listener: Progress = Silence() if progress is None else progress
    found = units(pipeline, allow_custom=allow_custom)
    told: list[UnitStatus] = []
    for number, unit in enumerate(found, start=1):
        listener.stage(f"unit {unit.id} ({number} of {len(found)})")
        url = record_url(unit.pipeline)
        try:
            account = run(
                unit.pipeline,
                client=client,
                progress=listener,
                resume=resume,
                allow_custom=allow_custom,
                area=unit.area,
            )
        except WorkersKilledError as error:  # this one is too large for them; others need not be
            told.append(UnitStatus(unit.id, "failed", url, str(error)))
        except RunInterruptedError:  # no other unit would fare better
            raise
        except EmptySelectionError as error:
            told.append(UnitStatus(unit.id, "empty", url, str(error)))
        except RasteretError as error:
            told.append(UnitStatus(unit.id, "failed", url, str(error)))
        else:
            state = "there" if account.reused else "done"
            told.append(UnitStatus(unit.id, state, url, None, account))
    return EachAccount(pipeline.name, tuple(told))
