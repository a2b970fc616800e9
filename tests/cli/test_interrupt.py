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
from fakes.program import program
from hfpeer_cli.interrupts import was_interrupted

COMMAND = [sys.executable, "-c", "from hfpeer_cli.main import main; main()"]
SIZE_BYTES = 24_000_000
KEPT = {
    "in this process": "Interrupted. What has arrived is kept: the same command continues from there.",
    "in the daemon": "Stopped. What has arrived is kept: the same command continues from there, or "
    "`hfpeer transfers resume 1`.",
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/big", {"config.json": b"{}", "w.safetensors": Lfs(os.urandom(SIZE_BYTES))})
        yield hub


@pytest.mark.slow
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
        with program(add, env=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
            hub.wait_for_body_bytes(SIZE_BYTES // 2, path="/repos/*", timeout_seconds=30)
            began_at = time.monotonic()
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=20)
        assert (child.returncode, out) == (130, "")
        assert err.splitlines()[-1] == KEPT[where]
        assert "Traceback" not in err
        assert time.monotonic() - began_at < 15

        slowly.remove()
        done = subprocess.run([*add, "--json"], env=ours, capture_output=True, text=True, check=True, timeout=60)
        fetched = json.loads(done.stdout)["bytes_by_kind"]["origin"]
        assert fetched < SIZE_BYTES * 3 // 4
    finally:
        subprocess.run([*COMMAND, "daemon", "stop"], env=ours, check=True, capture_output=True, timeout=60)


STARTED = (
    "import os; from hfpeer_cli.main import main; from hfpeer_cli.interrupts import end_on_interrupt;"
    " end_on_interrupt(); os.write(1, b'started\\n'); main()"
)
"""The command, with a word on stdout as soon as its first line has run: before that Ctrl-C meets Python itself."""
MOMENTS = 10


@pytest.mark.slow
@pytest.mark.parametrize("words", ["status", "--json model add -r acme/big --local-only"])
def test_ctrl_c_at_any_moment_ends_a_command_with_130_and_no_traceback(environ: dict[str, str], words: str) -> None:
    took_seconds, code, _ = run_and_interrupt(words, environ, None)
    assert code in (0, 4)
    codes = []
    for moment in range(MOMENTS):
        seconds, code_then, err = run_and_interrupt(words, environ, took_seconds * moment / MOMENTS)
        assert "Traceback" not in err and "Exception" not in err, err
        assert code_then in (130, code), err
        assert code_then != 130 or err.splitlines()[-1].count("Interrupted.") == 1, err
        codes.append(code_then)
        if code_then == code:  # it was faster than the one before: the machine has less to do
            took_seconds = min(took_seconds, seconds)
    assert codes.count(130) > 1


def run_and_interrupt(words: str, environ: dict[str, str], after_seconds: float | None) -> tuple[float, int, str]:
    """Runs a command and sends SIGINT `after_seconds` its first line. Returns its time, exit code and stderr."""
    command = [sys.executable, "-c", STARTED, *words.split()]
    env = os.environ | environ | {"HFPEER_UPSTREAMS": ""}
    with program(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "started\n"
        began_at = time.monotonic()
        if after_seconds is not None:
            time.sleep(after_seconds)
            child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
        return time.monotonic() - began_at, child.returncode, err


def test_an_interrupt_is_recognized_in_the_error_that_python_makes_of_it() -> None:
    class Member:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, RuntimeError)) as raised:
        type("Owner", (), {"member": Member()})
    assert was_interrupted(raised.value)
    assert not was_interrupted(ValueError())
