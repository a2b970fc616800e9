"""torch.hub and timm: `hub/checkpoints/NAME-<8 or more hex digits>.pth`, the first digits of the sha256. Pure.

Source: torch `hub.py`, HASH_REGEX.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.adoption.candidates import Found, Hint, Reader, Worth, candidate
from hfpeer.adoption.listing import Listing

TOOL = "torch.hub"
_NAMED = re.compile(r"(?:(.+)/)?checkpoints/[^/]*-([0-9a-f]{8,64})\.(?:bin|ckpt|pt|pth|safetensors)")


def roots(listing: Listing) -> Iterable[str]:
    matches = map(_NAMED.fullmatch, listing)
    return dict.fromkeys(match[1] or "" for match in matches if match is not None)


def read(listing: Listing) -> Found:
    found = Found()
    for path in listing:
        match = _NAMED.fullmatch(path)
        hint = Hint("sha256", match[2], Worth.PREFIX) if match is not None else None
        if "checkpoints" in path.split("/"):
            found.candidates += candidate(listing, path, TOOL, hint)
    return found


READER = Reader(TOOL, read, roots)
