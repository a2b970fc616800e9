"""Signatures of requests: they hold for one request of one node to one other, once, by the clock of that one."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from hfpeer.trust.signatures import NONCE_SECONDS, Nonces, is_signature, signature

KEY, NOISE = b"k" * 32, b"n" * 16
SAID = {"nonce": "n", "sender": "aa", "receiver": "bb", "method": "POST", "path": "/adds"}


@pytest.mark.parametrize("changed", SAID)
def test_a_signature_is_of_every_part_of_the_request(changed: str) -> None:
    right = signature(KEY, **SAID, body=b"{}")
    assert is_signature(right, signature(KEY, **SAID, body=b"{}"))
    assert not is_signature(signature(KEY, **{**SAID, changed: "other"}, body=b"{}"), right)


def test_a_signature_needs_the_body_and_the_key() -> None:
    right = signature(KEY, **SAID, body=b"{}")
    assert not is_signature(signature(KEY, **SAID, body=b"{ }"), right)
    assert not is_signature(signature(b"j" * 32, **SAID, body=b"{}"), right)
    assert not is_signature("", right) and not is_signature("ß", right)
    said = "\n".join(("hfpeer-request-1", *SAID.values(), hashlib.sha256(b"{}").hexdigest()))
    assert right == hmac.new(KEY, said.encode(), hashlib.sha256).hexdigest()


def test_a_nonce_is_taken_once_for_a_while_by_the_run_that_gave_it() -> None:
    nonces = Nonces(b"secret")
    nonce = nonces.fresh(100.0, NOISE)
    assert nonces.take(nonce, 101.0) and not nonces.take(nonce, 102.0)
    late = nonces.fresh(100.0, b"m" * 16)
    assert not nonces.take(late, 100.0 + NONCE_SECONDS + 1)
    assert not Nonces(b"another").take(nonces.fresh(100.0, NOISE), 100.0)


@pytest.mark.parametrize("forged", ["", "1-2-3", f"100000-{'a' * 32}-{'b' * 32}", "x" * 10_000, "100000-ü-0"])
def test_a_forged_nonce_is_none(forged: str) -> None:
    assert not Nonces(b"secret").take(forged, 100.0)


def test_a_used_nonce_is_forgotten_when_its_time_is_over() -> None:
    nonces = Nonces(b"secret")
    for number in range(50):
        now = number * (NONCE_SECONDS + 2)
        assert nonces.take(nonces.fresh(now, number.to_bytes(16, "big")), now)
    assert len(nonces._used) == 1
