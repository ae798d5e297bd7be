"""A report as one page, which asks nobody for anything: what it needs is in it.

``report.html`` is the frame, ``report.css`` how it looks, ``report.js`` what draws the tables from
the report's document. The browser runs and loads nothing else: the policy in the page names the
hashes of the one script and the one style. Words of others never become HTML: the document stands
in the page as JSON without a ``<``, and the script puts it into text alone.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template

from coco_kp.redact import printable_json


def page(document: object) -> str:
    """Return the page of a report, from what its ``document()`` returned."""
    style, script = _part("report.css"), _part("report.js")
    return Template(_part("report.html")).substitute(
        # https://www.w3.org/TR/CSP3: what has no directive of its own has default-src.
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        document=_inert(printable_json(document)),
    )


def _part(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _inert(text: str) -> str:
    """Return JSON that ends no element and begins no comment; in JSON, ``<`` stands in strings."""
    return text.replace("<", "\\u003c")
