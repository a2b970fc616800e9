"""Serve a local folder as a repository of a simulated hub: `python -m fakes.hub --repo-dir DIR --as ns/name`.

Prints one line of JSON with the addresses and the commit once it listens, serves until interrupted, and then
prints another that counts the requests and the bytes of bodies sent by each origin.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from pathlib import Path

from .content import Content, LocalFile
from .faults import throttle
from .simulator import HubSimulator
from .site import Behaviour
from .zoo import put_many, put_zoo


def files_of(folder: Path) -> dict[str, Content]:
    """Every file below a folder, by its path relative to it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(folder).as_posix(): LocalFile(path) for path in paths}


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m fakes.hub", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="the hub's port (default: any free one)")
    parser.add_argument("--repo-dir", type=Path, help="the folder to serve; without it the zoo is served")
    parser.add_argument("--as", dest="repo_id", default="acme/local", metavar="NS/NAME", help="its name")
    parser.add_argument("--type", dest="repo_type", default="model", choices=("model", "dataset", "space"))
    parser.add_argument("--mode", default="hub", choices=("hub", "pinned", "direct"), help="how files are resolved")
    parser.add_argument("--throttle", type=float, metavar="BYTES", help="bytes per second for all downloads together")
    options = parser.parse_args()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with HubSimulator(options.host, options.port, behaviour=Behaviour(resolve_mode=options.mode)) as hub:
        if options.repo_dir:
            commit = hub.put_repo(options.repo_type, options.repo_id, files_of(options.repo_dir))
            repo_id = options.repo_id
        else:
            put_many(hub.storage)
            commit, repo_id = put_zoo(hub.storage), "acme/zoo"
        if options.throttle:
            hub.inject(throttle(options.throttle, is_shared=True), method="GET")
        address = {"endpoint": hub.endpoint, "cdn": hub.cdn_endpoint, "repo": repo_id, "commit": commit}
        print(json.dumps(address), flush=True)
        stopped.wait()
        sent = {name: hub.body_bytes_sent(listener=name) for name in ("hub", "cdn", "cas")}
        print(json.dumps({"requests": len(hub.requests), "body_bytes_sent": sent}), flush=True)


if __name__ == "__main__":
    main()
