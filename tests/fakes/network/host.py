"""One machine of a LAN: its addresses, its namespace, and what runs on it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fakes.network.namespaces import CannotBuild
from fakes.network.program import HostProgram, kill_session
from fakes.waiting import wait_until


class Host:
    """One machine: `ip` (and `ip6`) on its only interface, `eth0`, and what runs on it."""

    def __init__(self, name: str, namespace: str, ip: str, ip6: str = "") -> None:
        self.name = name
        self.namespace = namespace
        self.ip = ip
        self.ip6 = ip6
        self.programs: list[HostProgram] = []
        """Those that `start` started."""
        self._processes: list[subprocess.Popen[Any]] = []

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """The words that run `argv` in this host's network."""
        return ["ip", "netns", "exec", self.namespace, *map(str, argv)]

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program; takes the options of subprocess.Popen. Killed at the end."""
        process = subprocess.Popen(self.command(argv), start_new_session=True, **options)
        self._processes.append(process)
        return process

    def start(
        self,
        argv: Sequence[str | Path],
        output: Path,
        environ: Mapping[str, str] = os.environ,
        done_marker: Path | None = None,
    ) -> HostProgram:
        """Starts a program whose output goes to a file and whose cost is measured."""
        program = HostProgram(self.command(argv), output, environ, done_marker)
        self.programs.append(program)
        return program

    def run(
        self, argv: Sequence[str | Path], timeout_seconds: float = 60.0, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end. Raises CalledProcessError, TimeoutExpired."""
        process = self.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
        with process:
            try:
                out, err = process.communicate(timeout=timeout_seconds)
            except BaseException:
                kill_session(process)
                raise
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, list(argv), out, err)
        return subprocess.CompletedProcess(list(argv), 0, out, err)

    def run_into(self, argv: Sequence[str | Path], output: Path, environ: Mapping[str, str], seconds: float) -> str:
        """Runs a program to its end, its output in a file, and gives that. Raises CannotBuild if it fails,
        TimeoutError."""
        program = self.start(argv, output, environ)
        wait_until(program.is_done, f"the end of {argv[0]}", seconds)
        if program.exit_code != 0:
            raise CannotBuild(f"{' '.join(map(str, argv))} on {self.name}: {program.said()}")
        return output.read_text()

    def counters(self) -> tuple[int, int]:
        """Bytes (sent, received) by this host since the LAN was built, headers included."""
        folder = "/sys/class/net/eth0/statistics"
        shown = self.run(["cat", f"{folder}/tx_bytes", f"{folder}/rx_bytes"]).stdout.split()
        return int(shown[0]), int(shown[1])

    def stop_all(self) -> None:
        """Kills everything that was started here. Harmless when repeated."""
        for program in reversed(self.programs):
            program.kill()
        for process in self._processes:
            kill_session(process)
        self._processes.clear()
