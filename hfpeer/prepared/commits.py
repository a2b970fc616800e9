"""A prepared set as a commit: so it moves as any revision does, in archives, over ssh and between nodes. Pure.

The commit follows from the set manifest alone, so equal sets are equal commits on every machine, and a commit that was
not made of its manifest is noticed. It belongs to a repo of its own, which no hub has, so that it is never taken for
content of the dataset's repo. It proves the bytes of the set, not what they are.
"""

from __future__ import annotations

import hashlib
import re

from hfpeer.git.lfs import pointer_text
from hfpeer.git.proof import commit_body, object_id, root_tree
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import SETS_NAMESPACE, Commit, Digest, FilePath, RepoId, RepoType, Revision
from hfpeer.prepared.manifest import SetFile, SetManifest, bad_manifest

SET_FILE = FilePath("hfpeer-set.json")
"""The file with the set manifest. Its sha256 is the id of the set."""
AUTHOR = "hfpeer <hfpeer@localhost>"
MESSAGE = "Prepared by hfpeer"
BUILT, TAKEN = "built", "taken"
"""The first word of the ref that a node gives to a set: whether it has built the set itself."""
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_=,+-]{0,79}")


def set_repo(source: RepoId) -> RepoId:
    """The repo of all sets of a dataset: `hfpeer-prepared/NAME-HASH`, by a hash of the full name."""
    digest = hashlib.sha256(source.full_name.encode()).hexdigest()[:12]
    return RepoId(RepoType.DATASET, SETS_NAMESPACE, f"{source.name[:80].rstrip('.-')}-{digest}")


def commit_of(manifest: SetManifest) -> Manifest:
    """The commit of a set: its files and the set manifest. All are LFS files, whose digests are sha256."""
    text = manifest.to_json()
    files = [SetFile(SET_FILE, len(text), manifest.id), *manifest.files]
    listed = tuple(sorted(map(_listed, files), key=lambda file: file.path))
    body = commit_body(root_tree(listed), author=AUTHOR, time_seconds=0, message=MESSAGE)
    return Manifest(set_repo(manifest.repo), Commit(object_id("commit", body)), listed, (), body)


def set_of(manifest: Manifest, text: bytes) -> SetManifest:
    """The set manifest in SET_FILE of a commit. Raises BadArchive if the commit was not made of it."""
    found = SetManifest.from_json(text)
    made = commit_of(found)
    if (made.repo, made.commit) != (manifest.repo, manifest.commit):
        raise bad_manifest(f"it is not the manifest of the commit {manifest.commit.short}")
    return found


def set_ref(manifest: SetManifest, *, is_built_here: bool) -> Revision:
    """The ref by which other nodes find a set: `built/COMMIT/CONFIG` or `taken/COMMIT/CONFIG`."""
    word = BUILT if is_built_here else TAKEN
    return Revision(f"{word}/{manifest.place.hash[:12]}/{config_slug(manifest.place.config_id)}")


def config_slug(config_id: str) -> str:
    """A config id as a part of a ref: itself, or a hash of it where git takes no such ref."""
    if _SLUG.fullmatch(config_id):
        return config_id
    return hashlib.sha256(config_id.encode()).hexdigest()[:16]


def ref_parts(ref: str) -> tuple[str, str, str] | None:
    """The word, the first digits of the commit, and the config of a ref of `set_ref`; None for any other ref."""
    parts = ref.split("/")
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 and parts[0] in (BUILT, TAKEN) else None


def _listed(file: SetFile) -> ManifestFile:
    pointer = pointer_text(file.sha256, file.size_bytes)
    return ManifestFile(
        FilePath(file.path), file.size_bytes, Digest("sha256", file.sha256), pointer_id=object_id("blob", pointer)
    )
