"""`snapshot_download` and `hf_hub_download`: huggingface_hub's names and return values over a node.

Work is done by the daemon if one answers, else in this process. The errors are hfpeer's own (`hfpeer.errors`). Files
always go through the cache, where the LAN finds them; `local_dir` gets copies, with the notes the Hub client keeps
beside them. An argument that cannot be honoured is refused, never silently dropped, unless dropping it is harmless.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hfpeer.errors import AccessDenied, InvalidName
from hfpeer.names import Digest, FilePath, RepoId, RepoType, Revision
from hfpeer.operations import MAIN, AddRequest, CachedFile, Operations
from hfpeer.paths import Places
from hfpeer.session import open_session
from hfpeer.settings import Settings, UpstreamSetting, read_settings
from hfpeer.transfer.events import Event, Finished, Planned, Progressed
from hfpeer.upstream.auth import environment_token

if TYPE_CHECKING:
    from types import TracebackType

T = TypeVar("T")
_TRUE = ("1", "ON", "YES", "TRUE")


def snapshot_download(
    repo_id: str,
    *,
    repo_type: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_dir: str | Path | None = None,
    library_name: str | None = None,
    library_version: str | None = None,
    user_agent: dict[str, Any] | str | None = None,
    etag_timeout: float = 10,
    force_download: bool = False,
    token: bool | str | None = None,
    local_files_only: bool = False,
    allow_patterns: list[str] | str | None = None,
    ignore_patterns: list[str] | str | None = None,
    max_workers: int = 8,
    tqdm_class: type[Any] | None = None,
    headers: dict[str, str] | None = None,
    endpoint: str | None = None,
    dry_run: bool = False,
) -> str:
    """Brings a whole repo, or the files that match, into the cache: the path of the snapshot, or of `local_dir`.

    Every argument of huggingface_hub's function of this name is taken. `library_name`, `library_version`,
    `user_agent`, `etag_timeout` and `max_workers` have no effect; `force_download`, `headers` and `dry_run` are
    refused. `cache_dir` and `endpoint`, where they differ from the settings, are served without the daemon, from
    upstreams only. Raises the errors of `hfpeer.errors`.
    """
    del library_name, library_version, user_agent, etag_timeout, max_workers
    _refuse(force_download=force_download, headers=headers, dry_run=dry_run)
    request = AddRequest(
        repo=_repo(repo_id, repo_type),
        revision=Revision.parse(revision) if revision else MAIN,
        include=_patterns("allow_patterns", allow_patterns),
        exclude=_patterns("ignore_patterns", ignore_patterns),
        is_local_only=local_files_only or _is_offline(os.environ),
        token=_token(token),
    )
    settings = _settings(cache_dir, endpoint)
    return str(_run(_bring(settings, request, _folder(local_dir), tqdm_class)))


def hf_hub_download(
    repo_id: str,
    filename: str,
    *,
    subfolder: str | None = None,
    repo_type: str | None = None,
    revision: str | None = None,
    library_name: str | None = None,
    library_version: str | None = None,
    cache_dir: str | Path | None = None,
    local_dir: str | Path | None = None,
    user_agent: dict[str, Any] | str | None = None,
    force_download: bool = False,
    etag_timeout: float = 10,
    token: bool | str | None = None,
    local_files_only: bool = False,
    headers: dict[str, str] | None = None,
    endpoint: str | None = None,
    tqdm_class: type[Any] | None = None,
    dry_run: bool = False,
) -> str:
    """Brings one file into the cache: its path there, or in `local_dir`. Arguments and errors: `snapshot_download`."""
    del library_name, library_version, user_agent, etag_timeout
    _refuse(force_download=force_download, headers=headers, dry_run=dry_run)
    path = FilePath.parse(f"{subfolder}/{filename}" if subfolder else filename)
    request = AddRequest(
        repo=_repo(repo_id, repo_type),
        revision=Revision.parse(revision) if revision else MAIN,
        files=(path,),
        is_local_only=local_files_only or _is_offline(os.environ),
        token=_token(token),
    )
    settings = _settings(cache_dir, endpoint)
    return str(_run(_bring(settings, request, _folder(local_dir), tqdm_class)) / path)


async def _bring(settings: Settings, request: AddRequest, local_dir: Path | None, tqdm_class: type[Any] | None) -> Path:
    """Adds what is asked; the folder in which it lies now."""
    async with open_session(settings) as node:
        with _Bar(tqdm_class) as bar:
            finished = await node.add(request, bar)
        if local_dir is None:
            return Path(finished.snapshot)
        files = await _wanted_files(node, request, finished)
        await asyncio.to_thread(copy_into, local_dir, Path(finished.snapshot), finished.commit, files)
        return local_dir


# What the arguments mean


def _folder(local_dir: str | Path | None) -> Path | None:
    return None if local_dir is None else Path(local_dir).expanduser().resolve()


def _repo(repo_id: str, repo_type: str | None) -> RepoId:
    known = [kind.value for kind in RepoType]
    if repo_type is not None and repo_type not in known:
        raise InvalidName(
            f"{repo_type!r} is not a type of repo.", hint=f"Use one of: {', '.join(known)}.", repo_type=repo_type
        )
    return RepoId.parse(repo_id, repo_type or RepoType.MODEL)


def _refuse(*, force_download: bool, headers: Mapping[str, str] | None, dry_run: bool) -> None:
    reasons = {
        "force_download": "what is in the cache has been verified and is not fetched twice; remove it first to "
        "have it fetched again (`hfpeer model rm`)",
        "headers": "bytes come from several sources, and no header is sent to all of them",
        "dry_run": "hfpeer does not estimate; `hfpeer model ls -r REPO -v REV` lists what is here",
    }
    given = {"force_download": force_download, "headers": headers, "dry_run": dry_run}
    for name, value in given.items():
        if value:
            raise InvalidName(f"hfpeer does not take {name}: {reasons[name]}.", hint="Leave it out.", argument=name)


def _patterns(name: str, patterns: Sequence[str] | str | None) -> tuple[str, ...]:
    if name == "allow_patterns" and patterns is not None and not patterns:
        raise InvalidName("allow_patterns is empty, so nothing would match.", hint="Leave it out to take all files.")
    return (patterns,) if isinstance(patterns, str) else tuple(patterns or ())


def _is_offline(environ: Mapping[str, str]) -> bool:
    """Whether the environment forbids requests, as huggingface_hub reads it."""
    return any(environ.get(name, "").upper() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


def _token(token: bool | str | None) -> str | None:
    """None leaves it to the node, which has the user's own; the empty token is nobody's."""
    if isinstance(token, str):
        return token
    if token is False:
        return ""
    found = environment_token(os.environ)
    if token is True and not found and not _has_stored_token():
        raise AccessDenied("token=True, but you are not logged in.", hint="`hfpeer auth login` asks for a token.")
    return found


def _has_stored_token() -> bool:
    from hfpeer.upstream.hub import stored_token

    return stored_token() is not None


def _settings(cache_dir: str | Path | None, endpoint: str | None) -> Settings:
    """The settings in force, changed to what a call asks for.

    Another cache or endpoint is another node: it gets a home of its own below the first, because a catalogue
    describes one cache, and so no daemon answers for it.
    """
    settings = read_settings(os.environ)
    cache = settings.places.cache if cache_dir is None else Path(cache_dir).expanduser().resolve()
    upstreams = settings.upstreams if endpoint is None else (UpstreamSetting("origin", endpoint.rstrip("/")),)
    if (cache.resolve(), upstreams) == (settings.places.cache.resolve(), settings.upstreams):
        return settings
    what = hashlib.sha256(f"{cache}\n{endpoint}".encode()).hexdigest()[:16]
    places = Places(settings.places.home / "caches" / what, cache)
    return replace(settings, places=places, upstreams=upstreams)


# Running


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end, in a thread of its own where this one already runs an event loop."""
    return _run_in_thread(work) if _is_loop_running() else asyncio.run(work)


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(work: Coroutine[Any, Any, T]) -> T:
    started: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = concurrent.futures.Future()

    async def supervised() -> T:
        task = asyncio.ensure_future(work)
        started.set_result((asyncio.get_running_loop(), task))
        return await task

    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="hfpeer-download") as pool:
        outcome = pool.submit(asyncio.run, supervised())
        try:
            return outcome.result()
        except BaseException:
            # Ctrl-C came to this thread; the pool waits for its own, which must not go on to the end.
            if not outcome.done():
                loop, task = started.result()
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(task.cancel)
            raise


class _Bar:
    """A listener that moves one bar of the caller's `tqdm_class`; without a class it does nothing."""

    def __init__(self, tqdm_class: type[Any] | None) -> None:
        self._class = tqdm_class
        self._bar: Any = None
        self._present_bytes = 0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(
        self, cls: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: Event) -> None:
        if self._class is None:
            return
        if isinstance(event, Planned):
            self._present_bytes = event.size_bytes - event.missing_bytes
            self._bar = self._class(
                total=event.size_bytes, initial=self._present_bytes, desc=event.repo, unit="B", unit_scale=True
            )
        elif isinstance(event, Progressed) and self._bar is not None:
            self._bar.update(event.present_bytes - self._present_bytes)
            self._present_bytes = event.present_bytes


# local_dir


async def _wanted_files(node: Operations, request: AddRequest, finished: Finished) -> list[CachedFile]:
    from hfpeer.adding import select
    from hfpeer.manifest import Manifest, ManifestFile
    from hfpeer.names import Commit

    (cached,) = await node.list_revisions(request.repo, Revision(finished.commit))
    listing = {file.path: file for file in cached.listing}
    manifest = Manifest(
        request.repo,
        Commit(finished.commit),
        tuple(
            ManifestFile(FilePath.parse(file.path), file.size_bytes, Digest.parse(file.digest))
            for file in cached.listing
        ),
    )
    return [listing[file.path] for file in select(manifest, request)]


def copy_into(folder: Path, snapshot: Path, commit: str, files: Sequence[CachedFile]) -> None:
    """Makes `folder` hold the files of a snapshot as real files, with the Hub client's notes of what they are.

    A file that has not changed since such a note was written is left alone. Raises NoSpace and BrokenCache.
    """
    from hfpeer.cache.snapshots import copy_blob, write_file

    notes = folder / ".cache" / "huggingface"
    for name, text in ((".gitignore", "*"), ("CACHEDIR.TAG", _CACHEDIR_TAG)):
        if not (notes / name).exists():
            write_file(notes / name, text)
    for file in files:
        etag, target = Digest.parse(file.digest).hex, folder / file.path
        note = notes / "download" / f"{file.path}.metadata"
        if not _is_current(_read_note(note), target, etag):
            copy_blob(snapshot / file.path, target, check=_a_copy_of_its_own)
        write_file(note, f"{commit}\n{etag}\n{time.time()}\n")


def _a_copy_of_its_own(copy: Path) -> None:
    """Given as a check so that the copy is never the blob itself: the user may write to it."""


@dataclass(frozen=True)
class _Note:
    etag: str
    written_at: float


def _read_note(path: Path) -> _Note | None:
    try:
        _, etag, written_at = path.read_text().split()
        return _Note(etag, float(written_at))
    except (OSError, ValueError):
        return None


def _is_current(note: _Note | None, target: Path, etag: str) -> bool:
    """Whether the file still is what its note says; a second's grace, as huggingface_hub gives it."""
    if note is None or note.etag != etag or not target.is_file():
        return False
    return target.stat().st_mtime - 1 <= note.written_at


_CACHEDIR_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by hfpeer.\n"
    "# For information about cache directory tags, see:\n"
    "#\thttps://bford.info/cachedir/\n"
)
