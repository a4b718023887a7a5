"""Small frozen values that every room passes to every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rasteret_dask.errors import ArgumentError

_SECRET_WORDS = (
    "secret", "password", "passphrase", "token", "signature", "sas", "credential",
    # Azure's key goes by several names, and a connection string holds it.
    "account_key", "access_key", "master_key", "connection_string",
    "encryption_key", "customer_key", "private_key",
)  # fmt: skip
_NO_SECRET = "access_key_id"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after what pause, a failed request is made again.

    Parameters
    ----------
    attempts : int
        Requests made in all before giving up; at least 1.
    base, cap : float
        Seconds: the pause before attempt *n* is drawn from ``[0, min(cap, base * 2**n)]`` ("full jitter").
    stall : float
        Seconds without a byte after which a connection is given up.
    patience : float
        Seconds that a server may ask for with ``Retry-After``; a request that is to wait longer fails at once.
    """

    attempts: int = 6
    base: float = 0.2
    cap: float = 20.0
    stall: float = 30.0
    patience: float = 120.0

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ArgumentError(f"attempts is {self.attempts}; at least 1 is needed")
        if min(self.base, self.cap, self.patience) < 0 or self.stall <= 0:
            raise ArgumentError("base, cap, patience and stall are seconds, and stall is above 0")


@dataclass(frozen=True, slots=True)
class RatePolicy:
    """Limits on what is asked of one host, by one process and by a whole cluster.

    A process that meets 429 or 503 halves what it asks of that host, and recovers slowly.

    Parameters
    ----------
    in_flight : int
        Requests of one process under way at once to one host; of those for more than 512 KiB 64, or half as many if that is more.
    budget : int
        Bytes fetched and not yet decoded, over all hosts of the process.
    cluster_in_flight : int, optional
        Requests of the whole cluster under way at once to one host; each worker has its share as workers come and go, and at least one.
    per_second : float, optional
        Requests of the whole cluster to one host in a second; shared out likewise.
    """

    in_flight: int = 128
    budget: int = 96 * 1024 * 1024
    cluster_in_flight: int | None = None
    per_second: float | None = None

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.budget < 1:
            raise ArgumentError("in_flight and budget must be positive")
        if self.cluster_in_flight is not None and self.cluster_in_flight < 1:
            raise ArgumentError("cluster_in_flight must be positive")
        if self.per_second is not None and not self.per_second > 0:
            raise ArgumentError("per_second must be positive")


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How bytes of rasters are reached; holds no secret, so it may enter a graph.

    Parameters
    ----------
    options : mapping of str to str
        Passed to the store (region, endpoint, ``request_payer`` …). Names that look like secrets are refused:
        a secret reaches the worker through its environment, a role or a file.
    retry, rate
        The policies.
    auth : str, optional
        The recipe by which each worker gets its credentials: ``aws``, ``bearer``, ``earthdata``, ``planetary-computer``, or the import path
        ``module:function`` of one's own (:mod:`rasteret_dask.storage.auth`).
    auth_options : mapping of str to str
        Parameters of the recipe, without secrets: the name of an environment variable, of a profile, of a file.
    """

    options: Mapping[str, str] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    rate: RatePolicy = field(default_factory=RatePolicy)
    auth: str | None = None
    auth_options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.options, *self.auth_options):
            plain = name.lower().replace(_NO_SECRET, "")
            if any(word in plain for word in _SECRET_WORDS):
                raise ArgumentError(
                    f"the storage option {name!r} looks like a secret, and options enter graphs and logs",
                    hint="give workers their credentials through their environment, a role or a mounted file",
                )
        if self.auth_options and self.auth is None:
            raise ArgumentError("auth_options belong to a recipe; name it with auth=")
        # A plain dict keeps the value picklable; sorting makes equal options equal.
        object.__setattr__(self, "options", dict(sorted(self.options.items())))
        object.__setattr__(self, "auth_options", dict(sorted(self.auth_options.items())))

    def __hash__(self) -> int:
        recipe = (self.auth, tuple(self.auth_options.items()))
        return hash((tuple(self.options.items()), self.retry, self.rate, recipe))


@dataclass(frozen=True, slots=True)
class Ledger:
    """Where reads write down what failed, instead of raising.

    Parameters
    ----------
    url : str
        A directory; it holds no secret.
    run : str
        Id of the run, fresh for each cube, so that a hole that was kept is never taken for an equal read.
    """

    url: str
    run: str


@dataclass(frozen=True, slots=True)
class BandInfo:
    """What a catalogue says of one band.

    Parameters
    ----------
    name : str
        The canonical name, as ``B04``.
    asset : str
        The key of the STAC asset that holds it.
    index : int
        Which band of the asset's file, from 0.
    common_name : str, optional
        The STAC common name, as ``red``.
    aliases : tuple of str
        Further names people use for it.
    categorical : bool
        A class map: never interpolated.
    nodata : float, optional
        What is nothing, whatever the file says; the caller's own stands above it.
    scale, offset : float, optional
        Used where neither the file nor STAC gives one of them.
    decode : str, optional
        How stored numbers become values where that is no straight line (:data:`rasteret_dask.grid.radiometry.DECODERS`).
    """

    name: str
    asset: str
    index: int = 0
    common_name: str | None = None
    aliases: tuple[str, ...] = ()
    categorical: bool = False
    nodata: float | None = None
    scale: float | None = None
    offset: float | None = None
    decode: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetDescriptor:
    """One entry of a catalogue: where a dataset lives and what its bands are called.

    Parameters
    ----------
    id : str
        ``provider/name``, as ``earthsearch/sentinel-2-l2a``.
    title, description, license, attribution : str
        For people.
    stac_api, stac_collection : str, optional
        Where to search.
    static_catalog : str, optional
        A catalogue to walk instead of an API.
    parquet : str, optional
        A published collection to open instead of searching.
    bands : tuple of BandInfo
        The bands, finest first.
    harmonize : str, optional
        The radiometric rule that ``scale=True`` applies, as ``sentinel-2``.
    requires_auth : str, optional
        The credential recipe that workers need.
    storage : mapping of str to str
        Store options without secrets.
    prefer : str, optional
        Which of an asset's alternate links to take, as ``s3``.
    url_rewrite_patterns : mapping of str to str
        Beginnings of links → what they become when a collection is built, as ``{"https://data.example/": "s3://bucket/"}``.
    example_bbox : tuple of float, optional
        lon/lat bounds of a small area that has data.
    example_dates : tuple of str, optional
        First and last day of an example.
    """

    id: str
    title: str = ""
    description: str = ""
    license: str = ""
    attribution: str = ""
    stac_api: str | None = None
    stac_collection: str | None = None
    static_catalog: str | None = None
    parquet: str | None = None
    bands: tuple[BandInfo, ...] = ()
    harmonize: str | None = None
    requires_auth: str | None = None
    storage: Mapping[str, str] = field(default_factory=dict)
    prefer: str | None = None
    url_rewrite_patterns: Mapping[str, str] = field(default_factory=dict)
    example_bbox: tuple[float, float, float, float] | None = None
    example_dates: tuple[str, str] | None = None
