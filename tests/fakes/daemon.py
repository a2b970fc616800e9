"""A daemon process around a node in memory: `python daemon.py` is `hfpeerd` without the node.

FAKE_DAEMON says how it fails: `crash` while it starts, `problem` with an error of the tree, `stuck` never ready.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fakes.node import MemoryNode
    from hfpeer.errors import BrokenCache
    from hfpeer.settings import Settings
    from hfpeer_daemon.server import main

    def make_node(settings: Settings) -> MemoryNode:
        fault = os.environ.get("FAKE_DAEMON")
        if fault == "crash":
            raise ZeroDivisionError("crashed on purpose")
        if fault == "problem":
            raise BrokenCache("The cache is a mess.", hint="Tidy up.", cache="/c")
        if fault == "stuck":
            time.sleep(60)
        return MemoryNode(settings.name)

    sys.exit(main(None, make_node))
