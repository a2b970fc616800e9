"""Reads `dataset_info.json`: the splits of a set, its features, and which versions of `datasets` can read them. Pure.

The file does not say which version of `datasets` wrote it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hfpeer import json_fields
from hfpeer.budgets import MAX_SET_INFO_BYTES
from hfpeer.errors import CorruptData, InvalidName
from hfpeer.names import Commit, RepoId
from hfpeer.prepared.layout import MAX_SHARDS

MAX_SPLITS = 10_000
"""At most this many splits of a set. A file with more is refused."""
FEATURES_SINCE: dict[str, tuple[int, int]] = {
    "Video": (3, 2),
    "Pdf": (3, 5),
    "List": (4, 0),
    "Nifti": (4, 4),
    "Json": (4, 8),
    "Mesh": (5, 0),
    "BioSequence": (5, 0),
    "BioStructure": (5, 0),
}
"""By type of feature: the first version of `datasets` that can read it. Tried with 2.21, 3.6, 4.8 and 5.2."""
MEDIA = frozenset({"Image", "Audio", "Video", "Pdf", "Nifti", "Mesh"})
"""The features whose values are structs of bytes and a path."""
ERA_LIST, ERA_SEQUENCE, ERA_FLAT = "list", "sequence", "flat"
"""The way in which lists are written: by `datasets` 4 and later, by 3 and earlier, or there is no list."""


@dataclass(frozen=True)
class SplitInfo:
    """A split: its rows, and the number of its shards."""

    name: str
    rows: int
    shards: int


@dataclass(frozen=True)
class SetInfo:
    """The facts in a `dataset_info.json`. `needs` is the least version of `datasets` that reads the features, (0, 0)
    for any. `sources` are the paths in the repo, and the commit, of the files that it was built from, where it
    tells."""

    builder: str
    config_name: str
    splits: tuple[SplitInfo, ...]
    era: str
    needs: tuple[int, int]
    has_media: bool
    sources: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    @property
    def reader(self) -> str:
        """Which versions of `datasets` read it, as the end of a sentence; empty for all."""
        return reader_of(self.needs)


def reader_of(needs: tuple[int, int]) -> str:
    """`needs datasets 4.0 or newer`; empty if every version reads it."""
    return f"needs datasets {needs[0]}.{needs[1]} or newer" if needs > (0, 0) else ""


def parse_info(text: bytes) -> SetInfo:
    """Raises CorruptData for a text that `datasets` did not write."""
    try:
        if len(text) > MAX_SET_INFO_BYTES:
            raise ValueError(f"it has more than {MAX_SET_INFO_BYTES} bytes")
        document = json.loads(text)
        splits = tuple(_split(one) for one in (document["splits"] or {}).values())
        if not splits or len(splits) > MAX_SPLITS or len({split.name for split in splits}) != len(splits):
            raise ValueError("it names no splits, or one twice")
        types = set(_types(document.get("features") or {}))
        era = ERA_LIST if "List" in types else ERA_SEQUENCE if "Sequence" in types else ERA_FLAT
        return SetInfo(
            json_fields.text(document.get("builder_name") or ""),
            json_fields.text(document.get("config_name") or "default"),
            splits,
            era,
            max((FEATURES_SINCE.get(type_, (0, 0)) for type_ in types), default=(0, 0)),
            not MEDIA.isdisjoint(types),
            _sources(document.get("download_checksums")),
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptData(
            f"A dataset_info.json cannot be used: {str(error)[:200]}.",
            hint="Remove the set with `hfpeer dataset rm --prepared` and prepare it again.",
        ) from error


def without_machine(text: bytes) -> bytes:
    """The text without paths and addresses of the machine that wrote it: the keys of `download_checksums` that are not
    addresses of a repo are left out. A text without such keys is given back as it is."""
    document = json.loads(text)
    checksums = document.get("download_checksums")
    if not isinstance(checksums, dict) or all(key.startswith("hf://") for key in checksums):
        return text
    document["download_checksums"] = {key: value for key, value in checksums.items() if key.startswith("hf://")}
    return json.dumps(document).encode()


def source_of(url: str) -> tuple[RepoId, Commit, str] | None:
    """The repo, commit and path of `hf://datasets/ORG/NAME@COMMIT/PATH`; None for any other address."""
    rest = url.removeprefix("hf://datasets/")
    repo, at, rest = rest.partition("@")
    commit, slash, path = rest.partition("/")
    if not url.startswith("hf://datasets/") or not at or not slash or not path:
        return None
    try:
        return RepoId.parse(repo, "dataset"), Commit.parse(commit), path
    except InvalidName:
        return None


def _split(document: dict[str, Any]) -> SplitInfo:
    lengths = document.get("shard_lengths")
    if lengths is not None and (not isinstance(lengths, list) or len(lengths) > MAX_SHARDS):
        raise ValueError("the lengths of the shards are no list")
    return SplitInfo(
        json_fields.text(document["name"]), json_fields.number(document["num_examples"]), max(1, len(lengths or ()))
    )


def _types(features: Any) -> Iterator[str]:
    """The types of features, at any depth. A deep nesting ends in RecursionError, which the caller turns into one
    sentence."""
    if isinstance(features, dict):
        if isinstance(features.get("_type"), str):
            yield features["_type"]
        for inner in features.values():
            yield from _types(inner)
    elif isinstance(features, list):
        for inner in features:
            yield from _types(inner)


def _sources(checksums: Any) -> tuple[str, ...]:
    if not isinstance(checksums, dict):
        return ()
    return tuple(key for key in checksums if isinstance(key, str) and source_of(key) is not None)
