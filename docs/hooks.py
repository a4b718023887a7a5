"""What building the site does besides: links of notebooks lead to pages, as those of Markdown do."""

from __future__ import annotations

import logging
import posixpath
import re
from typing import Any

from mkdocs.utils import get_relative_url

# Under mkdocs' own name, so that a link that leads nowhere fails a strict build.
log = logging.getLogger("mkdocs.hooks.notebooks")

_LINK = re.compile(r'href="([^":#]+\.(?:md|ipynb))(#[^"]*)?"')


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """Turn a notebook's links to files into links to their pages."""
    source = page.file.src_uri
    if not source.endswith(".ipynb"):
        return html

    def moved(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        file = files.get_file_from_path(path)
        if file is None:
            log.warning("%s links to %s, which is not there", source, match[1])
            return match[0]
        return f'href="{get_relative_url(file.url, page.url)}{match[2] or ""}"'

    return _LINK.sub(moved, html)
