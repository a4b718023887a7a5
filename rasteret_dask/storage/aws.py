"""What the recipe ``aws`` means for the stores that serve ``s3://``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from rasteret_dask.errors import AccessError, ArgumentError
from rasteret_dask.model import StorageOptions


def flags(options: StorageOptions) -> tuple[str | None, bool, bool]:
    """Return profile, unsigned, requester pays.

    Raises
    ------
    ArgumentError
        An option is unknown, or two exclude each other.
    """
    given = dict(options.auth_options) if options.auth == "aws" else {}
    known = ("profile", "unsigned", "requester_pays")
    if unknown := set(given) - set(known):
        raise ArgumentError(f"auth='aws' takes {', '.join(known)}, not {sorted(unknown)}")
    unsigned = given.get("unsigned", "false").lower() == "true"
    pays = given.get("requester_pays", "false").lower() == "true"
    profile = given.get("profile")
    if unsigned and profile is not None:
        raise ArgumentError("auth='aws': unsigned and profile exclude each other")
    return profile, unsigned, pays


def store_arguments(options: StorageOptions) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what obstore's S3Store needs: its configuration, and further arguments."""
    profile, unsigned, pays = flags(options)
    config: dict[str, Any] = {}
    if unsigned:
        config["skip_signature"] = True
    if pays:
        config["request_payer"] = True
    if profile is None:
        return config, {}
    session, region = _session(profile)
    if region and "region" not in options.options:
        config["region"] = region
    return config, {"credential_provider": _provider(session, profile)}


def fsspec_arguments(options: StorageOptions) -> dict[str, Any]:
    """Return what s3fs needs."""
    profile, unsigned, pays = flags(options)
    out: dict[str, Any] = {}
    if unsigned:
        out["anon"] = True
    if pays:
        out["requester_pays"] = True
    if profile is not None:
        out["profile"] = profile
    return out


def _session(profile: str) -> tuple[Any, str | None]:
    """Return botocore's session for a profile, and the profile's region."""
    # botocore comes with s3fs; it takes a third of a second, and few need it.
    session = importlib.import_module("botocore.session").Session(profile=profile)
    try:
        return session, session.get_config_variable("region")
    except _botocore_error() as error:
        raise _no_profile(profile, error) from None


def _botocore_error() -> type[Exception]:
    found: type[Exception] = importlib.import_module("botocore.exceptions").BotoCoreError
    return found


def _no_profile(profile: str, error: Exception) -> AccessError:
    return AccessError(
        f"the AWS profile {profile!r} gives no credentials ({type(error).__name__})",
        hint="the files of ~/.aws must be where the workers run",
    )


def _provider(session: Any, profile: str) -> Callable[[], dict[str, Any]]:
    failed = _botocore_error()

    def provide() -> dict[str, Any]:
        try:
            credentials = session.get_credentials()
        except failed as error:
            raise _no_profile(profile, error) from None
        if credentials is None:
            raise AccessError(f"the AWS profile {profile!r} gives no credentials")
        frozen = credentials.get_frozen_credentials()
        # botocore renews temporary credentials itself, well before their end; it is asked often enough.
        expires = datetime.now(UTC) + timedelta(minutes=5) if frozen.token else None
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": expires,
        }

    return provide
