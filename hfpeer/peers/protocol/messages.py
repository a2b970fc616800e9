"""The JSON messages of the LAN door, parsed into values whose names are safe. Pure.

The LAN door speaks HTTP/1.1, GET and HEAD, and POST for requests of other nodes (`remote_adds`): JSON for messages,
raw bytes for blobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, TypeVar

from hfpeer import json_fields
from hfpeer.budgets import MAX_ADDRESSES, MAX_GOSSIPED_PEERS, MAX_HEARD_LIMITS, MAX_REVISION_REFS
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.peers.protocol import fields
from hfpeer.peers.protocol.batch import FORMER_BATCH_BLOBS, MAX_BATCH_BLOBS

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class NodeMessage:
    """`GET /node`: the node itself. `version` is hfpeer's. `run_id` is random, chosen at each start: two nodes may have
    one node id, when a home was copied, but not one run id. `batch_blobs` is how many blobs it takes in a batch.
    `limits` says of hubs that limit its requests for how many seconds more, by `hub_key`. `addresses` are those at
    which other nodes reach it, the likeliest first."""

    node_id: str
    name: str
    version: str
    protocol_version: int
    catalog_generation: int
    run_id: str = ""
    batch_blobs: int = MAX_BATCH_BLOBS
    limits: Mapping[str, int] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NodeMessage:
        with fields.reading("node message"):
            return cls(
                node_id=json_fields.text(document["node_id"], 64),
                name=json_fields.text(document["name"], 255),
                version=json_fields.text(document["version"], 64),
                protocol_version=json_fields.number(document["protocol_version"]),
                catalog_generation=json_fields.number(document["catalog_generation"]),
                run_id=json_fields.text(document["run_id"], 64),
                batch_blobs=json_fields.number(document.get("batch_blobs", FORMER_BATCH_BLOBS)),
                limits=_limits(document.get("limits", {})),
                addresses=tuple(map(json_fields.text, islice(document.get("addresses", ()), MAX_ADDRESSES))),
            )


@dataclass(frozen=True)
class RevisionMessage:
    """One revision of a catalog. `refs` maps a ref's name to the time it was resolved (seconds since the epoch),
    `files` is their number. `is_published`: a node of the LAN made the commit from a folder, and no hub has it."""

    repo: RepoId
    commit: Commit
    is_complete: bool
    files: int
    size_bytes: int
    refs: Mapping[str, float]
    is_published: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "repo": self.repo.api_path,
            "commit": self.commit,
            "is_complete": self.is_complete,
            "files": self.files,
            "size_bytes": self.size_bytes,
            "refs": dict(self.refs),
            "is_published": self.is_published,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RevisionMessage:
        with fields.reading("revision"):
            return cls(
                repo=RepoId.from_api_path(document["repo"]),
                commit=Commit.parse(document["commit"]),
                is_complete=document["is_complete"] is True,
                files=json_fields.number(document["files"]),
                size_bytes=json_fields.number(document["size_bytes"]),
                refs=_refs(document["refs"]),
                is_published=document["is_published"] is True,
            )


@dataclass(frozen=True)
class CatalogMessage:
    """`GET /catalog`: the shared revisions of a node. Its ETag is the generation."""

    generation: int
    revisions: tuple[RevisionMessage, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "revisions": [revision.to_json() for revision in self.revisions],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> CatalogMessage:
        with fields.reading("catalog"):
            generation, revisions = parse_catalog(document, dict)
            return cls(generation, tuple(map(RevisionMessage.from_json, revisions)))


def parse_catalog(document: Mapping[str, Any], kind: type[Kind]) -> tuple[int, list[Kind]]:
    """The generation and the revisions of `GET /catalog`; each revision must be of type `kind`. Raises CorruptData."""
    with fields.reading("catalog"):
        revisions = document["revisions"]
        if not isinstance(revisions, list) or not all(isinstance(revision, kind) for revision in revisions):
            raise ValueError("its revisions are not valid")
        return json_fields.number(document["generation"]), revisions


def _limits(value: Mapping[str, Any]) -> dict[str, int]:
    few = islice(value.items(), MAX_HEARD_LIMITS)
    return {json_fields.text(key, 64): json_fields.number(seconds) for key, seconds in few}


def _refs(value: Mapping[str, Any]) -> dict[str, float]:
    return {Revision.parse(name): json_fields.moment(when) for name, when in islice(value.items(), MAX_REVISION_REFS)}


@dataclass(frozen=True)
class RefMessage:
    """`GET /refs/…`: the commit that a hub last named for a revision, which hub it was, and when (seconds since the
    epoch; shown to people, it decides nothing).

    `published_commit` is the commit that the node itself published under this name. Where no hub named a commit,
    `commit` is the same.
    """

    commit: Commit
    resolved_at: float
    answered_by: str
    published_commit: Commit | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RefMessage:
        with fields.reading("ref"):
            return cls(
                Commit.parse(document["commit"]),
                json_fields.moment(document["resolved_at"]),
                json_fields.text(document["answered_by"], 255),
                None if document["published_commit"] is None else Commit.parse(document["published_commit"]),
            )


@dataclass(frozen=True)
class PeersMessage:
    """`GET /peers`: `HOST:PORT` of the peers that a node finds alive. Unproved: the receiver probes each."""

    addresses: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"addresses": list(self.addresses)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PeersMessage:
        with fields.reading("list of peers"):
            return cls(
                tuple(json_fields.text(address, 255) for address in list(document["addresses"])[:MAX_GOSSIPED_PEERS])
            )
