"""Which asset of an item holds which band: by descriptor, by the caller's map, or by what the
assets say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from rasteret_dask.errors import ArgumentError, UnknownBandError
from rasteret_dask.model import BandInfo

_TIFF = ("image/tiff", "image/vnd.stac.geotiff")
_NOT_DATA = {"thumbnail", "overview", "visual", "metadata"}
_CLASSES = ("classification:classes", "file:values", "classification:bitfields")
_CLASS_ROLES = {
    "classification",
    "data-mask",
    "snow-ice",
    "land-water",
    "water-mask",
    "cloud",
    "cloud-shadow",
}

Json = Mapping[str, Any]


def bands_of_asset(asset: Json) -> list[Json]:
    """What STAC says of an asset's bands: ``bands`` of 1.1, or ``eo:bands`` and ``raster:bands``
    joined by position."""
    new = _bands(asset.get("bands"))
    if new:
        return new
    eo, raster = _bands(asset.get("eo:bands")), _bands(asset.get("raster:bands"))
    count = max(len(eo), len(raster))
    return [
        {**(raster[i] if i < len(raster) else {}), **(eo[i] if i < len(eo) else {})}
        for i in range(count)
    ]


def _bands(said: Any) -> list[Json]:
    return [band if isinstance(band, Mapping) else {} for band in said] if said else []


def common_name(band: Json) -> str | None:
    """The common name of a band, old spelling or new."""
    found = band.get("eo:common_name", band.get("common_name"))
    return found if isinstance(found, str) else None


def is_raster(asset: Json) -> bool:
    """Whether an asset is a TIFF that holds data rather than a picture for people."""
    if _NOT_DATA & set(asset.get("roles") or ()):
        return False
    kind = str(asset.get("type") or "").lower()
    if kind:
        return kind.startswith(_TIFF)
    return urlsplit(str(asset.get("href"))).path.lower().endswith((".tif", ".tiff"))


def find_asset(assets: Mapping[str, Json], band: BandInfo) -> str | None:
    """Key of the asset that holds a band; None when the item lacks it.

    The descriptor's asset first, then the band's name and aliases as keys, then the one single-band
    asset with its common name. Two assets with that name are no answer.
    """
    for key in (band.asset, band.name, *band.aliases):
        if key in assets:
            return key
    if band.common_name is None or band.index != 0:
        return None
    found = [
        key
        for key, asset in assets.items()
        if is_raster(asset)
        and [common_name(b) for b in bands_of_asset(asset)] == [band.common_name]
    ]
    return found[0] if len(found) == 1 else None


def from_map(
    band_map: Mapping[str, str], index_map: Mapping[str, int] | None, items: Iterable[Json]
) -> tuple[BandInfo, ...]:
    """Bands of a caller's map from names to asset keys, with what the items say of them.

    Raises
    ------
    ArgumentError
        The map is empty, or an asset is given to two bands without indices.
    """
    if not band_map:
        raise ArgumentError("band_map is empty")
    indices = dict(index_map or {})
    unknown = set(indices) - set(band_map)
    if unknown:
        raise ArgumentError(f"band_index_map names bands that band_map lacks: {sorted(unknown)}")
    shared = [k for k in band_map.values() if list(band_map.values()).count(k) > 1]
    if shared and not indices:
        raise ArgumentError(
            f"several bands are in the asset {shared[0]!r}",
            hint="say which is which: band_index_map={'R': 0, 'G': 1, …}",
        )
    known = {(b.asset, b.index): b for b in discover(items)}
    out = []
    for name, key in band_map.items():
        index = indices.get(name, 0)
        said = known.get((key, index))
        out.append(
            BandInfo(
                name=name,
                asset=key,
                index=index,
                common_name=None if said is None else said.common_name,
                categorical=said is not None and said.categorical,
            )
        )
    return tuple(out)


def discover(items: Iterable[Json]) -> tuple[BandInfo, ...]:
    """Bands of items that nobody has described: each raster asset under its key, each band of a
    larger one by its name."""
    found: dict[tuple[str, int], BandInfo] = {}
    for item in items:
        for key, asset in item.get("assets", {}).items():
            if not is_raster(asset):
                continue
            declared = bands_of_asset(asset) or [{}]
            names = _names(key, declared)
            for index, band in enumerate(declared):
                if (key, index) not in found:
                    found[key, index] = BandInfo(
                        name=names[index],
                        asset=key,
                        index=index,
                        common_name=common_name(band),
                        categorical=any(n in asset or n in band for n in _CLASSES)
                        or bool(_CLASS_ROLES & set(asset.get("roles") or ())),
                    )
    return _distinct(list(found.values()))


def _names(key: str, declared: Sequence[Json]) -> list[str]:
    if len(declared) == 1:
        return [key]
    names = [str(b.get("name") or "") for b in declared]
    good = all(names) and len(set(names)) == len(names)
    return names if good else [f"{key}_{i + 1}" for i in range(len(declared))]


def _distinct(bands: list[BandInfo]) -> tuple[BandInfo, ...]:
    """Bands with the same name in different assets get the asset's key in front."""
    names = [band.name for band in bands]
    return tuple(
        band
        if names.count(band.name) == 1
        else BandInfo(
            name=f"{band.asset}_{band.name}",
            asset=band.asset,
            index=band.index,
            common_name=band.common_name,
            categorical=band.categorical,
        )
        for band in bands
    )


def resolve(names: Iterable[str], bands: Sequence[BandInfo]) -> list[tuple[str, str]]:
    """Asked-for names → canonical names.

    A name is the canonical one, an alias, an asset's key or a common name; the first of these that
    anything answers to decides.

    Returns
    -------
    list of (asked, canonical)

    Raises
    ------
    UnknownBandError
        Nothing answers to a name, or more than one band does; the hint lists the choices.
    """
    return [(name, _resolve_one(name, bands)) for name in names]


def _resolve_one(name: str, bands: Sequence[BandInfo]) -> str:
    tests = (
        lambda b: b.name == name,
        lambda b: name in b.aliases,
        lambda b: b.asset == name,
        lambda b: b.common_name == name,
        lambda b: b.name.lower() == name.lower(),
    )
    for test in tests:
        found = [band.name for band in bands if test(band)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownBandError(
                f"{name!r} means more than one band", band=name, hint=f"one of: {', '.join(found)}"
            )
    known = ", ".join(
        b.name + (f" ({b.common_name})" if b.common_name and b.common_name != b.name else "")
        for b in bands
    )
    raise UnknownBandError(f"no band {name!r}", band=name, hint=f"bands: {known}")
