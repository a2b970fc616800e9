"""`hfpeer model|dataset|space publish`, `share` and `unshare`."""

from __future__ import annotations

import click

from hfpeer.names import RepoId, RepoType
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.commands.repos.listing import print_revisions
from hfpeer_cli.commands.repos.options import RESUMES
from hfpeer_cli.grammar import Noun, Word, pass_invocation, takes_repos
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.progress import watching_check
from hfpeer_cli.several import run_each


def define_publish(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("publish", examples=[f"{prefix} publish ./my-{type.value} --as our-team/my-{type.value}"])
    @click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, resolve_path=True))
    @click.option(
        "--as",
        "repo",
        type=Word("repo", lambda text: RepoId.parse(text, type)),
        required=True,
        metavar="ORG/NAME",
        help="What the LAN will call it.",
    )
    @click.option("--force", is_flag=True, help="Take a name even if a hub, a peer or the cache knows it.")
    @pass_invocation
    def publish(invocation: Invocation, folder: str, repo: RepoId, force: bool) -> None:
        """Make a local folder a revision that the LAN can add.

        It becomes a real git commit in the cache; the same folder gives the same commit. Prints the commit, by
        which any node on the LAN can add it. A name that a hub, a peer or the cache knows is refused.
        """
        invocation.when_interrupted = RESUMES
        from hfpeer.control.operations import PublishRequest

        request = PublishRequest(folder, repo, force)
        with watching_check(invocation.output) as on_event:
            published = invocation.run(lambda node: node.publish(request, on_event))
        invocation.note_environment()
        output = invocation.output
        output.result(published.commit, published)
        for note in published.notes:
            output.note(note)
        output.note(f"Published {counted(published.files, 'file')}, {human_size(published.size_bytes)}.")
        if published.is_shared:
            output.note(f"Elsewhere on the LAN: {prefix} add -r {repo.full_name} -v {published.commit}")


def define_share(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    automatic = click.option(
        "--auto", "--automatic", "automatic", is_flag=True, help="Reset to automatic: shared only if it is public."
    )

    @noun.command("share", examples=[f"{prefix} share {example}", f"{prefix} share {example} --auto"])
    @takes_repos(type, has_revision=False)
    @automatic
    @click.pass_context
    def share(ctx: click.Context, repos: tuple[NamedRepo, ...], automatic: bool) -> None:
        """Let peers have a repo, even a gated or private one."""
        _set_shared(ctx, repos, None if automatic else True)

    @noun.command("unshare", examples=[f"{prefix} unshare {example}", f"{prefix} unshare {example} --auto"])
    @takes_repos(type, has_revision=False)
    @automatic
    @click.pass_context
    def unshare(ctx: click.Context, repos: tuple[NamedRepo, ...], automatic: bool) -> None:
        """Do not let peers have a repo, even a public one."""
        _set_shared(ctx, repos, None if automatic else False)


def _set_shared(ctx: click.Context, repos: tuple[NamedRepo, ...], is_shared: bool | None) -> None:
    invocation = ctx.ensure_object(Invocation)

    def change(named: NamedRepo) -> None:
        print_revisions(invocation, invocation.run(lambda node: node.share(named.repo, is_shared)))

    ctx.exit(run_each(invocation, repos, change, done="changed"))
