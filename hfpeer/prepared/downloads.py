"""Reads `downloads/` of a datasets cache, where `datasets` 2 keeps the files of a repo under names that are hashes.

`downloads/HASH.json` has the address of each. `downloads/extracted/HASH/` is an archive, unpacked; its name is the hash
of the absolute path of that archive on this machine. Source: datasets 2.21 `utils/file_utils`, `utils/extract`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path

from hfpeer.prepared.info import source_of
from hfpeer.prepared.media import Downloads

_HUB_FILE = re.compile(r"https?://[^/]+(?:/[^/]+)?/datasets/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)")
MAX_DOWNLOADS = 1_000_000
"""At most this many files are looked at."""


def read_downloads(cache: Path) -> Downloads:
    """The addresses of the files in `downloads/`; empty without that folder."""
    urls, archives = dict[str, str](), dict[str, str]()
    folder = cache / "downloads"
    with contextlib.suppress(OSError):
        for number, path in enumerate(folder.glob("*.json")):
            if number >= MAX_DOWNLOADS:
                break
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                url = _address(str(json.loads(path.read_bytes())["url"]))
                if url is not None:
                    file = path.with_suffix("")
                    urls[file.name] = url
                    archives[hashlib.sha256(str(file).encode()).hexdigest()] = url
    return Downloads(urls, archives)


def _address(url: str) -> str | None:
    """The address in the form `hf://datasets/ORG/NAME@COMMIT/PATH`; None for files that are of no commit."""
    if source_of(url) is not None:
        return url
    found = _HUB_FILE.fullmatch(url)
    return f"hf://datasets/{found[1]}@{found[2]}/{found[3]}" if found else None
