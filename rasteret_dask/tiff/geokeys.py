"""GeoKeys: the small database inside a GeoTIFF that names its CRS (OGC 19-008r4)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import pyproj
from pyproj.exceptions import CRSError

from rasteret_dask.errors import HeaderError
from rasteret_dask.tiff.usercrs import USER_CRS_ERRORS, esri_string, user_defined

GeoKeys = dict[int, int | str | tuple[float, ...]]

_USER = 32767
_MODEL_TYPE, _CITATION = 1024, 1026
_GEOGRAPHIC, _PROJECTED = 2048, 3072


def parse_geokeys(directory: tuple[int, ...], doubles: tuple[float, ...], text: str) -> GeoKeys:
    """Return key number to value.

    Parameters
    ----------
    directory, doubles, text
        The values of GeoKeyDirectory, GeoDoubleParams and GeoAsciiParams.

    Raises
    ------
    HeaderError
        When the directory is shorter than it says.
    """
    if len(directory) < 4 or not all(isinstance(value, int) for value in directory):
        raise HeaderError("the GeoKey directory is no list of keys", tag="GeoKeyDirectory")
    keys: GeoKeys = {}
    for i in range(4, min(len(directory), 4 + 4 * directory[3]) - 3, 4):
        key, place, count, value = directory[i : i + 4]
        if place == 0:
            keys[key] = value
        elif place == 34736:
            keys[key] = tuple(doubles[value : value + count])
        elif place == 34737:
            keys[key] = text[value : value + count].rstrip("|\0")
        elif place == 34735:
            found = directory[value : value + count]
            if found:
                keys[key] = found[0]
    return keys


def crs_from_keys(
    keys: Mapping[int, int | str | tuple[float, ...]], warnings: list[str]
) -> str | None:
    """Return ``EPSG:n`` or WKT2 for the CRS that the keys describe; None when they describe none.

    What cannot be understood becomes a warning: the pixels are still readable.
    """
    if not keys:
        return None
    model = keys.get(_MODEL_TYPE)
    code = keys.get(_PROJECTED, 0) if model != 2 else 0
    spelled = code == _USER or 3074 in keys or 3075 in keys or esri_string(keys) is not None
    if code == 0 and not spelled and model != 1:
        code = keys.get(_GEOGRAPHIC, 0)
    if isinstance(code, int) and code not in (0, _USER):
        if known_epsg(code):
            return f"EPSG:{code}"
        warnings.append(f"EPSG has no code {code}, which the GeoKeys name")
    if code == 0 and not spelled:
        return None
    try:
        return user_defined(tuple(sorted(keys.items())))
    except USER_CRS_ERRORS as error:
        warnings.append(f"the GeoKeys make no CRS: {str(error)[:200]}")
        return None


@lru_cache(maxsize=4096)
def known_epsg(code: int) -> bool:
    """Tell whether PROJ's database knows a CRS (cached per process; PROJ takes milliseconds)."""
    try:
        pyproj.CRS.from_epsg(code)
    except CRSError:
        return False
    return True
