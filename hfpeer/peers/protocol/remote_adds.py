"""An add that one node asks another to do: its terms, the request, and how far it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hfpeer import json_fields
from hfpeer.budgets import MAX_ASKED_PATTERN_CHARACTERS, MAX_ASKED_PATTERNS
from hfpeer.errors import InvalidName
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.peers.protocol import fields

ACCEPTED = NO, LAN, SIGNED = ("no", "lan", "signed")
"""From which nodes a node adds what they ask it to: values of the setting `accept_requests`."""
REFUSALS = NOT_ACCEPTED, NOT_A_PEER, NOT_SIGNED = ("not_accepted", "not_a_peer", "not_signed")
"""Why a node refuses a request: the fact `reason` of the problem."""
STATES = ("queued", "running", "waiting", "paused", "failed", "done", "cancelled")
REASONS = ("access_denied", "unreachable", "storage", "corrupt_data", "internal")
"""Why an add failed at the other node. It tells no more: its sentence may name folders and logins."""
_TICKET = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class AddTerms:
    """`GET /adds`: one of ACCEPTED, and, where requests are to be signed, a nonce for the next one."""

    accepts: str
    nonce: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"accepts": self.accepts, "nonce": self.nonce}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AddTerms:
        with fields.reading("terms of a request"):
            accepts = json_fields.text(document["accepts"], 16)
            if accepts not in ACCEPTED:
                raise ValueError(f"{accepts!r} is none of {', '.join(ACCEPTED)}")
            return cls(accepts, json_fields.text(document.get("nonce", ""), 128))


@dataclass(frozen=True)
class RemoteAdd:
    """The body of `POST /adds`: add these files of a commit. `ticket` is random, 32 hex digits: with it the asker asks
    how far the add is. `told_as` is the name that the asker has for the commit."""

    ticket: str
    repo: RepoId
    commit: Commit
    files: tuple[FilePath, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    told_as: Revision | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "ticket": self.ticket,
            "repo": self.repo.api_path,
            "commit": self.commit,
            "files": list(self.files),
            "include": list(self.include),
            "exclude": list(self.exclude),
            "told_as": self.told_as,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RemoteAdd:
        """Raises InvalidName: it is the caller of this node that sent it."""
        try:
            told_as = document.get("told_as")
            return cls(
                parse_ticket(document["ticket"]),
                RepoId.from_api_path(document["repo"]),
                Commit.parse(document["commit"]),
                tuple(map(FilePath.parse, _patterns(document["files"]))),
                _patterns(document["include"]),
                _patterns(document["exclude"]),
                None if told_as is None else Revision.parse(told_as),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InvalidName(f"The request for an add is malformed: {str(error)[:200]}.") from error


def parse_ticket(text: object) -> str:
    """Raises InvalidName."""
    if not isinstance(text, str) or not _TICKET.fullmatch(text):
        raise InvalidName("A ticket has 32 hex digits.")
    return text


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_ASKED_PATTERNS:
        raise ValueError(f"it may name at most {MAX_ASKED_PATTERNS} files or patterns")
    return tuple(json_fields.text(one, MAX_ASKED_PATTERN_CHARACTERS) for one in value)


@dataclass(frozen=True)
class AddProgress:
    """The answer to `POST /adds` and `GET /adds/{ticket}`. `state` is one of STATES, `reason` one of REASONS if it
    failed. `size_bytes` is None until it is known."""

    state: str
    present_bytes: int = 0
    size_bytes: int | None = None
    files: int = 0
    rate_bytes_per_second: float = 0.0
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "state": self.state,
            "present_bytes": self.present_bytes,
            "size_bytes": self.size_bytes,
            "files": self.files,
            "rate_bytes_per_second": int(self.rate_bytes_per_second),
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> AddProgress:
        with fields.reading("state of an add"):
            state, size_bytes = json_fields.text(document["state"], 32), document["size_bytes"]
            if state not in STATES:
                raise ValueError(f"{state!r} is no state")
            reason = json_fields.text(document["reason"], 32)
            return cls(
                state,
                json_fields.number(document["present_bytes"]),
                None if size_bytes is None else json_fields.number(size_bytes),
                json_fields.number(document["files"]),
                json_fields.number(document["rate_bytes_per_second"]),
                reason if reason in REASONS else "internal" if reason else "",
            )
