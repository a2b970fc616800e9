"""`hfpeer model|dataset|space`: one set of verbs for the three types of repo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfpeer.control.operations import AddRequest
from hfpeer.names import MAIN, FilePath, RepoId, RepoType, Revision
from hfpeer.transfer.events import Finished
from hfpeer_cli.commands.convert import convert
from hfpeer_cli.commands.local_dir import add_and_list, fill, filled_lines
from hfpeer_cli.commands.prepared import add_prepared
from hfpeer_cli.grammar import FILE, FOLDER, REVISION, Noun, RepoWord, Word, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.progress import summary, watching

if TYPE_CHECKING:
    from hfpeer.control.operations import CachedRevision, Holding

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
    if type is RepoType.DATASET:
        add_prepared(noun, f"hfpeer {type.value}", example)
        noun.add_command(convert)
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


def _source(text: str) -> str:
    """The address of a peer to ask, in one spelling. Raises InvalidName."""
    from hfpeer.net.address import Address

    return str(Address.parse_source(text))


def _site_repo(text: str, type: RepoType) -> str:
    """The name of a repo at ModelScope. Raises InvalidName."""
    from hfpeer.modelscope.names import SiteRepo

    return SiteRepo.parse(text, type).full_name


def _define_add(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command(
        "add",
        examples=[
            f"{prefix} add -r {example}",
            f"{prefix} add -r {example} -v main -f config.json -f README.md",
            f"{prefix} add -r {example} --include '*.json' --exclude 'onnx/*'",
            f"{prefix} add -r {example} --local-dir ./{example.rpartition('/')[2]}",
            f"{prefix} add -r {example} --from 192.168.1.20",
        ],
    )
    @_repo(type)
    @_revision
    @_files
    @click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'.")
    @click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match.")
    @click.option(
        "--local-dir",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Make DIR hold the files too, as `hf download --local-dir`; -f replaces one that was changed there.",
    )
    @click.option("--link", is_flag=True, help="Make large LFS files in DIR read-only hard links of the cache's.")
    @click.option(
        "--cache",
        type=FOLDER,
        metavar="DIR",
        help="Keep the files in this cache folder, not in the usual one. What is in the usual one is copied.",
    )
    @click.option("--local-only", is_flag=True, help="Use only the cache; ask no peer and no hub.")
    @click.option("--no-peers", is_flag=True, help="Ask only mirrors and the origin.")
    @click.option(
        "--from",
        "from_peers",
        type=Word("address", _source),
        multiple=True,
        metavar="HOST[:PORT]",
        help="Ask this peer before all others; it need not be a known one. May be given many times.",
    )
    @click.option("--only-from", is_flag=True, help="Ask no other source than the peers of --from.")
    @click.option(
        "--modelscope",
        metavar="OWNER/NAME",
        help="Take files with the same sha256 from this repo at ModelScope too.",
    )
    @click.option(
        "--trust-peers",
        is_flag=True,
        help="Take a manifest without proof from a peer, and what most peers say of a name.",
    )
    @pass_invocation
    def add(
        invocation: Invocation,
        repo: RepoId,
        revision: Revision | None,
        files: tuple[FilePath, ...],
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        local_dir: Path | None,
        link: bool,
        cache: Path | None,
        local_only: bool,
        no_peers: bool,
        from_peers: tuple[str, ...],
        only_from: bool,
        modelscope: str | None,
        trust_peers: bool,
    ) -> None:
        """Bring a repo, or some of its files, into the cache.

        From peers first, then mirrors, then the origin. Without -v the revision is main: it is resolved once, and every
        file is taken at that commit. Prints the snapshot's folder, or DIR.
        """
        from hfpeer.upstream.auth import environment_token

        if local_only and no_peers:
            raise click.UsageError("--local-only already asks no peers; give one of the two.")
        if from_peers and (local_only or no_peers):
            raise click.UsageError("--from names peers to ask, and --local-only and --no-peers ask none.")
        if only_from and not from_peers:
            raise click.UsageError("--only-from needs --from: which peer is meant?")
        if modelscope and (local_only or only_from):
            raise click.UsageError("--modelscope names a source, and --local-only and --only-from ask no other.")
        if link and local_dir is None:
            raise click.UsageError("--link needs --local-dir: in which folder are the links to be?")
        request = AddRequest(
            repo=repo,
            revision=revision or MAIN,
            files=files,
            include=include,
            exclude=exclude,
            is_local_only=local_only,
            uses_peers=not no_peers,
            trusts_peers=trust_peers,
            from_peers=from_peers,
            only_from_peers=only_from,
            modelscope=_site_repo(modelscope, type) if modelscope else "",
            token=environment_token(invocation.environ),
        )
        if cache is not None:
            from hfpeer_cli.commands.other_cache import into

            invocation, request = into(invocation, cache, request)
        invocation.when_interrupted = RESUMES
        output = invocation.output
        with watching(output, names_revision=revision is not None) as on_event:
            finished, selected = invocation.run(
                lambda node: add_and_list(node, request, on_event, lists=local_dir is not None)
            )
        document = {**asdict(finished), "wan_saved_bytes": finished.wan_saved_bytes}
        if local_dir is None:
            output.result(finished.snapshot, document)
            if not output.is_json:  # the summary loads modules that JSON does not need
                output.note(summary(finished))
            _note_other_cache(invocation, finished)
            return
        output.note(summary(finished))
        filled = fill(output, local_dir, finished, selected, replaceable=files, links=link)
        output.result(filled.folder, {**document, "local_dir": filled})
        output.note(filled_lines(filled, replaces="-f FILE"))


def _note_other_cache(invocation: Invocation, finished: Finished) -> None:
    """Prints a note if the daemon's cache is not the one that tools of this shell use."""
    cache = invocation.settings.places.cache
    if not Path(finished.snapshot).is_relative_to(cache):
        invocation.output.note(
            f"The daemon's cache is not the one of this shell ({cache}): tools started here will not find the files. "
            "Give `--cache DIR`, start the daemon with the same HF_HOME and HF_HUB_CACHE, or `hfpeer conf cache set`."
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
    state = {True: "complete", False: "partial", None: "unlisted"}[cached.is_complete]
    return (
        cached.repo,
        cached.commit[:12],
        ", ".join(cached.refs),
        f"{cached.files:,}",
        human_size(cached.size_bytes),
        f"{state}, published" if cached.published_by else state,
        sharing(cached),
    )


def sharing(cached: CachedRevision) -> str:
    """Whether peers may have it, and why: because of its visibility, or by an override of the owner."""
    if cached.visibility in ("public", "given", "published"):
        why = {"given": "yes, given openly", "published": "yes, by you"}
        return why.get(cached.visibility, "yes") if cached.is_shared else "no, by you"
    return "yes, by you" if cached.is_shared else f"no, {cached.visibility}"


def _print_files(invocation: Invocation, cached: CachedRevision) -> None:
    rows = [(file.path, human_size(file.size_bytes), "" if file.is_present else "missing") for file in cached.listing]
    invocation.output.table(("FILE", "SIZE", ""), rows, cached)
    present = sum(file.is_present for file in cached.listing)
    proof = "proved by its commit" if cached.is_proved else "not proved"
    where = "here" if cached.cache in ("", str(invocation.settings.cache)) else f"in {cached.cache}"
    files = f"{present:,} of {counted(len(cached.listing), 'file')}"
    invocation.output.note(f"{cached.repo} at commit {cached.commit}: {files} {where}; {proof}.")


def _define_rm(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("rm", examples=[f"{prefix} rm -r {example}", f"{prefix} rm -r {example} -v main -f config.json"])
    @_repo(type)
    @_revision
    @_files
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
        from hfpeer.cache.cleaning.requests import CleanRequest, Target
        from hfpeer_cli.commands.cache.cleaning import clean, exit_code

        target = Target(str(repo), (repo,), revision, files)
        report = clean(invocation, CleanRequest((target,), is_dry_run=dry_run, is_forced=force), yes=yes)
        ctx.exit(exit_code(report))


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


def _define_publish(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("publish", examples=[f"{prefix} publish ./my-{type.value} --as our-team/my-{type.value}"])
    @click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, resolve_path=True))
    @click.option(
        "--as", "repo", type=RepoWord(type), required=True, metavar="ORG/NAME", help="What the LAN will call it."
    )
    @click.option("--force", is_flag=True, help="Take a name even if a hub, a peer or the cache knows it.")
    @pass_invocation
    def publish(invocation: Invocation, folder: str, repo: RepoId, force: bool) -> None:
        """Make a local folder a revision that the LAN can add.

        It becomes a real git commit in the cache; the same folder gives the same commit. Prints the commit, by
        which any node on the LAN can add it. A name that a hub, a peer or the cache knows is refused.
        """
        invocation.when_interrupted = RESUMES
        published = invocation.run(lambda node: node.publish(folder, repo, is_forced=force))
        output = invocation.output
        output.result(published.commit, published)
        for note in published.notes:
            output.note(note)
        output.note(f"Published {counted(published.files, 'file')}, {human_size(published.size_bytes)}.")
        output.note(f"Elsewhere on the LAN: {prefix} add -r {repo.full_name} -v {published.commit}")


def _define_share(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    @noun.command("share", examples=[f"{prefix} share -r {example}", f"{prefix} share -r {example} --automatic"])
    @_repo(type)
    @click.option("--automatic", is_flag=True, help="Remove your choice: share the repo only if it is public.")
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
    _print_revisions(invocation, found, f"{repo} is not in the cache; your choice is kept for when it is.")


def __getattr__(name: str) -> Noun:
    """`model`, `dataset` and `space`: each is made when it is first used, because a command uses one."""
    if name not in set(RepoType):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_noun(RepoType(name))
