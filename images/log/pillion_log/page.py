"""The page at `GET /`: one file, its own style and script in it, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from typing import NamedTuple


class Page(NamedTuple):
    """What is answered."""

    html: bytes
    headers: dict[str, str]

    @classmethod
    def load(cls) -> Page:
        """Read the page and name, in its policy, the style and the script that are in it."""
        html = resources.files("pillion_log").joinpath("page.html").read_bytes()
        policy = (
            f"default-src 'none'; style-src {_hash(html, b'style')}; script-src {_hash(html, b'script')}; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return cls(
            html,
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Security-Policy": policy,
                "X-Content-Type-Options": "nosniff",
                "Referrer-Policy": "no-referrer",
                "Cache-Control": "no-cache",
            },
        )


def _hash(html: bytes, tag: bytes) -> str:
    found = re.search(b"<%b>(.*?)</%b>" % (tag, tag), html, re.DOTALL)
    assert found is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[1]).digest()).decode()}'"
