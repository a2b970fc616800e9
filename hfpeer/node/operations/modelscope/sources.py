"""The files of one commit of the Hub, for a push or a comparison: listed, brought into the cache, and hashed.

An LFS file has its sha256 in the commit, so it is listed without its bytes. Of a plain file the commit knows git's hash
only: it is brought into the cache and hashed once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from hfpeer.control.operations import AddRequest, ListedCommit, ListedFile, Operations
from hfpeer.errors import BrokenCache
from hfpeer.modelscope.files import SourceFile
from hfpeer.names import Digest, FilePath, RepoId, Revision
from hfpeer.system.cancellation import check_stop, in_thread
from hfpeer.transfer.events import Event, Finished, OnEvent, Progressed, SourceFailed

FILES_PER_ADD = 5000
"""Files named in one add. Its request has to fit one message."""
READ_BYTES = 1024 * 1024


class CommitSource:
    """One listed commit, in the cache of a node."""

    def __init__(self, node: Operations, request: AddRequest, listed: ListedCommit, on_event: OnEvent) -> None:
        self._node = node
        self._request = request
        self._on_event = on_event
        self.listed = listed
        self.repo = RepoId.parse(listed.repo, listed.type)
        self.fetched_bytes = 0
        """The bytes that came over a network for this."""

    @classmethod
    async def open(cls, node: Operations, request: AddRequest, on_event: OnEvent) -> CommitSource:
        """Resolves and lists. Raises the errors of `Operations.list_commit`."""
        return cls(node, request, await node.list_commit(request), on_event)

    @cached_property
    def selected(self) -> tuple[ListedFile, ...]:
        """The files that the request selects."""
        return tuple(file for file in self.listed.files if file.is_selected)

    @property
    def size_bytes(self) -> int:
        """The bytes of all selected files together, equal ones once."""
        return sum({file.digest: file.size_bytes for file in self.selected}.values())

    def path(self, path: str) -> Path:
        """The file in the cache with the bytes at a path, once they are there."""
        return Path(self.listed.snapshot) / path

    async def files(self) -> list[SourceFile]:
        """The selected files with their sha256, plain ones brought into the cache. Raises the errors of an add."""
        await self.bring([file.path for file in self.selected if not _is_lfs(file)])
        return await in_thread(lambda: [self._hashed(file) for file in self.selected])

    async def bring(self, paths: Sequence[str]) -> None:
        """Brings files into the cache in the node's ordinary way, and checks those that other tools put there."""
        for first in range(0, len(paths), FILES_PER_ADD):
            some = tuple(FilePath(path) for path in paths[first : first + FILES_PER_ADD])
            request = replace(self._request, revision=Revision(self.listed.commit), files=some, include=(), exclude=())
            finished = await self._node.add(request, self._tell)
            self.listed = replace(self.listed, snapshot=finished.snapshot)
            self.fetched_bytes += sum(finished.bytes_by_source.values())

    async def verified(self) -> dict[str, float]:
        """By digest: when the cache last hashed the blobs that it has of the commit. Asks nobody."""
        request = replace(self._request, revision=Revision(self.listed.commit), is_local_only=True)
        listed = await self._node.list_commit(request)
        return {file.digest: file.verified_at for file in listed.files if file.verified_at is not None}

    def _tell(self, event: Event) -> None:
        if isinstance(event, (Progressed, SourceFailed)) and not isinstance(event, Finished):
            self._on_event(event)

    def _hashed(self, file: ListedFile) -> SourceFile:
        if _is_lfs(file):
            return SourceFile(file.path, file.size_bytes, Digest.parse(file.digest).hex, True)
        digest = hashlib.sha256()
        try:
            with self.path(file.path).open("rb") as opened:
                while block := opened.read(READ_BYTES):
                    check_stop()
                    digest.update(block)
        except OSError as error:
            raise BrokenCache(
                f"{file.path} cannot be read from the cache: {error.strerror or error}.",
                hint="Run the same command again: it brings into the cache what is missing.",
                path=file.path,
            ) from error
        return SourceFile(file.path, file.size_bytes, digest.hexdigest(), False)


def _is_lfs(file: ListedFile) -> bool:
    return file.digest.startswith("sha256:")


def listed_paths(listed: ListedCommit) -> Iterable[str]:
    """All paths of a commit, selected or not."""
    return (file.path for file in listed.files)
