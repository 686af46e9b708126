"""The templates of pages (HTML) and texts (Markdown). Both escape everything except Markup."""

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from analysis.export.markup import markdown_text

_LOADER: dict[str, Any] = {"loader": PackageLoader("analysis"), "undefined": StrictUndefined}
_BLOCKS: dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}


def _sha256(text: str) -> str:
    """The name of an inline style or script in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inline(picture: bytes) -> str:
    """A PNG as a data URL."""
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def _as_markdown(value: Any) -> str:
    return value if isinstance(value, Markup) else markdown_text(value)


HTML = Environment(autoescape=True, **_LOADER, **_BLOCKS)
HTML.filters |= {"sha256": _sha256, "inline": _inline}
MARKDOWN = Environment(autoescape=False, finalize=_as_markdown, **_LOADER, **_BLOCKS)
