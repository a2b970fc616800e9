"""What other programs take for the same files: git for a publish, rsync and the Hub client for an add."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.transfer import Cost, Nginx, cpu_seconds_of, hf_command, measure
from fakes.network.ports import free_ports

GIT = (
    "git",
    *("-c", "user.name=bench", "-c", "user.email=bench@localhost"),
    *("-c", "gc.auto=0", "-c", "maintenance.auto=false"),  # or git packs the objects in the background afterwards
)


def commit_with_git(place: Path, folder: Path) -> Cost:
    """`git add` and `git commit` of the folder into a new repo, with git's own settings: it syncs no object."""
    at = ("--git-dir", str(place / "git"), "--work-tree", str(folder))
    subprocess.run([*GIT, *at, "init", "--quiet"], check=True)

    def work() -> None:
        subprocess.run([*GIT, *at, "add", "--all"], check=True)
        subprocess.run([*GIT, *at, "commit", "--quiet", "--message", "all"], check=True)

    cost = measure(work)
    shutil.rmtree(place / "git")
    return cost


def copy_with_rsync(place: Path, folder: Path) -> Cost:
    """`rsync -a` from a daemon on loopback. Nothing is verified against a list, and nothing is synced."""
    with _rsync_daemon(place, folder) as (address, pid):
        command = ["rsync", "-a", f"rsync://{address}/files/", str(place / "copy")]
        cost = measure(lambda: _run(command), lambda: cpu_seconds_of(pid))
    shutil.rmtree(place / "copy")
    return cost


@contextmanager
def _rsync_daemon(place: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of a daemon that serves the folder."""
    (port,) = free_ports(1)
    configuration = place / "rsyncd.conf"
    user = f"uid = {os.getuid()}\ngid = {os.getgid()}\n" if os.getuid() == 0 else ""
    configuration.write_text(f"use chroot = no\nreverse lookup = no\n{user}[files]\npath = {folder}\n")
    daemon = subprocess.Popen(
        ["rsync", "--daemon", "--no-detach", f"--config={configuration}", "--address=127.0.0.1", f"--port={port}"]
    )
    try:
        for _ in range(200):
            if (
                subprocess.run(["rsync", f"rsync://127.0.0.1:{port}/"], capture_output=True, check=False).returncode
                == 0
            ):
                break
            time.sleep(0.02)
        yield f"127.0.0.1:{port}", daemon.pid
    finally:
        daemon.terminate()
        daemon.wait()


def download_with_hf(place: Path, folder: Path) -> Cost:
    """`hf download` of the folder from nginx, which answers as a hub does."""
    nginx = Nginx(place / "nginx", folder)
    try:
        words, environ = hf_command(place / "hf")
        cost = measure(lambda: _run(words, environ), nginx.cpu_seconds)
    finally:
        nginx.stop()
    shutil.rmtree(place / "hf")
    shutil.rmtree(place / "nginx")
    return cost


def _run(words: list[str], environ: dict[str, str] | None = None) -> None:
    subprocess.run(words, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
