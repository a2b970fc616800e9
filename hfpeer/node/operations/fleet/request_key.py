"""The key with which requests between nodes are signed: a file that the owner of the nodes puts on each of them."""

from __future__ import annotations

from pathlib import Path

from hfpeer.errors import InvalidName
from hfpeer.system.ownership import read_own
from hfpeer.trust.signatures import MIN_KEY_BYTES


def read_request_key(path: Path | None) -> bytes:
    """Blocking: the key, without line ends. Raises InvalidName, with a sentence for the owner, if there is none."""
    if path is None:
        raise InvalidName("This node has no key for requests.", hint="`hfpeer conf set request_key_file FILE`.")
    try:
        key = read_own(path).strip(b"\r\n")
    except OSError as error:
        raise InvalidName(
            f"The key for requests {path} cannot be read: {error.strerror or error}.",
            hint="It must be a file of the user of the daemon.",
            file=str(path),
        ) from error
    if len(key) < MIN_KEY_BYTES:
        raise InvalidName(
            f"The key for requests {path} is shorter than {MIN_KEY_BYTES} bytes.",
            hint="`openssl rand -hex 32` makes one.",
            file=str(path),
        )
    return key
