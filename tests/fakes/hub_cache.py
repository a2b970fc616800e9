"""A cache as the Hub client lays it out, written by hand: what a scan has to understand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hfpeer.git.lfs import pointer_text
from hfpeer.git.proof import commit_body, object_id, root_tree
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId

COMMIT = Commit("c" * 40)
REPO = RepoId.parse("acme/tiny")


def sha256_of(body: bytes) -> Digest:
    return Digest("sha256", hashlib.sha256(body).hexdigest())


def git_sha1_of(body: bytes) -> Digest:
    return Digest("git-sha1", hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest())


def digest_of(path: str, body: bytes) -> Digest:
    """`.bin` files are LFS files, the others are not."""
    return sha256_of(body) if path.endswith(".bin") else git_sha1_of(body)


def listed(bodies: Mapping[str, bytes]) -> list[ManifestFile]:
    """The files of a manifest with these contents."""
    return [
        ManifestFile(
            FilePath(path), len(body), digest_of(path, body), pointer_id="b" * 40 if path.endswith(".bin") else ""
        )
        for path, body in bodies.items()
    ]


def manifest_of(bodies: Mapping[str, bytes], commit: Commit = COMMIT, repo: RepoId = REPO) -> Manifest:
    return Manifest(repo, commit, tuple(sorted(listed(bodies), key=lambda file: file.path)))


def proved_manifest_of(bodies: Mapping[str, bytes], repo: RepoId = REPO) -> Manifest:
    """The manifest of a real commit with these contents. Its commit id depends on them."""
    files = []
    for file in manifest_of(bodies).files:
        pointer = pointer_text(file.digest.hex, file.size_bytes)
        files.append(replace(file, pointer_id=object_id("blob", pointer)) if file.is_lfs else file)
    raw = commit_body(root_tree(files), author="a <a@b>", time_seconds=1, message="m")
    return Manifest(repo, Commit(object_id("commit", raw)), tuple(files), commit_object=raw)


def download(
    cache: Path,
    bodies: Mapping[str, bytes],
    commit: Commit = COMMIT,
    repo: RepoId = REPO,
    ref: str | None = "main",
    *,
    links: bool = True,
    tree: bool = False,
) -> Path:
    """Leaves what a download by the Hub client leaves: blobs, links (or real files), a ref, perhaps a listing."""
    folder = cache / repo.folder
    snapshot = folder / "snapshots" / commit
    (folder / "blobs").mkdir(parents=True, exist_ok=True)
    for path, body in bodies.items():
        place = snapshot / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        if not links:
            place.write_bytes(body)
            continue
        etag = digest_of(path, body).hex
        (folder / "blobs" / etag).write_bytes(body)
        place.symlink_to("../" * (2 + path.count("/")) + f"blobs/{etag}")
    if ref is not None:
        (folder / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (folder / "refs" / ref).write_text(commit)
    if tree:
        (folder / "trees").mkdir(exist_ok=True)
        (folder / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": _tree(bodies)}))
    return snapshot


def _tree(bodies: Mapping[str, bytes]) -> dict[str, dict[str, object]]:
    return {
        path: {"size": len(body), "blob_id": "b" * 40, "lfs_sha256": sha256_of(body).hex, "lfs_size": len(body)}
        if path.endswith(".bin")
        else {"size": len(body), "blob_id": git_sha1_of(body).hex}
        for path, body in bodies.items()
    }
