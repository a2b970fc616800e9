"""Jan: `DATA/llamacpp/models/ID/model.yml` with `model_path`, relative to DATA or absolute, and `size_bytes`. Pure.

Source: Jan's llamacpp extension.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import yaml

from hfpeer.adoption.candidates import Found, Reader, candidate
from hfpeer.adoption.listing import Listing, name_of

TOOL = "Jan"
MAX_ELSEWHERE = 64
"""Files elsewhere that models name; the others are left out."""
_MODELS = "llamacpp/models/"


def roots(listing: Listing) -> Iterable[str]:
    rooted = (f"/{path}".partition(f"/{_MODELS}") for path in listing if name_of(path) == "model.yml")
    return dict.fromkeys(folder.removeprefix("/") for folder, found, _ in rooted if found)


def read(listing: Listing) -> Found:
    found = Found()
    named: dict[str, int | None] = {}
    for path in listing:
        if path.startswith(_MODELS) and name_of(path) == "model.yml":
            named.update(_named_in(listing.text(path) or ""))
    found.elsewhere += [path for path in named if path.startswith("/")][:MAX_ELSEWHERE]
    for path in listing:
        wanted_bytes = named.get(path)
        is_short = wanted_bytes is not None and listing[path].size_bytes != wanted_bytes
        if name_of(path) != "model.yml" and not is_short:
            found.candidates += candidate(listing, path, TOOL)
    return found


def _named_in(text: str) -> Iterator[tuple[str, int | None]]:
    """The files of a model, each with its size in bytes if the model tells it."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    if not isinstance(document, dict):
        return
    for key, size_key in (("model_path", "size_bytes"), ("mmproj_path", "mmproj_size_bytes")):
        path, size_bytes = document.get(key), document.get(size_key)
        if isinstance(path, str) and path:
            yield path, size_bytes if type(size_bytes) is int else None


READER = Reader(TOOL, read, roots)
