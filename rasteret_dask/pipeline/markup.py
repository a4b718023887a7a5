"""What pages of runs are made of: one document that needs nothing else, in light and dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

_STYLE = (
    ":root{color-scheme:light dark;--faint:#666;--box:#f3f3f3;--line:#ccc;--bad:#a50026;--good:#006837}"
    "@media(prefers-color-scheme:dark){:root{--faint:#aaa;--box:#2a2a2a;--line:#555;--bad:#ff7b8a;"
    "--good:#66c491}}"
    "body{font-family:sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;line-height:1.4}"
    "table{border-collapse:collapse;margin:.5rem 0}td,th{text-align:left;padding:.15rem .8rem .15rem 0;"
    "vertical-align:top;overflow-wrap:anywhere}th{white-space:nowrap}td.n,th.n{text-align:right;"
    "white-space:nowrap}pre{background:var(--box);padding:.8rem;overflow:auto}figure{margin:.8rem 0}"
    "figcaption{color:var(--faint);font-size:.85em}h2{margin-top:2rem}"
    "img{min-width:16rem;max-width:100%;max-height:48rem;border:1px solid var(--line)}"
    ".wide{overflow-x:auto}.wide td{overflow-wrap:break-word}.said{white-space:pre-line}"
    ".looks{display:flex;flex-wrap:wrap;gap:1rem}.looks figure{margin:0}"
    ".looks img{min-width:0;width:9rem;height:9rem;object-fit:contain}"
    ".failed,.interrupted,.broken{color:var(--bad)}.done{color:var(--good)}.empty,.unbegun{color:var(--faint)}"
)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole HTML document.

    Parameters
    ----------
    title : str
        As it is; it is escaped here.
    parts : iterable of str
        HTML.
    """
    head = (
        "<meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(parts)}</body></html>"


def escape(value: Any) -> str:
    """Text for HTML, whatever it holds."""
    return html.escape(str(value))


def rows(pairs: Sequence[tuple[str, Any]]) -> str:
    """A table of names and values."""
    cells = "".join(
        f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in pairs
    )
    return f"<table>{cells}</table>"


def figure(name: str, png: bytes) -> str:
    """A picture with its name under it, within the page."""
    data = base64.b64encode(png).decode()
    return (
        f"<figure><img alt='{escape(name)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
    )
