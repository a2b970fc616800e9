"""A node in memory with everything that the page shows: a cache, peers, transfers under way, a history."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from fakes.node import MemoryNode
from fakes.stub_node import STATUS
from hfpeer.cache.records import Contribution, Failure, FetchRecord, Provenance
from hfpeer.control.asker import Asker
from hfpeer.control.operations import CachedRevision, Holding, NodeStatus, PeerStatus
from hfpeer.control.results import HubContact
from hfpeer.control.transfers import HistoryEntry, TransferStatus
from hfpeer.names import MAIN, FilePath, RepoId, Revision

MACHINES = ("andromeda", "cassiopeia", "draco", "lyra", "orion", "pegasus", "perseus", "phoenix", "vela", "vulpecula")
OWNERS = (
    *("Qwen", "meta-llama", "mistralai", "google", "microsoft"),
    *("deepseek-ai", "BAAI", "openai", "stabilityai", "HuggingFaceFW"),
)
NAMES = (
    *("base-7B", "instruct-8B", "embed-large", "coder-32B", "vision-11B"),
    *("reranker-v2", "tiny-random", "turbo-xl", "math-72B", "whisper"),
)
HOUR, DAY = 3600, 86400


class PictureNode(MemoryNode):
    """A node whose status is `picture`, made for a number of peers and of repos. Every fifth repo is private."""

    def __init__(self, peers: int, repos: int, seed: int = 7) -> None:
        super().__init__("cygnus")
        dice, now = random.Random(seed), time.time()
        self.peers = {peer.address: peer for peer in (_peer(number, dice) for number in range(peers))}
        self.cached = [_revision(number, dice, now) for number in range(repos)]
        self.found = [
            Holding(
                peer=peer.name,
                address=peer.address,
                repo=one.repo,
                commit=one.commit,
                refs=("main",),
                is_complete=dice.random() < 0.8,
                size_bytes=one.size_bytes,
                type=one.type,
                node_id=peer.node_id,
            )
            for peer in self.peers.values()
            for one in self.cached
            if one.is_shared and dice.random() < 0.4
        ]
        names = [peer.name for peer in self.peers.values()] or ["hf-mirror.com"]
        self.entries = [_entry(number, self.cached, names, dice, now) for number in range(60 if repos else 0)]
        self.entries.sort(key=lambda entry: entry.ended_at)
        self.provenance = [_story(path, names, now) for path in ("config.json", "model.safetensors")]
        self.picture = _status(self.cached, names, self.entries, now)

    async def status(self) -> NodeStatus:
        return replace(self.picture, peers=tuple(self.peers.values()))

    async def why(self, repo: RepoId, revision: Revision = MAIN, files: tuple[FilePath, ...] = ()) -> list[Provenance]:
        return [one for one in self.provenance if not files or one.path in files]


def _peer(number: int, dice: random.Random) -> PeerStatus:
    name = MACHINES[number % len(MACHINES)] + (f"-{number // len(MACHINES) + 1}" if number >= len(MACHINES) else "")
    state = "gone" if number % 11 == 4 else "alive"
    return PeerStatus(
        f"{number:032x}",
        name,
        f"192.168.1.{20 + number}:9437",
        state,
        ("mdns", "static", "gossip")[number % 3],
        "0.1.0",
        revisions=dice.randrange(1, 90),
        last_seen_seconds_ago=4.0,
        received_bytes=dice.randrange(10**9, 10**12),
        note="no answer within 5 s" if state == "gone" else "",
        found_by=("mdns", "static", "gossip")[number % 3],
    )


def _revision(number: int, dice: random.Random, now: float) -> CachedRevision:
    type = "dataset" if number % 6 == 5 else "model"
    round = number // 100
    owner, name = OWNERS[number % 10], NAMES[(number // 10) % 10] + (f"-v{round + 1}" if round else "")
    commit = f"{number + 1:040x}"
    is_shared = number % 5 != 3
    return CachedRevision(
        repo=f"{owner}/{name}",
        type=type,
        commit=commit,
        refs=("main",),
        files=dice.randrange(4, 60),
        size_bytes=dice.randrange(10**8, 10**11),
        is_complete=number % 9 != 4,
        is_proved=True,
        visibility="public" if is_shared else "private",
        is_shared=is_shared,
        used_at=now - dice.random() * 40 * DAY,
        snapshot=f"/home/anna/hub/{RepoId.parse(f'{owner}/{name}', type).folder}/snapshots/{commit}",
    )


def _entry(
    number: int, cached: list[CachedRevision], names: list[str], dice: random.Random, now: float
) -> HistoryEntry:
    one, size_bytes = dice.choice(cached), dice.randrange(10**8, 4 * 10**10)
    from_peers = int(size_bytes * dice.choice((0, 0.6, 0.9, 1)))
    ended_at = now - dice.random() * 29 * DAY
    return HistoryEntry(
        id=number + 1,
        repo=str(RepoId.parse(one.repo, one.type)),
        revision="main",
        commit=one.commit,
        outcome="done",
        asked_by=Asker("cli", "anna"),
        began_at=ended_at - 90,
        ended_at=ended_at,
        seconds=90.0,
        files=one.files,
        size_bytes=size_bytes,
        bytes_by_source={names[0]: from_peers, "huggingface.co": size_bytes - from_peers},
        bytes_by_kind={"peer": from_peers, "origin": size_bytes - from_peers},
        saved_bytes=from_peers,
    )


def _story(path: str, names: list[str], now: float) -> Provenance:
    """A file of 4 GB in two halves, or a small one of one source."""
    size_bytes = 4_000_000_000 if path.endswith("safetensors") else 1_200
    half = size_bytes // 2
    given = (
        Contribution(names[0], "peer", "192.168.1.20:9437", "lan", "eth0", half, ((0, half),)),
        Contribution("huggingface.co", "origin", "3.165.160.11:443", "wan", "eth0", half, ((half, size_bytes),)),
    )
    failure = Failure(names[-1], "It gave wrong bytes.", True, now - 2 * HOUR)
    fetch = FetchRecord(
        "sha256:" + "a" * 64, size_bytes, now - 3 * HOUR, now - 2 * HOUR, now - 2 * HOUR, given, (failure,)
    )
    return Provenance("Qwen/base-7B", f"{1:040x}", path, fetch.digest, size_bytes, "fetched", now - 2 * HOUR, fetch)


def _status(cached: list[CachedRevision], names: list[str], entries: list[HistoryEntry], now: float) -> NodeStatus:
    from_peers = sum(entry.saved_bytes for entry in entries)
    running = [
        TransferStatus(
            id=number,
            repo=str(RepoId.parse(one.repo, one.type)),
            revision="main",
            commit=one.commit,
            state=("running", "running", "queued")[number % 3],
            asked_by=Asker("cli", "anna"),
            present_bytes=one.size_bytes // (number + 2),
            size_bytes=one.size_bytes,
            files=one.files,
            rate_bytes_per_second=(112_000_000.0, 38_500_000.0, 0.0)[number % 3],
            bytes_by_source={name: one.size_bytes // (8 * place) for place, name in enumerate(names[:6], 1)},
        )
        for number, one in enumerate(cached[:3])
    ]
    return replace(
        STATUS,
        name="cygnus",
        started_at=now - 3 * DAY,
        home="/home/anna/.local/share/hfpeer",
        cache="/home/anna/.cache/huggingface/hub",
        listeners={"lan": "0.0.0.0:9437", "endpoint": "127.0.0.1:9438", "control": "/home/anna/control.sock"},
        upstreams={"hf-mirror.com": "https://hf-mirror.com", "huggingface.co": "https://huggingface.co"},
        contacts={"hf-mirror.com": HubContact("mirror", 12.0), "huggingface.co": HubContact("origin", 900.0, 30.0)},
        received_bytes={"peer": from_peers, "mirror": 70_000_000_000, "origin": 12_000_000_000},
        peer_bytes_by_month={time.strftime("%Y-%m"): from_peers} if from_peers else {},
        sent_bytes=1_310_000_000_000,
        sent_bytes_per_second=118_000_000.0,
        revisions=len(cached),
        files=sum(one.files for one in cached),
        size_bytes=sum(one.size_bytes for one in cached),
        unverified_files=12,
        transfers=tuple(running),
        notes=("huggingface.co limits requests until 12:40. Peers and other hubs are asked meanwhile.",),
        free_bytes=812_000_000_000,
        disk_bytes=3_840_000_000_000,
    )
