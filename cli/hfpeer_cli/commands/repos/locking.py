"""`hfpeer lock` and `hfpeer sync`: a file pins repos and their files; a machine is made to have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import click

from hfpeer.control.asker import Asker
from hfpeer.control.operations import AddRequest
from hfpeer.errors import CorruptData, InvalidName
from hfpeer.names import MAIN, Commit, Digest, FilePath, Revision
from hfpeer.repo_words import NamedRepo
from hfpeer.resolver.lock_file import FILE_NAME, LockedFile, LockedRepo, lock_text, read_lock
from hfpeer_cli.commands.repos.options import RESUMES, on_option
from hfpeer_cli.grammar import Verb, pass_invocation, takes_repos, type_option
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.progress import summary, watching
from hfpeer_cli.several import run_each

EXIT_CHANGED = 1


@click.command(
    "lock",
    cls=Verb,
    examples=[
        "hfpeer lock Qwen/Qwen3-0.6B datasets/rajpurkar/squad@main",
        "hfpeer lock Qwen/Qwen3-0.6B --include '*.safetensors' --include '*.json'",
        "hfpeer lock",
        "hfpeer lock --check",
    ],
)
@takes_repos(None, is_needed=False)
@click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match.")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    default=FILE_NAME,
    metavar="FILE",
    help="The lock file; models.lock if left out.",
)
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if the file is not up to date.")
@type_option
@pass_invocation
@click.pass_context
def lock(
    ctx: click.Context,
    invocation: Invocation,
    repos: tuple[NamedRepo, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    path: Path,
    check: bool,
    type_: str,
) -> None:
    """Write the commit of repos, and the size and digest of their files, to a lock file.

    With REPO it is added to the file, or locked anew. Without REPO every repo of the file is locked anew, at what its
    revision means now. Fetches no file of a repo.
    """
    known = {one.repo: one for one in (_read(path) if path.exists() or not repos else ())}
    named = {one.repo: AddRequest(one.repo, one.revision or MAIN, include=include, exclude=exclude) for one in repos}
    before = {
        one.repo: AddRequest(one.repo, one.revision, include=one.include, exclude=one.exclude) for one in known.values()
    }
    locked = [_locked(invocation, request) for request in (named or before).values()]
    changes = [line for one in locked for line in _changes(known.get(one.repo), one)]
    if not check:
        _write(path, lock_text([*{**known, **{one.repo: one for one in locked}}.values()]))
    document = {"file": str(path), "changes": changes, "repos": [_document(one) for one in locked]}
    invocation.output.result(changes or f"{path} is up to date: {counted(len(locked), 'repo')}.", document)
    if check and changes:
        invocation.output.note(f"{path} is not up to date; `hfpeer lock` writes it anew.")
        ctx.exit(EXIT_CHANGED)


@click.command(
    "sync",
    cls=Verb,
    examples=["hfpeer sync", "hfpeer sync models.lock --locked", "hfpeer sync --local-only", "hfpeer sync --on all"],
)
@click.argument("path", type=click.Path(path_type=Path), default=FILE_NAME, metavar="[FILE]")
@click.option("--locked", is_flag=True, help="First look whether the revisions still mean these commits; else stop.")
@click.option("--local-only", is_flag=True, help="Use only the cache; ask no peer and no hub.")
@click.option("--no-peers", is_flag=True, help="Ask only mirrors and the origin.")
@on_option
@click.option("-d", "--detach", is_flag=True, help="With --on: return at once; `hfpeer transfers` shows it.")
@pass_invocation
@click.pass_context
def sync(
    ctx: click.Context,
    invocation: Invocation,
    path: Path,
    locked: bool,
    local_only: bool,
    no_peers: bool,
    on: str,
    detach: bool,
) -> None:
    """Bring every file of a lock file into the cache.

    Each repo is taken at its commit, so no hub need be asked what a branch means, and peers are enough. A file whose
    digest in the commit is another than in the lock file stops its repo with exit code 7. Removes nothing.
    """
    if on and (local_only or no_peers):
        raise click.UsageError("--on has other nodes do it, by their own settings: give no --local-only or --no-peers.")
    if detach and not on:
        raise click.UsageError("--detach needs --on: which nodes are meant?")
    repos = {NamedRepo(one.repo, one.revision): one for one in _read(path)}
    if not repos:
        raise InvalidName(f"{path} names no repo.", hint="`hfpeer lock REPO` adds one.")
    if locked:
        moved = []
        for one in repos.values():
            now = _locked(invocation, AddRequest(one.repo, one.revision, include=one.include, exclude=one.exclude))
            moved += _changes(one, now)
        if moved:
            invocation.output.result(moved, {"file": str(path), "changes": moved})
            invocation.output.note(f"{path} is not up to date, so nothing was fetched.")
            ctx.exit(EXIT_CHANGED)
    invocation.when_interrupted = RESUMES

    def request_of(one: LockedRepo) -> AddRequest:
        """The request for a repo of the file, after a look whether its commit has these files."""
        request = AddRequest(
            one.repo,
            Revision(one.commit),
            include=one.include,
            exclude=one.exclude,
            is_local_only=local_only,
            uses_peers=not no_peers,
            makes_links=invocation.settings.makes_links,
            asked_by=Asker.of(invocation.environ, "cli"),
        )
        listed = _locked(invocation, request)
        if listed.files != one.files:
            names = ", ".join(_differing(one, listed)[:3])
            raise CorruptData(
                f"{one.repo} at {one.commit.short} has other files than {path} says: {names}.",
                hint="A commit does not change, so the lock file was edited. `hfpeer lock` makes it anew.",
                repo=str(one.repo),
            )
        return request

    if on:
        from hfpeer_cli.commands.transfers.elsewhere import add_on

        ctx.exit(add_on(invocation, on, [request_of(one) for one in repos.values()], detach=detach))

    def bring(named: NamedRepo) -> None:
        request = request_of(repos[named])
        with watching(invocation.output) as on_event:
            finished = invocation.run(lambda node: node.add(request, on_event))
            invocation.note_environment()
        invocation.output.result(finished.snapshot, asdict(finished))
        if not invocation.output.is_json:
            invocation.output.note(summary(finished))

    ctx.exit(run_each(invocation, list(repos), bring, done="here"))


def _read(path: Path) -> tuple[LockedRepo, ...]:
    try:
        return read_lock(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidName(f"{path} cannot be read: {reason}.", hint="`hfpeer lock REPO` makes one.") from error


def _write(path: Path, text: str) -> None:
    from hfpeer.cache.snapshots import write_file

    write_file(path.absolute(), text)


def _locked(invocation: Invocation, request: AddRequest) -> LockedRepo:
    """A repo as it is now: its commit, and the files that are selected."""
    from hfpeer.upstream.auth import environment_token

    request = replace(request, token=environment_token(invocation.environ))
    listed = invocation.run(lambda node: node.list_commit(request))
    files = [
        LockedFile(FilePath(file.path), file.size_bytes, Digest.parse(file.digest))
        for file in listed.files
        if file.is_selected
    ]
    return LockedRepo(
        request.repo,
        request.revision,
        Commit(listed.commit),
        tuple(sorted(files, key=lambda file: file.path)),
        request.include,
        request.exclude,
    )


def _changes(before: LockedRepo | None, now: LockedRepo) -> list[str]:
    """What is new, in lines."""
    amount = f"{counted(len(now.files), 'file')}, {human_size(now.size_bytes)}"
    if before is None:
        return [f"{now.repo}: {now.revision} is {now.commit.short}, {amount}."]
    if before.commit != now.commit:
        return [f"{now.repo}: {now.revision} was {before.commit.short} and is {now.commit.short}, {amount}."]
    if before.files != now.files:
        return [f"{now.repo}: other files are selected: {', '.join(_differing(before, now)[:3])}."]
    return []


def _differing(before: LockedRepo, now: LockedRepo) -> Sequence[str]:
    return sorted({file.path for file in {*before.files} ^ {*now.files}})


def _document(one: LockedRepo) -> dict[str, object]:
    return {
        "repo": str(one.repo),
        "revision": str(one.revision),
        "commit": str(one.commit),
        "files": len(one.files),
        "size_bytes": one.size_bytes,
    }
