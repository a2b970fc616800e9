"""What a conversion makes: format, shape, columns, splits, pictures. It decides the bytes, and has nothing of a machine
in it. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hfpeer.conversion.request.splits import parse_splits
from hfpeer.errors import InvalidName

RULES = 2
"""The version of the rules by which values, names and bytes are made. It is part of the key of a conversion."""
FORMATS = ("jsonl", "parquet", "imagefolder", "tsv")
SHAPES = ("rows", "llamafactory", "swift", "qwen-vl", "vlmeval")
IMAGES = ("save", "ref", "base64", "embed", "drop")
MISSING = ("fail", "keep", "drop")
LABELS = ("names", "keep")
MAX_SAMPLES = 10_000_000
"""At most this many rows can be drawn with a seed: their ranks are in memory while they are drawn."""
_NAME = re.compile(r"[\w][\w.+-]{0,99}")


@dataclass(frozen=True)
class ConversionOptions:
    """What the user chose. An empty `images` is `embed` for Parquet, `base64` for the shape vlmeval, else `save`.

    `renamed` are pairs of an old and a new name of a column. `name` begins the name of each file. Raises InvalidName
    for choices that do not go together.
    """

    name: str
    config: str = ""
    splits: tuple[str, ...] = ()
    to: str = "jsonl"
    shape: str = "rows"
    is_single: bool = False
    max_samples: int | None = None
    seed: int | None = None
    images: str = ""
    image_columns: tuple[str, ...] = ()
    missing: str = "fail"
    labels: str = "names"
    columns: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = field(default=())

    def __post_init__(self) -> None:
        _one_of("format", self.to, FORMATS)
        _one_of("shape", self.shape, SHAPES)
        _one_of("way of pictures", self.images or "save", IMAGES)
        _one_of("way of missing pictures", self.missing, MISSING)
        _one_of("way of labels", self.labels, LABELS)
        if not _NAME.fullmatch(self.name):
            raise InvalidName(f"{self.name!r} cannot begin the name of a file.", hint="Use letters, digits and _.")
        parse_splits(self.splits)
        if self.max_samples is not None and self.max_samples < 0:
            raise InvalidName("A number of samples is not negative.", hint="Leave --max-samples out to take all rows.")
        if self.seed is not None and (self.max_samples is None or self.max_samples > MAX_SAMPLES):
            raise InvalidName(
                f"A seed draws rows: it needs a number of samples, of at most {MAX_SAMPLES:,}.",
                hint="Give --max-samples too.",
            )
        names = [new for _, new in self.renamed]
        if len(set(names)) != len(names) or len({old for old, _ in self.renamed}) != len(names):
            raise InvalidName("A column is renamed twice, or two columns get one name.", hint="Give each name once.")
        self._refuse_contradictions()

    def _refuse_contradictions(self) -> None:
        if (self.shape == "vlmeval") != (self.to == "tsv") and self.shape != "rows":
            raise InvalidName(
                f"The shape {self.shape} is not written as {self.to}.",
                hint="vlmeval goes with --format tsv, and the shapes of chats with --format jsonl.",
            )
        if self.shape in ("llamafactory", "swift", "qwen-vl") and self.to != "jsonl":
            raise InvalidName(f"The shape {self.shape} is written as jsonl.", hint="Leave --format out.")
        if self.shape in ("llamafactory", "swift", "qwen-vl") and self.way_of_images == "base64":
            raise InvalidName(f"The shape {self.shape} names pictures by paths.", hint="Use --images save.")
        if self.images == "embed" and self.to != "parquet":
            raise InvalidName("Only Parquet has pictures in it as bytes.", hint="Use --images save, or base64.")
        if self.to == "imagefolder" and self.way_of_images != "save":
            raise InvalidName("A folder of pictures has them as files.", hint="Leave --images out.")

    @property
    def way_of_images(self) -> str:
        """How pictures are written."""
        if self.images:
            return self.images
        return "embed" if self.to == "parquet" else "base64" if self.shape == "vlmeval" else "save"

    @property
    def new_columns(self) -> tuple[str, ...]:
        """The chosen columns by their new names; none if all are chosen."""
        renamed = dict(self.renamed)
        return tuple(renamed.get(name, name) for name in self.columns)

    @property
    def joins(self) -> bool:
        """Whether the parts of a split end in one file."""
        return self.is_single or self.to in ("imagefolder", "tsv") or self.shape != "rows"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "images": self.way_of_images}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ConversionOptions:
        known = {one.name for one in fields(cls)}
        values = {key: _tuples(value) for key, value in document.items() if key in known}
        return cls(**values)

    def key(self, repo: str, commit: str) -> str:
        """The name of a conversion: equal keys give equal bytes."""
        text = json.dumps([RULES, repo, commit, self.to_json()], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


def _one_of(what: str, word: str, known: Sequence[str]) -> None:
    if word not in known:
        raise InvalidName(f"{word!r} is no {what}.", hint=f"Use one of: {', '.join(known)}.", value=word)
