"""The repos on the simulated hub for each client. No two repos share a file: a node never
fetches under another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from fakes.hub import Content, Executable, Lfs
from fakes.hub.zoo import noise

BIG = "big.safetensors"
BIG_BYTES = 8_000_000
ODD, ODDER, EMPTY = "odd names/100% #1.txt", "odd names/a b+c&d=e?.txt", "empty.txt"
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n*.bin filter=lfs diff=lfs merge=lfs -text\n"


def zoo(name: str) -> dict[str, Content]:
    """A small model repo with every kind of file and name, all of it `name`'s own."""

    def text(words: str) -> bytes:
        return f"{words} of {name}\n".encode()

    return {
        ".gitattributes": ATTRIBUTES,
        "README.md": text("---\nlicense: apache-2.0\n---\n# The zoo"),
        "config.json": f'{{"model_type": "zoo", "name": "{name}"}}\n'.encode(),
        EMPTY: b"",
        BIG: Lfs(noise(BIG_BYTES, name)),
        "nested/deep/er/file.txt": text("three folders down"),
        "nested/weights/part-00001.safetensors": Lfs(noise(70_000, f"{name} part")),
        ODD: text("percent, hash and space"),
        ODDER: text("the query's own characters"),
        "unicode/naïve-模型-🤗.txt": text("names in UTF-8"),
        "run.sh": Executable(text("#!/bin/sh\n# work")),
    }


def folder_content(folder: Path) -> dict[str, Content]:
    """The files of a folder; weights and tables as LFS files."""

    def content(path: Path) -> Content:
        return Lfs(path.read_bytes()) if path.suffix in (".safetensors", ".parquet", ".jsonl") else path.read_bytes()

    return {path.relative_to(folder).as_posix(): content(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def bodies(files: Mapping[str, Content]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of each file."""
    for path, content in files.items():
        if isinstance(content, bytes):
            yield path, content
        elif isinstance(content, Lfs | Executable):
            yield path, content.data


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path; git's own are left out."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.relative_to(folder).parts)
    return {path.relative_to(folder).as_posix(): sha256(path.read_bytes()) for path in found}
