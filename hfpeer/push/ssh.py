"""The far end, through the system's `ssh`: one connection, commands over it, and a socket there that leads here.

`ssh` itself reads its configuration, asks for passwords on the terminal, and knows hosts and jump hosts. All commands
of a push share one connection (ControlMaster). Each command is a shell script that goes over stdin, so no login shell
parses it, and no process list shows it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from hfpeer.errors import InvalidName, SshFailed
from hfpeer.system.cancellation import check_stop
from hfpeer.system.printable import printable

FAST_CIPHER = "Ciphers=^aes128-gcm@openssh.com"
"""Put before the others: it takes 0.7 of the CPU time of OpenSSH's first choice."""
BOOTSTRAP = """exec sh -c 'IFS= read -r s; eval "$(printf %b "$s")"'"""
"""What the login shell there runs: it reads one line, and runs the script in it. Every login shell reads it alike."""
BEGINS = "hfpeer-output"
"""The line before the output of a script. Lines before it are those of a login shell's profile."""
LEASH = """exec 3<&0; "$@" </dev/null 3<&- & p=$!; (cat <&3; kill $p) >/dev/null 2>&1 & exec 3<&-; wait $p"""
"""Runs a program that ends when stdin does: also when this process is killed."""
SSH_FAILED = 255
"""The exit code of ssh for its own errors. Source: ssh(1)."""
POLL_SECONDS = 0.05
PIPE_BYTES = 1024 * 1024
"""The pipe to ssh takes this number of bytes at a time, where the system allows it: fewer turns of both processes."""
SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)
"""Python knows the name since 3.10. Source: fcntl(2), Linux."""
NO_SENDFILE = (errno.EINVAL, errno.ENOTSOCK, errno.ENOSYS, errno.ENOTSUP)
"""What `sendfile` says where it does not write into a pipe, or does not read from that file system."""
END_SECONDS = 5.0
"""Seconds that a process gets to end before it is killed."""
MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line of the far end is cut."""
MAX_KEPT_ERRORS = 40
"""At most this many last lines of stderr are kept."""
MAX_SOCKET_PATH_BYTES = 80
"""Of a 104-byte `sun_path`; ssh adds a suffix of 17 bytes while it makes the socket."""
_NOT_AN_ERROR = re.compile(r"(Warning: Permanently added|Shared connection|Pseudo-terminal|Connection to .* closed)")

OnLine = Callable[[str], None]


class Ssh:
    """One connection to `host`, from the beginning of the block to its end. For one thread.

    `command` is the user's: `ssh` with options. Every method raises SshFailed when ssh cannot connect.
    """

    def __init__(self, host: str, command: str = "ssh") -> None:
        """Raises InvalidName for a host that ssh would take for an option, and for a command that is none."""
        self.host = host
        words = shlex.split(command)
        if not words or shutil.which(words[0]) is None:
            raise InvalidName(f"There is no program {words[0] if words else ''!r}.", hint="Install OpenSSH's client.")
        if not host or host.startswith("-") or not host.isprintable() or any(map(str.isspace, host)):
            raise InvalidName(f"{host!r} is no host.", hint="Write HOST or USER@HOST, as for ssh.")
        self._command = words
        self._options = ["-o", FAST_CIPHER, "-o", "Compression=no"]
        self._folder = Path(tempfile.mkdtemp(prefix="hfpeer-"))
        self._master: _Running | None = None
        self._forwards: list[str] = []

    def __enter__(self) -> Ssh:
        try:
            self._connect()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._master is not None:
            self._master.end()
        else:
            for forward in self._forwards:  # of the user's own connection, which goes on
                self._control("cancel", "-R", forward)
        shutil.rmtree(self._folder, ignore_errors=True)

    # Connecting

    def _connect(self) -> None:
        """Uses the user's connection to the host if there is one, else makes one for this push."""
        if self._ssh("-G", self.host).returncode:
            self._options = []  # an ssh that does not know these options
        if self._control("check").returncode == 0:
            return
        control = str(self._folder / "control")
        if len(os.fsencode(control)) > MAX_SOCKET_PATH_BYTES:
            shutil.rmtree(self._folder)
            self._folder = Path(tempfile.mkdtemp(prefix="hfpeer-", dir="/tmp"))
            control = str(self._folder / "control")
        self._options += ["-S", control]
        words = [*self._command, *self._options, "-M", "-N", "-o", "ControlPersist=no", self.host]
        self._master = _Running(["sh", "-c", LEASH, "sh", *words], is_leashed=True)
        while not Path(control).exists():
            check_stop()
            if self._master.has_ended(POLL_SECONDS):
                raise self.failed(self._master)

    def _ssh(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self._command, *self._options, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )

    def _control(self, verb: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self._ssh("-O", verb, *words, self.host)

    def forward(self, there: str, here: Path) -> bool:
        """Makes connections to the Unix socket `there` reach the Unix socket `here`. Returns False where the host does
        not allow it."""
        forward = f"{there}:{here}"
        is_allowed = self._control("forward", "-R", forward).returncode == 0
        if is_allowed:
            self._forwards.append(forward)
        return is_allowed

    # Commands

    def start(self, script: str, on_line: OnLine) -> Session:
        """Starts a shell script there. `on_line` is called with each line of its output, in another thread."""
        words = [*self._command, *self._options, "-T", "-o", "ExitOnForwardFailure=yes", self.host, BOOTSTRAP]
        return Session(self, words, f"echo {BEGINS}\n{script}", on_line)

    def run(self, script: str, body: bytes = b"") -> tuple[int, list[str]]:
        """Runs a shell script with `body` on its stdin. Returns its exit code and the lines of its output."""
        lines: list[str] = []
        with self.start(script, lines.append) as session:
            session.write(body)
            return session.finish(), lines

    def failed(self, process: _Running) -> SshFailed:
        """The error for an ssh that ended by itself, with its own last line."""
        said = process.last_line or f"ssh ended with code {process.exit_code} and said nothing"
        return SshFailed(f"{self.host}: {said}", hint=_hint(process.errors, self.host), host=self.host)


class Session:
    """One script that runs at the far end. Its stdin is open for `write` until `finish`; the end of the block ends it.

    A link that breaks raises SshFailed.
    """

    def __init__(self, ssh: Ssh, words: Sequence[str], script: str, on_line: OnLine) -> None:
        self._ssh = ssh
        self._on_line = on_line
        self._has_begun = False
        self._process = _Running(words, on_line=self._hear)
        self.write(as_line(script))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.end()

    @property
    def errors(self) -> list[str]:
        """The last lines of its stderr."""
        return self._process.errors

    def write(self, chunk: bytes | memoryview) -> int:
        """Writes all of `chunk` to the script's stdin. If the script has ended, its exit code says why: nothing is
        raised for it here."""
        self._process.write(chunk)
        return len(chunk)

    def send(self, fd: int, offset: int, count: int) -> int:
        """Writes bytes of a file to the script's stdin, without a copy in this process. Returns how many there were;
        `count` if the script has ended, as for `write`."""
        return self._process.send(fd, offset, count)

    def flush(self) -> None:
        """Does nothing: `write` keeps nothing back."""

    @property
    def has_ended(self) -> bool:
        """Whether the script has ended, or ssh."""
        return self._process.has_ended(0.0)

    def finish(self) -> int:
        """Ends the script's input, waits for its end, and returns its exit code. Raises SshFailed when ssh failed."""
        self._process.close_input()
        while not self._process.has_ended(POLL_SECONDS):
            check_stop()
        if self._process.exit_code == SSH_FAILED or not self._has_begun:
            raise self._ssh.failed(self._process)
        return self._process.exit_code

    def _hear(self, line: str) -> None:
        if self._has_begun:
            self._on_line(line)
        elif line == BEGINS:
            self._has_begun = True


class _Running:
    """A process whose output is read by threads, so that it can never block on it. A process that `is_leashed` ends
    when its input does."""

    def __init__(self, words: Sequence[str], *, on_line: OnLine | None = None, is_leashed: bool = False) -> None:
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.errors: list[str] = []
        self.is_reading = True
        self._is_leashed = is_leashed
        assert self._process.stdin is not None
        assert self._process.stdout is not None and self._process.stderr is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._process.stdin.fileno(), SET_PIPE_SIZE, PIPE_BYTES)
        readers = [(self._process.stdout, on_line or self._note), (self._process.stderr, self._note)]
        self._readers = [threading.Thread(target=_read_lines, args=reader, daemon=True) for reader in readers]
        for reader in self._readers:
            reader.start()

    @property
    def exit_code(self) -> int:
        return self._process.returncode

    @property
    def last_line(self) -> str:
        """The last line of its stderr that says what went wrong."""
        told = [line for line in self.errors if line.strip() and not _NOT_AN_ERROR.match(line)]
        return printable(told[-1].strip())[:500] if told else ""

    def has_ended(self, seconds: float) -> bool:
        """Whether it ends within `seconds`. Then all of its output has been read."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        for reader in self._readers:
            reader.join()
        return True

    def write(self, chunk: bytes | memoryview) -> None:
        view = memoryview(chunk)
        self._fill(len(view), lambda pipe, done: os.write(pipe, view[done:]))

    def send(self, fd: int, offset: int, count: int) -> int:
        def move(pipe: int, done: int) -> int:
            try:
                return os.sendfile(pipe, fd, offset + done, count - done)
            except OSError as error:
                if error.errno not in NO_SENDFILE:
                    raise
                return os.write(pipe, os.pread(fd, min(count - done, PIPE_BYTES), offset + done))

        return self._fill(count, move)

    def _fill(self, count: int, move: Callable[[int, int], int]) -> int:
        """Moves `count` bytes into stdin by calls of `move`, which takes the pipe and the number of those that are
        moved. Returns `count`, or fewer where `move` has no more."""
        stdin, done = self._process.stdin, 0
        while done < count and self.is_reading and stdin is not None:
            check_stop()
            try:
                if select.select([], [stdin], [], POLL_SECONDS)[1]:
                    moved = move(stdin.fileno(), done)
                    if moved == 0:
                        return done
                    done += moved
                elif self._process.poll() is not None:
                    self.is_reading = False
            except BlockingIOError:
                continue
            except BrokenPipeError:
                self.is_reading = False
        return count

    def close_input(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def end(self) -> None:
        """Ends the process, by force if it must be."""
        self.close_input()
        if not self._is_leashed and self._process.poll() is None:
            self._process.terminate()
        deadline = time.monotonic() + END_SECONDS
        while not self.has_ended(POLL_SECONDS):
            if time.monotonic() > deadline:
                self._process.kill()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _note(self, line: str) -> None:
        self.errors.append(line)
        del self.errors[:-MAX_KEPT_ERRORS]


def _read_lines(pipe: IO[bytes], on_line: OnLine) -> None:
    line = bytearray()

    def end() -> None:
        on_line(line.decode(errors="replace").rstrip("\r"))
        line.clear()

    while chunk := os.read(pipe.fileno(), 1 << 16):
        first, *others = chunk.split(b"\n")
        line += first[: MAX_LINE_BYTES - len(line)]
        for other in others:
            end()
            line += other
    if line:
        end()


def as_line(script: str) -> bytes:
    """A script as the one line that BOOTSTRAP reads."""
    return script.replace("\\", "\\\\").replace("\n", "\\n").encode() + b"\n"


def _hint(errors: Sequence[str], host: str) -> str:
    text = "\n".join(errors)
    known = {
        "REMOTE HOST IDENTIFICATION HAS CHANGED": f"Another machine answers as {host}, or it was set up anew. Ask its "
        f"owner; then remove the old key with `ssh-keygen -R {host.rpartition('@')[2]}`, and push again.",
        "Host key verification failed": f"Its key is not known here. Run `ssh {host} true` once in a terminal, compare "
        "the fingerprint with that of the host, and push again.",
        "Permission denied": f"The host refuses the login. `ssh {host} true` must work first: put the key into the "
        "agent (`ssh-add`), or name another user as USER@HOST.",
        "Could not resolve": "Check the name of the host, or give it an entry in ~/.ssh/config.",
    }
    for words, hint in known.items():
        if words in text:
            return hint
    return f"`ssh {host} true` must work first. The same command goes on from what has arrived."
