"""Instants and ranges as people and catalogues write them; inside, everything is naive and means
UTC."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np

from rasteret_dask.errors import ArgumentError

Range = tuple[datetime | None, datetime | None]

_LAST = timedelta(days=1) - timedelta(microseconds=1)
_PARTIAL = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?")
_DATE = re.compile(r"\d{4}(?:[-/]\d{1,2}){0,2}|\d{6}|\d{8}|\d{1,2}\.\d{1,2}\.\d{4}")
_ZONE = re.compile(r"(?:Z|\b[A-Z]{3,4}|[+-]\d{2}(?::?\d{2}){0,2})$", re.IGNORECASE)
_ODD = ("%Y/%m/%d", "%Y/%m/%d %H:%M:%S", "%Y-%m-%d %H:%M:%S.%f", "%Y%m%d%H%M%S", "%d.%m.%Y")


def lacks_zone(value: Any) -> bool:
    """Whether a time is given as text, to the hour at least, and in no zone; a date is a date everywhere."""
    if not isinstance(value, str):
        return False
    text = value.strip()
    return _DATE.fullmatch(text) is None and _ZONE.search(text) is None


def parse_instant(value: Any) -> datetime:
    """An instant, leniently: ISO 8601 in its many forms, RFC 2822, and a few that catalogues
    really use.

    Parameters
    ----------
    value : str, datetime or date
        Without a zone it is taken as UTC.

    Returns
    -------
    datetime
        Naive UTC, to the microsecond.

    Raises
    ------
    ArgumentError
        Nothing of the kind.
    """
    if isinstance(value, datetime):  # pandas' Timestamp too
        return _naive(datetime.fromisoformat(value.isoformat()[:32]))
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)
    text = str(value).strip()
    for end in (" UTC", " GMT", " Z"):
        text = text.removesuffix(end)
    try:
        return _naive(datetime.fromisoformat(text))
    except ValueError:
        pass
    for form in _ODD:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    span = _span(text)
    if span is not None:
        return span[0]
    try:
        return _naive(parsedate_to_datetime(text))
    except ValueError:
        raise ArgumentError(
            f"{value!r} is no date or time", hint="write it as 2023-08-15 or 2023-08-15T09:58:11Z"
        ) from None


def _naive(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _span(text: str) -> tuple[datetime, datetime] | None:
    """First and last moment of a year, month or day."""
    match = _PARTIAL.fullmatch(text)
    if match is None:
        return None
    year, month, day = (None if part is None else int(part) for part in match.groups())
    assert year is not None
    last_month = month or 12
    try:
        first = datetime(year, month or 1, day or 1)
        last = day or calendar.monthrange(year, last_month)[1]
        return first, datetime(year, last_month, last) + _LAST
    except ValueError:
        raise ArgumentError(f"{text!r} is no date") from None


def parse_range(value: Any) -> Range:
    """A range of time; both ends belong to it.

    Parameters
    ----------
    value : pair, str, datetime, date or datetime64
        ``("2023-06-01", "2023-08-31")``, ``"2023-06-01/2023-08-31"``, or one day, month or year
        alone. A date without a time includes its last moment. ``None`` or ``".."`` leaves an end
        open.

    Raises
    ------
    ArgumentError
        It is no range, or ends before it starts.
    """
    if isinstance(value, str):
        value = value.split("/")
    elif isinstance(value, (date, np.datetime64)):
        value = [value]
    ends = list(value)
    if len(ends) not in (1, 2):
        raise ArgumentError(f"{value!r} is no range of dates: two ends are needed")
    start, end = _first(ends[0]), _last(ends[-1])
    if start is not None and end is not None and start > end:
        raise ArgumentError(f"the range of dates ends ({end}) before it starts ({start})")
    return start, end


def _open(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip() in ("", ".."))


def _first(value: Any) -> datetime | None:
    return None if _open(value) else parse_instant(value)


def _last(value: Any) -> datetime | None:
    if _open(value):
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        return parse_instant(value) + _LAST
    # NumPy writes its dates as ISO 8601 does, to the year, month or day that they are of.
    text = str(value).strip() if isinstance(value, (str, np.datetime64)) else ""
    span = _span(text)
    if span is not None:
        return span[1]
    moment = parse_instant(value)
    return moment + _LAST if _DATE.fullmatch(text) else moment


def format_range(span: Range) -> str:
    """As the STAC API wants it; open ends are ``..``."""
    return "/".join(".." if end is None else f"{end.isoformat()}Z" for end in span)
