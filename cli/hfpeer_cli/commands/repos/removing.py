"""`hfpeer model|dataset|space rm`: a repo, or a part of it, goes out of the cache."""

from __future__ import annotations

import click

from hfpeer.names import FilePath, RepoType
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.commands.repos.options import any_type, files_option
from hfpeer_cli.grammar import Noun, takes_repos
from hfpeer_cli.invocation import Invocation


def define_rm(noun: Noun, type: RepoType | None, prefix: str, example: str) -> None:
    @noun.command("rm", examples=[f"{prefix} rm {example} --dry-run", f"{prefix} rm {example}@main -f config.json"])
    @takes_repos(type, takes_paths=True)
    @files_option
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
    @click.option("--force", is_flag=True, help="Remove also the last copy on the LAN, and what is in use.")
    @any_type(type)
    @click.pass_context
    def rm(
        ctx: click.Context,
        /,
        repos: tuple[NamedRepo, ...],
        files: tuple[FilePath, ...],
        yes: bool,
        dry_run: bool,
        force: bool,
        **_: str,
    ) -> None:
        """Take repos out of the cache.

        With REPO@REV only one revision, with -f only some files. Bytes that another revision needs stay. Asks at a
        terminal. The last copy on the LAN stays without --force.
        """
        from hfpeer.cache.cleaning.planning.requests import CleanRequest, target_of  # an add does not need these
        from hfpeer_cli.commands.cache.cleaning import clean, exit_code

        targets = tuple(target_of(str(named.repo), named, files=files) for named in repos)
        invocation = ctx.ensure_object(Invocation)
        report = clean(invocation, CleanRequest(targets, is_dry_run=dry_run, is_forced=force), yes=yes)
        ctx.exit(exit_code(report))
