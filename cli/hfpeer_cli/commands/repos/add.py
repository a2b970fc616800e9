"""`hfpeer model|dataset|space add`: a repo, or some of its files, comes into the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from hfpeer.control.asker import Asker
from hfpeer.control.operations import PRIORITIES, AddRequest
from hfpeer.names import MAIN, RepoType, Revision
from hfpeer.repo_words import NamedRepo
from hfpeer.transfer.events import Finished
from hfpeer_cli.commands.moving.local_dir import add_and_list, fill, filled_lines
from hfpeer_cli.commands.repos.options import RESUMES, address, any_type, files_option, on_option
from hfpeer_cli.commands.transfers.detaching import begin_detached, telling_of_end
from hfpeer_cli.grammar import FOLDER, Noun, Word, globs_of, takes_repos
from hfpeer_cli.grammar.completions import complete_peer
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.progress import summary, watching
from hfpeer_cli.several import run_each

NOT_ELSEWHERE = ("local_dir", "link", "cache", "from_peers", "modelscope", "trust_peers", "dry_run")
"""The options that make no sense with --on."""


def _source(text: str) -> str:
    """The address of a peer to ask, in one spelling. Raises InvalidName."""
    from hfpeer.net.address import Address

    return str(Address.parse_source(text))


def _site_repo(text: str, type: RepoType) -> str:
    """The name of a repo at ModelScope. Raises InvalidName."""
    from hfpeer.modelscope.names import SiteRepo

    return SiteRepo.parse(text, type).full_name


def define_add(noun: Noun, type: RepoType | None, prefix: str, example: str) -> None:
    @noun.command(
        "add",
        examples=[
            f"{prefix} add {example}",
            f"{prefix} add {example}@main -f config.json -f README.md",
            f"{prefix} add {example} --include '*.json' --exclude 'onnx/*'",
            f"{prefix} add {address(example, type)}",
            f"{prefix} add {example} --local-dir ./{example.rpartition('/')[2]}",
            f"{prefix} add {example} --from 192.168.1.20",
            f"{prefix} add {example} --dry-run",
            f"{prefix} add {example} --detach",
            f"{prefix} add {example} --on gpu1,gpu2",
        ],
    )
    @takes_repos(type, takes_paths=True)
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
        type=Word("address", _source, complete_peer),
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
    @click.option(
        "--dry-run",
        is_flag=True,
        help="Say how much would come, from whom, and about how long it takes; fetch nothing.",
    )
    @on_option
    @click.option(
        "-d", "--detach", is_flag=True, help="Return at once; the daemon does it. `hfpeer transfers` shows it."
    )
    @click.option(
        "--priority",
        type=click.Choice(PRIORITIES),
        default="normal",
        show_default=True,
        help="With --detach: what of the queue runs first.",
    )
    @any_type(type)
    @click.pass_context
    def add(ctx: click.Context, /, **words: Any) -> None:
        """Bring repos, or some of their files, into the cache.

        From peers first, then mirrors, then the origin. Without a revision it is main: it is resolved once, and every
        file is taken at that commit. Prints the snapshot's folder, or DIR. A repo that fails does not stop the others.
        """
        invocation = ctx.ensure_object(Invocation)
        repos: tuple[NamedRepo, ...] = words.pop("repos")
        _check(repos, words)
        if words["on"]:
            from hfpeer_cli.commands.transfers.elsewhere import add_on

            requests_there = [_there(invocation, _request(invocation, named, words, ())) for named in repos]
            ctx.exit(add_on(invocation, words["on"], requests_there, words["priority"], detach=words["detach"]))
        invocation.when_interrupted = RESUMES
        over, peers = invocation, list[str]()
        if words["cache"] is not None:
            from hfpeer_cli.commands.repos.other_cache import into

            asks_peers = not (words["local_only"] or words["no_peers"] or words["only_from"])
            over, peers = into(invocation, words["cache"], asks_peers=asks_peers)
        requests = {named: _request(invocation, named, words, peers) for named in repos}

        def work(named: NamedRepo) -> None:
            if words["dry_run"]:
                _plan(over, requests[named])
            elif words["detach"]:
                begin_detached(over, requests[named], words["priority"])
            else:
                _add(over, named, requests[named], words)
            over.note_environment()

        done = "looked at" if words["dry_run"] else "queued" if words["detach"] else "added"
        ctx.exit(run_each(over, repos, work, done=done))


def _check(repos: Sequence[NamedRepo], words: Mapping[str, Any]) -> None:
    """Raises UsageError for options that do not go together."""
    asks_nobody = words["local_only"] or words["no_peers"]
    if words["local_only"] and words["no_peers"]:
        raise click.UsageError("--local-only already asks no peers; give one of the two.")
    if words["from_peers"] and asks_nobody:
        raise click.UsageError("--from names peers to ask, and --local-only and --no-peers ask none.")
    if words["only_from"] and not words["from_peers"]:
        raise click.UsageError("--only-from needs --from: which peer is meant?")
    if words["modelscope"] and (words["local_only"] or words["only_from"]):
        raise click.UsageError("--modelscope names a source, and --local-only and --only-from ask no other.")
    if words["link"] and words["local_dir"] is None:
        raise click.UsageError("--link needs --local-dir: in which folder are the links to be?")
    if words["detach"] and (words["local_dir"] or words["cache"] or words["local_only"]):
        raise click.UsageError("--detach leaves the add to the daemon: give no --local-dir, --cache or --local-only.")
    if words["dry_run"] and (words["detach"] or words["from_peers"] or words["modelscope"]):
        raise click.UsageError("--dry-run fetches nothing: give no --detach, --from or --modelscope.")
    if words["on"] and (asks_nobody or any(words[name] for name in NOT_ELSEWHERE)):
        raise click.UsageError(
            "--on has other nodes add it, by their own settings: give no --local-dir, --link, --cache, --local-only, "
            "--no-peers, --from, --modelscope, --trust-peers or --dry-run."
        )
    for option, name in (("--local-dir", "local_dir"), ("--modelscope", "modelscope")):
        if words[name] and len(repos) > 1:
            raise click.UsageError(f"{option} is of one repo: give one REPO.")


def _request(invocation: Invocation, named: NamedRepo, words: Mapping[str, Any], peers: Sequence[str]) -> AddRequest:
    from hfpeer.upstream.auth import environment_token

    return AddRequest(
        repo=named.repo,
        revision=named.revision or MAIN,
        files=(*words["files"], *filter(None, [named.file])),
        include=(*words["include"], *globs_of(named)),
        exclude=words["exclude"],
        is_local_only=words["local_only"],
        uses_peers=not words["no_peers"],
        trusts_peers=words["trust_peers"],
        from_peers=(*words["from_peers"], *peers),
        only_from_peers=words["only_from"],
        modelscope=_site_repo(words["modelscope"], named.repo.type) if words["modelscope"] else "",
        token=environment_token(invocation.environ),
        makes_links=invocation.settings.makes_links,
        asked_by=Asker.of(invocation.environ, "cli"),
    )


def _there(invocation: Invocation, request: AddRequest) -> AddRequest:
    """The request for other nodes: at the commit that the revision means here and now."""
    if request.revision.is_commit:
        return request
    commit = invocation.run(lambda node: node.list_commit(request)).commit
    invocation.output.note(f"{request.revision} of {request.repo} is commit {commit}.")
    return replace(request, revision=Revision(commit), told_as=request.revision)


def _add(invocation: Invocation, named: NamedRepo, request: AddRequest, words: Mapping[str, Any]) -> None:
    """Adds one repo and prints the result."""
    local_dir: Path | None = words["local_dir"]
    output = invocation.output
    with watching(output) as show:
        on_event = telling_of_end(invocation, show)
        finished, selected = invocation.run(
            lambda node: add_and_list(node, request, on_event, lists=local_dir is not None)
        )
    document = {**asdict(finished), "wan_saved_bytes": finished.wan_saved_bytes}
    if local_dir is None:
        output.result(finished.snapshot, document)
        if not output.is_json:  # the summary loads modules that JSON does not need
            output.note([*summary(finished), *finished.notes])
        _note_other_cache(invocation, finished)
        return
    output.note(summary(finished))
    filled = fill(output, local_dir, finished, selected, replaceable=request.files, links=words["link"])
    output.result(filled.folder, {**document, "local_dir": filled})
    output.note(filled_lines(filled, replaces="-f FILE"))


def _plan(invocation: Invocation, request: AddRequest) -> None:
    """Prints what an add would do."""
    from hfpeer_cli.commands.repos.dry_run import plan_add, print_planned

    kinds = {upstream.url: upstream.kind for upstream in invocation.settings.upstreams}
    print_planned(invocation.output, invocation.run(lambda node: plan_add(node, request, kinds)))


def _note_other_cache(invocation: Invocation, finished: Finished) -> None:
    """Prints a note if the daemon's cache is not the one that tools of this shell use."""
    cache = invocation.settings.places.cache
    if not Path(finished.snapshot).is_relative_to(cache):
        invocation.output.note(
            f"The daemon's cache is not the one of this shell ({cache}): tools started here will not find the files. "
            "Give `--cache DIR`, start the daemon with the same HF_HOME and HF_HUB_CACHE, or `hfpeer conf cache set`."
        )
