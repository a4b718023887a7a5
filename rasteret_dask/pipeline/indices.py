"""Indices that have names: formulas over roles, and what the roles are called.

The formulas are those of the Awesome Spectral Indices catalogue; reflectance from 0 to 1 is meant
wherever a constant stands beside a band (EVI, SAVI).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from rasteret_dask.pipeline import expression as language

INDICES: Mapping[str, str] = MappingProxyType(
    {
        "ndvi": "(nir - red) / (nir + red)",
        "evi": "2.5 * (nir - red) / (nir + 6 * red - 7.5 * blue + 1)",
        "evi2": "2.5 * (nir - red) / (nir + 2.4 * red + 1)",
        "savi": "1.5 * (nir - red) / (nir + red + 0.5)",
        "msavi": "0.5 * (2 * nir + 1 - sqrt((2 * nir + 1) ** 2 - 8 * (nir - red)))",
        "gndvi": "(nir - green) / (nir + green)",
        "ndre": "(nir - rededge1) / (nir + rededge1)",
        "ndwi": "(green - nir) / (green + nir)",
        "mndwi": "(green - swir16) / (green + swir16)",
        "ndmi": "(nir - swir16) / (nir + swir16)",
        "ndsi": "(green - swir16) / (green + swir16)",
        "nbr": "(nir - swir22) / (nir + swir22)",
        "ndbi": "(swir16 - nir) / (swir16 + nir)",
        "bsi": "((swir16 + red) - (nir + blue)) / ((swir16 + red) + (nir + blue))",
    }
)

# STAC's common names first, then Sentinel-2's own.
ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "blue": ("blue", "B02"),
        "green": ("green", "B03"),
        "red": ("red", "B04"),
        "rededge1": ("rededge1", "rededge", "B05"),
        "nir": ("nir", "nir08", "B08", "B8A"),
        "swir16": ("swir16", "B11"),
        "swir22": ("swir22", "B12"),
    }
)
# Formulas whose constants mean reflectance.
NEEDS_REFLECTANCE = ("evi", "evi2", "savi", "msavi")


def expand(
    name: str, variables: Iterable[str], bands: Mapping[str, str]
) -> tuple[language.Expression | None, str]:
    """The expression of an index over the variables that there are.

    Parameters
    ----------
    name : str
        A key of `INDICES`.
    variables : iterable of str
        Names at this point of the pipeline.
    bands : mapping of str to str
        Role to variable, over what the names tell.

    Returns
    -------
    expression, missing : tuple
        None and the role that nothing here plays, or the expression and an empty text.
    """
    known = list(variables)
    parsed = language.parse(INDICES[name])
    names = {}
    for role in parsed.bands:
        called = (bands[role],) if role in bands else ROLES[role]
        found = next((one for one in called if one in known), None)
        if found is None:
            return None, role
        names[role] = found
    return language.renamed(parsed, names), ""
