"""The folders of the datasets cache, and the names of the files in them. Pure.

A set lies in `ORG___name/CONFIG_ID/VERSION/HASH/`, the name of the repo in snake case. HASH is the commit; for a repo
with a script the sha256 of its code, and for a local folder 16 digits that mean nothing elsewhere. Source: datasets
`naming`, `DatasetBuilder._relative_data_dir`, `packaged_modules/cache`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfpeer.errors import InvalidName
from hfpeer.names import Commit, RepoId

INFO = "dataset_info.json"
"""The file that names the splits of a set, and the number of rows in each shard."""
MANIFEST = ".hfpeer.json"
"""hfpeer's file in the folder of a set: its manifest, and the sizes and hashes of the files as they lie there."""
INCOMPLETE = ".incomplete"
"""The end of the name of a folder that a build has not finished."""
OWN = ".hfpeer"
"""hfpeer's folder at the root of the datasets cache, for sets that are not whole yet. Anywhere else a strange folder
would make offline loads fail."""
SCRIPTS_HASH_LENGTH, COMMIT_LENGTH, LOCAL_HASH_LENGTH = 64, 40, 16
MAX_SHARDS = 99_999
"""The most shards of a split: their numbers have five digits."""
_HASH = re.compile(r"[0-9a-f]{16}|[0-9a-f]{40}|[0-9a-f]{64}")
_SPLIT = re.compile(r"\w+(\.\w+)*")
_PART = re.compile(r"[^\x00-\x1f\x7f/\\<>:|?*]{1,200}")


@dataclass(frozen=True, order=True)
class SetPlace:
    """The folder of a set below the datasets cache."""

    dataset: str
    config_id: str
    version: str
    hash: str

    @classmethod
    def parse(cls, dataset: str, config_id: str, version: str, hash: str) -> SetPlace:
        """Raises InvalidName for names that are no parts of a path, or that `datasets` does not give."""
        for text in (dataset, config_id, version):
            if _PART.fullmatch(text) is None or text.startswith(".") or text.endswith(INCOMPLETE):
                raise InvalidName(f"{text!r:.80} is not a name in the datasets cache.", name=text[:200])
        if _HASH.fullmatch(hash) is None:
            raise InvalidName(f"{hash!r:.80} is not the hash of a prepared set.", name=hash[:200])
        return cls(dataset, config_id, version, hash)

    @property
    def commit(self) -> Commit | None:
        """The commit that the set was built from; None if its folder does not tell."""
        return Commit(self.hash) if len(self.hash) == COMMIT_LENGTH else None

    @property
    def is_local(self) -> bool:
        """Whether it was built from a local folder. Its hash depends on absolute paths, so no other machine finds
        it."""
        return len(self.hash) == LOCAL_HASH_LENGTH

    @property
    def name(self) -> str:
        """The name of the repo in snake case, with which the names of the shards begin."""
        return self.dataset.rpartition("___")[2]

    def folder(self, cache: Path) -> Path:
        return cache / self.dataset / self.config_id / self.version / self.hash

    def lock(self, cache: Path) -> Path:
        """The lock that `datasets` holds while it builds the set. Source: `DatasetBuilder.download_and_prepare`."""
        return cache / self.dataset / self.config_id / self.version / f"{self.hash}_builder.lock"

    def __str__(self) -> str:
        return f"{self.dataset}/{self.config_id}/{self.version}/{self.hash}"


def snake_case(name: str) -> str:
    """A name as `datasets` writes it: `MMBench_EN` becomes `mm_bench_en`. Source: `camelcase_to_snakecase`."""
    name = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z\d])([A-Z])", r"\1_\2", name).lower()


def dataset_folder(repo: RepoId) -> str:
    """The folder of all sets of a repo: `ORG___name`."""
    name = snake_case(repo.name)
    return name if repo.namespace is None else f"{repo.namespace}___{name}"


def shard_names(name: str, split: str, shards: int) -> tuple[str, ...]:
    """The names of the shards of a split. Raises InvalidName. Source: `filenames_for_dataset_split`."""
    if _SPLIT.fullmatch(split) is None or len(split) > 100:
        raise InvalidName(f"{split!r:.80} is not the name of a split.", split=split[:200])
    if not 1 <= shards <= MAX_SHARDS:
        raise InvalidName(f"A split has from 1 to {MAX_SHARDS:,} shards, not {shards:,}.", split=split)
    if shards == 1:
        return (f"{name}-{split}.arrow",)
    return tuple(f"{name}-{split}-{number:05d}-of-{shards:05d}.arrow" for number in range(shards))


def is_strange(file: str, shards: Sequence[str]) -> bool:
    """Whether a file in the folder of a set is neither the set's, nor a result of `map` or `filter`, nor hfpeer's."""
    if file in shards or file in (INFO, MANIFEST, "LICENSE"):
        return False
    return not is_derived(file)


def is_derived(file: str) -> bool:
    """Whether a file is a result of `map`, `filter` and the like. It is kept, and never moves."""
    return file.startswith("cache-") or (file.startswith("tmp") and "." not in file)
