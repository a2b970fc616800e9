"""The shared store of the Hub client since 1.32, as a download through Xet leaves it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def share(blob: Path, cache: Path) -> Path:
    """Moves a blob of a repo into the shared store of its cache and leaves a link, with the list and the marker of the
    client. Returns the entry."""
    name = hashlib.sha256(b"xet" + blob.read_bytes()).hexdigest()
    entry = cache / "blobs" / name[:2] / name
    entry.parent.mkdir(parents=True, exist_ok=True)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    if entry.exists():
        blob.unlink()
    else:
        blob.rename(entry)
    with entry.with_name(f"{name}.refs").open("a") as file:
        file.write(f"{blob.relative_to(cache).as_posix()}\n")
    blob.symlink_to(os.path.relpath(entry, blob.parent))
    return entry
