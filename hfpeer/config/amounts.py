"""Sizes and times as users write them: `4GB`, `700MiB`, `30d`, `12h`."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(|[kmgt]i?)b?", re.IGNORECASE)
_UNITS = {"": 1, **{p: 1000**n for n, p in enumerate("kmgt", 1)}, **{f"{p}i": 1024**n for n, p in enumerate("kmgt", 1)}}
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d|days?|w|weeks?|mo|months?|y|years?)", re.IGNORECASE)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "mo": 30 * 86400, "y": 365 * 86400}
_LONG = {"day": "d", "week": "w", "month": "mo", "year": "y"}


def size_bytes(text: str) -> int | None:
    """Bytes: `4GB`, `700MiB`, `4000000000`; None for anything else."""
    found = _SIZE.fullmatch(text.strip())
    return int(float(found[1]) * _UNITS[found[2].lower()]) if found else None


def time_seconds(text: str) -> float | None:
    """Seconds: `30d`, `12h`, `2 weeks`, `0`; None for anything else. A month has 30 days."""
    if text.strip() == "0":
        return 0.0
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    unit = found[2].lower()
    return float(found[1]) * _SECONDS[_LONG.get(unit.rstrip("s"), unit)]
