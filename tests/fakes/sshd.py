"""A real sshd on loopback, with keys, configuration and users' environment below a folder.

The far end has a home and a PATH of its own: a folder of links to the programs that it is to have.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import pytest

from fakes.network.ports import free_ports
from fakes.program import program
from fakes.waiting import wait_until

PROGRAMS = ("sh", "env", "mkdir", "mv", "rm", "rmdir", "ln", "ls", "cat", "find", "df", "tail", "id", "uname", "printf")
HFPEER = f"#!{sys.executable}\nfrom hfpeer_cli.main import main\nmain()\n"


def sshd_path() -> str:
    """Where sshd is; skips the test if it is not installed, or its client."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("needs sshd, ssh and ssh-keygen (openssh-server, openssh-client)")
    return found


@dataclass
class FarHost:
    """The far end of an ssh connection. `ssh` is the command that reaches it, with its keys and hosts."""

    folder: Path
    port: int
    ssh: str
    environ: dict[str, str] = field(default_factory=dict)
    pid: int = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def cache(self) -> Path:
        """The cache that its shell finds by itself."""
        return self.home / ".cache" / "huggingface" / "hub"

    @property
    def log(self) -> str:
        log = self.folder / "sshd.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def set_programs(self, *names: str, python: str | None = None, hfpeer: bool = False) -> None:
        """The far end has the least of a system, the programs of these names, `python` as python3, and hfpeer."""
        bin_folder = self.folder / "bin"
        shutil.rmtree(bin_folder, ignore_errors=True)
        bin_folder.mkdir()
        for name in (*PROGRAMS, *names):
            found = shutil.which(name, path="/usr/bin:/bin")
            assert found is not None, f"{name} is not installed"
            (bin_folder / name).symlink_to(found)
        if python is not None:
            (bin_folder / "python3").symlink_to(python)
        if hfpeer:
            (bin_folder / "hfpeer").write_text(HFPEER)
            (bin_folder / "hfpeer").chmod(0o755)

    def sessions(self) -> list[int]:
        """The processes that serve connections now."""
        return _children(self.pid)

    def kill_sessions(self) -> None:
        """Kills the processes that serve connections, and the commands that they run."""
        for session in self.sessions():
            for victim in (*_children(session), session):
                with suppress(ProcessLookupError):  # a session ends by itself when its command has gone
                    os.kill(victim, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    """The processes that a process has started; none if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


@contextmanager
def far_host(folder: Path, settings: Sequence[str] = ()) -> Iterator[FarHost]:
    """An sshd that answers until the end of the block. `settings` are further lines of its configuration."""
    server = sshd_path()
    folder.mkdir(parents=True)
    (port,) = free_ports(1)
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user_key.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host = FarHost(folder, port, _client(folder, port))
    host.home.mkdir()
    (folder / "tmp").mkdir()
    shell = folder / "shell"
    shell.write_text(_shell(folder))
    shell.chmod(0o755)
    config = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        f"PidFile {folder / 'sshd.pid'}",
        f"ForceCommand {shell}",
        "PermitRootLogin yes",
        "StrictModes no",
        "UsePAM no",
        "PrintMotd no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "MaxStartups 100",
        *settings,
        "",
    ]
    (folder / "sshd_config").write_text("\n".join(config))
    words: list[str | Path] = [server, "-D", "-E", folder / "sshd.log", "-f", folder / "sshd_config"]
    with program(words) as sshd:
        wait_until(lambda: "Server listening" in host.log or sshd.poll() is not None, "sshd listens")
        assert sshd.poll() is None, host.log
        host.pid = sshd.pid
        yield host
        for session in host.sessions():
            subprocess.run(["kill", "-9", str(session)], check=False)


def _client(folder: Path, port: int) -> str:
    """The command that reaches the host as `far`."""
    known = f"[127.0.0.1]:{port} {(folder / 'host_key.pub').read_text()}"
    (folder / "known_hosts").write_text(known)
    (folder / "ssh_config").write_text(
        f"""Host far
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder / "user_key"}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder / "known_hosts"}
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
  BatchMode yes
"""
    )
    return f"ssh -F {quote(str(folder / 'ssh_config'))}"


def _shell(folder: Path) -> str:
    """The login shell of the far end: nothing of this machine's environment, programs and home are seen."""
    return f"""#!/bin/sh
exec env -i HOME={quote(str(folder / "home"))} PATH={quote(str(folder / "bin"))} LOGNAME=far USER=far \\
  TMPDIR={quote(str(folder / "tmp"))} LANG=C.UTF-8 HFPEER_UPSTREAMS= HFPEER_MDNS=0 SHELL=/bin/sh \\
  HF_HUB_DISABLE_TELEMETRY=1 $(cat {quote(str(folder / "environ"))} 2>/dev/null) \\
  /bin/sh -c "cd; $SSH_ORIGINAL_COMMAND"
"""
