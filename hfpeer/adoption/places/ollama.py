"""Ollama: `blobs/sha256-HEX`, and `manifests/HOST/NS/MODEL/TAG`, a JSON list of layers. Pure.

HOST is `hf.co` for a model that was pulled from a repo of the Hub; its GGUF is the repo's LFS file. Ollama checks a
blob after the download and renames it into place. Source: ollama `manifest/paths.go`, `server/download.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hfpeer.adoption.candidates import Found, Reader, Worth, candidate, hint_of, repo_named
from hfpeer.adoption.listing import Listing
from hfpeer.names import RepoId

TOOL = "Ollama"
_BLOB = re.compile(r"(?:(.+)/)?blobs/sha256-[0-9a-f]{64}")
_OF_THE_HUB = ("hf.co", "huggingface.co")
_OWN_TEXTS = ("license", "messages", "params", "prompt", "system", "template")
"""Layers that Ollama wrote itself: `application/vnd.ollama.image.KIND`."""


def roots(listing: Listing) -> Iterable[str]:
    matches = map(_BLOB.fullmatch, listing)
    return dict.fromkeys(match[1] or "" for match in matches if match is not None)


def read(listing: Listing) -> Found:
    repos: dict[str, RepoId | None] = {}
    own: set[str] = set()
    for path in listing:
        if path.startswith("manifests/"):
            _read_manifest(listing, path, repos, own)
    found = Found()
    for path in listing:
        name = path.removeprefix("blobs/sha256-")
        if _BLOB.fullmatch(path) is not None and name not in own:
            found.candidates += candidate(listing, path, TOOL, hint_of(name, Worth.NAME), repos.get(name))
    return found


def _read_manifest(listing: Listing, path: str, repos: dict[str, RepoId | None], own: set[str]) -> None:
    """Notes the repo of each layer of a model from the Hub, and the layers that are no files of a repo."""
    host, _, model = path.removeprefix("manifests/").partition("/")
    repo = repo_named(model.rpartition("/")[0]) if host in _OF_THE_HUB else None
    document = listing.document(path)
    layers = document.get("layers")
    for layer in [document.get("config"), *(layers if isinstance(layers, list) else [])]:
        digest, kind = (layer.get(key) if isinstance(layer, dict) else None for key in ("digest", "mediaType"))
        if isinstance(digest, str) and isinstance(kind, str):
            hex = digest.removeprefix("sha256:")
            if kind.rpartition(".")[2] in _OWN_TEXTS or kind.endswith("container.image.v1+json"):
                own.add(hex)
            elif repo is not None:
                repos[hex] = repo


READER = Reader(TOOL, read, roots)
