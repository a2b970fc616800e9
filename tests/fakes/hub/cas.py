"""The Xet storage that a hub names in its Xet headers; it holds nothing unless the hub says so.

Owns the CAS origin. Must never be needed by a client that goes through plain HTTP.
"""

from __future__ import annotations

from .site import Site
from .wire import Request, Response, text_response


def cas_route(site: Site, request: Request) -> Response:
    """404 for everything: tests assert that nobody came."""
    return text_response(404, "Not found")
