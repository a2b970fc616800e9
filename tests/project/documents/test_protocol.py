"""The page on the protocol between nodes names every path, header and key of the messages, and the version."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hfpeer.manifest import FORMAT_VERSION, Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.peers.discovery.multicast import Announcement
from hfpeer.peers.protocol import batch, copies, messages, paths, pieces, remote_adds
from hfpeer.peers.protocol.registration import Registration
from hfpeer.ranges import MIB, PieceGrid
from project.documents.reading import text_of

PAGE = text_of("docs/en/reference/protocol.md")
REPO, COMMIT = RepoId.parse("acme/tiny"), Commit.parse("1" * 40)
LFS, PLAIN = Digest.parse("sha256:" + "2" * 64), Digest.parse("git-sha1:" + "3" * 40)
REVISION = messages.RevisionMessage(REPO, COMMIT, True, 1, 1, {"main": 1.0})
FILES = (
    ManifestFile(FilePath.parse("a.bin"), 1, LFS, pointer_id="4" * 40, pointer=b"x"),
    ManifestFile(FilePath.parse("b.txt"), 1, PLAIN),
)
MESSAGES = (
    messages.NodeMessage("5" * 32, "n", "1", 2, 1).to_json(),
    messages.CatalogMessage(1, (REVISION,)).to_json(),
    REVISION.to_json(),
    messages.RefMessage(COMMIT, 1.0, "hub").to_json(),
    messages.PeersMessage(()).to_json(),
    copies.CopiesMessage().to_json(),
    pieces.PieceMap(1, 1, 1, None).to_json(),
    pieces.PieceNews(members={"n": 1}).to_json(),
    remote_adds.AddTerms("no").to_json(),
    remote_adds.RemoteAdd("6" * 32, REPO, COMMIT).to_json(),
    remote_adds.AddProgress("done").to_json(),
    Announcement("5" * 32, 1, ()).to_txt(),
    json.loads(Registration("5" * 32, ()).to_text()),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: next(iter(message)))
def test_each_key_of_a_message_is_on_the_page(message: dict[str, object]) -> None:
    assert [key for key in message if f"`{key}`" not in PAGE] == []


def test_each_key_of_a_manifest_is_on_the_page() -> None:
    keys = set(re.findall(r'"(\w+)":', Manifest(REPO, COMMIT, FILES).to_json()))
    assert {key for key in keys if f"`{key}`" not in PAGE} == set()
    assert f"| `format_version` | {FORMAT_VERSION} |" in PAGE


@pytest.mark.parametrize("name", [name for name in vars(paths) if name.endswith(("_PATH", "_PREFIX", "_SUFFIX"))])
def test_each_path_is_on_the_page(name: str) -> None:
    assert vars(paths)[name] in PAGE


def test_the_version_the_headers_and_the_sizes_are_those_of_the_code() -> None:
    assert f"**Version {paths.PROTOCOL_VERSION}.**" in PAGE
    for word in (
        paths.NODE_HEADER,
        paths.PROTOCOL_HEADER,
        paths.SIGNATURE_HEADER,
        paths.SERVICE_TYPE,
        f"`{paths.WAIT_HEADER}: wait=SECONDS`",
    ):
        assert word in PAGE
    assert f"up to {batch.MAX_BATCH_BLOBS} blobs of at most {batch.MAX_BATCH_BLOB_BYTES // 1024} KiB" in PAGE
    assert f"up to {copies.MAX_ASKED_BLOBS} blobs" in PAGE
    assert PieceGrid(1).piece_size_bytes == MIB and "| a piece | 1 MiB" in PAGE


def test_the_repo_names_are_those_of_the_paths() -> None:
    assert f"`{paths.manifest_path(REPO, COMMIT)}`" == f"`/manifests/models/acme/tiny/{COMMIT}`"


def test_no_wire_word_lies_outside_the_modules_that_are_compared() -> None:
    folder = Path(paths.__file__).parent
    assert {file.stem for file in folder.glob("*.py")} == {
        *("__init__", "batch", "copies", "fields", "messages", "paths", "pieces", "registration"),
        "remote_adds",
    }
