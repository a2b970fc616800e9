"""The plan of a conversion: its parts, each of which is a function of the plan and of files of the commit alone.

So parts can be made in any order, by any number of processes and machines, and give the same bytes. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from hfpeer.conversion.features import Feature, feature_from_json, feature_to_json
from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, FilePath, RepoId

FORMAT = 1
SUFFIXES = {"jsonl": "jsonl", "parquet": "parquet", "imagefolder": "jsonl", "tsv": "tsv"}


@dataclass(frozen=True)
class SourceFile:
    """A file of the commit."""

    path: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Part:
    """One part: rows of some files of one split, usually of one file.

    `row` is the number of the first row of the files in their split, and `skip` and `take` say which rows of the files
    belong to the output; without `take` all that follow. `highest_rank` is empty if no rows are drawn.
    """

    number: int
    output: str
    index: int
    of: int
    split: str
    files: tuple[SourceFile, ...]
    row: int = 0
    skip: int = 0
    take: int | None = None
    highest_rank: str = ""

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class ConversionPlan:
    """What is converted, and into which parts. `reading` are the options of the builder that change how files are
    read."""

    repo: RepoId
    commit: Commit
    config: str
    builder: str
    options: ConversionOptions
    parts: tuple[Part, ...]
    reading: Mapping[str, Any] | None = None
    features: Feature | None = None

    @cached_property
    def key(self) -> str:
        """Equal keys give equal bytes."""
        return self.options.key(self.repo.full_name, self.commit)

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part.output for part in self.parts))

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """The files of the commit that the parts need, each once."""
        return tuple({file.path: file for part in self.parts for file in part.files}.values())

    @property
    def is_listed(self) -> bool:
        """Whether the parts are lists of pictures, whose rows name files of the commit."""
        return bool((self.reading or {}).get("lists"))

    def parts_of(self, output: str) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.output == output)

    def joined_file(self, output: str) -> str:
        """The path of the one file of an output, below the folder of the conversion."""
        if self.options.to == "imagefolder":
            return f"{output}/metadata.jsonl"
        return f"{self.options.name}_{output}.{SUFFIXES[self.options.to]}"

    def file_of(self, part: Part) -> str:
        """The path of the file of a part, if it is not joined with others."""
        if part.of == 1:
            return self.joined_file(part.output)
        suffix = SUFFIXES[self.options.to]
        return f"{self.options.name}_{part.output}-{part.index:05}-of-{part.of:05}.{suffix}"

    def share(self, number: int, of: int) -> tuple[Part, ...]:
        """The parts of worker `number` of `of` workers. Raises InvalidName."""
        if not 0 <= number < of:
            raise InvalidName(f"There is no part {number}/{of}.", hint=f"Parts go from 0/{of} to {of - 1}/{of}.")
        return self.parts[number::of]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "key": self.key,
            "repo": self.repo.full_name,
            "commit": self.commit,
            "config": self.config,
            "builder": self.builder,
            "reading": dict(self.reading or {}),
            "features": feature_to_json(self.features),
            "options": self.options.to_json(),
            "parts": [asdict(part) for part in self.parts],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ConversionPlan:
        """Raises InvalidName for anything but a plan of this version."""
        try:
            if document["format"] != FORMAT:
                raise ValueError(f"its format is {document['format']!r:.20}")
            for file in (file for part in document["parts"] for file in part["files"]):
                FilePath.parse(file["path"])
            plan = cls(
                RepoId.parse(document["repo"], "dataset"),
                Commit.parse(document["commit"]),
                str(document["config"]),
                str(document["builder"]),
                ConversionOptions.from_json(document["options"]),
                tuple(
                    Part(**{**part, "files": tuple(SourceFile(**file) for file in part["files"])})
                    for part in document["parts"]
                ),
                dict(document["reading"]),
                feature_from_json(document["features"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidName(f"This is no plan of a conversion: {error}.", hint="Make it again.") from error
        return plan

    def to_bytes(self) -> bytes:
        return json.dumps(self.to_json(), ensure_ascii=False).encode()
