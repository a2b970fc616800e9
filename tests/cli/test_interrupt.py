"""Ctrl-C in the middle of a real download: it ends at once, keeps what came, and the same command finishes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fakes.hub import HubSimulator, Lfs, faults

COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]
SIZE_BYTES = 24_000_000


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/big", {"config.json": b"{}", "w.safetensors": Lfs(os.urandom(SIZE_BYTES))})
        yield hub


@pytest.mark.parametrize("where", ["in this process", "in the daemon"])
def test_ctrl_c_keeps_what_has_come_and_the_same_command_goes_on(
    hub: HubSimulator, environ: dict[str, str], where: str
) -> None:
    ours = (
        os.environ
        | environ
        | {
            "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
            "HFPEER_LAN_LISTEN": "127.0.0.1:0",
            "HFPEER_ENDPOINT_LISTEN": "127.0.0.1:0",
            "HFPEER_MDNS": "0",
        }
    )
    add = [*COMMAND, "model", "add", "-r", "acme/big"]
    if where == "in the daemon":
        subprocess.run([*COMMAND, "daemon", "start"], env=ours, check=True, capture_output=True, timeout=60)
    try:
        hub.clear()
        slowly = hub.inject(faults.throttle(12_000_000, is_shared=True), method="GET", listener="cdn")
        child = subprocess.Popen(add, env=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        hub.wait_for_body_bytes(SIZE_BYTES // 2, path="/repos/*", timeout_seconds=30)
        began_at = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out) == (130, "")
        assert err.splitlines()[-1] == "Interrupted. What has arrived is kept: the same command continues from there."
        assert "Traceback" not in err
        assert time.monotonic() - began_at < 5

        slowly.remove()
        done = subprocess.run([*add, "--json"], env=ours, capture_output=True, text=True, check=True, timeout=60)
        fetched = json.loads(done.stdout)["bytes_by_kind"]["origin"]
        assert fetched < SIZE_BYTES * 3 // 4
    finally:
        subprocess.run([*COMMAND, "daemon", "stop"], env=ours, check=True, capture_output=True, timeout=60)
