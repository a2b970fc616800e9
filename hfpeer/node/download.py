"""`snapshot_download` and `hf_hub_download`: huggingface_hub's names and return values over a node.

The daemon does the work if it answers, else a node in this process. The errors are hfpeer's own (`hfpeer.errors`).
Files always go through the cache, where peers find them; `local_dir` gets copies, with the metadata files that the Hub
client keeps beside them. An argument that cannot take effect raises InvalidName, unless ignoring it is harmless.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.config.settings import Settings
from hfpeer.control.asker import Asker
from hfpeer.control.operations import AddRequest, Operations
from hfpeer.errors import InvalidName
from hfpeer.names import MAIN, FilePath, RepoId, RepoType, Revision
from hfpeer.node.calls import is_offline, run, settings_of, token_of
from hfpeer.node.session import open_session
from hfpeer.system.cancellation import in_thread
from hfpeer.transfer.events import Event, Finished, Planned, Progressed

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger(__name__)


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
    """Adds a repo, or the files of it that match, to the cache. Returns the path of the snapshot, or of `local_dir`.

    Takes all arguments of huggingface_hub's function of this name. `library_name`, `library_version`, `user_agent`,
    `etag_timeout` and `max_workers` have no effect; `force_download`, `headers` and `dry_run` raise InvalidName. If
    `cache_dir` or `endpoint` differs from the settings, a node in this process does the work, from upstreams only.
    Raises the errors of `hfpeer.errors`.
    """
    del library_name, library_version, user_agent, etag_timeout, max_workers
    _refuse(force_download=force_download, headers=headers, dry_run=dry_run)
    request = AddRequest(
        repo=_repo(repo_id, repo_type),
        revision=Revision.parse(revision) if revision else MAIN,
        include=_patterns("allow_patterns", allow_patterns),
        exclude=_patterns("ignore_patterns", ignore_patterns),
        is_local_only=local_files_only or is_offline(os.environ),
        token=token_of(token),
        asked_by=Asker.of(os.environ, "python"),
    )
    settings = settings_of(cache_dir, endpoint)
    request = replace(request, makes_links=settings.makes_links)
    return str(run(_bring(settings, request, _folder(local_dir), tqdm_class)))


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
    """Adds one file to the cache. Returns its path there, or in `local_dir`.

    Arguments and errors are those of `snapshot_download`.
    """
    del library_name, library_version, user_agent, etag_timeout
    _refuse(force_download=force_download, headers=headers, dry_run=dry_run)
    path = FilePath.parse(f"{subfolder}/{filename}" if subfolder else filename)
    request = AddRequest(
        repo=_repo(repo_id, repo_type),
        revision=Revision.parse(revision) if revision else MAIN,
        files=(path,),
        is_local_only=local_files_only or is_offline(os.environ),
        token=token_of(token),
        asked_by=Asker.of(os.environ, "python"),
    )
    settings = settings_of(cache_dir, endpoint)
    request = replace(request, makes_links=settings.makes_links)
    return str(run(_bring(settings, request, _folder(local_dir), tqdm_class)) / path)


async def _bring(settings: Settings, request: AddRequest, local_dir: Path | None, tqdm_class: type[Any] | None) -> Path:
    """Adds the files of a request and returns the folder that has them."""
    async with open_session(settings) as node:
        with _Bar(tqdm_class) as bar:
            finished = await node.add(request, bar)
        if local_dir is None:
            return Path(finished.snapshot)
        await _fill(local_dir, node, request, finished)
        return local_dir


async def _fill(local_dir: Path, node: Operations, request: AddRequest, finished: Finished) -> None:
    """Fills `local_dir`. As in huggingface_hub, files that were changed there are replaced; the log names them."""
    from hfpeer.node.operations.moving.local_dir import fill_folder, selected_files

    files = await selected_files(node, request, finished)
    everything = {file.path for file in files}
    fill = partial(fill_folder, replaceable=everything)
    filled = await in_thread(fill, local_dir, Path(finished.snapshot), finished.commit, files)
    if filled.replaced:
        logger.warning("Replaced in %s, where they had been changed: %s", local_dir, ", ".join(filled.replaced))


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
        "force_download": "the cache is verified, so a file in it is not fetched again; remove it first "
        "(`hfpeer model rm`)",
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


class _Bar:
    """An on_event function that draws one bar of the caller's `tqdm_class`; without a class it does nothing."""

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
