"""Another user of this machine: `nobody`, in a process of its own, who can plant folders, links and a listener."""

from __future__ import annotations

import grp  # noqa: F401  here, because `nobody` may not read the folder of this interpreter
import os
import pwd  # noqa: F401
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NOBODY = 65534
SECONDS = 20.0
_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable
_LISTENER = """
import os, socket, sys
path, record = sys.argv[1:]
os.makedirs(os.path.dirname(path), exist_ok=True)
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
os.chmod(path, 0o777)
listener.listen(8)
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    connection.settimeout(2)
    with open(record, "ab") as file:
        file.write(b"connected\\n")
        file.flush()
        try:
            while heard := connection.recv(65536):
                file.write(heard)
                file.flush()
                connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nhfpeer-control: 1\\r\\n\\r\\n{}")
        except OSError:
            pass
    connection.close()
"""


def why_not() -> str | None:
    """Why there can be no other user here; None if there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "becoming another user needs root on Linux"
    try:
        run_as_nobody("pass")
    except (OSError, subprocess.SubprocessError) as error:
        return f"no process can be nobody's: {error}"
    return None


def run_as_nobody(code: str, *words: str | Path) -> str:
    """Runs Python code as that user, with `words` as its arguments; its output."""
    command = [_PYTHON, "-c", code, *map(str, words)]
    ran = subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, timeout=SECONDS, check=True
    )
    return ran.stdout.decode()


def forked_as_nobody(work: Callable[[], str]) -> str:
    """The result of `work` in a fork of this process that is nobody's, so that it has hfpeer's modules; or its error.
    Modules that `work` imports must be loaded already."""
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writes, work().encode())
        except BaseException as error:  # noqa: BLE001 - the parent process must hear of it
            os.write(writes, repr(error).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as pipe:
        result = pipe.read()
    os.waitpid(child, 0)
    return result


@contextmanager
def common_folder() -> Iterator[Path]:
    """A folder for all users, as /tmp is one: everybody may write into it, nobody may remove what is another's."""
    place = Path(tempfile.mkdtemp(prefix="hfpeer-common-", dir="/tmp"))
    place.chmod(0o1777)
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def listening_as_nobody(socket_path: Path, record: Path) -> Iterator[None]:
    """A listener of nobody's at a Unix socket, its folder made if it is not there; what it hears goes to `record`."""
    with running_as_nobody(_LISTENER, socket_path, record):
        yield


@contextmanager
def running_as_nobody(code: str, *words: str | Path) -> Iterator[str]:
    """Python code of nobody's that runs until the end of the block, once it has printed a line: that line."""
    command = [_PYTHON, "-c", code, *map(str, words)]
    process = subprocess.Popen(
        command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, "it has ended"
        yield line.strip()
    finally:
        process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(SECONDS)
        process.stdout.close()
