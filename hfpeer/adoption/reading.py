"""Reads a listing with the readers of all tools: those that know their layout first, the rest by the tool of the place.

Pure. No file is read twice: a folder that one reader knows is not given to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from hfpeer.adoption.candidates import Found, Reader
from hfpeer.adoption.listing import Listing, folder_of
from hfpeer.adoption.places import (
    diffusion,
    git_clone,
    hub_cache,
    jan,
    llama_cpp,
    local_dir,
    modelscope,
    old_layouts,
    ollama,
    plain,
    torch_hub,
)

_BY_LAYOUT: tuple[Reader, ...] = (
    hub_cache.READER,
    ollama.READER,
    modelscope.NEW_READER,
    local_dir.READER,
    local_dir.ARIA2_READER,
    git_clone.READER,
    modelscope.OLD_READER,
    jan.READER,
    llama_cpp.READER,
    old_layouts.READER,
    diffusion.A1111_READER,
    diffusion.COMFYUI_READER,
    torch_hub.READER,
    plain.HFDOWNLOADER_READER,
)
"""In the order in which they are asked: the surest first."""
_BY_NAME: dict[str, Reader] = {
    reader.tool: reader
    for reader in (
        plain.LM_STUDIO_READER,
        old_layouts.SENTENCES_READER,
    )
}


def read_place(listing: Listing, tool: str = plain.FOLDER) -> Found:
    """All candidates and revisions of a place. `tool` is the tool that the place is known for, or `folder`."""
    found, left = Found(), listing
    for reader in _BY_LAYOUT:
        folders = _outermost(reader.roots(left))
        for folder in folders:
            _take(found, reader.read(left.below(folder)), folder)
        left = left.without(folders) if folders else left
    _take(found, _BY_NAME.get(tool, plain.reader_of(tool)).read(left), "")
    return found


def _outermost(folders: Iterable[str]) -> list[str]:
    """The folders that are in none of the others."""
    all_of_them = set(folders)
    return sorted(folder for folder in all_of_them if all_of_them.isdisjoint(_around(folder)))


def _around(folder: str) -> Iterator[str]:
    """The folders around a folder, up to the top, which is empty."""
    while folder:
        folder = folder_of(folder)
        yield folder


def _take(found: Found, part: Found, folder: str) -> None:
    """Adds what was found in a folder, with the paths of the place."""
    if folder:
        part.candidates = [replace(one, path=f"{folder}/{one.path}") for one in part.candidates]
        inside = [f"{folder}/{one.folder}" if one.folder else folder for one in part.revisions]
        part.revisions = [replace(one, folder=at) for one, at in zip(part.revisions, inside, strict=True)]
    found.candidates += part.candidates
    found.revisions += part.revisions
    found.elsewhere += part.elsewhere
