"""A daemon process around a node in memory: `python daemon.py` is `hfpeerd` without the node.

FAKE_DAEMON says how it fails: `crash` while it starts, `problem` with an error of the tree, `stuck` never ready, `hung`
by a thread that does not end, `deaf` by a question for peers that blocks its event loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fakes.node import MemoryNode
    from hfpeer.config.settings import Settings
    from hfpeer.control.operations import PeerStatus
    from hfpeer.errors import BrokenCache
    from hfpeer_daemon.server import main

    class HungNode(MemoryNode):
        async def stop(self) -> None:
            await asyncio.to_thread(time.sleep, 60)

    class DeafNode(MemoryNode):
        async def list_peers(self) -> list[PeerStatus]:
            (Path(os.environ["HFPEER_HOME"]) / "deaf").touch()
            time.sleep(60)  # noqa: ASYNC251  on purpose
            return []

    def make_node(settings: Settings) -> MemoryNode:
        fault = os.environ.get("FAKE_DAEMON")
        if fault == "crash":
            raise ZeroDivisionError("crashed on purpose")
        if fault == "problem":
            raise BrokenCache("The cache is a mess.", hint="Tidy up.", cache="/c")
        if fault == "stuck":
            time.sleep(60)
        kind = {"hung": HungNode, "deaf": DeafNode}.get(fault or "", MemoryNode)
        return kind(settings.name)

    sys.exit(main(None, make_node))
