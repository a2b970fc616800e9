"""A daemon whose environment is another than the shell's: the variables are named where they matter, never a value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub.simulator import HubSimulator
from fakes.machine import HFPEER, Machine, Machines

PROXY = "http://me:sesame@127.0.0.1:9"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/m", {"config.json": b"{}"})
        yield hub


@pytest.fixture
def machine(hub: HubSimulator, tmp_path: Path) -> Iterator[Machine]:
    with Machines(tmp_path / "machines") as machines:
        yield machines.make("first", upstreams=f"origin={hub.endpoint}")


@pytest.mark.slow
def test_a_failed_add_names_the_variables_in_which_the_daemon_differs(machine: Machine) -> None:
    """A hub whose name only a proxy resolves, and a daemon that was started without the proxy."""
    machine.environ["HFPEER_UPSTREAMS"] = "origin=http://hub.invalid"
    machine.start()
    failed = machine.hfpeer("model", "add", "acme/m", HTTP_PROXY=PROXY, NO_PROXY="localhost")
    assert failed.code == 6
    assert "HTTP_PROXY" in failed.problem["hint"] and "hfpeer daemon restart" in failed.problem["hint"]
    assert "NO_PROXY" in failed.problem["hint"]  # the daemon has none, and it is of the proxy
    status = machine.run(*HFPEER, "status", HTTP_PROXY=PROXY)
    assert "HTTP_PROXY" in status.err
    doctor = machine.hfpeer("doctor", HTTP_PROXY=PROXY).document
    assert "HTTP_PROXY" in next(one["sentence"] for one in doctor if one["check"] == "environment")
    assert "sesame" not in failed.out + failed.err + status.out + status.err + machine.log + str(doctor)
    assert "HTTP_PROXY" not in machine.hfpeer("model", "add", "acme/m").err
    assert "HTTP_PROXY" not in machine.hfpeer("model", "rm", "acme/m", "--yes", HTTP_PROXY=PROXY).err

    machine.do("daemon", "restart", HTTP_PROXY=PROXY)
    again = machine.hfpeer("model", "add", "acme/m", HTTP_PROXY=PROXY)
    assert again.code == 6 and "differs" not in again.err


@pytest.mark.slow
def test_hubs_that_the_shell_names_in_vain_are_told_once(machine: Machine, hub: HubSimulator) -> None:
    machine.start()

    def added(**environ: str) -> str:
        ran = machine.finish(machine.begin(*HFPEER, "model", "add", "acme/m", **environ))
        assert ran.code == 0, ran.err
        return ran.err

    other = {"HFPEER_UPSTREAMS": "origin=http://other.invalid"}
    assert "differs from this shell's in HFPEER_UPSTREAMS" in added(**other)
    assert "HFPEER_UPSTREAMS" not in added(**other)
    assert "HFPEER_UPSTREAMS" not in added()
    assert "HFPEER_LOG_LEVEL" not in added(HFPEER_LOG_LEVEL="debug")
    assert "HFPEER_LOG_LEVEL" in machine.run(*HFPEER, "status", HFPEER_LOG_LEVEL="debug").err
    assert "HF_ENDPOINT names company.invalid" in added(HF_ENDPOINT="https://company.invalid")
    assert "HF_ENDPOINT" not in added(HF_ENDPOINT="https://company.invalid")
    assert "HF_ENDPOINT" not in added(HF_ENDPOINT=hub.endpoint)

    assert machine.status().notes == ()
    machine.do("peer", "add", "127.0.0.1:9")
    machine.do("conf", "set", "mdns", "false")  # the environment has it
    assert machine.status().notes == ()
    machine.do("conf", "set", "patience", "90")
    assert machine.status().notes == (
        "Changed since the daemon's start: patience. `hfpeer daemon restart` applies it.",
    )
    machine.do("conf", "set", "patience", "60")  # as by default
    assert machine.status().notes == ()
    (machine.home / "settings.toml").write_text("patience = 'forever'")
    assert "could not start again: The setting `patience`" in machine.status().notes[0]


def test_without_a_daemon_an_endpoint_that_is_not_asked_is_told(machine: Machine) -> None:
    failed = machine.hfpeer("model", "add", "acme/nothing", HF_ENDPOINT="https://company.invalid")
    assert failed.code == 4 and "HF_ENDPOINT names company.invalid" in failed.problem["hint"]
