"""`hfpeer adopt`: files of other tools become known, so that an add takes their bytes instead of fetching them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from shlex import quote
from typing import TYPE_CHECKING

import click

from hfpeer.control.operations import AdoptPlace, AdoptRequest
from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.names import MAIN, Revision
from hfpeer.repo_words import parse_repo_word
from hfpeer_cli.grammar import REVISION, Verb, pass_invocation, type_option
from hfpeer_cli.grammar.repos import RepoWord
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time
from hfpeer_cli.progress import watching_check
from hfpeer_cli.screen.tables import exact, name, number, words

if TYPE_CHECKING:
    from hfpeer.adoption.results import AdoptableFile, AdoptReport
    from hfpeer.archive.results import ImportedRevision

MAX_ALIKE = 10
"""At most this many lines of one kind are printed; JSON has all."""
COLUMNS = (exact("TOOL"), name("FILE", least=24), number("SIZE"), name("REPO"), words("HOW"))
HOW = {
    "clone": "shares blocks",
    "copy": "copy",
    "link": "hard link",
    "move": "move",
    "known": "known",
    "here": "in the cache",
    "unreadable": "unreadable",
}


@click.command(
    "adopt",
    cls=Verb,
    examples=[
        "hfpeer adopt --list",
        "hfpeer adopt",
        "hfpeer adopt ~/models /data/other/hub",
        "hfpeer adopt ~/models -r Qwen/Qwen3-0.6B",
        "hfpeer adopt --forget",
    ],
)
@click.argument("places", nargs=-1, metavar="[PLACE]...")
@click.option("--list", "lists", is_flag=True, help="Only list the files: tool, file, size, repo, how they are taken.")
@click.option(
    "-r", "--repo", metavar="REPO", type=RepoWord(None), help="Hash only files with the sizes of this repo's files."
)
@click.option(
    "-v",
    "--rev",
    "--revision",
    "revision",
    type=REVISION,
    metavar="REV",
    help="The revision of REPO.",
)
@click.option("--link", is_flag=True, help="Make hard links of your own large files; they become read-only.")
@click.option("--move", is_flag=True, help="Move large files into the cache when a revision takes them.")
@click.option("--forget", is_flag=True, help="Forget the files of the places, or all; no file is touched.")
@type_option
@click.pass_context
@pass_invocation
def adopt(
    invocation: Invocation,
    ctx: click.Context,
    places: tuple[str, ...],
    lists: bool,
    repo: str | None,
    revision: Revision | None,
    link: bool,
    move: bool,
    forget: bool,
    type_: str,
) -> None:
    """Make files of other tools known: an add then takes their bytes and fetches only the rest.

    Looks at the places that it finds by itself, or at those you name: other Hugging Face caches, Ollama, LM Studio,
    llama.cpp, ComfyUI, A1111, ModelScope, GPT4All, Jan, clones of git, folders of downloads. Every file is hashed once.
    It stays as it is, and peers never get it: its bytes come into the cache when a revision has them. A revision whose
    list of files a place proves is installed at once. Exit code 8: a place that you named cannot be read.
    """
    if sum((link, move, forget)) > 1 or (forget and (lists or repo)):
        raise InvalidName(
            "`--link`, `--move` and `--forget` exclude one another; `--forget` takes neither `--list` nor `-r`.",
            hint="Give one of them.",
        )
    if move and not places:
        raise InvalidName("`--move` needs a place.", hint="Name the folders whose files are to be moved.")
    if revision is not None and repo is None:
        raise InvalidName("`-v` needs a repo.", hint="Name it with `-r ORG/NAME`.")
    if forget:
        _forget(invocation, places)
        return
    named = parse_repo_word(repo, type_) if repo is not None else None
    request = AdoptRequest(
        _places(invocation, places),
        named.repo if named else None,
        revision or (named.revision if named else None) or MAIN,
        "link" if link else "move" if move else "copy",
        lists,
    )
    output = invocation.output
    if not request.places:
        output.result("No place of another tool was found. `hfpeer adopt DIR` looks at a folder.", {"places": []})
        return
    invocation.when_interrupted = "Interrupted. What was hashed is known: the same command continues from there."
    with watching_check(output) as on_event:
        report = invocation.run(lambda node: node.adopt(request, on_event))
    if lists:
        rows = [_row(file) for file in report.listed]
        output.table(COLUMNS, rows, asdict(report))
        output.note(list(_notes(report)))
    else:
        output.result(list(_lines(report)), asdict(report))
        output.note(list(_notes(report)))
    named_paths = {place.path for place in request.places if place.is_named}
    if any(trouble.path in named_paths for trouble in report.troubles):
        ctx.exit(BrokenCache.exit_code)


def _places(invocation: Invocation, named: Sequence[str]) -> tuple[AdoptPlace, ...]:
    """The places to look at: those that the user named, or all that are found."""
    from hfpeer.adoption.finding import known_places

    known = known_places(invocation.environ)
    if not named:
        return tuple(AdoptPlace(place.tool, str(place.path)) for place in known)
    tools = {os.path.realpath(place.path): place.tool for place in known}
    paths = [os.path.abspath(os.path.expanduser(path)) for path in named]  # noqa: PTH100, PTH111
    return tuple(AdoptPlace(tools.get(os.path.realpath(path), "folder"), path, True) for path in paths)


def _forget(invocation: Invocation, named: Sequence[str]) -> None:
    places = tuple(os.path.abspath(os.path.expanduser(path)) for path in named)  # noqa: PTH100, PTH111
    forgotten = invocation.run(lambda node: node.forget_adopted(places))
    amount = f"{counted(forgotten.files, 'file')}, {human_size(forgotten.size_bytes)}"
    invocation.output.result(f"Forgot {amount}. No file was touched.", forgotten)


def _row(file: AdoptableFile) -> tuple[str, ...]:
    how = f"{HOW.get(file.how, file.how)}: {file.why}" if file.why else HOW.get(file.how, file.how)
    return file.tool, file.path, human_size(file.size_bytes), file.repo or "-", how


def _lines(report: AdoptReport) -> Iterator[str]:
    for place in report.places:
        yield f"{place.tool}: {place.path}: {counted(place.files, 'file')}, {human_size(place.size_bytes)}"
    for one in report.installed:
        yield _installed(one)
    yield from _summary(report)


def _installed(one: ImportedRevision) -> str:
    proof = "proved" if one.is_proved else "listed, not proved"
    refs = f" ({', '.join(dict.fromkeys(one.refs))})" if one.refs else ""
    files = f"{one.files:,} of {counted(one.listed_files, 'file')}"
    return f"Installed {one.repo} at {one.commit[:12]}{refs}: {proof}, {files}, {human_size(one.size_bytes)}"


def _summary(report: AdoptReport) -> Iterator[str]:
    amount = f"{counted(report.files, 'file')}, {human_size(report.size_bytes)}"
    hashed = f"hashed {human_size(report.hashed_bytes)} in {human_time(report.seconds)}"
    here = f"; {human_size(report.here_bytes)} are in the cache already" if report.here_files else ""
    yield f"{amount} can serve ({hashed}){here}."
    if report.shared_bytes:
        yield f"{human_size(report.shared_bytes)} lay twice, here and in the cache, and share their blocks now."
    if report.repo_bytes:
        repos = list(report.repo_bytes.items())
        named = ", ".join(f"{repo} {human_size(size_bytes)}" for repo, size_bytes in repos[:MAX_ALIKE])
        more = f" and {len(repos) - MAX_ALIKE:,} more" if len(repos) > MAX_ALIKE else ""
        yield f"{human_size(sum(report.repo_bytes.values()))} belong to repos, as their places say: {named}{more}."


def _notes(report: AdoptReport) -> Iterator[str]:
    """What the user may do next, and what was left out."""
    wanted = report.wanted
    if wanted is not None:
        share = f"{wanted.files:,} of {counted(wanted.listed_files, 'file')}"
        sizes = f"{human_size(wanted.size_bytes)} of {human_size(wanted.listed_bytes)}"
        may = "may lie" if report.is_dry_run else "lie"
        yield f"{share} of {wanted.repo} at {wanted.commit[:12]} {may} on this machine: {sizes}."
    for waiting in report.waiting[:MAX_ALIKE]:
        name = f"{waiting.repo} at {waiting.commit[:12]}" if waiting.repo else waiting.place
        yield f"Not installed: {name}: {waiting.reason}."
        if waiting.repo and waiting.needs_list:
            yield f"  hfpeer {waiting.type} add -r {waiting.repo} -v {waiting.commit}  takes what lies here"
    if len(report.waiting) > MAX_ALIKE:
        yield f"Not installed: {len(report.waiting) - MAX_ALIKE:,} more revisions (--json has all)."
    if report.pointers:
        one = report.pointers == 1
        what = "is an LFS pointer, not the file itself" if one else "are LFS pointers, not the files themselves"
        yield f"{counted(report.pointers, 'file')} {what}."
    if report.twice_bytes:
        yield f"{human_size(report.twice_bytes)} lie twice in clones: in .git/lfs and in the work tree."
    for place in report.places:
        if place.is_hub_cache:
            yield f"{place.path} is a cache itself: `hfpeer conf cache add {quote(place.path)}` reads it in place."
    for trouble in report.troubles[:MAX_ALIKE]:
        hint = f" {trouble.hint}" if trouble.hint else ""
        yield f"Left out: {trouble.path}: {trouble.reason}.{hint}"
    if len(report.troubles) > MAX_ALIKE:
        yield f"Left out: {len(report.troubles) - MAX_ALIKE:,} more (--json has all)."
