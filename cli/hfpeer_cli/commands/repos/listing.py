"""`hfpeer model|dataset|space ls` and `search`: what is in the cache, and what peers have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hfpeer.names import FilePath, RepoId, RepoType, Revision
from hfpeer_cli.commands.cache.states import STATES, sharing
from hfpeer_cli.commands.repos.options import files_option, repo_option, revision_option
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size

if TYPE_CHECKING:
    from hfpeer.control.operations import CachedRevision, Holding


def define_ls(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("ls", examples=[f"{prefix} ls", f"{prefix} ls -r {example} -v main"])
    @repo_option(type, is_required=False)
    @revision_option
    @pass_invocation
    def ls(invocation: Invocation, repo: RepoId | None, revision: Revision | None) -> None:
        """List what is in the cache.

        All repos, with -r the revisions of one, with -v too the files of one revision.
        """
        if revision and not repo:
            raise click.UsageError("-v needs -r: which repo's revision is meant?")
        found = invocation.run(lambda node: node.list_revisions(repo, revision))
        found = [cached for cached in found if cached.type == type.value]
        if revision and len(found) == 1:
            _print_files(invocation, found[0])
        else:
            print_revisions(invocation, found, f"No {repo or type.value} is in the cache.")


def print_revisions(invocation: Invocation, found: list[CachedRevision], when_none: str) -> None:
    headings: tuple[str, ...] = ("REPO", "COMMIT", "REFS", "FILES", "SIZE", "STATE", "SHARED")
    rows = [_revision_row(cached) for cached in found]
    first = invocation.settings.cache
    if any(cached.also_in or cached.cache not in ("", str(first)) for cached in found):
        headings += ("FOLDER",)
        rows = [(*row, ", ".join((cached.cache, *cached.also_in))) for row, cached in zip(rows, found, strict=True)]
    invocation.output.table(headings, rows, found)
    if not found:
        invocation.output.note(when_none)
    note_passed_over(invocation)


def note_passed_over(invocation: Invocation) -> None:
    """Prints a note for each cache folder that is not there."""
    for folder in invocation.settings.read_caches:
        from hfpeer.cache.disk.caches import why_away

        reason = why_away(folder)
        if reason:
            invocation.output.note(f"{folder} is passed over: {reason}.")


def _revision_row(cached: CachedRevision) -> tuple[str, ...]:
    state = STATES[cached.is_complete]
    return (
        cached.repo,
        cached.commit[:12],
        ", ".join(cached.refs),
        f"{cached.files:,}",
        human_size(cached.size_bytes),
        f"{state}, published" if cached.published_by else state,
        sharing(cached),
    )


def _print_files(invocation: Invocation, cached: CachedRevision) -> None:
    rows = [(file.path, human_size(file.size_bytes), "" if file.is_present else "missing") for file in cached.listing]
    invocation.output.table(("FILE", "SIZE", ""), rows, cached)
    present = sum(file.is_present for file in cached.listing)
    proof = "proved by its commit" if cached.is_proved else "not proved"
    where = "here" if cached.cache in ("", str(invocation.settings.cache)) else f"in {cached.cache}"
    files = f"{present:,} of {counted(len(cached.listing), 'file')}"
    invocation.output.note(f"{cached.repo} at commit {cached.commit}: {files} {where}; {proof}.")


def define_search(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("search", examples=[f"{prefix} search -r {example}", f"{prefix} search -r {example} -f config.json"])
    @repo_option(type)
    @revision_option
    @files_option
    @pass_invocation
    def search(invocation: Invocation, repo: RepoId, revision: Revision | None, files: tuple[FilePath, ...]) -> None:
        """Say which peers have a repo, a revision or a file."""
        found = invocation.run(lambda node: node.search(repo, revision, files))
        invocation.output.table(("PEER", "ADDRESS", "COMMIT", "REFS", "HAS", "SIZE"), map(_holding_row, found), found)
        if invocation.settings.read_caches:
            for cached in invocation.run(lambda node: node.list_revisions(repo)):
                places = ", ".join((cached.cache, *cached.also_in))
                invocation.output.note(f"This node has {repo} at {cached.commit[:12]} in {places}.")
        if not found:
            what = f"{repo} at {revision}" if revision else str(repo)
            invocation.output.note(f"No peer that answers has {what}. `hfpeer peer ls` lists them.")


def _holding_row(holding: Holding) -> tuple[str, ...]:
    has = holding.path or ("all of it" if holding.is_complete else "a part")
    has += ", published" if holding.is_published else ""
    size = "" if holding.size_bytes is None else human_size(holding.size_bytes)
    return holding.peer, holding.address, holding.commit[:12], ", ".join(holding.refs), has, size
