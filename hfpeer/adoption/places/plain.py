"""Places whose layout says nothing but names: LM Studio, GPT4All, hfdownloader, and any folder a user names. Pure.

LM Studio: `PUBLISHER/REPO/FILE`, usually a repo of the Hub. hfdownloader: `Storage/OWNER/NAME/PATH`. GPT4All:
`FILE.gguf`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from hfpeer.adoption.candidates import Found, Reader, candidate, repo_named
from hfpeer.adoption.listing import Listing
from hfpeer.names import RepoId

FOLDER, LM_STUDIO, GPT4ALL, HFDOWNLOADER = "folder", "LM Studio", "GPT4All", "hfdownloader"
_STORAGE = re.compile(r"(?:(.+)/)?Storage/[^/]+/[^/]+/.+")


def _read(tool: str, repo_of: Callable[[str], RepoId | None]) -> Callable[[Listing], Found]:
    def read(listing: Listing) -> Found:
        found = Found()
        for path in listing:
            found.candidates += candidate(listing, path, tool, None, repo_of(path))
        return found

    return read


def _first_two(path: str) -> RepoId | None:
    """The repo of the first two folders of a path."""
    parts = path.split("/")
    return repo_named("/".join(parts[:2])) if len(parts) > 2 else None


def _storage_roots(listing: Listing) -> Iterable[str]:
    matches = map(_STORAGE.fullmatch, listing)
    return dict.fromkeys(f"{match[1]}/Storage" if match[1] else "Storage" for match in matches if match is not None)


def reader_of(tool: str) -> Reader:
    """The reader of a place that is known by its path only: every file counts, and none names a repo."""
    return Reader(tool, _read(tool, lambda path: None))


LM_STUDIO_READER = Reader(LM_STUDIO, _read(LM_STUDIO, _first_two))
HFDOWNLOADER_READER = Reader(HFDOWNLOADER, _read(HFDOWNLOADER, _first_two), _storage_roots)
