"""Archives made to mislead: nothing outside the cache changes, and no blob that is there."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hub_cache import proved_manifest_of
from hfpeer.archive import index as index_module
from hfpeer.archive import sources
from hfpeer.archive.contents import index_head, index_path, listing_path, members
from hfpeer.archive.headers import END, padded
from hfpeer.archive.importing import Import, ImportOptions
from hfpeer.archive.index import ArchivedBlob, ArchivedRef, ArchivedRevision, ArchiveIndex, id_of, with_offsets
from hfpeer.archive.parts import Stream
from hfpeer.archive.sources import ArchiveSource
from hfpeer.archive.store_target import StoreTarget
from hfpeer.archive.target import Target
from hfpeer.cache.disk import layout
from hfpeer.cache.store import Store
from hfpeer.errors import BadArchive, CorruptData, HfpeerError
from hfpeer.git.lfs import pointer_text
from hfpeer.manifest import Manifest
from hfpeer.names import Digest, RepoId, Revision, Visibility
from hfpeer.push.receiver.plain_target import PlainTarget

REPO, OTHER = RepoId.parse("acme/tiny"), RepoId.parse("acme/other")
BODIES = {"config.json": b"{}", "a/weights.bin": b"weights" * 300_000}
MANIFEST = proved_manifest_of(BODIES, REPO)
BY_DIGEST = {file.digest: BODIES[file.path] for file in MANIFEST.files}
AT = 1_700_000_000


def make(manifest: Manifest = MANIFEST, **changes: Any) -> ArchiveIndex:
    """The index of an honest archive, with changes."""
    listing = manifest.to_json().encode()
    revision = ArchivedRevision(
        manifest.repo,
        manifest.commit,
        (ArchivedRef(Revision("main"), "huggingface", AT),),
        Visibility.UNKNOWN,
        "",
        0,
        not manifest.is_attested,
        len(listing),
        hashlib.sha256(listing).hexdigest(),
    )
    blobs = [
        ArchivedBlob(file.digest, file.size_bytes, hashlib.sha256(BY_DIGEST.get(file.digest, b"")).hexdigest())
        for file in sorted(manifest.files, key=lambda file: file.size_bytes)
    ]
    index = replace(ArchiveIndex(AT, (revision,), tuple(blobs)), **changes)
    known = {blob.digest for blob in blobs}
    if {blob.digest for blob in index.blobs} <= known:
        text = index.to_json()
        behind = len(index_head(text, AT))
        found = members(index, text, [manifest], [listing])
        index = with_offsets(index, {one.digest: one.start - behind for one in found if one.digest})
    return index


def pack(index: ArchiveIndex, manifest: Manifest = MANIFEST, bodies: dict[Digest, bytes] = BY_DIGEST) -> bytes:
    """The archive of an index, with these bytes in place of the blobs."""
    text, out = index.to_json(), bytearray()
    for member in members(index, text, [manifest], [manifest.to_json().encode()]):
        out += member.head
        if member.digest is not None:
            out += padded(bodies.get(member.digest, b"?" * member.size_bytes))
    return bytes(out) + END


def start() -> bytes:
    """The index and the manifest of an honest archive: what an attacker can copy."""
    text = make().to_json()
    whole = pack(make())
    listing = next(
        member
        for member in members(make(), text, [MANIFEST], [MANIFEST.to_json().encode()])
        if member.path == listing_path(id_of(text), make().revisions[0])
    )
    return whole[: listing.stop]


def with_members(*entries: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An honest start, then these members, as `tarfile` writes them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info, body = entry if isinstance(entry, tuple) else (entry, b"")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return start() + out.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def text_index(change: Callable[[dict[str, Any]], object]) -> bytes:
    """An archive whose index has the right id and header, but was changed as JSON."""
    document = json.loads(make().to_json())
    change(document)
    text = json.dumps(document, separators=(",", ":")).encode()
    return index_head(text, AT) + pack(make())[len(index_head(make().to_json(), AT)) :]


def rename(change: Callable[[dict[str, Any]], object]) -> bytes:
    return text_index(lambda document: change(document["revisions"][0]))


SNAPSHOT = f"{REPO.folder}/snapshots/{MANIFEST.commit}"
WEIGHTS = next(file for file in MANIFEST.files if file.is_lfs)
POINTER = pointer_text(WEIGHTS.digest.hex, WEIGHTS.size_bytes)
TWIN = proved_manifest_of({"config.json": b"{}", "a/weights.bi_": POINTER}, REPO)

HOSTILE: dict[str, Callable[[], bytes]] = {
    "an absolute path": lambda: with_members((entry("/tmp/outside"), b"x")),
    "a path with ..": lambda: with_members((entry("../outside"), b"x")),
    "a path with .. inside": lambda: with_members((entry(f"{SNAPSHOT}/../../../../outside"), b"x")),
    "a link out, then a file through it": lambda: with_members(
        entry("models--acme--tiny/snapshots/x", tarfile.SYMTYPE, "../../../.."),
        (entry("models--acme--tiny/snapshots/x/outside"), b"x"),
    ),
    "a chain of links, then a file": lambda: with_members(
        entry("a", tarfile.SYMTYPE, "."), entry("a/b", tarfile.SYMTYPE, ".."), (entry("a/b/outside"), b"x")
    ),
    "a link to an absolute path": lambda: with_members(
        entry(f"{SNAPSHOT}/config.json", tarfile.SYMTYPE, "/etc/passwd")
    ),
    "a link to another blob": lambda: with_members(entry(f"{SNAPSHOT}/config.json", tarfile.SYMTYPE, "../../blobs/aa")),
    "a file over a blob of another repo": lambda: with_members((entry(f"{OTHER.folder}/blobs/{'a' * 40}"), b"x")),
    "a hard link to a file outside": lambda: with_members(
        entry("models--acme--tiny/blobs/aa", tarfile.LNKTYPE, "/etc/passwd")
    ),
    "a hard link to the blob of another repo": lambda: with_members(
        entry("models--acme--tiny/blobs/aa", tarfile.LNKTYPE, f"{OTHER.folder}/blobs/{'a' * 40}")
    ),
    "a character device": lambda: with_members(entry("models--acme--tiny/blobs/aa", tarfile.CHRTYPE)),
    "a block device": lambda: with_members(entry("models--acme--tiny/blobs/aa", tarfile.BLKTYPE)),
    "a named pipe": lambda: with_members(entry("models--acme--tiny/blobs/aa", tarfile.FIFOTYPE)),
    "a folder": lambda: with_members(entry("models--acme--tiny/blobs", tarfile.DIRTYPE)),
    "a setuid file": lambda: with_members((entry("models--acme--tiny/blobs/aa", mode=0o6755), b"x")),
    "a very long name": lambda: with_members((entry("n" * 100_000), b"x")),
    "another ref": lambda: with_members((entry(f"{OTHER.folder}/refs/main"), b"a" * 40)),
    "no index": lambda: pack(make())[len(index_head(make().to_json(), AT)) :],
    "an index of 8 GiB": lambda: _huge_index(),
    "an index of a negative size": lambda: _with_size(b"-0000000001\0"),
    "an index with another id": lambda: pack(make()).replace(id_of(make().to_json()).encode(), b"0" * 12),
    "an index that is no JSON": lambda: index_head(b"[" * 100_000, AT) + END,
    "another version": lambda: text_index(lambda document: document.update(version=2)),
    "a repo with ..": lambda: rename(lambda revision: revision.update(repo="models/../..")),
    "a commit that is a path": lambda: rename(lambda revision: revision.update(commit="../../" + "a" * 34)),
    "a ref with ..": lambda: rename(lambda revision: revision.update(refs=[["../../../outside", "hub", 1]])),
    "a ref that is a lock": lambda: rename(lambda revision: revision.update(refs=[["main.lock", "hub", 1]])),
    "a ref without an answer": lambda: rename(lambda revision: revision.update(refs=[["main", "", 0]])),
    "a digest that is a path": lambda: text_index(
        lambda document: document["blobs"][0].__setitem__(0, "sha256:../../outside")
    ),
    "a huge blob": lambda: text_index(lambda document: document["blobs"][1].__setitem__(1, 1 << 62)),
    "a wrong offset": lambda: text_index(lambda document: document["blobs"][1].__setitem__(3, 7)),
    "a blob that no manifest has": lambda: text_index(
        lambda document: document["blobs"].append(["sha256:" + "a" * 64, 1, "a" * 64, 0])
    ),
    "a blob twice": lambda: text_index(lambda document: document["blobs"].append(document["blobs"][0])),
    "a manifest of another commit": lambda: rename(lambda revision: revision.update(commit="a" * 40)),
    "a forged manifest": lambda: _forged(),
    "a proof that is none": lambda: rename(lambda revision: revision.update(is_proved=False)),
    "wrong bytes": lambda: pack(make(), bodies={digest: body[::-1] for digest, body in BY_DIGEST.items()}),
    "other bytes of the right size": lambda: pack(make(), bodies={}),
    "a pointer passed off as the file": lambda: pack(make(TWIN), TWIN, {file.digest: POINTER for file in TWIN.files}),
}


def _huge_index() -> bytes:
    return _with_size(b"77777777777\0")


def _with_size(size: bytes) -> bytes:
    raw = pack(make())
    return raw[:124] + size + raw[136:]


def _forged() -> bytes:
    """A manifest with one more file than its commit."""
    other = proved_manifest_of({"evil.py": b"import os"}, REPO)
    forged = replace(MANIFEST, files=(*MANIFEST.files, *other.files))
    return pack(make(forged), forged)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A cache with a blob of another repo, deep in a folder of its own."""
    store = Store(tmp_path / "a" / "b" / "hub", tmp_path / "home")
    blob = layout.blob_path(store.cache, OTHER, Digest("git-sha1", "a" * 40))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"precious")
    yield store
    store.close()


def picture(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.lstat().st_mode, b"" if path.is_symlink() or not path.is_file() else path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if "home" not in path.relative_to(folder).parts
    }


@pytest.fixture(params=["a node", "the receiver of a push"])
def target(request: pytest.FixtureRequest, store: Store) -> Target:
    """The cache of `store`, as each program that imports sees it."""
    return StoreTarget(store, ()) if request.param == "a node" else PlainTarget(store.cache)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_changes_nothing_that_is_there(
    store: Store, target: Target, tmp_path: Path, kind: str
) -> None:
    before = picture(tmp_path)
    raw = HOSTILE[kind]()
    try:
        report = Import(target, ArchiveSource(Stream(io.BytesIO(raw), "hostile")), ImportOptions()).run()
    except HfpeerError as error:
        assert isinstance(error, CorruptData) and error.exit_code == 7
    else:
        assert report.damage
    after = picture(tmp_path)
    assert {path: after.get(path) for path in before} == before
    allowed = (str(store.cache / REPO.folder), str(store.cache / layout.LOCKS))
    assert all(path.startswith(allowed) for path in after.keys() - before.keys())
    for path in (store.cache / REPO.folder).glob("blobs/*"):
        assert path.read_bytes() in BY_DIGEST.values()
    assert not (store.cache / REPO.folder / "refs").exists()
    if kind in ("a pointer passed off as the file", "a forged manifest"):
        assert not store.manifests.commits(REPO)


def test_there_are_enough_of_them_and_the_honest_one_passes(store: Store, target: Target) -> None:
    assert len(HOSTILE) >= 30
    report = Import(target, ArchiveSource(Stream(io.BytesIO(pack(make())), "honest")), ImportOptions()).run()
    assert not report.damage
    assert layout.ref_path(store.cache, REPO, Revision("main")).read_text() == MANIFEST.commit


def test_an_index_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = pack(make())
    size_bytes = len(make().to_json())
    monkeypatch.setattr(sources, "MAX_ARCHIVE_INDEX_BYTES", size_bytes - 1)
    with pytest.raises(BadArchive, match=f"at most {size_bytes - 1} bytes"):
        ArchiveSource(Stream(io.BytesIO(honest)))
    monkeypatch.setattr(sources, "MAX_ARCHIVE_INDEX_BYTES", size_bytes)
    ArchiveSource(Stream(io.BytesIO(honest)))
    monkeypatch.setattr(index_module, "MAX_ARCHIVE_INDEX_BYTES", 10)
    with pytest.raises(BadArchive, match="its manifests take more than 10 bytes"):
        ArchiveSource(Stream(io.BytesIO(honest)))


def test_the_path_of_the_index_is_as_documented() -> None:
    assert index_path("0123456789ab") == ".locks/.hfpeer-archive/0123456789ab/index.json"
