"""A cache that a test damages, the hub that counts what it gives, and the Hub client that has to load it afterwards.

The cache is made by the Hub client. The repair runs as the command does without a daemon.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import scan_cache_dir, snapshot_download

from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.peers import GoodPeer
from hfpeer.cache.repair.results import LEFT, REPAIRED, RepairReport
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import RepairRequest
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId
from hfpeer.node.elsewhere import repair_folder
from hfpeer.node.node import Node
from hfpeer.upstream.upstream import Upstream

REPO = RepoId.parse("acme/tiny")
WEIGHTS, ONNX = noise(1_200_000, "weights"), noise(1_100_000, "onnx")
FILES: dict[str, Content] = {
    "config.json": b"{}",
    "README.md": b"# tiny\n",
    "tokenizer.json": b'{"t":1}',
    "model.safetensors": Lfs(WEIGHTS),
    "onnx/model.onnx": Lfs(ONNX),
}
LARGE = "model.safetensors"
SECONDS = 60.0


def download(hub: HubSimulator, cache: Path, repo: RepoId = REPO) -> None:
    """Puts the repo on the hub and lets the Hub client download it."""
    hub.put_repo(repo.type.value, repo.full_name, FILES)
    snapshot_download(repo.full_name, repo_type=repo.type.value, cache_dir=cache, endpoint=hub.endpoint)


@dataclass
class Scene:
    """A cache that a test damages, and what there is to repair it from."""

    hub: HubSimulator
    cache: Path
    repo: RepoId = REPO
    peers: list[str] = field(default_factory=list)
    is_offline: bool = False

    @property
    def folder(self) -> Path:
        return self.cache / self.repo.folder

    @property
    def commit(self) -> str:
        return next(path.name for path in (self.folder / "snapshots").iterdir())

    @property
    def snapshot(self) -> Path:
        return self.folder / "snapshots" / self.commit

    def blob(self, path: str = LARGE) -> Path:
        return self.folder / "blobs" / (self.snapshot / path).readlink().name

    def settings(self, home: str = "home") -> Any:
        environ = {
            "HF_HUB_CACHE": str(self.cache),
            "HFPEER_UPSTREAMS": "" if self.is_offline else f"origin={self.hub.endpoint}",
            "HFPEER_PEERS": ",".join(self.peers),
            "HFPEER_MDNS": "0",
            "HFPEER_PATIENCE": "5",
        }
        return read_settings(environ, home=self.cache.parent / home)

    def repair(self, *repos: RepoId, **options: Any) -> RepairReport:
        """Repairs as the command does without a daemon."""
        self.hub.clear()
        request = RepairRequest(repos, **options)

        async def run() -> RepairReport:
            node = Node(self.settings())
            await node.start(None)
            try:
                return await asyncio.wait_for(node.repair(request, lambda event: None), SECONDS)
            finally:
                await node.stop()

        return asyncio.run(run())

    def repair_elsewhere(self, folder: Path, **options: Any) -> RepairReport:
        """Repairs a cache that is not the node's."""
        self.hub.clear()
        running = repair_folder(folder, self.settings(), RepairRequest(**options), lambda event: None)
        return asyncio.run(asyncio.wait_for(running, SECONDS))

    def fetched(self) -> int:
        """Bytes of files that left the hub."""
        asked = [*self.hub.requests_for("*/resolve*/*", "GET", "hub"), *self.hub.requests_for(listener="cdn")]
        return sum(record.body_bytes_sent for record in asked if record.status in (200, 206))

    def flip(self, path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)


def scene_of(hub: HubSimulator, downloaded: Path, folder: Path, repo: RepoId = REPO) -> Scene:
    """A copy of a downloaded cache, to be damaged."""
    shutil.copytree(downloaded, folder / "hub", symlinks=True)
    return Scene(hub, folder / "hub", repo)


def is_whole(cache: Path, repo: RepoId = REPO, files: dict[str, Content] = FILES, revision: str | None = None) -> bool:
    """Whether the Hub client loads a snapshot without a network, with the right bytes, and `hf cache` has no
    complaint."""
    path = snapshot_download(
        repo.full_name, repo_type=repo.type.value, revision=revision, cache_dir=cache, local_files_only=True
    )
    bodies = {name: content.data if isinstance(content, Lfs) else content for name, content in files.items()}
    assert scan_cache_dir(cache).warnings == []
    return {name: Path(path, name).read_bytes() for name in files} == bodies


def outcomes(report: RepairReport) -> dict[tuple[str, str], str]:
    return {(one.finding.kind, one.finding.path): one.outcome for one in report.findings}


def check_right(scene: Scene, report: RepairReport, fetched: int = 0) -> None:
    """All findings were repaired, with exactly these bytes of files from the hub, and the client loads offline."""
    assert {one.outcome for one in report.findings} <= {REPAIRED, LEFT}, report.findings
    assert report.exit_code == 0
    assert scene.fetched() == fetched == sum(report.bytes_by_kind.values())
    assert is_whole(scene.cache, scene.repo)


def peer_of(scene: Scene) -> GoodPeer:
    """A peer with the whole commit."""

    async def listing() -> Manifest:
        upstream = Upstream("hub", "origin", scene.hub.endpoint)
        try:
            return await upstream.manifest(REPO, Commit(scene.commit))
        finally:
            await upstream.aclose()

    manifest = asyncio.run(listing())
    bodies = {name: content.data if isinstance(content, Lfs) else content for name, content in FILES.items()}
    blobs = {file.digest: body for file in manifest.files if isinstance(body := bodies[file.path], bytes)}
    return GoodPeer(blobs, manifests=[manifest])
