"""The version, the headers and the paths of the LAN door.

Paths have no version: nodes learn each other's PROTOCOL_VERSION from `/node` and the TXT record, and send no other
request to a node of another version.
"""

from __future__ import annotations

from urllib.parse import quote

from hfpeer.names import Commit, Digest, RepoId, Revision

PROTOCOL_VERSION = 2
SERVICE_TYPE = "_hfpeer._tcp.local."

NODE_HEADER = "Hfpeer-Node"
"""The sender's node id. Marks a request as coming from a node, so that it is never forwarded."""
PROTOCOL_HEADER = "Hfpeer-Protocol"
DOOR_HEADER = "Hfpeer-Door"
"""With a request for peers: the port of the sender's LAN door at the address that it comes from, or `HOST:PORT`. The
node asks the sender back. Not proved."""
WAIT_HEADER = "Prefer"
"""RFC 7240 §4.3. With `wait=SECONDS` a node also sends bytes that it is still receiving from a seed, as they come, and
waits at most that long for each next one (cut-through). Without it, a node sends only bytes that it has."""

NODE_PATH = "/node"
CATALOG_PATH = "/catalog"
PEERS_PATH = "/peers"
BATCH_PATH = "/batch"
COPIES_PATH = "/copies"
BLOBS_PREFIX = "/blobs/"
PIECES_SUFFIX = "/pieces"
FOLLOW_SUFFIX = "/follow"
DIGESTS_SUFFIX = "/digests"
MANIFESTS_PREFIX = "/manifests/"
REFS_PREFIX = "/refs/"
ADDS_PATH = "/adds"
"""GET: the terms. POST: the request for an add, the only message of the door that changes something."""
SIGNATURE_HEADER = "Hfpeer-Signature"
"""`NONCE SIGNATURE` of a request that is signed."""


def blob_path(digest: Digest) -> str:
    return f"{BLOBS_PREFIX}{digest}"


def pieces_path(digest: Digest) -> str:
    return f"{BLOBS_PREFIX}{digest}{PIECES_SUFFIX}"


def follow_path(digest: Digest) -> str:
    """Path to follow a blob, or a bundle of small files under the digest that names it; a piece of a bundle is one
    file."""
    return f"{BLOBS_PREFIX}{digest}{FOLLOW_SUFFIX}"


def digests_path(digest: Digest) -> str:
    """Path to the digests of the pieces of a whole blob, in order: `PIECE_DIGEST_BYTES` each, without separators. A
    `Range` of them is a range of pieces."""
    return f"{BLOBS_PREFIX}{digest}{DIGESTS_SUFFIX}"


def manifest_path(repo: RepoId, commit: Commit) -> str:
    return f"{MANIFESTS_PREFIX}{repo.api_path}/{commit}"


def ref_path(repo: RepoId, revision: Revision) -> str:
    return f"{REFS_PREFIX}{repo.api_path}/{quote(revision, safe='')}"


def add_progress_path(ticket: str, wait_seconds: int) -> str:
    """Path to how far an add is that was asked for with this ticket. The answer comes when the add is over, or after
    `wait_seconds`."""
    return f"{ADDS_PATH}/{ticket}?wait={wait_seconds}"


def generation_etag(generation: int) -> str:
    """The entity tag of a catalog, for `ETag` and `If-None-Match`."""
    return f'"{generation}"'
