"""The manifest of a prepared set: the commit it was made of, its files with sizes and hashes, and the versions that
made it. Pure.

Its canonical JSON has no absolute path and no name of a machine in it, so equal sets have equal manifests everywhere.
The sha256 of that text is the id of the set. A manifest proves the bytes of its files, never that these are the content
of the commit: that is the word of the machine that built the set, until a check (`levels`) has shown it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from hfpeer import json_fields
from hfpeer.budgets import MAX_SET_INFO_BYTES, MAX_SET_MANIFEST_BYTES
from hfpeer.errors import BadArchive, InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.prepared.layout import INFO, SetPlace, dataset_folder, shard_names

FORMAT = 1
NO_MEDIA, OF_SNAPSHOT = "none", "snapshot"
"""Whether the Arrow files name files by path, and then files of the commit in the form
`hf://datasets/…@COMMIT/PATH`."""
_VERSION_TEXT = re.compile(r"[0-9A-Za-z.+!_-]{1,40}")


@dataclass(frozen=True)
class SetFile:
    """A file of a set, and the sha256 of its bytes."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class SetSplit:
    name: str
    rows: int
    shards: tuple[SetFile, ...]


@dataclass(frozen=True)
class BuiltWith:
    """The versions of the libraries that built a set, as the machine says that built it."""

    datasets: str
    pyarrow: str
    num_proc: int | None = None

    def __str__(self) -> str:
        processes = f", {self.num_proc} processes" if self.num_proc else ""
        return f"datasets {self.datasets}, pyarrow {self.pyarrow}{processes}"


@dataclass(frozen=True)
class SetManifest:
    """`commit` is None if the folder of the set does not tell it (a repo with a script). `sources` are the files of the
    commit that it was made of, where the builder told them. `built_with` is None if nothing recorded it."""

    repo: RepoId
    commit: Commit | None
    config_name: str
    place: SetPlace
    splits: tuple[SetSplit, ...]
    info: SetFile
    sources: tuple[tuple[FilePath, Digest], ...]
    builder: str
    built_with: BuiltWith | None
    era: str
    media_paths: str

    @property
    def id(self) -> str:
        """The sha256 of the canonical JSON: the name of the set."""
        return hashlib.sha256(self.to_json()).hexdigest()

    @property
    def files(self) -> tuple[SetFile, ...]:
        """The shards, then `dataset_info.json`."""
        return (*(shard for split in self.splits for shard in split.shards), self.info)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def rows(self) -> int:
        return sum(split.rows for split in self.splits)

    @property
    def made_by(self) -> str:
        """Which code built it, for people."""
        return str(self.built_with) if self.built_with else f"an unknown version of datasets{_ERAS.get(self.era, '')}"

    def to_document(self) -> dict[str, Any]:
        """The manifest as JSON values; `from_document` is the inverse."""
        built = self.built_with
        return {
            "format": FORMAT,
            "repo": self.repo.full_name,
            "commit": self.commit,
            "config_name": self.config_name,
            "config_id": self.place.config_id,
            "version": self.place.version,
            "hash": self.place.hash,
            "splits": [
                {"name": split.name, "rows": split.rows, "shards": [_file(shard) for shard in split.shards]}
                for split in self.splits
            ],
            "info": {"size": self.info.size_bytes, "sha256": self.info.sha256},
            "sources": [{"path": path, "digest": str(digest)} for path, digest in self.sources],
            "builder": self.builder,
            "built_with": built and {"datasets": built.datasets, "pyarrow": built.pyarrow, "num_proc": built.num_proc},
            "era": self.era,
            "media_paths": self.media_paths,
        }

    def to_json(self) -> bytes:
        """The canonical JSON: sorted keys, no spaces, ASCII."""
        return json.dumps(self.to_document(), sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> SetManifest:
        """Reads canonical JSON. Raises BadArchive for any other text."""
        try:
            if len(text) > MAX_SET_MANIFEST_BYTES:
                raise ValueError(f"it has more than {MAX_SET_MANIFEST_BYTES} bytes")
            manifest = cls.from_document(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise bad_manifest(str(error)) from error
        if manifest.to_json() != text:
            raise bad_manifest("it is not in canonical form")
        return manifest

    @classmethod
    def from_document(cls, document: Any) -> SetManifest:
        """Parses every name, so that none can lead out of the folder of a set. Raises BadArchive."""
        try:
            if document["format"] != FORMAT:
                raise ValueError(f"it has format {document['format']!r:.20}, and this hfpeer reads {FORMAT}")
            repo = RepoId.parse(document["repo"], "dataset")
            place = SetPlace.parse(dataset_folder(repo), document["config_id"], document["version"], document["hash"])
            if document["commit"] != place.commit:
                raise ValueError("its folder is named after another commit")
            if place.is_local:
                raise ValueError("it was built from a local folder")
            return cls(
                repo,
                place.commit,
                json_fields.text(document["config_name"]),
                place,
                _splits(place, document["splits"]),
                SetFile(
                    INFO, json_fields.number(document["info"]["size"], MAX_SET_INFO_BYTES), _sha256(document["info"])
                ),
                tuple((FilePath.parse(one["path"]), Digest.parse(one["digest"])) for one in document["sources"]),
                json_fields.text(document["builder"]),
                _built_with(document["built_with"]),
                json_fields.one_of(document["era"], ("list", "sequence", "flat")),
                json_fields.one_of(document["media_paths"], (NO_MEDIA, OF_SNAPSHOT)),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, InvalidName) as error:
            raise bad_manifest(str(error)) from error


_ERAS = {"list": " (4 or newer)", "sequence": " (3 or older)"}


def bad_manifest(reason: str) -> BadArchive:
    """The error for a manifest that cannot be used."""
    return BadArchive(
        f"The manifest of a prepared set cannot be used: {reason[:300]}.",
        hint="Take the set from its source again, or build it here with `hfpeer dataset prepare`.",
    )


def _file(file: SetFile) -> dict[str, Any]:
    return {"path": file.path, "size": file.size_bytes, "sha256": file.sha256}


def _splits(place: SetPlace, documents: Any) -> tuple[SetSplit, ...]:
    """The splits. The names of their shards follow from the names of the repo and of the split."""
    splits = []
    for document in documents:
        shards = tuple(
            SetFile(json_fields.text(one["path"]), json_fields.number(one["size"]), _sha256(one))
            for one in document["shards"]
        )
        if tuple(shard.path for shard in shards) != shard_names(place.name, document["name"], len(shards)):
            raise ValueError(f"the shards of {document['name']!r:.80} have other names than datasets gives them")
        splits.append(SetSplit(document["name"], json_fields.number(document["rows"]), shards))
    if not splits or len({split.name for split in splits}) != len(splits):
        raise ValueError("it names no split, or one twice")
    return tuple(splits)


def _built_with(document: Any) -> BuiltWith | None:
    if document is None:
        return None
    for key in ("datasets", "pyarrow"):
        if not isinstance(document[key], str) or _VERSION_TEXT.fullmatch(document[key]) is None:
            raise ValueError(f"{document[key]!r:.80} is not a version")
    num_proc = document["num_proc"]
    return BuiltWith(
        document["datasets"], document["pyarrow"], None if num_proc is None else json_fields.number(num_proc, 1_000_000)
    )


def _sha256(document: Any) -> str:
    return Digest.parse(f"sha256:{document['sha256']}").hex
