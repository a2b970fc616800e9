"""A daemon as a container runs it: the first process of its own process namespace, over a root file system that nobody
can write, as a user without a name, without a home, with a volume that belongs to root's group.

    with Container(tmp_path / "volume", HFPEER_UPSTREAMS=...) as container:
        container.start()
        container.hfpeer("status")

Needs root and Linux: `why_not()` gives the reason. Nothing of the machine's own mounts is changed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from fakes.machine import COMMAND_SECONDS, HFPEER, Ran
from fakes.network.program import kill_session
from fakes.waiting import wait_until

UID = 1_000_710_000
"""As OpenShift chooses them: no entry in /etc/passwd."""
READS_ALL = "+dac_read_search"
"""The interpreter of a test may lie in root's home. Writing is refused all the same."""
AS_USER = (
    *("setpriv", "--reuid", str(UID), "--regid", "0", "--clear-groups", "--no-new-privs"),
    *("--inh-caps", READS_ALL, "--ambient-caps", READS_ALL),
)
READ_ONLY_ROOT = """
mount --make-rprivate / && mount --bind "$0" "$0" && mount -o remount,bind,ro / || exit 1
if mountpoint -q /tmp; then mount -o remount,bind,ro /tmp; fi
exec "$@"
"""


def why_not() -> str | None:
    """Why there can be no container here; None if there can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "it needs root on Linux"
    missing = [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} must be installed"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", *AS_USER, "true"], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else f"no namespaces can be made: {tried.stderr.decode().strip()}"


class Container:
    """`volume` is the only folder that can be written. `environ` is the whole environment, beside the two folders."""

    def __init__(self, volume: Path, **environ: str) -> None:
        self.volume = volume
        volume.mkdir(parents=True)
        os.chown(volume, 0, 0)
        volume.chmod(0o770)  # as `fsGroup` and an image for any user have it
        self.environ = {
            "PATH": os.environ["PATH"],
            "HFPEER_HOME": str(volume / "node"),
            "HF_HOME": str(volume / "huggingface"),
            "HFPEER_MDNS": "0",
            "HFPEER_LAN_LISTEN": "127.0.0.1:0",
            "HFPEER_ENDPOINT_LISTEN": "127.0.0.1:0",
            "HFPEER_UPSTREAMS": "",
            **environ,
        }
        self._outer: subprocess.Popen[str] | None = None

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        if self._outer is not None:
            self._inner(signal.SIGKILL)
            kill_session(self._outer)

    def start(self) -> None:
        """Starts the daemon in the foreground, and waits until it listens."""
        argv = [
            *("unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *("sh", "-c", READ_ONLY_ROOT, str(self.volume)),
            *(*AS_USER, sys.executable, "-m", "hfpeer_daemon.server"),
        ]
        outer = subprocess.Popen(
            argv, env=self.environ, cwd="/", start_new_session=True, text=True, stderr=subprocess.PIPE
        )
        self._outer = outer
        assert outer.stderr is not None
        said = ""
        for line in outer.stderr:
            said += line
            if "Ready" in line:
                return
        raise AssertionError(f"the daemon ended: {said}")

    def terminate(self, seconds: float) -> tuple[int, str]:
        """Sends SIGTERM, as a container engine does. Its exit code, and its output. Raises TimeoutExpired."""
        assert self._outer is not None
        self._inner(signal.SIGTERM)
        _, said = self._outer.communicate(timeout=seconds)
        code, self._outer = self._outer.returncode, None
        return code, said

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Starts `hfpeer --json WORDS`, as `docker exec` and `kubectl exec` do."""
        return subprocess.Popen(
            [*AS_USER, *HFPEER, "--json", *words],
            env=self.environ,
            cwd="/",
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def hfpeer(self, *words: str) -> Ran:
        """Runs `hfpeer --json WORDS` to its end."""
        process = self.begin(*words)
        out, err = process.communicate(timeout=COMMAND_SECONDS)
        return Ran(process.returncode, out, err)

    def _inner(self, number: signal.Signals) -> None:
        """Sends a signal to the daemon itself."""
        assert self._outer is not None
        pid = self._outer.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        if children.exists():
            for child in children.read_text().split():
                os.kill(int(child), number)


def wait_for_part(folder: Path, size_bytes: int) -> None:
    """Waits until so many bytes of downloads are on the disk, journalled."""
    from hfpeer.cache.partial.files import partial_bytes

    wait_until(lambda: folder.exists() and partial_bytes(folder) >= size_bytes, "a part of it is there")
