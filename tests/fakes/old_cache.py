"""A cache as the Hub client leaves it after some months: two revisions of a model, of which one has lost its ref, and a
dataset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download

from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from hfpeer.names import RepoId

TINY, ROWS = RepoId.parse("acme/tiny"), RepoId.parse("acme/rows", "dataset")
WEIGHTS, ADAPTER, PARQUET = noise(1_200_000, "weights"), noise(300_000, "adapter"), noise(500_000, "rows")
OLD: dict[str, Content] = {"config.json": b"{}", "model.safetensors": Lfs(WEIGHTS), "old.bin": Lfs(ADAPTER)}
NEW: dict[str, Content] = {"config.json": b'{"v":2}', "model.safetensors": Lfs(WEIGHTS)}


@dataclass(frozen=True)
class Downloaded:
    """The cache, and its commits."""

    cache: Path
    old: str
    new: str
    rows: str


def download_all(cache: Path) -> Downloaded:
    """Fills a cache by the Hub client."""
    with HubSimulator() as hub:
        old = hub.put_repo("model", str(TINY), OLD)
        snapshot_download(str(TINY), cache_dir=cache, endpoint=hub.endpoint)
        new = hub.repo("model", str(TINY)).commit(NEW, replaces_all=True)
        snapshot_download(str(TINY), cache_dir=cache, endpoint=hub.endpoint)
        rows = hub.put_repo("dataset", ROWS.full_name, {"train.parquet": Lfs(PARQUET), "README.md": b"# rows"})
        snapshot_download(ROWS.full_name, repo_type="dataset", cache_dir=cache, endpoint=hub.endpoint)
    return Downloaded(cache, old, new, rows)


def age(folder: Path, days: float) -> None:
    """Makes everything in a folder look as if it was last read and written `days` ago. The ctime stays: no program can
    set it."""
    for path in (folder, *folder.rglob("*")):
        at = path.lstat().st_mtime - days * 86400
        os.utime(path, (at, at), follow_symlinks=False)
