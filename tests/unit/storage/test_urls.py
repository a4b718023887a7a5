"""Where URLs lead, and what of them may be shown."""

from __future__ import annotations

import pytest

from rasteret_dask.errors import ArgumentError
from rasteret_dask.storage.urls import locate, public, unsigned


@pytest.mark.parametrize(
    ("url", "kind", "root", "path"),
    [
        ("/data/a b/x.tif", "file", "", "/data/a b/x.tif"),
        ("/data/100%25#1?.tif", "file", "", "/data/100%25#1?.tif"),
        ("relative/x.tif", "file", "", "relative/x.tif"),
        ("file:///data/a%20b/x.tif", "file", "", "/data/a b/x.tif"),
        ("https://h.org/p/x.tif", "object", "https://h.org", "p/x.tif"),
        ("HTTPS://h.org:8443/p/x.tif", "object", "https://h.org:8443", "p/x.tif"),
        ("https://h.org/a%20b/100%25.tif", "object", "https://h.org", "a b/100%.tif"),
        ("s3://bucket/a/x.tif", "object", "s3://bucket", "a/x.tif"),
        ("s3a://bucket/a/x.tif", "object", "s3://bucket", "a/x.tif"),
        ("gs://bucket/a/x.tif", "object", "gs://bucket", "a/x.tif"),
        ("az://box/a/x.tif", "object", "az://box", "a/x.tif"),
        ("https://h.org/x.tif?sig=1", "fsspec", "https", "https://h.org/x.tif?sig=1"),
        ("https://h.org/a//x.tif", "fsspec", "https", "https://h.org/a//x.tif"),
        ("memory://a/x.tif", "fsspec", "memory", "memory://a/x.tif"),
        (
            "abfs://box@account.dfs.core.windows.net/x.tif",
            "fsspec",
            "abfs",
            "abfs://box@account.dfs.core.windows.net/x.tif",
        ),
    ],
)
def test_locate(url: str, kind: str, root: str, path: str) -> None:
    found = locate(url)
    assert (found.kind, found.root, found.path) == (kind, root, path)


@pytest.mark.parametrize("key", ["a%20b.tif", "a b.tif", "a#1.tif", "ü/x.tif", "a+b.tif"])
def test_a_key_of_a_bucket_is_taken_as_it_stands(key: str) -> None:
    # S3's keys are no URL paths: nothing in them is encoded, and no character ends them.
    found = locate(f"s3://bucket/{key}")
    assert (found.kind, found.root, found.path) == ("object", "s3://bucket", key)


def test_limits_are_counted_by_host() -> None:
    assert locate("https://h.org:1/x").host == locate("https://h.org:1/y/z").host
    assert locate("https://h.org:1/x").host != locate("https://h.org:2/x").host
    assert locate("https://h.org/x?s=1").host == "h.org"


def test_an_empty_url_is_refused() -> None:
    with pytest.raises(ArgumentError, match="nowhere"):
        locate("")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.org/x.tif?sig=SECRET&se=1", "https://h.org/x.tif"),
        ("https://user:SECRET@h.org:1/x.tif", "https://h.org:1/x.tif"),
        ("https://h.org/x.tif", "https://h.org/x.tif"),
        ("/data/x?.tif", "/data/x?.tif"),
        ("s3://bucket/a#1.tif", "s3://bucket/a#1.tif"),
        ("https://h.org/x.tif?sig=SECRET#frag", "https://h.org/x.tif"),
    ],
)
def test_what_may_be_shown(url: str, shown: str) -> None:
    assert public(url) == shown


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://h.org/x.tif", "https://h.org/x.tif"),
        ("https://me:word@h.org:8443/x.tif", "https://h.org:8443/x.tif"),
        ("https://me@h.org/get?id=5", "https://h.org/get?id=5"),
        ("https://h.org/get?id=5&API_KEY=secret&v=1", "https://h.org/get?id=5&v=1"),
        ("https://h.org/x.tif?access_token=secret", "https://h.org/x.tif"),
        ("https://h.org/x.tif?subscription%2Dkey=secret", "https://h.org/x.tif"),
        ("https://h.org/x.tif?st=1&se=2&sig=secret", "https://h.org/x.tif"),
        ("https://h.org/x.tif?X-Amz-Date=1&X-Amz-Signature=secret", "https://h.org/x.tif"),
        ("https://h.org/get?path=a%20b@c&x=#part", "https://h.org/get?path=a%20b@c&x=#part"),
        ("ftp://me:word@h.org/x.tif", "ftp://h.org/x.tif"),
        ("abfs://box@account.dfs.core.windows.net/x", "abfs://box@account.dfs.core.windows.net/x"),
        ("s3://bucket/a@b/x.tif", "s3://bucket/a@b/x.tif"),
        ("/data/a@b?sig=1.tif", "/data/a@b?sig=1.tif"),
    ],
)
def test_what_is_kept_of_a_link(url: str, kept: str) -> None:
    assert unsigned(url) == kept
