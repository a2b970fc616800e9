"""The party that asks a node for files, for the history, the log and people. It decides nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Asker:
    """`via` is cli, python, endpoint, peer or follow, `user` the name of the user, or of the peer. `host` is another
    machine: the one from which the request comes, or from which the user is logged in. `program` is the program that
    reads from the endpoint."""

    via: str = ""
    user: str = ""
    host: str = ""
    program: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str], via: str) -> Asker:
        """The user of this process, as the environment tells."""
        user = environ.get("SUDO_USER") or environ.get("LOGNAME") or environ.get("USER") or ""
        return cls(via, user, environ.get("SSH_CONNECTION", "").partition(" ")[0])

    def __str__(self) -> str:
        who = " ".join(filter(None, (self.user, self.program)))
        return f"{who or self.via}{f' from {self.host}' if self.host else ''}"
