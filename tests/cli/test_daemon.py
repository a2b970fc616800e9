"""daemon: real processes, started and stopped as a user does it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.json_schema import check_output
from fakes.machine import Machines
from fakes.network.ports import free_ports
from fakes.program import program

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]


@pytest.fixture
def ours(environ: dict[str, str]) -> dict[str, str]:
    """The environment of a node on loopback, without upstreams and peers."""
    lan, endpoint = free_ports(2)
    return (
        os.environ
        | environ
        | {
            "HFPEER_LAN_LISTEN": f"127.0.0.1:{lan}",
            "HFPEER_ENDPOINT_LISTEN": f"127.0.0.1:{endpoint}",
            "HFPEER_UPSTREAMS": "",
            "HFPEER_MDNS": "0",
        }
    )


@pytest.fixture
def cli(ours: dict[str, str]) -> Iterator[Cli]:
    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, *words]
        ran = subprocess.run(command, capture_output=True, text=True, env=ours | more, check=False, timeout=60)
        check_output(words, ran.stdout)
        return ran

    yield run
    run("daemon", "stop")


@pytest.mark.slow
def test_start_says_where_it_listens_and_stop_stops_it(cli: Cli, ours: dict[str, str]) -> None:
    assert cli("daemon", "status").returncode == 9

    started = cli("daemon", "start")
    assert (started.returncode, started.stderr) == (0, "")
    assert ours["HFPEER_LAN_LISTEN"] in started.stdout
    assert ours["HFPEER_ENDPOINT_LISTEN"] in started.stdout

    status = json.loads(cli("--json", "status").stdout)
    assert status["is_daemon"] is True
    assert json.loads(cli("daemon", "status", "--json").stdout)["pid"] == status["pid"]

    again = cli("daemon", "start")
    assert again.returncode == 0
    assert f"The daemon runs already (process {status['pid']})" in again.stdout

    restarted = cli("daemon", "restart", "--json")
    assert json.loads(restarted.stdout)["pid"] != status["pid"]

    assert "INFO" in cli("daemon", "logs", "-n", "500").stdout
    assert cli("daemon", "stop").stdout == "The daemon has stopped.\n"
    assert cli("daemon", "stop").stdout == "No daemon was running.\n"
    assert "no daemon runs" in cli("status").stdout


def test_a_port_that_is_taken_is_named_and_exits_9(cli: Cli, ours: dict[str, str]) -> None:
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        taker.listen()
        taken = f"127.0.0.1:{taker.getsockname()[1]}"
        failed = cli("daemon", "start", HFPEER_LAN_LISTEN=taken)
    assert failed.returncode == 9
    assert taken in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.slow
def test_in_the_foreground_it_runs_until_a_signal(cli: Cli, ours: dict[str, str]) -> None:
    with program([*COMMAND, "daemon", "start", "--foreground"], env=ours, stderr=subprocess.PIPE) as child:
        deadline = time.monotonic() + 20
        while cli("daemon", "status").returncode:
            assert time.monotonic() < deadline
        assert json.loads(cli("--json", "status").stdout)["pid"] == child.pid
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=20)
        assert child.returncode == 0
        assert b"Traceback" not in log


def test_logs_can_be_followed_across_a_rotation(ours: dict[str, str], environ: dict[str, str]) -> None:
    log = Path(environ["HFPEER_HOME"]) / "logs" / "hfpeerd.log"
    log.parent.mkdir(parents=True)
    log.write_text("old\nolder\n")
    with program(
        [*COMMAND, "daemon", "logs", "-f", "-n", "1"],
        env=ours,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "older\n"
        with log.open("a") as file:
            file.write("new\n")
        assert child.stdout.readline() == "new\n"
        log.rename(log.with_name("hfpeerd.log.1"))
        log.write_text("rotated\n")
        assert child.stdout.readline() == "rotated\n"
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
        assert (child.returncode, err) == (130, "No longer following the log.\n")


def test_without_a_log_that_is_said(cli: Cli) -> None:
    ran = cli("daemon", "logs")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "There is no log yet" in ran.stderr


@pytest.mark.slow
def test_uninstall_leaves_nothing_of_a_node_that_ran(cli: Cli, environ: dict[str, str]) -> None:
    assert cli("daemon", "start").returncode == 0
    assert cli("peer", "add", "127.0.0.1:9").returncode == 0
    removed = cli("uninstall", "--yes", "--json")
    assert json.loads(removed.stdout)["left"] == []
    assert json.loads(removed.stdout)["daemon_was_running"] is True
    assert not Path(environ["HFPEER_HOME"]).exists()


def test_without_a_daemon_an_outage_says_that_hardly_any_peer_was_asked(tmp_path: Path) -> None:
    with Machines(tmp_path / "machines") as machines:
        machine = machines.make("alone")
        alone = machine.hfpeer("add", "acme/tiny")
        machine.start()
        daemon = machine.hfpeer("add", "acme/tiny")
    assert (alone.code, daemon.code) == (6, 6)
    assert "`hfpeer daemon start`" in alone.problem["hint"]
    assert "daemon start" not in daemon.problem["hint"]
