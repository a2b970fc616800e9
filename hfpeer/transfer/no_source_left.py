"""The error of a fetch, of a blob or of a bundle, when no source can give the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hfpeer.errors import AccessDenied, CorruptData, HfpeerError, NoSourceLeft
from hfpeer.names import FilePath

WRONG_BYTES = "gave wrong bytes"
"""The reason of a source whose bytes do not hash to the digest."""
_WRONG = re.compile(rf"{WRONG_BYTES}|has a file of .*")
"""The reasons of sources that have another file."""


def no_source_left(
    path: FilePath, reasons: Mapping[str, str], what: str = "", *, retry_after_seconds: float | None = None
) -> HfpeerError:
    """The error for the file at `path`: CorruptData if all sources have wrong bytes, else NoSourceLeft.

    `reasons` say by source name why it did not give the file; `what` is missing, in words, if not just that file. An
    upstream may have said after which time it may be asked again.
    """
    what = what or str(path)
    said = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "no source has it"
    if reasons and all(map(_WRONG.fullmatch, reasons.values())):
        return CorruptData(
            f"No source gives the right bytes of {what}: {said}.",
            hint="Nothing of it was kept. Try again later, or from another network.",
            path=str(path),
            sources=list(reasons),
        )
    return NoSourceLeft(
        f"No source can give {what}: {said}.",
        hint="What came is kept; run the same command again later and it continues.",
        path=str(path),
        sources=dict(reasons),
        **({} if retry_after_seconds is None else {"retry_after_seconds": retry_after_seconds}),
    )


def refused(refusal: AccessDenied, files: str) -> HfpeerError:
    """The refusal of some files of a repo, with their names."""
    message = f"{files} cannot be fetched: {refusal.message}"
    return type(refusal)(message, hint=refusal.hint, **{**refusal.facts, "files": files})
