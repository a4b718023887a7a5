"""CRSs that GeoKeys spell out parameter by parameter, as WKT2 by way of PROJ.

The names of projections and parameters are those of WKT1 as GDAL writes it; PROJ reads them. Key
numbers and projection codes are those of OGC GeoTIFF 1.1 (19-008r4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import pyproj
from pyproj.crs import CoordinateOperation, Datum, Ellipsoid, ProjectedCRS  # type: ignore[attr-defined]  # not in pyproj's __all__
from pyproj.exceptions import CRSError

Value = int | str | tuple[float, ...]
Keys = tuple[tuple[int, Value], ...]

_USER: Final = 32767
_ESRI_WEB_MERCATOR: Final = "WGS_1984_Web_Mercator_Auxiliary_Sphere"

# Where each WKT1 parameter is looked for: the first key that is there.
_LATITUDE: Final = (3081, 3085, 3089)
_LONGITUDE: Final = (3080, 3084, 3088, 3095)
_EAST: Final = (3082, 3086, 3090)
_NORTH: Final = (3083, 3087, 3091)
_SCALE: Final = (3092, 3093)
_PARALLEL1: Final = (3078,)
_PARALLEL2: Final = (3079,)

_Method = tuple[str, tuple[tuple[str, tuple[int, ...], float], ...]]
_SHIFT: Final = (("false_easting", _EAST, 0.0), ("false_northing", _NORTH, 0.0))
_ORIGIN: Final = (("latitude_of_origin", _LATITUDE, 0.0), ("central_meridian", _LONGITUDE, 0.0))
_CENTRE: Final = (("latitude_of_center", _LATITUDE, 0.0), ("longitude_of_center", _LONGITUDE, 0.0))
_FACTOR: Final = (("scale_factor", _SCALE, 1.0),)
_TWO: Final = (("standard_parallel_1", _PARALLEL1, 0.0), ("standard_parallel_2", _PARALLEL2, 0.0))
_POLE: Final = ("latitude_of_origin", (3081, 3095, 3078), 90.0)

_METHODS: Final[dict[int, _Method]] = {
    1: ("Transverse_Mercator", (*_ORIGIN, *_FACTOR, *_SHIFT)),
    3: (
        "Hotine_Oblique_Mercator_Azimuth_Center",
        (
            *_CENTRE,
            ("azimuth", (3094,), 0.0),
            ("rectified_grid_angle", (3096,), 90.0),
            *_FACTOR,
            *_SHIFT,
        ),
    ),
    7: ("Mercator_1SP", (("central_meridian", _LONGITUDE, 0.0), *_FACTOR, *_SHIFT)),
    8: ("Lambert_Conformal_Conic_2SP", (*_TWO, *_ORIGIN, *_SHIFT)),
    9: ("Lambert_Conformal_Conic_1SP", (*_ORIGIN, *_FACTOR, *_SHIFT)),
    10: ("Lambert_Azimuthal_Equal_Area", (*_CENTRE, *_SHIFT)),
    11: ("Albers_Conic_Equal_Area", (*_TWO, *_CENTRE, *_SHIFT)),
    12: ("Azimuthal_Equidistant", (*_CENTRE, *_SHIFT)),
    13: ("Equidistant_Conic", (*_TWO, *_CENTRE, *_SHIFT)),
    14: ("Stereographic", (*_ORIGIN, *_FACTOR, *_SHIFT)),
    15: (
        "Polar_Stereographic",
        (_POLE, ("central_meridian", (3095, *_LONGITUDE), 0.0), *_FACTOR, *_SHIFT),
    ),
    16: ("Oblique_Stereographic", (*_ORIGIN, *_FACTOR, *_SHIFT)),
    17: (
        "Equirectangular",
        (
            ("standard_parallel_1", _PARALLEL1, 0.0),
            ("latitude_of_origin", _LATITUDE, 0.0),
            ("central_meridian", _LONGITUDE, 0.0),
            *_SHIFT,
        ),
    ),
    18: ("Cassini_Soldner", (*_ORIGIN, *_SHIFT)),
    19: ("Gnomonic", (*_ORIGIN, *_SHIFT)),
    20: ("Miller_Cylindrical", (*_CENTRE, *_SHIFT)),
    21: ("Orthographic", (*_ORIGIN, *_SHIFT)),
    22: ("Polyconic", (*_ORIGIN, *_SHIFT)),
    23: ("Robinson", (("longitude_of_center", _LONGITUDE, 0.0), *_SHIFT)),
    24: ("Sinusoidal", (("longitude_of_center", _LONGITUDE, 0.0), *_SHIFT)),
    25: ("VanDerGrinten", (("central_meridian", _LONGITUDE, 0.0), *_SHIFT)),
    26: ("New_Zealand_Map_Grid", (*_ORIGIN, *_SHIFT)),
    27: ("Transverse_Mercator_South_Orientated", (*_ORIGIN, *_FACTOR, *_SHIFT)),
    28: (
        "Cylindrical_Equal_Area",
        (
            ("standard_parallel_1", _PARALLEL1, 0.0),
            ("central_meridian", _LONGITUDE, 0.0),
            *_SHIFT,
        ),
    ),
}

_LINEAR: Final = {
    9001: ("metre", 1.0),
    9002: ("foot", 0.3048),
    9003: ("US survey foot", 12 / 39.37),
    9005: ("Clarke's foot", 0.3047972654),
    9036: ("kilometre", 1000.0),
}
_ANGULAR: Final = {
    9101: ("radian", 1.0),
    9102: ("degree", math.pi / 180),
    9105: ("grad", math.pi / 200),
}


@lru_cache(maxsize=1024)
def user_defined(keys: Keys) -> str:
    """Return ``EPSG:n`` or WKT2 for the horizontal CRS of a set of GeoKeys.

    Cached per process: the files of one dataset spell out one CRS, and PROJ takes milliseconds.

    Raises
    ------
    CRSError, KeyError, ValueError
        When they describe none that PROJ understands.
    """
    found = dict(keys)
    esri = esri_string(found)
    if str(found.get(1026, "")).endswith(_ESRI_WEB_MERCATOR):
        crs = pyproj.CRS.from_epsg(3857)
    elif esri is not None:
        crs = pyproj.CRS.from_wkt(esri)
    elif _is_projected(found):
        crs = _projected(found)
    else:
        crs = pyproj.CRS.from_wkt(_geographic(found))
    if crs.is_compound:
        crs = crs.sub_crs_list[0]
    # Only a code that the CRS carries itself: to look for one that fits took PROJ ten seconds for some.
    identifier = crs.to_json_dict().get("id", {})
    if identifier.get("authority") == "EPSG":
        return f"EPSG:{identifier['code']}"
    return str(crs.to_wkt())


def esri_string(keys: Mapping[int, Value]) -> str | None:
    """Return the WKT that ArcGIS hides in a citation."""
    for key in (3073, 2049, 1026):
        text = keys.get(key)
        if isinstance(text, str) and text.startswith("ESRI PE String = "):
            return text.removeprefix("ESRI PE String = ")
    return None


def _is_projected(keys: Mapping[int, Value]) -> bool:
    return keys.get(1024) == 1 or (keys.get(1024) != 2 and (3072 in keys or 3074 in keys))


def _projected(keys: Mapping[int, Value]) -> pyproj.CRS:
    code = keys.get(3074)
    if isinstance(code, int) and code not in (0, _USER):
        # A conversion of EPSG's own, as 16033 for UTM zone 33 north.
        conversion = CoordinateOperation.from_epsg(code)
        # PROJ joins it to a plain base only, not to one bound to WGS 84 by TOWGS84.
        base = _geographic({key: value for key, value in keys.items() if key != 2062})
        return ProjectedCRS(conversion, _name(keys, 1026, 3073), geodetic_crs=base)
    method = keys.get(3075)
    if not isinstance(method, int) or method not in _METHODS:
        raise ValueError(f"the projection method {method} is not known")
    base = _geographic(keys)
    name, parameters = _METHODS[method]
    if method == 7 and 3078 in keys:
        name = "Mercator_2SP"
        parameters = (("standard_parallel_1", _PARALLEL1, 0.0), parameters[0], *_SHIFT)
    values = "".join(
        f',PARAMETER["{label}",{_first(keys, places, default)!r}]'
        for label, places, default in parameters
    )
    unit, size = _unit(keys, 3076, 3077, _LINEAR, "metre")
    title = _quoted(_name(keys, 1026, 3073))
    return pyproj.CRS.from_wkt(
        f'PROJCS[{title},{base},PROJECTION["{name}"]{values},UNIT["{unit}",{size!r}],'
        'AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    )


def _geographic(keys: Mapping[int, Value]) -> str:
    """Return a WKT1 GEOGCS: EPSG's where a code is given and its ellipsoid not contradicted."""
    code = keys.get(2048)
    a, inverse = _axes(keys)
    name, datum = "unknown", "unknown"
    if isinstance(code, int) and code not in (0, _USER):
        crs = pyproj.CRS.from_epsg(code)
        ellipsoid = crs.ellipsoid
        if ellipsoid is None:
            raise ValueError(f"EPSG:{code} has no ellipsoid")
        known = (ellipsoid.semi_major_metre, ellipsoid.inverse_flattening)
        if a is None or (abs(a - known[0]) < 1e-3 and abs(inverse - known[1]) < 1e-5):
            return str(crs.to_wkt("WKT1_GDAL"))
        name, datum = crs.name, str(crs.to_wkt("WKT1_GDAL")).split('DATUM["')[1].split('"')[0]
    else:
        name, datum = _citation(keys)
        number = keys.get(2050)
        if isinstance(number, int) and number not in (0, _USER):
            known_datum = Datum.from_epsg(number)
            datum = known_datum.name.replace(" ", "_")
            ellipsoid = known_datum.ellipsoid
            if a is None and ellipsoid is not None:
                a, inverse = ellipsoid.semi_major_metre, ellipsoid.inverse_flattening
    if a is None:
        raise ValueError("no ellipsoid is given")
    if not (math.isfinite(a) and a > 0):
        raise ValueError(f"a semi-major axis of {a}")
    shift = keys.get(2062)
    towgs = ""
    if isinstance(shift, tuple) and len(shift) in (3, 7):
        towgs = f",TOWGS84[{','.join(repr(v) for v in (*shift, 0.0, 0.0, 0.0, 0.0)[:7])}]"
    unit, size = _unit(keys, 2054, 2055, _ANGULAR, "degree")
    meridian = _first(keys, (2061,), 0.0)
    return (
        f'GEOGCS[{_quoted(name)},DATUM[{_quoted(datum)},SPHEROID["unknown",{a!r},{inverse!r}]{towgs}],'
        f'PRIMEM["{"Greenwich" if meridian == 0 else "unknown"}",{meridian!r}],'
        f'UNIT["{unit}",{size!r}]]'
    )


def _axes(keys: Mapping[int, Value]) -> tuple[float | None, float]:
    """Return semi-major axis in metres and inverse flattening (0 for a sphere)."""
    code = keys.get(2056)
    if 2057 not in keys:
        if isinstance(code, int) and code not in (0, _USER):
            ellipsoid = Ellipsoid.from_epsg(code)
            return ellipsoid.semi_major_metre, ellipsoid.inverse_flattening
        return None, 0.0
    a = _first(keys, (2057,), 0.0)
    if 2059 in keys:
        return a, _first(keys, (2059,), 0.0)
    b = _first(keys, (2058,), a)
    return a, 0.0 if a == b else a / (a - b)


def _citation(keys: Mapping[int, Value]) -> tuple[str, str]:
    """Return names of the CRS and its datum from a citation as GDAL writes it."""
    text = keys.get(2049)
    if not isinstance(text, str) or not text:
        return "unknown", "unknown"
    parts = dict(part.split(" = ", 1) for part in text.split("|") if " = " in part)
    if not parts:
        return text, "unknown"
    return parts.get("GCS Name", "unknown"), parts.get("Datum", "unknown")


def _name(keys: Mapping[int, Value], *places: int) -> str:
    for place in places:
        text = keys.get(place)
        if isinstance(text, str) and text:
            return text.removeprefix("PCS Name = ")
    return "unnamed"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', "'") + '"'


def _first(keys: Mapping[int, Value], places: tuple[int, ...], default: float) -> float:
    for place in places:
        value = keys.get(place)
        if isinstance(value, tuple) and value:
            return float(value[0])
        if isinstance(value, int):
            return float(value)
    return default


def _unit(
    keys: Mapping[int, Value],
    code_key: int,
    size_key: int,
    table: Mapping[int, tuple[str, float]],
    default: str,
) -> tuple[str, float]:
    code = keys.get(code_key)
    if isinstance(code, int) and code in table:
        return table[code]
    if code == _USER and size_key in keys:
        return "unknown", _first(keys, (size_key,), 1.0)
    if isinstance(code, int) and code not in (0, _USER):
        raise ValueError(f"the unit {code} is not known")
    return next(unit for unit in table.values() if unit[0] == default)


USER_CRS_ERRORS: Final = (CRSError, KeyError, ValueError, IndexError, ZeroDivisionError)
"""What :func:`user_defined` raises on keys that make no sense."""
