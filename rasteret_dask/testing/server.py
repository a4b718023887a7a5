"""A range server in a process of its own: object storage as a client sees it, on loopback."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rasteret_dask.errors import ArgumentError, RasteretError

_SCRIPT = Path(__file__).with_name("_serve.py")
_KINDS = ("status", "ignore_range", "truncate", "stall", "reset", "corrupt")


class ServerError(RasteretError):
    """A test server that did not start or did not answer."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A way in which the server misbehaves.

    Parameters
    ----------
    kind : str
        ``status`` answers `status`; ``ignore_range`` sends the whole file with 200; ``truncate``
        closes the connection after half of the body; ``stall`` falls silent there; ``reset`` drops
        the connection without an answer; ``corrupt`` flips the last 16 bytes of the body.
    match : str
        Glob on the path below the server's root; the file names to misbehave for.
    rate : float
        Share of the matching requests that are hit. Which ones depends on `seed`, the path, the
        range and how often it was asked for, never on the order in which requests arrive.
    first : int, optional
        Only the first so many requests for each range of each file.
    status : int
        For ``status``.
    retry_after : float, optional
        Seconds, sent as ``Retry-After`` with ``status``.
    seed : int
        Chooses other requests.
    """

    kind: str
    match: str = "*"
    rate: float = 1.0
    first: int | None = None
    status: int = 503
    retry_after: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ArgumentError(f"unknown fault {self.kind!r}; known: {', '.join(_KINDS)}")
        if not 0 <= self.rate <= 1:
            raise ArgumentError(f"rate is {self.rate}; it must lie in [0, 1]")


@dataclass(frozen=True, slots=True)
class ServerCounters:
    """What a server was asked since it started or was reset.

    Parameters
    ----------
    requests, bytes, connections : int
        Requests of any kind, bytes of bodies sent, connections accepted.
    peak_in_flight : int
        Most requests that were under way at one time, their latency included.
    paths, methods : dict of str to int
        Requests for each path (without its leading slash) and of each method.
    statuses : dict of int to int
        Answers of each status.
    """

    requests: int = 0
    bytes: int = 0
    connections: int = 0
    peak_in_flight: int = 0
    paths: dict[str, int] = field(default_factory=dict)
    methods: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request: what was asked for, when it came and when it was answered (server seconds)."""

    method: str
    path: str
    start: int
    stop: int
    status: int
    t_start: float
    t_end: float


class RangeServer:
    """Serves a directory over HTTP/1.1 with ranges, keep-alive, counters, latency and faults.

    Parameters
    ----------
    directory : path-like
        What is served, on loopback alone.
    latency : float
        Seconds between a request and its answer. Other connections go on meanwhile.
    connect_latency : float
        Seconds added to the first answer of every connection: what a handshake costs far away.
    tls : bool
        Serve https with a certificate made for the occasion; `certificate` is then the file to
        trust.
    aliases : mapping of str to str, optional
        Further names (paths below the root) for files: many URLs, few files.
    faults : sequence of Fault, optional
        Misbehaviour; the first that hits a request counts.
    log : bool
        Keep the entries that :meth:`log` returns.
    bears : int, optional
        Requests that are served at one time; whoever comes while there are so many is answered 429.

    Notes
    -----
    Everything but `directory` and `tls` can be changed while it runs, by :meth:`configure`. The
    server is a script started by path (no fork, and no import of the caller's ``__main__``); it
    ends with the ``with`` block, or with the process that started it.

    Examples
    --------
    >>> with RangeServer(folder, latency=0.02) as server:  # doctest: +SKIP
    ...     read(server.url_of("scene/B04.tif"))
    ...     assert server.counters().requests == 1
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        latency: float = 0.0,
        connect_latency: float = 0.0,
        tls: bool = False,
        aliases: Mapping[str, str] | None = None,
        faults: Sequence[Fault] = (),
        log: bool = False,
        bears: int | None = None,
        port: int = 0,
    ) -> None:
        self.directory = Path(directory).resolve()
        if not self.directory.is_dir():
            raise ArgumentError(f"{self.directory} is not a directory")
        self.tls = tls
        self.certificate: Path | None = None
        self.port = port
        self._settings: dict[str, Any] = {
            "latency": latency,
            "connect_latency": connect_latency,
            "log": log,
            "bears": bears,
            "aliases": dict(aliases or {}),
            "faults": [asdict(fault) for fault in faults],
        }
        self._process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    # --- life ------------------------------------------------------------------------------------
    def start(self) -> Self:
        """Start the process; returns once it listens."""
        config = {"directory": str(self.directory), "port": self.port, **self._settings}
        if self.tls:
            self._folder = tempfile.TemporaryDirectory(prefix="range-server-")
            self.certificate, own, key = write_authority(Path(self._folder.name))
            config.update(certificate=str(own), key=str(key))
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self._ask(config)["port"]
        return self

    def stop(self) -> None:
        """End the process; a second call does nothing."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def __enter__(self) -> Self:
        return self if self._process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- addresses -------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        """The root, without a slash at its end.

        Raises
        ------
        ServerError
            The server is not running.
        """
        if self._process is None:
            raise ServerError("the server is not running")
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the serving process.

        Raises
        ------
        ServerError
            The server is not running.
        """
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    def url_of(self, path: str | os.PathLike[str]) -> str:
        """The URL of a file below the directory (absolute or relative), or of an alias."""
        name = os.fspath(path)
        if os.path.isabs(name):
            name = Path(name).resolve().relative_to(self.directory).as_posix()
        return f"{self.url}/{quote(name)}"

    # --- while it runs ---------------------------------------------------------------------------
    def configure(
        self,
        *,
        latency: float | None = None,
        connect_latency: float | None = None,
        aliases: Mapping[str, str] | None = None,
        faults: Sequence[Fault] | None = None,
        log: bool | None = None,
        bears: int | None = None,
    ) -> None:
        """Change what is given; `aliases` are added to those there are, `faults` replace them.

        Parameters
        ----------
        latency, connect_latency : float, optional
            Seconds before an answer, and before the first answer of a connection.
        aliases : mapping of str to str, optional
            Further names of files below the directory.
        faults : sequence of Fault, optional
        log : bool, optional
            Whether each request is kept for `log`.
        bears : int, optional
            Requests that are served at one time.
        """
        given: dict[str, Any] = {
            "latency": latency,
            "connect_latency": connect_latency,
            "aliases": None if aliases is None else dict(aliases),
            "faults": None if faults is None else [asdict(fault) for fault in faults],
            "log": log,
            "bears": bears,
        }
        self._ask({"do": "configure", "with": {k: v for k, v in given.items() if v is not None}})

    def counters(self) -> ServerCounters:
        """Counts since the start or the last :meth:`reset`."""
        answer = self._ask({"do": "counters"})
        answer["statuses"] = {int(code): n for code, n in answer["statuses"].items()}
        return ServerCounters(**answer)

    def log(self) -> list[LogEntry]:
        """Requests that have been answered, in that order; empty unless ``log=True``."""
        return [LogEntry(*entry) for entry in self._ask({"do": "log"})]

    def reset(self) -> None:
        """Set counters and log to zero; settings stay."""
        self._ask({"do": "reset"})

    def _ask(self, command: Mapping[str, Any]) -> Any:
        process = self._process
        if process is None:
            raise ServerError("the server is not running")
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            try:
                process.stdin.write(json.dumps(command) + "\n")
                process.stdin.flush()
            except BrokenPipeError:
                raise ServerError("the server process has ended") from None
            line = process.stdout.readline()
        if not line:
            raise ServerError("the server process has ended")
        return json.loads(line)


def write_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for ``127.0.0.1`` and its key; returns both paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("localhost", key, "localhost", key, authority=True)
    return _write(folder / "certificate.pem", certificate), _write_key(folder / "key.pem", key)


def write_authority(folder: Path) -> tuple[Path, Path, Path]:
    """Write an authority, a certificate of its for ``127.0.0.1``, and that one's key; returns the paths.

    rustls, and so obstore, takes no authority's certificate for a server's own.
    """
    signer, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = _certificate("tests", signer, "tests", signer, authority=True)
    certificate = _certificate("localhost", key, "tests", signer, authority=False)
    return (
        _write(folder / "authority.pem", authority),
        _write(folder / "certificate.pem", certificate),
        _write_key(folder / "key.pem", key),
    )


_NO_USE = dict.fromkeys(
    (
        "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only",
    ),
    False,
)  # fmt: skip


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    # Which key it is, and whose: from 3.13 on Python believes no certificate that does not say.
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    whose = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    signs = {"digital_signature": True, "key_cert_sign": authority, "crl_sign": authority}
    return (
        x509.CertificateBuilder()
        .subject_name(_named(subject))
        .issuer_name(_named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USE, **signs}), critical=True)
        .add_extension(own, critical=False)
        .add_extension(whose, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _write(path: Path, certificate: x509.Certificate) -> Path:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    return path
