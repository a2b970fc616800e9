"""The words of the Hub as values: repo, revision, commit, file path, digest.

Each string from outside is parsed here once; a value of these types is valid, and safe as part of a path below the
cache. `str` gives the text back. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from hfpeer.budgets import MAX_PATH_BYTES, MAX_PATH_SEGMENTS, MAX_SEGMENT_BYTES
from hfpeer.errors import InvalidName

SETS_NAMESPACE = "hfpeer-prepared"
"""The namespace of the repos of prepared sets."""
_SEGMENT = re.compile(r"[A-Za-z0-9_.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REVISION = re.compile(r"[^\x00-\x20\x7f~^:?*\[\\]{1,255}")
_NO_SEGMENTS = frozenset((b"", b".", b".."))
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|git-sha1:[0-9a-f]{40}")


class RepoType(str, Enum):
    """The type of a repo: the Hub keeps models, datasets and spaces in separate namespaces."""

    MODEL = "model"
    DATASET = "dataset"
    SPACE = "space"

    @property
    def plural(self) -> str:
        """`models`, `datasets` or `spaces`: the API's segment and the cache folder's prefix."""
        return f"{self.value}s"


class Visibility(str, Enum):
    """The answer of a hub on a repo when it is asked without a token."""

    PUBLIC = "public"
    GATED = "gated"
    PRIVATE = "private"
    """Private or missing: a hub answers the same for both."""
    UNKNOWN = "unknown"
    """No hub was asked yet."""


@dataclass(frozen=True, order=True)
class RepoId:
    """A repo: its type, its namespace (None for legacy ids such as `gpt2`) and its name."""

    type: RepoType
    namespace: str | None
    name: str

    @classmethod
    def parse(cls, text: str, type: RepoType | str = RepoType.MODEL) -> RepoId:
        """Reads `ns/name` or `name` by the rules of the Hub client.

        Raises InvalidName. Source: huggingface_hub `validate_repo_id`.
        """
        segments = text.split("/")
        well_formed = len(segments) in (1, 2) and all(_is_segment(segment) for segment in segments)
        if not well_formed or len(text) > 193:
            raise InvalidName(
                f"{text!r} is not a repo name.",
                hint="A repo is NAME or ORG/NAME; each part has letters, digits, '-', '_' and '.', at most 96, "
                "without '--' or '..', and neither starts nor ends with '-' or '.', nor ends with '.git'.",
                repo=text,
            )
        return cls(RepoType(type), segments[0] if len(segments) == 2 else None, segments[-1])

    @property
    def full_name(self) -> str:
        """`ns/name`, or `name` for a legacy id."""
        return self.name if self.namespace is None else f"{self.namespace}/{self.name}"

    @property
    def api_path(self) -> str:
        """`models/ns/name`: the part of an API URL after `/api/`."""
        return f"{self.type.plural}/{self.full_name}"

    @property
    def url_path(self) -> str:
        """`ns/name` for models, `datasets/ns/name`, `spaces/ns/name`: the start of file and git URLs."""
        return self.full_name if self.type is RepoType.MODEL else self.api_path

    @property
    def folder(self) -> str:
        """`models--ns--name`: the repo's folder in the Hub cache."""
        return "--".join([self.type.plural, *self.full_name.split("/")])

    @classmethod
    def from_folder(cls, folder: str) -> RepoId:
        """The inverse of `folder`. Raises InvalidName for anything else."""
        plural, _, rest = folder.partition("--")
        for type in RepoType:
            if type.plural == plural and rest:
                return cls.parse(rest.replace("--", "/"), type)
        raise InvalidName(f"{folder!r} is not the folder of a repo.", repo=folder)

    @classmethod
    def from_api_path(cls, path: str) -> RepoId:
        """The inverse of `api_path`. Raises InvalidName for anything else."""
        plural, _, rest = path.partition("/")
        for type in RepoType:
            if type.plural == plural:
                return cls.parse(rest, type)
        raise InvalidName(f"{path!r} does not name a repo.", repo=path)

    @property
    def is_of_sets(self) -> bool:
        """Whether it is a repo of prepared sets, which hfpeer makes and no hub has."""
        return self.type is RepoType.DATASET and self.namespace == SETS_NAMESPACE

    def __str__(self) -> str:
        return self.url_path


def _is_segment(text: str) -> bool:
    return (
        _SEGMENT.fullmatch(text) is not None
        and "--" not in text
        and ".." not in text
        and text[0] not in "-."
        and text[-1] not in "-."
        and not text.endswith(".git")
    )


class Revision(str):
    """A revision as typed: a branch, a tag, `refs/pr/3`, a short or a full commit id. Safe as a path."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Revision:
        """Reads a revision by git's rules for ref names. Raises InvalidName. Source: git-check-ref-format."""
        segments = text.split("/")
        if (
            _REVISION.fullmatch(text) is None
            or ".." in text
            or "@{" in text
            or text == "@"
            or any(not part or part.startswith((".", "-")) or part.endswith((".lock", ".")) for part in segments)
        ):
            raise InvalidName(
                f"{text!r} is not a revision.",
                hint="A revision is a branch, a tag, refs/pr/N or a commit id, as git allows them: "
                "no spaces, no '..', none of ~ ^ : ? * [ \\.",
                revision=text,
            )
        return cls(text)

    @property
    def is_commit(self) -> bool:
        """Whether this is a full commit id, which needs no hub to resolve it."""
        return _COMMIT.fullmatch(self) is not None


MAIN = Revision("main")
"""The default revision."""


class Commit(str):
    """A full git commit id, 40 lower-case hex digits. All proofs start from it."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Commit:
        """Raises InvalidName unless `text` is 40 lower-case hex digits."""
        if _COMMIT.fullmatch(text) is None:
            raise InvalidName(f"{text!r} is not a full commit id.", hint="A commit id has 40 hex digits.", commit=text)
        return cls(text)

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self[:12]


def keeping_ref(commit: Commit) -> Revision:
    """The ref of a commit that has no other: without one `hf cache prune` would remove it."""
    return Revision(f"hfpeer/{commit.short}")


class FilePath(str):
    """The path of a file inside a repo: relative, `/`-separated, without `..`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> FilePath:
        """Accepts every path that git and huggingface_hub write on Linux. Backslashes and drive letters are ordinary
        characters there. Raises InvalidName for the paths with a `path_problem`.
        """
        problem = path_problem(text)
        if problem is not None:
            raise InvalidName(
                f"{text[:MAX_PATH_BYTES]!r} is not the path of a file in a repo: {problem}.",
                hint="A path is relative, uses '/', has no '..', '.' or empty part, and at most "
                f"{MAX_PATH_SEGMENTS} parts of at most {MAX_SEGMENT_BYTES} bytes.",
                path=text[:MAX_PATH_BYTES].encode("utf-8", "replace").decode(),
            )
        return cls(text)


def path_problem(text: str) -> str | None:
    """Why this is not a valid path of a file, as the end of a sentence; None for a valid one."""
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        return "it is no UTF-8"
    if len(raw) > MAX_PATH_BYTES:
        return f"it has more than {MAX_PATH_BYTES} bytes"
    segments = raw.split(b"/")
    if raw.startswith(b"/"):
        return "it is absolute"
    if b"\0" in raw:
        return "it has a NUL"
    if len(segments) > MAX_PATH_SEGMENTS:
        return f"it is more than {MAX_PATH_SEGMENTS - 1} folders deep"
    if max(map(len, segments)) > MAX_SEGMENT_BYTES:
        return f"a part of it has more than {MAX_SEGMENT_BYTES} bytes"
    if not _NO_SEGMENTS.isdisjoint(segments):
        return "a part of it is empty, '.' or '..'"
    return None


class Digest(str):
    """The hash of a blob's bytes: `sha256:<64 hex>` for LFS files, `git-sha1:<40 hex>` for the others.

    `git-sha1` is git's blob id, the SHA-1 over `blob <size>\\0` and the bytes. The Hub's etag is one of the two, so
    `hex` is also the file name of the blob in the cache.
    """

    __slots__ = ()

    def __new__(cls, algorithm: str, hex: str) -> Digest:
        return str.__new__(cls, f"{algorithm}:{hex}")

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # for copies
        return self.algorithm, self.hex

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Reads `sha256:<hex>` or `git-sha1:<hex>`. Raises InvalidName."""
        if _DIGEST.fullmatch(text) is None:
            raise InvalidName(
                f"{text!r} is not a digest.",
                hint="A digest is sha256:<64 hex> or git-sha1:<40 hex>.",
                digest=text,
            )
        return str.__new__(cls, text)

    @classmethod
    def from_etag(cls, etag: str) -> Digest:
        """The digest in an etag; its length tells the algorithm. Raises InvalidName unless it is 40 or 64 hex
        digits."""
        bare = etag.removeprefix("W/").strip('"')
        algorithm = "sha256" if len(bare) == 64 else "git-sha1"
        return cls.parse(f"{algorithm}:{bare}")

    @property
    def algorithm(self) -> str:
        return "sha256" if self.startswith("s") else "git-sha1"

    @property
    def hex(self) -> str:
        return self.partition(":")[2]
