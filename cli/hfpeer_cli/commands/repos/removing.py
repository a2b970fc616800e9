"""`hfpeer model|dataset|space rm`: a repo, or a part of it, goes out of the cache."""

from __future__ import annotations

import click

from hfpeer.names import FilePath, RepoId, RepoType, Revision
from hfpeer_cli.commands.repos.options import files_option, repo_option, revision_option
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.invocation import Invocation


def define_rm(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("rm", examples=[f"{prefix} rm -r {example}", f"{prefix} rm -r {example} -v main -f config.json"])
    @repo_option(type)
    @revision_option
    @files_option
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
    @click.option("--force", is_flag=True, help="Remove also the last copy on the LAN, and what is in use.")
    @pass_invocation
    @click.pass_context
    def rm(
        ctx: click.Context,
        invocation: Invocation,
        repo: RepoId,
        revision: Revision | None,
        files: tuple[FilePath, ...],
        yes: bool,
        dry_run: bool,
        force: bool,
    ) -> None:
        """Take a repo out of the cache.

        With -v only one of its revisions, with -f only some files. Bytes that another revision needs stay. Asks at a
        terminal. The last copy on the LAN stays without --force. `hfpeer cache rm` takes several.
        """
        from hfpeer.cache.cleaning.requests import CleanRequest, Target  # an add does not need these
        from hfpeer_cli.commands.cache.cleaning import clean, exit_code

        target = Target(str(repo), (repo,), revision, files)
        report = clean(invocation, CleanRequest((target,), is_dry_run=dry_run, is_forced=force), yes=yes)
        ctx.exit(exit_code(report))
