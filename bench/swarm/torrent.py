"""A BitTorrent client for the benchmark, over libtorrent: `make` a torrent, or `run` it as seed or leecher.

Set up for a LAN: TCP only, no tracker, no DHT, no local discovery, nothing throttled; every peer is told of every
other. It goes on seeding after its own download until SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from typing import Any

import libtorrent

CHECK_SECONDS = 0.02
UPLOADS = 8
LAN_SETTINGS: dict[str, Any] = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "allow_multiple_connections_per_ip": True,
    "connection_speed": 200,
    "torrent_connect_boost": 100,
    "connections_limit": 200,
    "unchoke_slots_limit": UPLOADS,
    "max_out_request_queue": 1500,
    "send_buffer_watermark": 4 << 20,
    "alert_mask": 0,
}


def make(folder: Path, torrent: Path, piece_bytes: int) -> None:
    """Writes the torrent of a folder, version 1."""
    files = libtorrent.list_files(str(folder))
    creating = libtorrent.create_torrent(files, piece_bytes, libtorrent.create_torrent.v1_only)
    libtorrent.set_piece_hashes(creating, str(folder.parent))
    torrent.write_bytes(libtorrent.bencode(creating.generate()))


def run(options: argparse.Namespace, stopped: threading.Event) -> None:
    """Takes part until stopped; touches `done` when everything is here, and keeps `sent` up to date."""
    session = libtorrent.session(_settings(options.listen))
    parameters = libtorrent.load_torrent_file(str(options.torrent))
    parameters.save_path = str(options.save)
    parameters.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    if options.seed:
        parameters.flags |= libtorrent.torrent_flags.seed_mode
    torrent = session.add_torrent(parameters)
    for address in options.others.split(","):
        host, _, port = address.rpartition(":")
        torrent.connect_peer((host, int(port)))
    while not stopped.wait(CHECK_SECONDS):
        status = torrent.status()
        _write(options.sent, str(status.total_payload_upload))
        if status.is_seeding and not options.done.exists():
            options.done.touch()


def _settings(listen: str) -> Any:
    return {**LAN_SETTINGS, "listen_interfaces": listen}


def _write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make")
    making.add_argument("folder", type=Path)
    making.add_argument("torrent", type=Path)
    making.add_argument("piece_bytes", type=int)
    running = verbs.add_parser("run")
    running.add_argument("torrent", type=Path)
    running.add_argument("save", type=Path)
    running.add_argument("listen", metavar="HOST:PORT")
    running.add_argument("--others", required=True, metavar="HOST:PORT,…")
    running.add_argument("--done", type=Path, required=True)
    running.add_argument("--sent", type=Path, required=True)
    running.add_argument("--seed", action="store_true")
    options = parser.parse_args()
    if options.verb == "make":
        return make(options.folder, options.torrent, options.piece_bytes)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    return run(options, stopped)


if __name__ == "__main__":
    main()
