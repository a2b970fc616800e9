"""The git binary, as far as the simulator needs it.

Owns processes and formats of git. Must never know what a hub is. User input reaches it only as a hex id.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CONFIG = """[core]
\trepositoryformatversion = 0
\tfilemode = true
\tbare = true
\tquotepath = false
[uploadpack]
\tallowFilter = true
\tallowAnySHA1InWant = true
[gc]
\tauto = 0
"""


def environment() -> dict[str, str]:
    """An environment in which no configuration of the user or the system is seen."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return kept | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C"}


def run_git(git_dir: Path, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run git on a repository; its output. Raises RuntimeError with what git said."""
    command = ["git", f"--git-dir={git_dir}", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment(), check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    return done.stdout


def create_repository(git_dir: Path) -> None:
    """A bare repository that serves filters and any commit."""
    for folder in ("objects/info", "objects/pack", "refs/heads", "refs/tags"):
        (git_dir / folder).mkdir(parents=True)
    (git_dir / "HEAD").write_text("ref: refs/heads/main\n")
    (git_dir / "config").write_text(CONFIG)


@dataclass(frozen=True)
class TreeLine:
    """One line of a recursive tree listing; `size_bytes` is of the git object, 0 for trees and gitlinks."""

    mode: str
    kind: str
    oid: str
    size_bytes: int
    path: str


def list_tree(git_dir: Path, commit: str) -> list[TreeLine]:
    """Everything in a commit, folders before what is in them."""
    output = run_git(git_dir, "ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit).decode()
    return [_tree_line(line) for line in output.split("\0") if line]


def _tree_line(line: str) -> TreeLine:
    facts, _, path = line.partition("\t")
    mode, kind, oid, size = facts.split()
    return TreeLine(mode, kind, oid, int(size) if size != "-" else 0, path)


def read_blobs(git_dir: Path, oids: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """The content of blobs, by one process."""
    wanted = list(dict.fromkeys(oids))
    if not wanted:
        return
    output = run_git(git_dir, "cat-file", "--batch", stdin="\n".join(wanted).encode() + b"\n")
    offset = 0
    for oid in wanted:
        line_end = output.index(b"\n", offset)
        size = int(output[offset:line_end].split()[2])
        yield oid, output[line_end + 1 : line_end + 1 + size]
        offset = line_end + 1 + size + 1


def list_refs(git_dir: Path) -> dict[str, str]:
    """Full ref name -> commit, annotated tags peeled."""
    wanted = "%(refname) %(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end)"
    lines = run_git(git_dir, "for-each-ref", f"--format={wanted}").decode().splitlines()
    return dict(line.split(" ", 1) for line in lines)


@dataclass
class CommitDraft:
    """A commit in the making: `files` maps a path to (mode, content or gitlink id), or None to delete it."""

    ref: str
    parent: str | None
    message: str
    author: str
    epoch_seconds: int
    starts_empty: bool = False
    files: dict[str, tuple[str, bytes] | None] = field(default_factory=dict)

    def write(self, git_dir: Path) -> str:
        """Make the commit, move the ref to it; its id."""
        stream = b"".join(self._stream())
        return run_git(git_dir, "fast-import", "--quiet", "--force", stdin=stream).decode().strip()

    def _stream(self) -> Iterator[bytes]:
        yield f"commit {self.ref}\nmark :1\n".encode()
        yield f"committer {self.author} <{self.author}@example.org> {self.epoch_seconds} +0000\n".encode()
        yield _data(self.message.encode())
        if self.parent:
            yield f"from {self.parent}\n".encode()
        if self.starts_empty:
            yield b"deleteall\n"
        for path, content in self.files.items():
            yield from _change(path, content)
        yield b"\nget-mark :1\n"


def _change(path: str, content: tuple[str, bytes] | None) -> Iterator[bytes]:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    quoted = f'"{escaped}"'.encode()
    if content is None:
        yield b"D " + quoted + b"\n"
        return
    mode, data = content
    if mode == "160000":
        yield b"M 160000 " + data + b" " + quoted + b"\n"
        return
    yield f"M {mode} inline ".encode() + quoted + b"\n"
    yield _data(data)


def _data(data: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(data), data)


def advertise_refs(git_dir: Path, protocol: str, allows_filter: bool) -> bytes:
    """The answer to `info/refs?service=git-upload-pack`."""
    command = _upload_pack(git_dir, allows_filter, "--http-backend-info-refs")
    done = subprocess.run(command, capture_output=True, env=_protocol(protocol), check=True)
    greeting = b"" if "version=2" in protocol else b"001e# service=git-upload-pack\n0000"
    return greeting + done.stdout


def upload_pack(git_dir: Path, protocol: str, allows_filter: bool, request: bytes) -> Generator[bytes, None, None]:
    """The answer to a `git-upload-pack` request, as it is made."""
    command = _upload_pack(git_dir, allows_filter)
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_protocol(protocol),
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(request)
        process.stdin.close()
        while chunk := process.stdout.read1(256 * 1024):  # type: ignore[attr-defined]
            yield chunk


def _upload_pack(git_dir: Path, allows_filter: bool, *options: str) -> list[str]:
    filters = f"uploadpack.allowFilter={str(allows_filter).lower()}"
    return ["git", "-c", filters, "upload-pack", "--stateless-rpc", *options, str(git_dir)]


def _protocol(protocol: str) -> dict[str, str]:
    return environment() | ({"GIT_PROTOCOL": protocol} if protocol else {})
