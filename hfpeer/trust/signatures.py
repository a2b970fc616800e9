"""Signatures of requests to other nodes, by a key that both have. Pure.

The node that is asked gives a nonce, which it can tell by its own secret, takes once, and only for a while by its own
clock. So no clock of another machine decides anything, and an old request is no request.
"""

from __future__ import annotations

import hashlib
import hmac
import re

NONCE_SECONDS = 60.0
"""Seconds for which a nonce can be used."""
MIN_KEY_BYTES = 16
"""A shorter key counts as none: it could be guessed."""
_NONCE = re.compile(r"([0-9]{1,15})-[0-9a-f]{32}-([0-9a-f]{32})")
_LABEL = "hfpeer-request-1"


class Nonces:
    """The nonces of one run of a node. `secret` is random and never leaves it."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._used: dict[str, float] = {}

    def fresh(self, now: float, noise: bytes) -> str:
        """A nonce; `noise` is 16 random bytes. Nothing is kept of it, so strangers may ask for any number."""
        said = f"{int(now * 1000)}-{noise.hex()}"
        return f"{said}-{self._own(said)}"

    def take(self, nonce: str, now: float) -> bool:
        """Whether this run gave the nonce lately, and it was not used. From now on it is used."""
        found = _NONCE.fullmatch(nonce)
        if found is None or not hmac.compare_digest(self._own(nonce.rpartition("-")[0]), found[2]):
            return False
        given_at = int(found[1]) / 1000
        self._used = {one: until for one, until in self._used.items() if until > now}
        if not given_at - 1 <= now <= given_at + NONCE_SECONDS or nonce in self._used:
            return False
        self._used[nonce] = given_at + NONCE_SECONDS + 1
        return True

    def _own(self, said: str) -> str:
        return hmac.new(self._secret, said.encode(), hashlib.sha256).hexdigest()[:32]


def signature(key: bytes, *, nonce: str, sender: str, receiver: str, method: str, path: str, body: bytes) -> str:
    """The signature of a request of the node `sender` to the node `receiver`, both by their ids: 64 hex digits."""
    said = "\n".join((_LABEL, nonce, sender, receiver, method, path, hashlib.sha256(body).hexdigest()))
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def is_signature(given: str, right: str) -> bool:
    """Whether a signature is the right one, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(), right.encode())
