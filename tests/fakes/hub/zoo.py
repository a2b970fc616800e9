"""Standard content: one repository with every kind of file and name, one with more files than a page holds.

Owns what tests may rely on being in them. Must never depend on a running simulator.
"""

from __future__ import annotations

import hashlib

from .content import Content, Executable, Lfs, Submodule, Symlink
from .storage import Storage

LARGE_FILE_BYTES = 3_000_000


def noise(size_bytes: int, seed: str = "noise") -> bytes:
    """Incompressible bytes, the same for the same seed."""
    return hashlib.shake_256(seed.encode()).digest(size_bytes)


ZOO_FILES: dict[str, Content] = {
    ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
    "README.md": b"---\nlicense: apache-2.0\n---\n# A zoo\n",
    "config.json": b'{"model_type": "zoo"}\n',
    "empty.txt": b"",
    "model.safetensors": Lfs(noise(LARGE_FILE_BYTES, "model")),
    "nested/deep/er/file.txt": b"three folders down\n",
    "nested/weights/part-00001.safetensors": Lfs(noise(70_000, "part")),
    "odd names/100% #1.txt": b"percent, hash and space\n",
    "odd names/a b+c&d=e?.txt": b"the query's own characters\n",
    "unicode/naïve-模型-🤗.txt": b"names in UTF-8\n",
    "run.sh": Executable(b"#!/bin/sh\necho zoo\n"),
    "link.txt": Symlink("README.md"),
    "vendored/lib": Submodule(),
}
MANY_FILES: dict[str, Content] = {
    f"shard-{number % 10}/file-{number:04}.txt": f"file {number}\n".encode() for number in range(1100)
}


def put_zoo(storage: Storage, repo_type: str = "model", repo_id: str = "acme/zoo", visibility: str = "public") -> str:
    """The zoo on `main`, with a tag, a branch with a slash, a pull request and a conversion; the commit of main."""
    storage.put_repo(repo_type, repo_id, {"README.md": b"# Not yet a zoo\n"}, visibility=visibility)
    first = storage.repo(repo_type, repo_id).refs()["refs/heads/main"]
    commit = storage.put_repo(repo_type, repo_id, ZOO_FILES, visibility=visibility, message="Open the zoo")
    repo = storage.repo(repo_type, repo_id)
    repo.create_tag("v1.0", first)
    repo.commit({"config.json": b'{"model_type": "experiment"}\n'}, "dev/exp", parent=commit, message="Try it")
    repo.commit({"proposal.md": b"# More animals\n"}, "refs/pr/1", parent=commit, message="Propose")
    repo.commit({"data.parquet": Lfs(b"PAR1")}, "refs/convert/parquet", message="Convert")
    return commit


def put_many(storage: Storage, repo_type: str = "model", repo_id: str = "acme/many") -> str:
    """A repository of 1100 small files in ten folders; its commit."""
    return storage.put_repo(repo_type, repo_id, MANY_FILES)
