"""A node with one commit of one repo: it lists it, and an add writes its files into a folder that stands for the cache.

For tests of what is done with a commit, without a hub and a catalog.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from fakes.hub import Content, Lfs
from fakes.node import COMMIT, MemoryNode
from hfpeer.control.operations import AddRequest, ListedCommit, ListedFile
from hfpeer.errors import RepoNotFound
from hfpeer.git.proof import object_id
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.node.operations.selection import selection_of
from hfpeer.transfer.events import Finished, OnEvent


class CommitNode(MemoryNode):
    """`put` replaces the commit of a repo; `added` are the paths that adds have brought, in order."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._files: dict[RepoId, dict[str, bytes]] = {}
        self._manifests: dict[RepoId, Manifest] = {}
        self.visibility = "public"
        self.added: list[str] = []

    def put_repo(self, repo: RepoId, files: Mapping[str, Content]) -> None:
        """Makes these files the commit of a repo."""
        bodies: dict[str, bytes] = {}
        listed = []
        for path, content in files.items():
            data = content.data if isinstance(content, Lfs) else content
            assert isinstance(data, bytes)
            digest = (
                Digest("sha256", hashlib.sha256(data).hexdigest())
                if isinstance(content, Lfs)
                else Digest("git-sha1", object_id("blob", data))
            )
            bodies[path] = data
            listed.append(ManifestFile(FilePath.parse(path), len(data), digest))
        self._files[repo] = bodies
        self._manifests[repo] = Manifest(repo, Commit(COMMIT), tuple(sorted(listed, key=lambda file: file.path)))

    def snapshot(self, repo: RepoId) -> Path:
        """The folder with the files that were added."""
        return self._folder / repo.folder

    async def list_commit(self, request: AddRequest) -> ListedCommit:
        manifest = self._manifest(request)
        selected = {file.path for file in selection_of(request).files_of(manifest)}
        snapshot = self.snapshot(request.repo)
        return ListedCommit(
            request.repo.full_name,
            request.repo.type.value,
            manifest.commit,
            str(snapshot),
            self.visibility,
            True,
            tuple(
                ListedFile(
                    file.path,
                    file.size_bytes,
                    str(file.digest),
                    (snapshot / file.path).exists(),
                    file.path in selected,
                )
                for file in manifest.files
            ),
        )

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        files = selection_of(request).files_of(self._manifest(request))
        snapshot = self.snapshot(request.repo)
        for file in files:
            target = snapshot / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists() or target.stat().st_size != file.size_bytes:
                target.write_bytes(self._files[request.repo][file.path])
                self.added.append(file.path)
        size_bytes = sum(file.size_bytes for file in files)
        return Finished(request.repo.full_name, COMMIT, str(snapshot), len(files), size_bytes, size_bytes)

    def _manifest(self, request: AddRequest) -> Manifest:
        if request.repo not in self._manifests:
            raise RepoNotFound(f"No hub has {request.repo}.", hint="Check the name.", repo=str(request.repo))
        return self._manifests[request.repo]
