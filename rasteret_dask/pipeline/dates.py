"""Days that are computed: ``today - 30d``, ``2023-01-31 + 1m``."""

from __future__ import annotations

import calendar
import datetime as dt
import re

_WORD = re.compile(r"today|\d{4}-\d{2}-\d{2}")
_SIGN = re.compile(r"\s+[+-]\s")
_TERM = re.compile(r"\s+([+-])\s+(\d{1,5})\s*([dwmy])(?=\s|$)")


def resolve(text: str, today: dt.date | None = None) -> str:
    """Do the sums of a day; anything that is no sum comes back as it is.

    Parameters
    ----------
    text : str
        ``today`` or a day as ``2023-06-01``, then any number of ``+ 10d`` and ``- 1y``: days, weeks,
        months and years, in that order from left to right, with spaces around the sign.
    today : date, optional
        The day in UTC, by default.

    Returns
    -------
    str
        ``YYYY-MM-DD``. A month later than 31 January is the last of February.

    Raises
    ------
    ValueError
        It begins as a sum and goes on as none, or leads beyond the calendar.
    """
    stripped = text.strip()
    start = _WORD.match(stripped)
    if start is None:
        return text
    rest = stripped[start.end() :]
    if start.group() != "today" and _SIGN.match(rest) is None:
        return text  # a day, or a moment of one
    try:
        day = _start(start.group(), today)
        while rest:
            term = _TERM.match(rest)
            if term is None:
                raise ValueError(f"{text!r} is no day; write today - 30d, or 2023-06-01 + 3m")
            sign, count, unit = term.groups()
            day = _moved(day, int(f"{sign}{count}"), unit)
            rest = rest[term.end() :]
    except OverflowError:
        raise ValueError(f"{text!r} leads beyond the calendar") from None
    return day.isoformat()


def _start(word: str, today: dt.date | None) -> dt.date:
    if word != "today":
        return dt.date.fromisoformat(word)
    return dt.datetime.now(dt.UTC).date() if today is None else today


def _moved(day: dt.date, count: int, unit: str) -> dt.date:
    if unit in "dw":
        return day + dt.timedelta(days=count * (7 if unit == "w" else 1))
    months = day.year * 12 + day.month - 1 + count * (12 if unit == "y" else 1)
    year, month = divmod(months, 12)
    if not dt.MINYEAR <= year <= dt.MAXYEAR:
        raise OverflowError
    last = calendar.monthrange(year, month + 1)[1]
    return dt.date(year, month + 1, min(day.day, last))
