"""The doctor finds planted faults by name, and gives the command that mends each."""

from __future__ import annotations

import resource
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from fakes.hub import HubSimulator, faults
from fakes.network.proxies import TlsFront
from fakes.stub_node import STATUS
from hfpeer.config.settings import read_settings
from hfpeer.control.results import NodeStatus, PeerStatus
from hfpeer.node.doctor import machine
from hfpeer.node.doctor.doctor import examine
from hfpeer.node.doctor.findings import Finding, Level
from hfpeer.version import __version__


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        yield hub


@pytest.fixture
def environ(hub: HubSimulator, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "hub").mkdir()
    return {
        "HFPEER_HOME": str(tmp_path / "home"),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
        "HFPEER_MDNS": "0",
        "HFPEER_LAN_LISTEN": "127.0.0.1:0",
        "HFPEER_ENDPOINT_LISTEN": "127.0.0.1:0",
    }


async def found(environ: dict[str, str], status: NodeStatus | None = None) -> list[Finding]:
    return list(await examine(read_settings(environ), environ, status))


async def faults_of(environ: dict[str, str], check: str, status: NodeStatus | None = None) -> Finding:
    """The one finding on a thing that is not right."""
    (one,) = [one for one in await found(environ, status) if one.check == check and one.level is not Level.OK]
    return one


async def test_a_healthy_machine_has_no_fault(environ: dict[str, str]) -> None:
    healthy = await found(environ)
    assert [one for one in healthy if one.level is Level.FAULT] == []
    assert {one.check for one in healthy} >= {"daemon", "addresses", "port lan", "disk space", "open files"}


async def test_no_daemon(environ: dict[str, str]) -> None:
    one = await faults_of(environ, "daemon")
    assert (one.level, one.hint) == (Level.WARNING, "`hfpeer daemon start`")


async def test_a_port_that_another_program_has(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environ["HFPEER_LAN_LISTEN"] = f"127.0.0.1:{taken.getsockname()[1]}"
        one = await faults_of(environ, "port lan")
    assert (one.level, "is taken by process" in one.sentence, "lan.listen" in one.hint) == (Level.FAULT, True, True)


async def test_a_daemon_whose_port_does_not_answer(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        listeners = {"lan": f"127.0.0.1:{gone.getsockname()[1]}"}
    one = await faults_of(environ, "port lan", replace(STATUS, listeners=listeners, is_daemon=True))
    assert (one.level, "firewall" in one.hint) == (Level.FAULT, True)


async def test_a_cache_that_this_user_cannot_write(environ: dict[str, str]) -> None:
    environ["HF_HUB_CACHE"] = "/proc/self"
    one = await faults_of(environ, "disk")
    assert (one.level, "hfpeer conf cache set" in one.hint) == (Level.FAULT, True)


@pytest.mark.parametrize("kind", ["file", "link", "loop"])
async def test_a_cache_that_is_no_folder(environ: dict[str, str], tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "no-folder"
    environ["HF_HUB_CACHE"] = str(cache)
    cache.touch() if kind == "file" else cache.symlink_to(cache if kind == "loop" else tmp_path / "unplugged")
    one = await faults_of(environ, "disk")
    assert (one.level, str(cache) in one.sentence, bool(one.hint)) == (Level.FAULT, True, True)


async def test_a_home_without_room(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_bytes", lambda folder: 4096)
    one = await faults_of(environ, "home")
    assert (one.level, "4.1 kB are free" in one.sentence, "HFPEER_HOME" in one.hint) == (Level.FAULT, True, True)


@pytest.fixture
def small_disk(environ: dict[str, str]) -> Iterator[None]:
    """The cache lies on a volume of 8 MB."""
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "hfpeer-test", environ["HF_HUB_CACHE"]]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    yield
    subprocess.run(["umount", environ["HF_HUB_CACHE"]], check=True)


@pytest.mark.usefixtures("small_disk")
async def test_a_disk_that_is_full(environ: dict[str, str]) -> None:
    one = await faults_of(environ, "disk space")
    assert (one.level, "8.4 MB of 8.4 MB" in one.sentence, "prune" in one.hint) == (Level.FAULT, True, True)


async def test_a_clock_that_is_wrong(environ: dict[str, str], hub: HubSimulator) -> None:
    hub.inject(faults.with_header("Date", "Mon, 30 Nov 2020 10:00:00 GMT"), path="/api/whoami-v2", times=1)
    one = await faults_of(environ, "clock")
    assert (one.level, "ahead of that of the hubs" in one.sentence, "`date`" in one.hint) == (Level.FAULT, True, True)


async def test_a_proxy_that_cannot_be_used(environ: dict[str, str]) -> None:
    environ["http_proxy"] = "ftp://proxy:21"
    named = [one for one in await found(environ) if one.check == "proxy"]
    assert [one.level for one in named] == [Level.FAULT]
    assert "http_proxy" in named[0].sentence


async def test_a_certificate_that_nobody_here_signed(environ: dict[str, str], hub: HubSimulator) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with TlsFront(context, "127.0.0.1", int(hub.endpoint.rpartition(":")[2])) as front:
        environ["HFPEER_UPSTREAMS"] = f"origin=https://127.0.0.1:{front.port}"
        one = await faults_of(environ, f"hub 127.0.0.1:{front.port}")
    assert (one.level, "SSL_CERT_FILE" in one.hint) == (Level.FAULT, True)


async def test_hubs_that_are_gone(environ: dict[str, str]) -> None:
    environ["HFPEER_UPSTREAMS"] = "mirror=http://127.0.0.1:1,origin=http://127.0.0.1:2"
    one = await faults_of(environ, "hubs")
    assert (one.level, "offline true" in one.hint) == (Level.FAULT, True)
    environ["HFPEER_OFFLINE"] = "1"
    assert [one.level for one in await found(environ) if "hub" in one.check] == [Level.OK]


async def test_few_open_files(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda what: (256, 4096))
    one = await faults_of(environ, "open files")
    assert (one.level, one.hint.startswith("`ulimit -n 4096`")) == (Level.WARNING, True)


async def test_the_daemon_of_another_version_and_over_another_cache(environ: dict[str, str]) -> None:
    status = replace(STATUS, is_daemon=True, listeners={}, version="0.0.1", cache="/elsewhere", peers=())
    assert "daemon restart" in (await faults_of(environ, "daemon", status)).hint
    assert "HF_HUB_CACHE" in (await faults_of(environ, "cache", status)).hint


async def test_peers_that_do_not_answer_or_are_older(environ: dict[str, str]) -> None:
    away = PeerStatus("", "h2", "10.0.0.2:9437", "gone", "static")
    older = PeerStatus("1" * 16, "h3", "10.0.0.3:9437", "alive", "static", version="0.0.1")
    here = replace(STATUS, is_daemon=True, listeners={}, version=__version__, cache=environ["HF_HUB_CACHE"])
    assert (await faults_of(environ, "peers", replace(here, peers=(away,)))).level is Level.FAULT
    assert "peer add" in (await faults_of(environ, "peers", replace(here, peers=()))).hint
    assert "0.0.1" in (await faults_of(environ, "peer h3", replace(here, peers=(away, older)))).sentence
