"""Sizes, times and numbers of things in words for people, in English. Pure."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def human_size(size_bytes: float) -> str:
    """`1.2 GB`, in decimal units."""
    size = int(size_bytes)
    if size < 1000:
        return f"{size:,} B"
    for power, unit in enumerate(_UNITS, 1):
        if size < 1000 ** (power + 1) or unit == _UNITS[-1]:
            break
    return f"{size / 1000**power:,.1f} {unit}"


def human_time(seconds: float) -> str:
    """A time for people, in one unit: `0.4 s`, `12 s`, `3 min`, `5 h`, `2 days`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"


def counted(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
