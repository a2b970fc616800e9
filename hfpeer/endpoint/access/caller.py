"""The caller of a request to the endpoint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Caller:
    """A caller with its own token, None for an anonymous one. Only callers on this machine may have a token.

    For people: `host` is the address of another machine, and `program` what the caller says it is.
    """

    token: str | None = None
    is_local: bool = True
    host: str = field(default="", compare=False)
    program: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """The hash under which the token is remembered; empty without a token."""
        return hashlib.sha256(self.token.encode()).hexdigest() if self.token else ""
