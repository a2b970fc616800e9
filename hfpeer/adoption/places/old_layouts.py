"""Caches of before the Hugging Face cache: of transformers up to 4.21, and of sentence-transformers up to 2.2. Pure.

transformers: `HASH.ETAGHASH`, and beside it `.json` with `url` and `etag`. sentence-transformers: `NS_NAME/PATH`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.adoption.candidates import Found, Reader, Worth, candidate, hint_of, repo_named
from hfpeer.adoption.listing import Listing, folder_of, name_of
from hfpeer.names import RepoId

TRANSFORMERS, SENTENCES = "old transformers", "old sentence-transformers"
_FILE = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{64}(\.h5)?")
_URL = re.compile(r"https?://[^/]+/([^/]+(?:/[^/]+)?)/resolve/.+")


def roots(listing: Listing) -> Iterable[str]:
    return dict.fromkeys(
        folder_of(path) for path in listing if _FILE.fullmatch(name_of(path)) and f"{path}.json" in listing
    )


def read(listing: Listing) -> Found:
    found = Found()
    for path in listing:
        if _FILE.fullmatch(path) is not None:
            document = listing.document(f"{path}.json")
            hint = hint_of(document.get("etag"), Worth.METADATA)
            found.candidates += candidate(listing, path, TRANSFORMERS, hint, _repo(document.get("url")))
    return found


def _repo(url: object) -> RepoId | None:
    match = _URL.fullmatch(url) if isinstance(url, str) else None
    return repo_named(match[1]) if match is not None else None


def read_sentences(listing: Listing) -> Found:
    found = Found()
    for path in listing:
        namespace, _, name = path.partition("/")[0].partition("_")
        repo = repo_named(f"{namespace}/{name}") if name else None
        found.candidates += candidate(listing, path, SENTENCES, None, repo)
    return found


READER = Reader(TRANSFORMERS, read, roots)
SENTENCES_READER = Reader(SENTENCES, read_sentences)
