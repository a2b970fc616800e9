"""Sends blobs to ModelScope straight from the cache: only those that the site has not stored, whoever stored them.

A blob is hashed while it is sent, and its last part waits for the right hash, so that bytes that have gone bad never
become a blob there. Only a blob that was verified within a day, and not changed since, is sent without. The site cannot
continue a blob that was cut: such a blob is sent again from its begin. So large ones are sent one by one, and whatever
ends a push wastes the bytes of one of them at most.
Source: modelscope_hub `validate_blobs`, `upload_blob`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

from hfpeer.budgets import MIB
from hfpeer.errors import BrokenCache, CorruptData, PushRefused
from hfpeer.modelscope.answers import Transient, malformed
from hfpeer.modelscope.api import MAX_TRIES, SiteApi, SiteRequest, Waits
from hfpeer.modelscope.names import SiteRepo
from hfpeer.net.limiter import Limiter
from hfpeer.net.tasks import end_tasks

UPLOADS_AT_ONCE = 3
IN_FLIGHT_BYTES = 64 * MIB
"""Bytes of all blobs that are sent at once, unless the user says how many those are. A larger blob is sent alone."""
VERIFIED_SECONDS = 24 * 3600.0
"""Seconds after a verification during which a blob that has not changed is not hashed again."""
OBJECTS_PER_QUESTION = 64
PORTION_BYTES = 1024 * 1024
"""Bytes read, hashed and sent at a time. Two portions of each upload are in memory."""

OnSent: TypeAlias = Callable[[str, int], None]
"""Called with the sha256 of a blob and the bytes of it that were sent by now."""


@dataclass(frozen=True, order=True)
class SiteBlob:
    """A blob as ModelScope knows it: by its sha256 and its size."""

    sha256: str
    size_bytes: int


async def ask_wanted(api: SiteApi, repo: SiteRepo, blobs: Iterable[SiteBlob]) -> dict[SiteBlob, str]:
    """The blobs that the site has not stored, each with the address at which it is to be put.

    Raises PushRefused for a blob that the site refuses, HubUnreachable for an answer that names other blobs.
    """
    distinct = sorted(set(blobs))
    wanted: dict[SiteBlob, str] = {}
    for first in range(0, len(distinct), OBJECTS_PER_QUESTION):
        asked = distinct[first : first + OBJECTS_PER_QUESTION]
        document = {
            "operation": "upload",
            "objects": [{"oid": blob.sha256, "size": blob.size_bytes} for blob in asked],
        }
        path = f"/api/v1/repos/{repo.api_path}/info/lfs/objects/batch"
        data = await api.ask(SiteRequest("POST", path, document=document, repo=str(repo), aim="write"))
        wanted.update(_read_objects(api.site, asked, data))
    return wanted


def _read_objects(site: str, asked: Sequence[SiteBlob], data: Any) -> dict[SiteBlob, str]:
    """The address of each blob that an answer asks for. A blob that is left out is stored already."""
    objects = data.get("objects") if isinstance(data, dict) else None
    if objects is None and isinstance(data, dict):
        objects = []
    if not isinstance(objects, list):
        raise malformed(site, "it does not say which blobs it wants")
    found: dict[SiteBlob, str] = {}
    for each in objects:
        fields = each if isinstance(each, dict) else {}
        blob = next((one for one in asked if (one.sha256, one.size_bytes) == _key(fields)), None)
        if blob is None:
            raise malformed(site, f"it names a blob that was not asked for ({str(fields.get('oid'))[:64]!r})")
        if fields.get("error"):
            detail = fields["error"].get("message") if isinstance(fields["error"], dict) else fields["error"]
            raise PushRefused(
                f"{site} refuses the blob {blob.sha256[:12]}…: {str(detail)[:200]}.",
                hint="Try again later; nothing was committed.",
                sha256=blob.sha256,
            )
        actions = fields.get("actions")
        upload = actions.get("upload") if isinstance(actions, dict) else None
        href = upload.get("href") if isinstance(upload, dict) else None
        if isinstance(href, str) and href:
            found[blob] = href
    return found


def _key(fields: dict[str, Any]) -> tuple[Any, Any]:
    return fields.get("oid"), fields.get("size")


@dataclass(frozen=True)
class Upload:
    """A blob to be sent: the file that has its bytes, and a path in the repo for messages.

    `verified_at`: seconds since the epoch when the cache last hashed the blob of this sha256 in its repo, None if it is
    not known.
    """

    blob: SiteBlob
    source: Path
    path: str
    verified_at: float | None = None

    def is_verified(self, name: str, facts: os.stat_result) -> bool:
        """Whether a file of this name is the blob that was verified lately. Its ctime tells of any later change."""
        if self.verified_at is None or not 0 <= time.time() - self.verified_at < VERIFIED_SECONDS:
            return False
        is_whole = (name, facts.st_size) == (self.blob.sha256, self.blob.size_bytes)
        return is_whole and facts.st_ctime <= self.verified_at


class Uploader:
    """Sends blobs to one repo, a few at a time: `at_once` whatever their size, or as many as IN_FLIGHT_BYTES allow."""

    def __init__(
        self, api: SiteApi, repo: SiteRepo, limiter: Limiter | None, on_sent: OnSent, at_once: int | None = None
    ) -> None:
        self._api = api
        self._repo = repo
        self._limiter = limiter
        self._on_sent = on_sent
        self._at_once = at_once
        self._in_flight: dict[asyncio.Task[None], int] = {}
        self.sent_bytes = 0
        """The bytes of bodies that went out, also those of tries that failed."""

    async def send(self, uploads: Sequence[Upload]) -> list[Upload]:
        """Sends the blobs that the site still wants, and returns them. All are stored there afterwards.

        Raises PushRefused, AccessDenied, HubUnreachable, CorruptData for a blob whose bytes have gone bad here.
        """
        sent: list[Upload] = []
        try:
            # An address may expire, so that it is asked for shortly before it is used.
            for first in range(0, len(uploads), OBJECTS_PER_QUESTION):
                some = uploads[first : first + OBJECTS_PER_QUESTION]
                wanted = await ask_wanted(self._api, self._repo, [upload.blob for upload in some])
                for upload in some:
                    href = wanted.get(upload.blob)
                    if href is None:
                        self._on_sent(upload.blob.sha256, upload.blob.size_bytes)
                        continue
                    await self._ended(partial(self._has_room, upload.blob.size_bytes))
                    self._in_flight[asyncio.create_task(self._send(upload, href))] = upload.blob.size_bytes
                    sent.append(upload)
            await self._ended(lambda: not self._in_flight)
        finally:
            await end_tasks(self._in_flight)
            await asyncio.gather(*self._in_flight, return_exceptions=True)
            self._in_flight.clear()
        return sent

    def _has_room(self, size_bytes: int) -> bool:
        """Whether a blob of this size may begin beside those under way."""
        if self._at_once is not None:
            return len(self._in_flight) < self._at_once
        total_bytes = size_bytes + sum(self._in_flight.values())
        return not self._in_flight or (len(self._in_flight) < UPLOADS_AT_ONCE and total_bytes <= IN_FLIGHT_BYTES)

    async def _ended(self, is_enough: Callable[[], bool]) -> None:
        """Waits until enough of the blobs under way have arrived. Raises the error of one that failed."""
        while not is_enough():
            done, _ = await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            failures = [failure for task in done if (failure := task.exception()) is not None]
            for task in done:
                del self._in_flight[task]
            if failures:
                raise failures[0]

    async def _send(self, upload: Upload, href: str | None) -> None:
        """One blob, with further tries. Before each, the site is asked whether it has the blob by now."""
        waits = Waits(self._api, MAX_TRIES)
        while href is not None:
            try:
                await self._put(upload, href)
                return
            except Transient as fault:
                self._on_sent(upload.blob.sha256, 0)
                await waits.after(fault)
                href = (await ask_wanted(self._api, self._repo, [upload.blob])).get(upload.blob)
        self._on_sent(upload.blob.sha256, upload.blob.size_bytes)

    async def _put(self, upload: Upload, href: str) -> None:
        body = self._body(upload)
        blob = upload.blob
        try:
            await self._api.put_blob(href, self._repo, blob.sha256, blob.size_bytes, body)
        except PushRefused as error:
            raise _of_file(error, upload) from error
        finally:
            await body.aclose()

    async def _body(self, upload: Upload) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob. While a portion is sent, the next one is read and hashed in a thread."""
        with _Reader(upload) as reader:
            ahead = asyncio.ensure_future(asyncio.to_thread(reader.next))
            sent_bytes = 0
            try:
                while portion := await asyncio.shield(ahead):
                    ahead = asyncio.ensure_future(asyncio.to_thread(reader.next))
                    for part in self._parts(portion):
                        await self._wait_for_limit(part)
                        yield part
                        sent_bytes += len(part)
                        self.sent_bytes += len(part)
                        self._on_sent(upload.blob.sha256, sent_bytes)
            finally:
                # The thread must not read from a file that is closed.
                await asyncio.wait([ahead])
                if not ahead.cancelled():
                    ahead.exception()

    def _parts(self, portion: bytes) -> Iterator[bytes]:
        """The portion, in parts that the limit lets pass at once."""
        quantum = (self._limiter.quantum() if self._limiter is not None else None) or len(portion)
        return (portion[first : first + quantum] for first in range(0, len(portion), quantum))

    async def _wait_for_limit(self, part: bytes) -> None:
        if self._limiter is not None:
            seconds = self._limiter.reserve(len(part))
            if seconds > 0:
                await asyncio.sleep(seconds)


class _Reader:
    """Reads a blob portion by portion, and hashes it unless it was verified lately. The last portion is given only if
    the hash of all is right."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._left_bytes = upload.blob.size_bytes

    def __enter__(self) -> _Reader:
        try:
            place = self._upload.source.resolve()
            self._file = open(place, "rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
        is_verified = self._upload.is_verified(place.name, os.fstat(self._file.fileno()))
        self._digest = None if is_verified else sha256()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def next(self) -> bytes:
        """The next portion; empty at the end. Raises CorruptData, and BrokenCache for a file that cannot be read."""
        if not self._left_bytes:
            return b""
        try:
            portion = self._file.read(min(PORTION_BYTES, self._left_bytes))
        except OSError as error:
            raise self._unreadable(error) from error
        if self._digest is not None:
            self._digest.update(portion)
        self._left_bytes -= len(portion)
        if not portion or (not self._left_bytes and self._is_wrong()):
            raise CorruptData(
                f"The bytes of {self._upload.path} in the cache have changed since they came: the blob was not sent.",
                hint="`hfpeer verify` names what is wrong and the repair; then run the same command again.",
                path=self._upload.path,
            )
        return portion

    def _is_wrong(self) -> bool:
        return self._digest is not None and self._digest.hexdigest() != self._upload.blob.sha256

    def _unreadable(self, error: OSError) -> BrokenCache:
        return BrokenCache(
            f"{self._upload.path} cannot be read from the cache: {error.strerror or error}.",
            hint="Run the same command again: it brings into the cache what is missing.",
            path=self._upload.path,
        )


def _of_file(error: PushRefused, upload: Upload) -> PushRefused:
    """The error with the path and the size of the file."""
    size = f"{upload.path} ({upload.blob.size_bytes:,} bytes)"
    return PushRefused(f"{size}: {error.message}", hint=error.hint, **{**error.facts, "path": upload.path})
