"""`hfpeer model|dataset|space`: one set of verbs for the three types of repo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfpeer.names import FilePath, RepoId, RepoType, Revision
from hfpeer.operations import MAIN, AddRequest
from hfpeer.transfer.events import Finished
from hfpeer_cli.grammar import FILE, REVISION, Noun, RepoWord, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.progress import summary, watching

if TYPE_CHECKING:
    from hfpeer.operations import CachedRevision, Holding

Command = TypeVar("Command", bound=Callable[..., Any])

RESUMES = "Interrupted. What has arrived is kept: the same command continues from there."
EXAMPLE_REPOS = {
    RepoType.MODEL: "Qwen/Qwen3-0.6B",
    RepoType.DATASET: "rajpurkar/squad",
    RepoType.SPACE: "gradio/hello_world",
}


def make_noun(type: RepoType) -> Noun:
    """The noun of one type of repo, with all its verbs."""
    example = EXAMPLE_REPOS[type]
    noun = Noun(
        type.value,
        help=f"{type.value.capitalize()} repos in the Hugging Face cache, on this machine and on the LAN.",
        no_args_is_help=True,
        examples=[f"hfpeer {type.value} add -r {example}", f"hfpeer {type.value} ls -r {example} -v main"],
    )
    for define in (_define_add, _define_ls, _define_rm, _define_search, _define_publish, _define_share):
        define(noun, type, f"hfpeer {type.value}", example)
    return noun


def _repo(type: RepoType, *, is_required: bool = True) -> Callable[[Command], Command]:
    return click.option(
        "-r", "--repo", type=RepoWord(type), required=is_required, metavar="REPO", help="NAME or ORG/NAME."
    )


_revision = click.option(
    "-v", "--revision", type=REVISION, metavar="REV", help="A branch, a tag, refs/pr/N or a commit id."
)
_files = click.option(
    "-f", "--file", "files", type=FILE, multiple=True, metavar="FILE", help="Only this file. May be given many times."
)


def _define_add(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command(
        "add",
        examples=[
            f"{prefix} add -r {example}",
            f"{prefix} add -r {example} -v main -f config.json -f README.md",
            f"{prefix} add -r {example} --include '*.json' --exclude 'onnx/*'",
        ],
    )
    @_repo(type)
    @_revision
    @_files
    @click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'.")
    @click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match.")
    @click.option("--local-only", is_flag=True, help="Ask nobody; take what is in the cache.")
    @click.option("--no-peers", is_flag=True, help="Ask only mirrors and the origin.")
    @click.option("--trust-peers", is_flag=True, help="Take a listing without proof from a peer.")
    @pass_invocation
    def add(
        invocation: Invocation,
        repo: RepoId,
        revision: Revision | None,
        files: tuple[FilePath, ...],
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        local_only: bool,
        no_peers: bool,
        trust_peers: bool,
    ) -> None:
        """Bring a repo, or some of its files, into the cache.

        From peers first, then mirrors, then the origin, whatever gives its bytes soonest. Without -v the revision
        is main: it is resolved once, and every file is taken at that commit. Prints the snapshot's folder.
        """
        from hfpeer.upstream.auth import environment_token

        if local_only and no_peers:
            raise click.UsageError("--local-only already asks no peers; give one of the two.")
        request = AddRequest(
            repo=repo,
            revision=revision or MAIN,
            files=files,
            include=include,
            exclude=exclude,
            is_local_only=local_only,
            uses_peers=not no_peers,
            trusts_peers=trust_peers,
            token=environment_token(invocation.environ),
        )
        invocation.when_interrupted = RESUMES
        output = invocation.output
        with watching(output, names_revision=revision is not None) as listener:
            finished = invocation.run(lambda node: node.add(request, listener))
        output.result(finished.snapshot, {**asdict(finished), "wan_saved_bytes": finished.wan_saved_bytes})
        if not output.is_json:
            output.note("\n".join(summary(finished)))
        _note_other_cache(invocation, finished)


def _note_other_cache(invocation: Invocation, finished: Finished) -> None:
    """Says so when the daemon keeps its models elsewhere than the tools of this shell look for them."""
    cache = invocation.settings.places.cache
    if not Path(finished.snapshot).is_relative_to(cache):
        invocation.output.note(
            f"The daemon's cache is another than this shell's ({cache}): tools started here will not find it. "
            "Start the daemon with the same HF_HOME and HF_HUB_CACHE, or `hfpeer conf cache set`."
        )


def _define_ls(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("ls", examples=[f"{prefix} ls", f"{prefix} ls -r {example} -v main"])
    @_repo(type, is_required=False)
    @_revision
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
            _print_revisions(invocation, found, f"No {repo or type.value} is in the cache.")


def _print_revisions(invocation: Invocation, found: list[CachedRevision], when_none: str) -> None:
    headings = ("REPO", "COMMIT", "REFS", "FILES", "SIZE", "STATE", "SHARED")
    invocation.output.table(headings, map(_revision_row, found), found)
    if not found:
        invocation.output.note(when_none)


def _revision_row(cached: CachedRevision) -> tuple[str, ...]:
    state = {True: "complete", False: "partial", None: "unlisted"}[cached.is_complete]
    return (
        cached.repo,
        cached.commit[:12],
        ", ".join(cached.refs),
        f"{cached.files:,}",
        human_size(cached.size_bytes),
        state,
        sharing(cached),
    )


def sharing(cached: CachedRevision) -> str:
    """Whether peers may have it, and why: for what the repo is, or by the owner's word."""
    if cached.visibility == "public":
        return "yes" if cached.is_shared else "no, by you"
    return "yes, by you" if cached.is_shared else f"no, {cached.visibility}"


def _print_files(invocation: Invocation, cached: CachedRevision) -> None:
    rows = [(file.path, human_size(file.size_bytes), "" if file.is_present else "missing") for file in cached.listing]
    invocation.output.table(("FILE", "SIZE", ""), rows, cached)
    present = sum(file.is_present for file in cached.listing)
    proof = "proved by its commit" if cached.is_proved else "not proved"
    invocation.output.note(
        f"{cached.repo} at commit {cached.commit}: {present:,} of {counted(len(cached.listing), 'file')} here; {proof}."
    )


def _define_rm(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("rm", examples=[f"{prefix} rm -r {example}", f"{prefix} rm -r {example} -v main -f config.json"])
    @_repo(type)
    @_revision
    @_files
    @pass_invocation
    def rm(invocation: Invocation, repo: RepoId, revision: Revision | None, files: tuple[FilePath, ...]) -> None:
        """Take a repo out of the cache.

        With -v only one of its revisions, with -f only some files. Bytes that another revision needs stay.
        """
        removed = invocation.run(lambda node: node.remove(repo, revision, files))
        commits = ", ".join(commit[:12] for commit in removed.commits)
        invocation.output.result(
            f"Removed {counted(removed.files, 'file')} of {repo} ({commits}); "
            f"{human_size(removed.freed_bytes)} are free again.",
            removed,
        )


def _define_search(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("search", examples=[f"{prefix} search -r {example}", f"{prefix} search -r {example} -f config.json"])
    @_repo(type)
    @_revision
    @_files
    @pass_invocation
    def search(invocation: Invocation, repo: RepoId, revision: Revision | None, files: tuple[FilePath, ...]) -> None:
        """Say which peers have a repo, a revision or a file."""
        found = invocation.run(lambda node: node.search(repo, revision, files))
        invocation.output.table(("PEER", "ADDRESS", "COMMIT", "REFS", "HAS", "SIZE"), map(_holding_row, found), found)
        if not found:
            what = f"{repo} at {revision}" if revision else str(repo)
            invocation.output.note(f"No peer that answers has {what}. `hfpeer peer ls` lists them.")


def _holding_row(holding: Holding) -> tuple[str, ...]:
    has = holding.path or ("all of it" if holding.is_complete else "a part")
    size = "" if holding.size_bytes is None else human_size(holding.size_bytes)
    return holding.peer, holding.address, holding.commit[:12], ", ".join(holding.refs), has, size


def _define_publish(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("publish", examples=[f"{prefix} publish ./my-{type.value} --as our-team/my-{type.value}"])
    @click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, resolve_path=True))
    @click.option(
        "--as", "repo", type=RepoWord(type), required=True, metavar="ORG/NAME", help="What the LAN will call it."
    )
    @pass_invocation
    def publish(invocation: Invocation, folder: str, repo: RepoId) -> None:
        """Make a local folder a revision that the LAN can add.

        It becomes a real git commit in the cache; the same folder gives the same commit. Prints the commit, by
        which any node on the LAN can add it.
        """
        invocation.when_interrupted = RESUMES
        published = invocation.run(lambda node: node.publish(folder, repo))
        output = invocation.output
        output.result(published.commit, published)
        output.note(
            f"Published {counted(published.files, 'file')}, {human_size(published.size_bytes)}.\n"
            f"Elsewhere on the LAN: {prefix} add -r {repo.full_name} -v {published.commit}"
        )


def _define_share(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("share", examples=[f"{prefix} share -r {example}", f"{prefix} share -r {example} --automatic"])
    @_repo(type)
    @click.option("--automatic", is_flag=True, help="Take your word back: share it only if it is public.")
    @pass_invocation
    def share(invocation: Invocation, repo: RepoId, automatic: bool) -> None:
        """Let peers have a repo, even a gated or private one."""
        _set_shared(invocation, repo, None if automatic else True)

    @noun.command("unshare", examples=[f"{prefix} unshare -r {example}"])
    @_repo(type)
    @pass_invocation
    def unshare(invocation: Invocation, repo: RepoId) -> None:
        """Do not let peers have a repo, even a public one."""
        _set_shared(invocation, repo, False)


def _set_shared(invocation: Invocation, repo: RepoId, is_shared: bool | None) -> None:
    found = invocation.run(lambda node: node.share(repo, is_shared))
    _print_revisions(invocation, found, f"{repo} is not in the cache; your word is kept for when it is.")


def __getattr__(name: str) -> Noun:
    """`model`, `dataset` and `space`: one is made when it is named, for no command needs two."""
    if name not in set(RepoType):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_noun(RepoType(name))
