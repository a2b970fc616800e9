"""Reading packs that others made: what git and dulwich pack is read, and nothing unpacks to more than is allowed."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from dulwich.object_format import SHA1
from dulwich.objects import Blob, ShaFile
from dulwich.pack import write_pack_objects
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hfpeer import budgets
from hfpeer.git import pack_reader as pack
from hfpeer.git.pack_reader import BrokenPack, object_ids, read_blobs, read_objects
from hfpeer.git.proof import object_id

ROOM_BYTES = 1 << 26
TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
BODIES = st.builds(
    lambda seed, noise, repeats: random.Random(seed).randbytes(noise) * repeats,
    st.integers(0, 5),
    st.integers(0, 3000),
    st.sampled_from([1, 1, 2, 30, 700]),
)
"""Much of it unpacks to far more than 64 KiB from less than 4 KiB, and much is alike, so that git makes deltas."""


def declared(kind: int, size: int) -> bytes:
    first, rest, header = kind << 4 | size & 15, size >> 4, bytearray()
    while rest:
        header.append(first | 0x80)
        first, rest = rest & 0x7F, rest >> 7
    return bytes(header) + bytes([first])


def packed(*entries: bytes) -> bytes:
    made = b"PACK" + struct.pack(">II", 2, len(entries)) + b"".join(entries)
    return made + hashlib.sha1(made).digest()


def commit_text(message: bytes) -> bytes:
    return b"tree %b\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\n%b" % (TREE.encode(), message)


def git_pack(repo: Path, objects: Sequence[tuple[str, bytes]]) -> bytes:
    git = ["git", "-C", str(repo), "-c", "gc.auto=0"]
    if not (repo / ".git").exists():
        subprocess.run([*git, "init", "-q"], check=True)
    ids = []
    for kind, body in objects:
        store = [*git, "hash-object", "-t", kind, "--literally", "-w", "--stdin"]
        ids.append(subprocess.run(store, input=body, check=True, capture_output=True).stdout)
    names = b"".join(dict.fromkeys(ids))
    return subprocess.run(
        [*git, "pack-objects", "--stdout", "-q", "--window=10"], input=names, check=True, capture_output=True
    ).stdout


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(BODIES, min_size=1, max_size=5), message=BODIES)
def test_what_git_packs_is_read(tmp_path: Path, bodies: list[bytes], message: bytes) -> None:
    objects = [("commit", commit_text(message)), *(("blob", body) for body in bodies)]
    pack = git_pack(tmp_path, objects)
    ids = {object_id(kind, body): body for kind, body in objects}
    assert object_ids(pack, ROOM_BYTES) == set(ids)
    assert dict(read_blobs(pack, ids, ROOM_BYTES)).items() <= ids.items()
    assert read_objects(pack, ROOM_BYTES) == {object_id("commit", commit_text(message)): commit_text(message)}


@settings(max_examples=25)
@given(bodies=st.lists(BODIES, min_size=1, max_size=5), deltify=st.booleans())
def test_what_dulwich_packs_is_read(bodies: list[bytes], deltify: bool) -> None:
    out, blobs = io.BytesIO(), [Blob.from_string(body) for body in dict.fromkeys(bodies)]
    objects: list[tuple[ShaFile, None]] = [(blob, None) for blob in blobs]
    write_pack_objects(out, objects, deltify=deltify, object_format=SHA1)
    assert object_ids(out.getvalue(), ROOM_BYTES) == {blob.id.decode() for blob in blobs}


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 131_072, 700_001, 5_000_000])
def test_a_place_is_kept_behind_what_unpacks_to_much_from_little(size: int) -> None:
    large, small = commit_text(b"x" * size), commit_text(b"small")
    entries = [declared(1, len(body)) + zlib.compress(body, 9) for body in (large, small, large, small)]
    assert set(read_objects(packed(*entries), ROOM_BYTES).values()) == {large, small}


def test_a_bomb_is_refused_by_what_it_declares_and_by_what_it_unpacks_to() -> None:
    bomb = zlib.compress(bytes(64 << 20), 9)
    tracemalloc.start()
    for size, allowed in ((64 << 20, 1 << 20), (1000, 1 << 20), ((64 << 20) + 1, 1 << 27)):
        with pytest.raises(BrokenPack):
            read_objects(packed(declared(2, size) + bomb), allowed)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_many_small_bombs_together_are_refused_too() -> None:
    entry = declared(3, 1 << 20) + zlib.compress(bytes(1 << 20), 9)
    assert object_ids(packed(*[entry] * 10), 10 << 20)
    with pytest.raises(BrokenPack, match="more than"):
        object_ids(packed(*[entry] * 11), 10 << 20)


def test_what_is_wrong_with_a_pack_is_said_in_few_words() -> None:
    base = bytes(1000)
    delta = b"\xe8\x07\xe8\x07" + b"\xb0\xe8\x03" * 50_000
    entries = (
        declared(3, 1000) + zlib.compress(base),
        declared(7, len(delta)) + bytes.fromhex(object_id("blob", base)) + zlib.compress(delta),
    )
    with pytest.raises(BrokenPack) as caught:
        object_ids(packed(*entries), ROOM_BYTES)
    assert len(str(caught.value)) <= 200


def test_a_tree_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vars(pack)["MAX_TREE_BYTES"] == budgets.MAX_TREE_BYTES
    monkeypatch.setattr(pack, "MAX_TREE_BYTES", 10_000)
    assert len(read_objects(packed(declared(2, 10_000) + zlib.compress(bytes(10_000))), ROOM_BYTES)) == 1
    with pytest.raises(BrokenPack, match="more than 10000 bytes"):
        read_objects(packed(declared(2, 10_001) + zlib.compress(bytes(10_001))), ROOM_BYTES)
