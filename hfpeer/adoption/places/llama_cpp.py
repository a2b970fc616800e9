"""The old cache of llama.cpp: `OWNER_REPO_FILE.gguf`, `FILE.etag` or `FILE.json`, `manifest=OWNER=REPO=TAG.json`. Pure.

Newer versions use the Hugging Face cache. Source: llama.cpp `common/arg.cpp`, `common/download.cpp`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.adoption.candidates import Found, Hint, Reader, Worth, candidate, hint_of, repo_named
from hfpeer.adoption.listing import Listing, folder_of, name_of
from hfpeer.names import RepoId

TOOL = "llama.cpp"
_MANIFEST = re.compile(r"manifest=([^=/]+)=([^=/]+)=[^=/]+\.json")
_BESIDE = (".gguf.etag", ".gguf.json")


def roots(listing: Listing) -> Iterable[str]:
    return dict.fromkeys(
        folder_of(path) for path in listing if _MANIFEST.fullmatch(name_of(path)) or path.endswith(_BESIDE)
    )


def read(listing: Listing) -> Found:
    repos: dict[str, RepoId] = {}
    for path in listing:
        match = _MANIFEST.fullmatch(path)
        repo = repo_named(f"{match[1]}/{match[2]}") if match is not None else None
        if match is not None and repo is not None:
            repos[f"{match[1]}_{match[2]}_"] = repo
    prefixes = sorted(repos, key=len, reverse=True)
    found = Found()
    for path in listing:
        if _MANIFEST.fullmatch(path) is None and not path.endswith(_BESIDE):
            prefix = next((prefix for prefix in prefixes if path.startswith(prefix)), "")
            found.candidates += candidate(listing, path, TOOL, _hint(listing, path), repos.get(prefix))
    return found


def _hint(listing: Listing, path: str) -> Hint | None:
    """The etag beside a file: that of the LFS file, if the hub gave it."""
    if f"{path}.etag" in listing:
        return hint_of((listing.text(f"{path}.etag") or "").strip(), Worth.METADATA)
    if f"{path}.json" in listing:
        return hint_of(listing.document(f"{path}.json").get("etag"), Worth.METADATA)
    return None


READER = Reader(TOOL, read, roots)
