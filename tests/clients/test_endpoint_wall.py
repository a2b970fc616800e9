"""Files that are too large for plain HTTP, which clients of every version get all the same. The wall stands at 1 MB
here, for the client and for the endpoint; `bench/endpoint.py wall` does it with 50 GB."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from fakes.doors import open_door
from fakes.hub import HubSimulator, Lfs
from fakes.hub.zoo import noise
from hfpeer.config.settings import read_settings
from hfpeer.net.address import Address
from hfpeer.node.node import Node
from hfpeer_daemon.app import endpoint_app
from hfpeer_daemon.endpoint.app import HubApp
from hfpeer_daemon.http.responses import Receive, Scope, Send

WALL = 1_000_000
BIG = noise(70_000_000, "over the wall")
CLIENT = """
import json, sys
import huggingface_hub
from huggingface_hub import constants, hf_hub_download, snapshot_download
constants.MAX_HTTP_DOWNLOAD_SIZE = 1_000_000
if sys.argv[2]:
    from huggingface_hub.utils import _headers
    _headers.get_hf_hub_version = lambda: sys.argv[2]
whole = snapshot_download("acme/big") if sys.argv[1] == "snapshot" else None
print(json.dumps(whole and whole + "/big.bin" or hf_hub_download("acme/big", "big.bin")))
"""


@asynccontextmanager
async def endpoint_before(hub: HubSimulator, folder: Path) -> AsyncIterator[str]:
    """A node in this process, whose endpoint has its wall at `WALL`."""
    environ = {"HFPEER_HOME": str(folder / "home"), "HF_HUB_CACHE": str(folder / "hub"), "HFPEER_MDNS": "0"}
    environ |= {"HFPEER_UPSTREAMS": f"origin={hub.endpoint}"}
    node = Node(read_settings(environ))
    await node.start(Address("127.0.0.1", 0))
    assert node.endpoint is not None
    doors: list[HubApp] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        address = Address.parse(dict(scope["headers"])[b"host"].decode())
        await endpoint_app(node, address, hub=doors[0])(scope, receive, send)

    try:
        async with open_door(lambda threads: app, threads=8) as door:
            doors.append(HubApp(node.endpoint, door.threads, http_wall_bytes=WALL))
            yield f"http://{door.address}"
    finally:
        await node.stop()


async def download(endpoint: str, folder: Path, how: str, version: str, **more: str) -> tuple[int, str, str]:
    """Runs the client, which says that it is of that version (empty: its own)."""
    environ = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(folder),
        "HF_HUB_CACHE": str(folder / "hub"),
        **more,
    }
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLIENT, how, version), env=environ, stdout=pipe, stderr=pipe
    )
    out, err = await asyncio.wait_for(client.communicate(), 60)
    return client.returncode or 0, out.decode(), err.decode()


@pytest.mark.parametrize("how", ["one file", "snapshot"])
@pytest.mark.parametrize(("version", "xet"), [("", True), ("", False), ("1.32.1", True), ("0.36.2", True)])
async def test_every_version_gets_a_file_from_over_the_wall(
    tmp_path: Path, how: str, version: str, xet: bool, lfs_hub: HubSimulator
) -> None:
    async with endpoint_before(lfs_hub, tmp_path / "node") as endpoint:
        more = {} if xet else {"HF_HUB_DISABLE_XET": "1"}
        code, out, err = await download(endpoint, tmp_path / "client", how, version, **more)
        assert code == 0, err
        found = await asyncio.to_thread(lambda: hashlib.sha256(Path(json.loads(out)).read_bytes()).hexdigest())
        assert found == hashlib.sha256(BIG).hexdigest()
    assert not lfs_hub.requests_for(listener="cas")


async def test_the_wall_is_real(tmp_path: Path, lfs_hub: HubSimulator) -> None:
    code, _, err = await download(lfs_hub.endpoint, tmp_path, "one file", "")
    assert code != 0 and "too large" in err


@pytest.fixture(scope="module")
def lfs_hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/big", {"big.bin": Lfs(BIG), "config.json": b"{}"})
        yield hub
