"""The identity of a node: its id, which a home keeps, and the id of one run of the daemon."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from hfpeer.cache.disk.os_errors import MOVES_HOME, storage_error
from hfpeer.config.paths import Places
from hfpeer.net.address import Address
from hfpeer.system.ownership import make_own_folder, read_own, write_own

_NODE_ID = re.compile(r"[0-9a-f]{32}")

_log = logging.getLogger(__name__)


class Identity:
    """The identity of one running node. `notes` are sentences on what is wrong with it."""

    def __init__(self, places: Places) -> None:
        """Raises BrokenCache when the home is not this user's or cannot be written."""
        self.node_id = read_node_id(places)
        self.run_id = secrets.token_hex(8)
        self.started_at = time.time()
        self.notes: list[str] = []
        self._places = places
        self._renewal: asyncio.Task[str] | None = None

    def on_duplicate_id(self, address: Address) -> None:
        """Takes a new id, because the node at `address` has the id of this one: one home is a copy of the other."""
        if self._renewal is None:
            self._renewal = asyncio.create_task(asyncio.to_thread(renew_node_id, self._places), name="new node id")
            note = (
                f"The node at {address} has the id of this node, because a home was copied. They cannot be peers. "
                "This node has a new id from its next start on: `hfpeer daemon restart`."
            )
            self.notes.append(note)
            _log.warning("%s", note)

    async def stop(self) -> None:
        """Waits until a new id is written."""
        if self._renewal is not None:
            await asyncio.gather(self._renewal, return_exceptions=True)


def read_node_id(places: Places) -> str:
    """The id of the node at this home, 32 hex digits. A missing id is made; a malformed one is replaced and logged.

    Raises BrokenCache when the home is not this user's or cannot be written.
    """
    make_own_folder(places.home)
    path = places.node_id_file
    try:
        text = read_own(path).decode("ascii", errors="replace").strip()
    except FileNotFoundError:
        return renew_node_id(places)
    except OSError as error:
        text = error.strerror or str(error)
    if _NODE_ID.fullmatch(text):
        return text
    _log.warning("%s holds no node id (%.40r): this node takes a new one", str(path), text)
    return renew_node_id(places)


def renew_node_id(places: Places) -> str:
    """Writes a new id for the node at this home. It holds from the next start. Raises BrokenCache when it cannot be
    written."""
    fresh = secrets.token_hex(16)
    try:
        write_own(places.node_id_file, fresh.encode())
    except OSError as error:
        raise storage_error(error, "write to its home", places.node_id_file, elsewhere=MOVES_HOME) from error
    return fresh
