"""The door of a push shows the pushed revisions and nothing else, to this user alone."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import DATA, FILES, MODEL, ROWS, fill
from fakes.program import program
from fakes.waiting import wait_until
from hfpeer.cache.store import Store
from hfpeer.config.settings import read_settings
from hfpeer.net.address import Address
from hfpeer.net.body import SourceFault
from hfpeer.peers.asking.address_client import AddressClient
from hfpeer_daemon.private_door import make_provider


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HFPEER_HOME": str(tmp_path / "home"), "HFPEER_CACHE": str(tmp_path / "hub")}


@pytest.fixture
def store(environ: dict[str, str]) -> Iterator[Store]:
    store = Store(Path(environ["HFPEER_CACHE"]), Path(environ["HFPEER_HOME"]))
    yield store
    store.close()


async def test_only_the_pushed_revisions_are_shown(store: Store, environ: dict[str, str]) -> None:
    pushed, other = fill(store, MODEL, FILES), fill(store, DATA, ROWS)
    provider = make_provider(read_settings(environ), [(MODEL, pushed.commit)])
    assert await provider.shared_manifest(MODEL, pushed.commit) == pushed
    assert await provider.shared_manifest(DATA, other.commit) is None
    assert [revision.repo for revision in (await provider.catalog()).revisions] == [MODEL]
    for digest in other.sizes:
        blob = provider.open_shared(digest)
        assert (blob is not None) == (digest in pushed.sizes)
        assert (await provider.piece_map(digest) is not None) == (digest in pushed.sizes)
        if blob is not None:
            blob.close()


async def test_the_door_is_a_socket_of_this_user_and_ends_with_its_input(
    store: Store, environ: dict[str, str], tmp_path: Path
) -> None:
    pushed, other = fill(store, MODEL, FILES), fill(store, DATA, {"other.bin": b"\1" * 2_000_000})
    store.close()
    path = tmp_path / "run" / "door"
    request = {"socket": str(path), "revisions": [[MODEL.api_path, pushed.commit]]}
    words = [sys.executable, "-m", "hfpeer_daemon.private_door"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with program(words, env={**os.environ, **environ}, **pipes) as door:
        assert door.stdin is not None and door.stdout is not None
        door.stdin.write(json.dumps(request).encode() + b"\n")
        door.stdin.flush()
        assert door.stdout.readline() == b"ready\n"
        facts = path.stat()
        assert stat.S_ISSOCK(facts.st_mode) and stat.S_IMODE(facts.st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        client = AddressClient(Address.parse_source(str(path)), "ab" * 8)
        try:
            assert (await client.node()).name
            assert await client.manifest(MODEL, pushed.commit) == pushed
            assert await client.manifest(DATA, other.commit) is None
            large = pushed.by_path[next(name for name in pushed.by_path if name == "weights.bin")]
            body = client.range_client.open_range(large.digest, 10, 20, size_bytes=large.size_bytes)
            view = memoryview(bytearray(10))
            while view:
                view = view[body.readinto(view) :]
            body.close()
            with pytest.raises(SourceFault, match="does not have it"):
                client.range_client.open_range(other.files[0].digest, 0, 10)
        finally:
            await client.aclose()
        door.stdin.close()
        wait_until(lambda: door.poll() is not None, "the door ends")
    with socket.socket(socket.AF_UNIX) as late, pytest.raises(OSError):
        late.connect(str(path))
