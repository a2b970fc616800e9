"""One client's work in one situation: its instructions, and the bytes that it must bring home. Owns running and
comparing; knows no client."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fakes.machine import Machine, Ran

from .content import digests_of, sha256
from .environments import SCRIPTS

SECONDS = 60.0


class Wrong(Exception):
    """A client did not get what it should have got, in a sentence."""


@dataclass(frozen=True)
class Place:
    """A repo on the hub: `files` by path, `expected` what a script said of its content when it was made."""

    repo: str
    kind: str
    commit: str
    files: Mapping[str, bytes]
    expected: Any = None

    @cached_property
    def digests(self) -> dict[str, str]:
        """sha256 by path."""
        return {path: sha256(data) for path, data in self.files.items()}


@dataclass(frozen=True)
class Job:
    """`folder` is empty at the start and the client's home; `interpreter` is that of its environment."""

    place: Place
    endpoint: str
    machine: Machine
    folder: Path
    interpreter: Path
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def repo(self) -> str:
        return self.place.repo

    @property
    def environ(self) -> dict[str, str]:
        """The one setting that matters, and a home and a cache of the client's own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HOME": str(self.folder),
            "HF_HOME": str(self.folder / "hf"),
            "HF_HUB_CACHE": str(self.folder / "hf" / "hub"),
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "NO_COLOR": "1",
            "NODE_PATH": str(self.interpreter.parents[1] / "node_modules"),
            **self.more,
        }

    def url(self, path: str, revision: str = "main") -> str:
        return f"{self.endpoint}/{self.repo}/resolve/{revision}/{quote(path)}"

    def try_to_run(self, *argv: str | Path) -> Ran:
        """Runs a program to its end, whatever that is. Raises Wrong if it has none."""
        try:
            return self.machine.run(*argv, timeout_seconds=SECONDS, **self.environ)
        except subprocess.TimeoutExpired as error:
            raise Wrong(f"{Path(argv[0]).name} did not end within {SECONDS:g} s") from error

    def run(self, *argv: str | Path) -> str:
        """The output of a program. Raises Wrong when it fails."""
        ran = self.try_to_run(*argv)
        if ran.code:
            raise Wrong(f"{Path(argv[0]).name} ended with {ran.code}: {last_line(ran)}")
        return ran.out

    def script(self, name: str, *arguments: str) -> Any:
        """The JSON that one of our scripts prints, run by the client's own interpreter."""
        printed = self.run(self.interpreter, SCRIPTS / name, *arguments)
        return json.loads(printed.splitlines()[-1])

    def tool(self, name: str) -> Path:
        """A command of the client's environment."""
        return self.interpreter.with_name(name)

    # What it must have got

    @property
    def snapshot(self) -> Path:
        """Where a Hugging Face client puts the repo."""
        name = f"{self.place.kind}s--{self.repo.replace('/', '--')}"
        return self.folder / "hf" / "hub" / name / "snapshots" / self.place.commit

    def has_all(self, found: Path | Mapping[str, str], but: tuple[str, ...] = ()) -> None:
        """Every file of the repo is there, and nothing else. `but` what the client leaves out."""
        wanted = {path: digest for path, digest in self.place.digests.items() if path not in but}
        equal(digests_of(found) if isinstance(found, Path) else found, wanted, "files")

    def has_some(self, found: Path) -> None:
        """All files there are right, and there is at least one."""
        came = digests_of(found)
        equal(came, {path: digest for path, digest in self.place.digests.items() if path in came}, "files")
        if not came:
            raise Wrong("nothing came into its cache")

    def has_file(self, found: Path, path: str) -> None:
        equal(sha256(found.read_bytes()), self.place.digests[path], path)


def equal(found: object, wanted: object, what: str) -> None:
    """Raises Wrong unless both are the same."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        odd = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        if odd:
            raise Wrong(f"{what} differ: {', '.join(map(str, odd[:3]))}")
    elif found != wanted:
        raise Wrong(f"{what}: {str(found)[:80]} instead of {str(wanted)[:80]}")


def last_line(ran: Ran) -> str:
    """The last thing a program said."""
    lines = [line.strip() for line in (ran.err + "\n" + ran.out).splitlines() if line.strip()]
    said = [line.strip() for line in ran.err.splitlines() if line.strip()] or lines
    return said[-1] if said else ""
