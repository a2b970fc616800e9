"""What is cut off goes on: kills, peers that die, disks that are full or may not be written."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from fakes.hub import HubSimulator
from fakes.machine import HFPEER, Machine, Machines
from fakes.network.ports import free_ports
from fakes.network.relay import Relay
from fakes.waiting import wait_until

Put = Callable[..., str]
MB = 1_000_000
SIZE_BYTES = 32 * MB
IN_FLIGHT_BYTES = 16 * MB
"""More than the pieces of eight workers of 1 MiB, and what lay in the sockets."""
OBEYING_PERMISSIONS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
"""Takes from root what lets it write anywhere."""


def assert_only_right_blobs(machine: Machine) -> None:
    """Nothing is visible that does not hash to its name."""
    for path in machine.cache.glob("*s--*/blobs/*"):
        data = path.read_bytes()
        plain = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        assert path.name in (plain, hashlib.sha256(data).hexdigest()), path
    for link in machine.cache.glob("*s--*/snapshots/**/*"):
        assert link.exists(), f"{link} leads nowhere"


def has_part(machine: Machine, part: float) -> bool:
    return machine.present_bytes() >= part * SIZE_BYTES


def test_a_daemon_killed_twice_in_the_middle_finishes_from_what_it_had(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    put("acme/killed", SIZE_BYTES)
    machine = machines.make("killed", upstreams=f"origin={hub.endpoint}")
    lost_bytes = 0
    with hub.throttled(16 * MB):
        for part in (0.25, 0.6):
            machine.start()
            adding = machine.begin_hfpeer("model", "add", "-r", "acme/killed")
            wait_until(partial(has_part, machine, part), f"{part} of it is there")
            machine.kill()
            ran = machine.finish(adding)
            assert ran.code in (6, 9), ran
            assert_only_right_blobs(machine)
            lost_bytes = hub.body_bytes_sent("/repos/*") - machine.present_bytes()
    machine.start()
    kept_bytes = machine.present_bytes()
    assert kept_bytes >= 0.6 * SIZE_BYTES
    finished = machine.do("model", "add", "-r", "acme/killed")
    assert finished["bytes_by_kind"]["origin"] <= finished["size_bytes"] - kept_bytes
    assert_only_right_blobs(machine)
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES + 2 * IN_FLIGHT_BYTES
    print(f"killed twice: {lost_bytes / MB:.1f} MB were on their way and came twice")


def test_when_the_giving_peer_is_killed_the_hub_sends_only_the_rest(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    commit = put("acme/half", SIZE_BYTES)
    contribution = machines.make("giver", upstreams=f"origin={hub.endpoint}")
    contribution.start()
    contribution.do("model", "add", "-r", "acme/half")
    with Relay(contribution.address, 20 * MB) as wire:
        taker = machines.make("taker", upstreams=f"origin={hub.endpoint}", peers=[wire.address])
        taker.start()
        hub.wait_until_quiet()
        hub.clear()
        adding = taker.begin_hfpeer("model", "add", "-r", "acme/half", "-v", commit)
        wait_until(lambda: taker.present_bytes() >= SIZE_BYTES // 2, "half of it is there")
        contribution.kill()
        wire.cut()
        ran = taker.finish(adding)
    assert ran.code == 0, ran.err
    finished = ran.document
    from_peer, from_hub = finished["bytes_by_source"]["giver"], finished["bytes_by_kind"]["origin"]
    assert from_peer + from_hub == finished["size_bytes"] and finished["refetched_bytes"] == 0
    assert from_peer >= SIZE_BYTES // 2
    assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES - from_peer + IN_FLIGHT_BYTES
    assert_only_right_blobs(taker)
    print(f"peer killed: {from_peer / MB:.1f} MB were its, the hub gave {from_hub / MB:.1f} MB")


def test_when_the_only_source_dies_the_add_gives_up_in_time_and_a_later_one_goes_on(
    machines: Machines, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(SIZE_BYTES))
    (port,) = free_ports(1)
    holder = machines.make("holder", HFPEER_LAN_LISTEN=f"127.0.0.1:{port}")
    holder.start()
    published = holder.do("model", "publish", str(folder), "--as", "team/only")
    with Relay(holder.address, 20 * MB) as wire:
        taker = machines.make("heir", peers=[wire.address], HFPEER_PATIENCE="3")
        taker.start()
        adding = taker.begin_hfpeer("model", "add", "-r", "team/only", "-v", published["commit"])
        wait_until(lambda: taker.present_bytes() >= SIZE_BYTES // 4, "a quarter of it is there")
        holder.kill()
        wire.cut()
        began_at = time.monotonic()
        ran = taker.finish(adding)
        seconds = time.monotonic() - began_at
        assert (ran.code, seconds < 15) == (6, True), (ran, seconds)
        assert "model.safetensors" in ran.problem["message"] and ran.problem["hint"]
        kept_bytes = taker.present_bytes()
        assert kept_bytes >= SIZE_BYTES // 4
        assert_only_right_blobs(taker)

        holder.start()
        finished = taker.do("model", "add", "-r", "team/only", "-v", published["commit"])
    assert finished["bytes_by_source"] == {"holder": published["size_bytes"] - kept_bytes}
    print(f"the only peer died: exit 6 after {seconds:.1f} s, {kept_bytes / MB:.1f} MB kept")


def test_ctrl_c_while_a_peer_gives_keeps_what_came(machines: Machines, hub: HubSimulator, put: Put) -> None:
    commit = put("acme/ctrlc", SIZE_BYTES)
    contribution = machines.make("patient", upstreams=f"origin={hub.endpoint}")
    contribution.start()
    contribution.do("model", "add", "-r", "acme/ctrlc")
    with Relay(contribution.address, 20 * MB) as wire:
        taker = machines.make("hasty", peers=[wire.address])
        taker.start()
        adding = taker.begin(*HFPEER, "model", "add", "-r", "acme/ctrlc", "-v", commit)
        wait_until(lambda: taker.present_bytes() >= SIZE_BYTES // 4, "a quarter of it is there")
        adding.send_signal(signal.SIGINT)
        ran = taker.finish(adding, 10)
        assert (ran.code, ran.out) == (130, "")
        assert "the same command continues from there" in ran.err and "Traceback" not in ran.err
        wait_until(lambda: not taker.status().transfers, "the daemon has let go of it")
        before_bytes, kept_bytes = wire.given_bytes, taker.present_bytes()
        wire.bytes_per_second = None
        finished = taker.do("model", "add", "-r", "acme/ctrlc", "-v", commit)
        assert finished["bytes_by_kind"]["peer"] <= finished["size_bytes"] - kept_bytes
        assert wire.given_bytes - before_bytes < SIZE_BYTES - kept_bytes + IN_FLIGHT_BYTES


@pytest.mark.root
@pytest.mark.skipif(not sys.platform.startswith("linux") or os.geteuid() != 0, reason="a small volume needs root")
@pytest.mark.parametrize("where", ["in this process", "in the daemon"])
def test_a_full_disk_is_said_and_once_there_is_room_the_add_goes_on(
    machines: Machines, hub: HubSimulator, upstreams: str, put: Put, where: str
) -> None:
    put(f"acme/full-{where[-6:]}", 24 * MB)
    machine = machines.make(f"full-{where[-6:]}", upstreams=upstreams)
    machine.cache.mkdir(parents=True)
    with volume(machine.cache, 16):
        if where == "in the daemon":
            machine.start()
        ran = machine.hfpeer("model", "add", "-r", f"acme/full-{where[-6:]}")
        assert (ran.code, ran.problem["code"]) == (8, "no_space"), ran
        assert str(machine.cache) in ran.problem["message"] and "are free there" in ran.problem["message"]
        assert_only_right_blobs(machine)
        kept_bytes = machine.present_bytes()
        subprocess.run(["mount", "-o", "remount,size=64m", str(machine.cache)], check=True)
        finished = machine.do("model", "add", "-r", f"acme/full-{where[-6:]}")
        assert sum(finished["bytes_by_kind"].values()) <= finished["size_bytes"] - kept_bytes + IN_FLIGHT_BYTES
        assert_only_right_blobs(machine)
        if where == "in the daemon":
            machine.stop()


@contextmanager
def volume(folder: Path, size_mib: int) -> Iterator[None]:
    """A small volume in memory at `folder`. Skips the test where root may not mount, as in most containers."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "hfpeer-test", str(folder)]
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no volume can be mounted here: {made.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("where", ["in this process", "in the daemon"])
def test_a_cache_that_may_not_be_written_is_said_and_nothing_breaks(
    machines: Machines, upstreams: str, put: Put, where: str
) -> None:
    put(f"acme/read-only-{where[-6:]}")
    machine = machines.make(f"read-only-{where[-6:]}", upstreams=upstreams)
    hfpeer = obeying_permissions()
    machine.cache.mkdir(parents=True)
    if where == "in the daemon":
        assert machine.run(*hfpeer, "daemon", "start").code == 0
    add = ("model", "add", "-r", f"acme/read-only-{where[-6:]}")
    machine.cache.chmod(0o555)
    ran = machine.run(*hfpeer, *add)
    assert (ran.code, ran.problem["code"]) == (8, "broken_cache"), ran
    assert str(machine.cache) in ran.problem["message"] and ran.problem["hint"]
    machine.cache.chmod(0o755)
    ran = machine.run(*hfpeer, *add)
    assert ran.code == 0, ran.err
    assert_only_right_blobs(machine)


def test_a_cache_that_turns_read_only_in_the_middle_keeps_what_came(
    machines: Machines, hub: HubSimulator, put: Put
) -> None:
    put("acme/turned", SIZE_BYTES)
    machine = machines.make("turned", upstreams=f"origin={hub.endpoint}")
    hfpeer = obeying_permissions()
    assert machine.run(*hfpeer, "daemon", "start").code == 0
    with hub.throttled(20 * MB):
        adding = machine.begin(*hfpeer, "model", "add", "-r", "acme/turned")
        wait_until(lambda: machine.present_bytes() >= SIZE_BYTES // 4, "a quarter of it is there")
        folders = [machine.cache, *(path for path in machine.cache.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        ran = machine.finish(adding)
    assert (ran.code, ran.problem["code"]) == (8, "broken_cache"), ran
    assert_only_right_blobs(machine)
    for folder in folders:
        folder.chmod(0o755)
    kept_bytes = machine.present_bytes()
    assert kept_bytes >= SIZE_BYTES // 4
    finished = machine.do("model", "add", "-r", "acme/turned")
    assert finished["bytes_by_kind"].get("origin", 0) <= finished["size_bytes"] - kept_bytes
    assert_only_right_blobs(machine)


def obeying_permissions() -> tuple[str, ...]:
    """`hfpeer --json` that may not write where it is forbidden, even where the tests run as root."""
    if os.geteuid() != 0:
        return (*HFPEER, "--json")
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv to forbid it")
    return (*OBEYING_PERMISSIONS, *HFPEER, "--json")
