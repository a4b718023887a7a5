"""Where results go: every kind of output is an entry of `OUTPUTS`, as every kind of step is in
`steps.STEPS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from rasteret_dask.errors import ConfigError
from rasteret_dask.pipeline.config import CogOutput, Output, PngOutput, ZarrOutput
from rasteret_dask.pipeline.steps import Shape
from rasteret_dask.write.cog import write_cog
from rasteret_dask.write.preview import COLORMAPS, write_png
from rasteret_dask.write.zarr import write_zarr


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
        Writes the selected variables.
    """

    key: str
    check: Callable[[Any, Shape, str], None]
    write: Callable[[Any, xr.Dataset], object]


def url_of(output: Output) -> str:
    """Where it goes."""
    return str(getattr(output, OUTPUTS[type(output)].key))


def check(output: Output, shape: Shape, path: str) -> None:
    """Refuse an output that cannot hold what the steps make.

    Raises
    ------
    ConfigError
        With the path of the key.
    """
    if output.bands is not None:
        shape.require(output.bands, f"{path}.bands")
        shape = Shape(output.bands, shape.time)
    OUTPUTS[type(output)].check(output, shape, path)


def write(output: Output, dataset: xr.Dataset) -> str:
    """Write one output, computing what is not computed yet, and return its URL."""
    selected = dataset if output.bands is None else dataset[list(output.bands)]
    OUTPUTS[type(output)].write(output, selected)
    return url_of(output)


def _flat(kind: str, shape: Shape, path: str) -> None:
    if shape.time:
        raise ConfigError(
            f"a {kind} has no time dimension, and the cube still has one here",
            path=path,
            hint="add a step such as - reduce: {how: median, dim: time}, or write zarr",
        )


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


def _write_zarr(output: ZarrOutput, dataset: xr.Dataset) -> object:
    return write_zarr(dataset, output.zarr)


def _write_cog(output: CogOutput, dataset: xr.Dataset) -> object:
    return write_cog(dataset, output.cog)


def _write_png(output: PngOutput, dataset: xr.Dataset) -> object:
    return write_png(
        dataset, output.png, vmin=output.vmin, vmax=output.vmax, colormap=output.colormap
    )


OUTPUTS: Mapping[type, OutputKind] = {
    ZarrOutput: OutputKind("zarr", lambda output, shape, path: None, _write_zarr),
    CogOutput: OutputKind("cog", _check_cog, _write_cog),
    PngOutput: OutputKind("png", _check_png, _write_png),
}
