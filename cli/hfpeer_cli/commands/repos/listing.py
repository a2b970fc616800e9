"""`hfpeer model|dataset|space ls` and `search`: lists of the cache, and of the copies at peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from hfpeer.errors import NotFound
from hfpeer.names import FilePath, RepoId, RepoType
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.commands.cache.states import STATES, repo_order, sharing
from hfpeer_cli.commands.repos.options import any_type, files_option
from hfpeer_cli.grammar import Noun, takes_repos
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.screen.tables import Column, exact, name, number, words
from hfpeer_cli.several import run_each

if TYPE_CHECKING:
    from hfpeer.control.operations import CachedRevision, Holding, Operations


SORTS: dict[str, Callable[[CachedRevision], Any]] = {
    "name": lambda cached: (*repo_order(cached), -cached.used_at),
    "size": lambda cached: -cached.size_bytes,
    "used": lambda cached: -cached.used_at,
}
"""By name of an order: the key of a revision."""
REVISION_COLUMNS: tuple[Column, ...] = (
    name("REPO", least=20),
    exact("COMMIT"),
    name("REFS", rank=1, least=10),
    number("FILES", rank=2),
    number("SIZE"),
    words("STATE"),
    words("SHARED"),
)
HOLDING_COLUMNS = (
    name("PEER"),
    exact("ADDRESS"),
    exact("COMMIT"),
    name("REFS", rank=1, least=10),
    words("HAS", least=12),
    number("SIZE"),
)


def define_ls(noun: Noun, type: RepoType | None, prefix: str, example: str) -> None:
    @noun.command(
        "ls",
        examples=[
            f"{prefix} ls",
            f"{prefix} ls '{example.partition('/')[0]}/*' --sort size",
            f"{prefix} ls {example}@main",
        ],
    )
    @takes_repos(type, is_needed=False, takes_globs=True, takes_paths=True)
    @click.option(
        "--sort", type=click.Choice(list(SORTS)), default="name", help="size: largest first; used: last used first."
    )
    @any_type(type)
    @click.pass_context
    def ls(ctx: click.Context, /, repos: tuple[NamedRepo, ...], globs: tuple[str, ...], sort: str, **_: str) -> None:
        """List what is in the cache.

        All repos, or those that a glob matches; the revisions of a REPO; the files of REPO@REV.
        """
        invocation = ctx.ensure_object(Invocation)
        if any(named.revision for named in repos):
            if globs:
                raise click.UsageError("A glob lists repos, and REPO@REV lists files: give one of the two.")
            ctx.exit(run_each(invocation, repos, lambda named: _list_files(invocation, named), done="listed"))
        found, absent = invocation.run(lambda node: _select(node, type, repos, globs))
        if absent and not found:
            raise absent[0]
        print_revisions(invocation, sorted(found, key=SORTS[sort]), shows_type=type is None)
        if not found:
            invocation.output.note(f"No {type.value if type else 'repo'} is in the cache.")
        for error in absent:
            invocation.complain(error)
        ctx.exit(NotFound.exit_code if absent else 0)


async def _select(
    node: Operations, type: RepoType | None, repos: Sequence[NamedRepo], globs: Sequence[str]
) -> tuple[list[CachedRevision], list[NotFound]]:
    """The revisions of the wanted repos, and an error for each word that names none."""
    by_word = [(named, await node.list_revisions(named.repo)) for named in repos]
    found, absent = [cached for _, alike in by_word for cached in alike], list[NotFound]()
    if repos and not globs and all(alike for _, alike in by_word):
        return found, []
    everything = await node.list_revisions()
    absent += [not_cached(named.repo, everything) for named, alike in by_word if not alike]
    shown = [cached for cached in everything if type is None or cached.type == type.value]
    for glob in globs:
        alike = [cached for cached in shown if _matches(cached, type, glob)]
        found += alike
        if not alike:
            what = type.value if type else "repo"
            absent.append(NotFound(f"No {what} in the cache matches {glob!r}.", hint="`hfpeer ls` lists all."))
    if not repos and not globs:
        found = shown
    return list({(cached.type, cached.repo, cached.commit): cached for cached in found}.values()), absent


def _matches(cached: CachedRevision, type: RepoType | None, glob: str) -> bool:
    names = {cached.repo} if type else {str(_id(cached)), _id(cached).api_path}
    return any(fnmatchcase(name.lower(), glob.lower()) for name in names)


def not_cached(repo: RepoId, everything: Sequence[CachedRevision]) -> NotFound:
    """The error for a repo that is not in the cache. It names another type under which it is there."""
    for cached in everything:
        if cached.repo == repo.full_name:
            return NotFound(
                f"{repo.full_name} is in the cache as a {cached.type}, not as a {repo.type.value}.",
                hint=f"`hfpeer {cached.type} ls {repo.full_name}`",
                repo=str(repo),
            )
    hint = f"`hfpeer {repo.type.value} search {repo.full_name}` looks for it at peers."
    if any(cached.repo.startswith(f"{repo.full_name}/") for cached in everything):
        hint = f"`hfpeer ls '{repo.full_name}/*'` lists the repos of {repo.full_name}."
    return NotFound(f"{repo} is not in the cache.", hint=hint, repo=str(repo))


def _id(cached: CachedRevision) -> RepoId:
    return RepoId.parse(cached.repo, cached.type)


def print_revisions(invocation: Invocation, found: Sequence[CachedRevision], *, shows_type: bool = False) -> None:
    """Prints a row for each revision, then what they take. With `shows_type` datasets and spaces have their prefix."""
    rows = [_revision_row(cached, str(_id(cached)) if shows_type else cached.repo) for cached in found]
    first, columns = invocation.settings.cache, REVISION_COLUMNS
    if any(cached.also_in or cached.cache not in ("", str(first)) for cached in found):
        columns += (name("FOLDER", rank=3),)
        rows = [(*row, ", ".join((cached.cache, *cached.also_in))) for row, cached in zip(rows, found, strict=True)]
    invocation.output.table(columns, rows, found)
    if found:
        invocation.output.note(_total_lines(found))
    invocation.note_passed_over()


def _total_lines(found: Sequence[CachedRevision]) -> Iterator[str]:
    """The sums, and what the words in the table mean that do not explain themselves."""
    repos = counted(len({(cached.type, cached.repo) for cached in found}), "repo")
    size = human_size(sum(cached.size_bytes for cached in found))
    yield f"{repos}, {counted(len(found), 'revision')}, {size}."
    if any(cached.is_complete is None for cached in found):
        yield "unlisted: which files it should have is not known; the next `hfpeer add` of it asks."
    if any(sharing(cached) == "no, unknown" for cached in found):
        yield "unknown: no hub has said yet whether it is public."


def _revision_row(cached: CachedRevision, name: str) -> tuple[str, ...]:
    state = STATES[cached.is_complete]
    if cached.listed_bytes is not None:
        state += f", {human_size(cached.size_bytes + cached.kept_bytes)} of {human_size(cached.listed_bytes)}"
    return (
        name,
        cached.commit[:12],
        ", ".join(cached.refs),
        f"{cached.files:,}",
        human_size(cached.size_bytes),
        f"{state}, published" if cached.published_by else state,
        sharing(cached),
    )


def _list_files(invocation: Invocation, named: NamedRepo) -> None:
    """Prints the files of a revision, or those of a file or folder of it."""
    (cached,) = invocation.run(lambda node: node.list_revisions(named.repo, named.revision))
    inside = named.file or named.folder
    if inside:
        listing = tuple(one for one in cached.listing if f"{one.path}/".startswith(f"{inside}/"))
        if not listing:
            raise NotFound(f"{cached.repo} at {cached.commit[:12]} has no {inside}.", repo=str(named.repo))
        cached = replace(cached, listing=listing)
    rows = [(file.path, human_size(file.size_bytes), "" if file.is_present else "missing") for file in cached.listing]
    invocation.output.table((name("FILE", least=24), number("SIZE"), words("")), rows, cached)
    present = sum(file.is_present for file in cached.listing)
    proof = "proved by its commit" if cached.is_proved else "not proved"
    where = "here" if cached.cache in ("", str(invocation.settings.cache)) else f"in {cached.cache}"
    files = f"{present:,} of {counted(len(cached.listing), 'file')}"
    invocation.output.note(f"{cached.repo} at commit {cached.commit}: {files} {where}; {proof}.")


def define_search(noun: Noun, type: RepoType | None, prefix: str, example: str) -> None:
    @noun.command("search", examples=[f"{prefix} search {example}", f"{prefix} search {example}@main -f config.json"])
    @takes_repos(type, takes_paths=True)
    @files_option
    @any_type(type)
    @click.pass_context
    def search(ctx: click.Context, /, repos: tuple[NamedRepo, ...], files: tuple[FilePath, ...], **_: str) -> None:
        """Find peers that have a repo, a revision or a file."""
        invocation = ctx.ensure_object(Invocation)
        ctx.exit(run_each(invocation, repos, lambda named: _search(invocation, named, files), done="found"))


def _search(invocation: Invocation, named: NamedRepo, files: tuple[FilePath, ...]) -> None:
    repo, wanted = named.repo, (*files, *filter(None, [named.file]))
    found = invocation.run(lambda node: node.search(repo, named.revision, wanted))
    if invocation.settings.read_caches:
        here = [cached for cached in invocation.run(lambda node: node.list_revisions(repo)) if cached.files]
        for cached in here:
            places = ", ".join((cached.cache, *cached.also_in))
            invocation.output.note(f"This node has {repo} at {cached.commit[:12]} in {places}.")
    if not found:
        raise _at_no_peer(invocation, named)
    invocation.output.table(HOLDING_COLUMNS, map(_holding_row, found), found)
    revisions, peers = len({one.commit for one in found}), len({(one.peer, one.address) for one in found})
    invocation.output.note(f"Found {counted(revisions, 'revision')} of {repo} at {counted(peers, 'peer')}.")


def _at_no_peer(invocation: Invocation, named: NamedRepo) -> NotFound:
    node = invocation.run(lambda node: node.status())
    alive = sum(peer.state == "alive" for peer in node.peers)
    what = f"{named.repo} at {named.revision}" if named.revision else str(named.repo)
    if not node.is_daemon:
        return NotFound(
            f"No peer was asked for {what}: no daemon runs.",
            hint="`hfpeer daemon start` starts it.",
            repo=str(named.repo),
        )
    asked = f"None of {counted(alive, 'peer')} has {what}." if alive else f"No peer answers, so none has {what}."
    return NotFound(asked, hint="`hfpeer peer ls` lists the peers.", repo=str(named.repo), peers=alive)


def _holding_row(holding: Holding) -> tuple[str, ...]:
    has = holding.path or ("all of it" if holding.is_complete else "a part")
    has += ", published" if holding.is_published else ""
    size = "" if holding.size_bytes is None else human_size(holding.size_bytes)
    return holding.peer, holding.address, holding.commit[:12], ", ".join(holding.refs), has, size
