"""`hfpeer model|dataset|space add`: a repo, or some of its files, comes into the cache."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from hfpeer.control.operations import AddRequest
from hfpeer.names import MAIN, FilePath, RepoId, RepoType, Revision
from hfpeer.transfer.events import Finished
from hfpeer_cli.commands.moving.local_dir import add_and_list, fill, filled_lines
from hfpeer_cli.commands.repos.options import RESUMES, files_option, repo_option, revision_option
from hfpeer_cli.grammar import FOLDER, Noun, Word, pass_invocation
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.progress import summary, watching


def _source(text: str) -> str:
    """The address of a peer to ask, in one spelling. Raises InvalidName."""
    from hfpeer.net.address import Address

    return str(Address.parse_source(text))


def _site_repo(text: str, type: RepoType) -> str:
    """The name of a repo at ModelScope. Raises InvalidName."""
    from hfpeer.modelscope.names import SiteRepo

    return SiteRepo.parse(text, type).full_name


def define_add(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
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
    @repo_option(type)
    @revision_option
    @files_option
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
            makes_links=invocation.settings.makes_links,
        )
        if cache is not None:
            from hfpeer_cli.commands.repos.other_cache import into

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
