"""`hfpeer export`, `hfpeer have`, `hfpeer import`: revisions in one file, to carry to a machine without a network."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

import click

from hfpeer.config.amounts import size_bytes
from hfpeer.errors import InvalidName, NotFound, from_problem
from hfpeer.names import MAIN, Commit, Digest, RepoId, Revision
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.commands.datasets.prepared import prepared_options, set_lines
from hfpeer_cli.grammar import Verb, Word, pass_invocation, takes_repos, type_option
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time
from hfpeer_cli.progress import watching_check

if TYPE_CHECKING:
    from hfpeer.archive.results import ExportedSet, ExportReport, ImportedRevision, ImportReport
    from hfpeer.control.operations import AddRequest

MAX_DAMAGE = 10
"""At most this many damaged places are printed; JSON has all."""
MAX_SETS = 3
"""At most this many prepared sets get a line on how to unpack them without hfpeer."""
MIN_PART_BYTES = 1_000_000


def parse_size(text: str) -> int:
    """Bytes: `4GB`, `700MiB`, `4000000000`. Raises InvalidName."""
    part_bytes = size_bytes(text) or 0
    if part_bytes < MIN_PART_BYTES:
        raise InvalidName(
            f"{text!r} is not the size of a part.", hint="Write 4GB or 700MB; 1MB is the least.", value=text
        )
    return part_bytes


@click.command(
    "export",
    cls=Verb,
    examples=[
        "hfpeer export Qwen/Qwen3-0.6B datasets/rajpurkar/squad -o both.tar",
        "hfpeer export --all -o /media/stick/",
        "hfpeer export Qwen/Qwen3-0.6B -o - | ssh host hfpeer import -",
        "hfpeer export Qwen/Qwen3-0.6B --to-folder ./Qwen3-0.6B",
    ],
)
@takes_repos(None, is_needed=False)
@click.option("-o", "--output", "target", metavar="FILE|DIR|-", help="Where to write the archive; - is stdout.")
@click.option(
    "--to-folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Instead of an archive make DIR a plain folder of one revision, as `hf download --local-dir`.",
)
@click.option("--link", is_flag=True, help="Make large LFS files in DIR read-only hard links of the cache's.")
@click.option("--all", "all_", is_flag=True, help="Every revision that is here with a list of its files.")
@click.option(
    "--have",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Leave out what the target has: a file of `hfpeer have`, or an earlier archive.",
)
@click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match.")
@prepared_options
@click.option(
    "--part-size",
    type=Word("size", parse_size),
    metavar="SIZE",
    help="Write parts of this size: 4GB, 700MB. FAT gets parts without it.",
)
@type_option
@pass_invocation
def export(
    invocation: Invocation,
    repos: tuple[NamedRepo, ...],
    target: str | None,
    to_folder: Path | None,
    link: bool,
    all_: bool,
    have: Path | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    prepared: bool,
    configs: tuple[str, ...],
    part_size: int | None,
    type_: str,
) -> None:
    """Write revisions of the cache to one archive: a tar that needs no hfpeer to unpack.

    Works without a network. Every byte is hashed on the way; a blob with wrong bytes ends it with exit code 7. After an
    interruption the same command goes on.
    """
    if to_folder is not None:
        if target is not None or all_ or have is not None or part_size is not None or len(repos) != 1:
            raise InvalidName(
                "`--to-folder` makes one folder of one revision.",
                hint="Name one REPO or REPO@REV, without `-o`, `--all`, `--have` and `--part-size`.",
            )
        request = _local_add(repos[0].repo, repos[0].revision or MAIN, include, exclude)
        _to_folder(invocation, request, to_folder, links=link)
        return
    if target is None or link:
        raise InvalidName(
            "`--link` needs `--to-folder`." if link else "Where to write is not named.",
            hint="Name a file with `-o`, or a folder with `--to-folder`.",
        )
    wanted = tuple((named.repo, named.revision or MAIN) for named in repos)
    selected = {"include": include, "exclude": exclude, "configs": wanted_configs(prepared, configs)}
    _to_archive(invocation, wanted, target, all_revisions=all_, have=have, part_bytes=part_size, **selected)


def _local_add(repo: RepoId, revision: Revision, include: tuple[str, ...], exclude: tuple[str, ...]) -> AddRequest:
    from hfpeer.control.operations import AddRequest

    return AddRequest(repo, revision, include=include, exclude=exclude, is_local_only=True)


def _to_folder(invocation: Invocation, request: AddRequest, folder: Path, *, links: bool) -> None:
    """Makes a plain folder of a revision that is in the cache. Raises NotFound if files of it are not there."""
    from hfpeer_cli.commands.moving.local_dir import add_and_list, fill, filled_lines

    repo, revision = request.repo, request.revision
    invocation.when_interrupted = "Interrupted. The same command goes on from there."
    output = invocation.output
    try:
        with watching_check(output) as on_event:
            finished, files = invocation.run(lambda node: add_and_list(node, request, on_event, lists=True))
    except NotFound as error:
        add = f"`hfpeer {repo.type.value} add -r {repo.full_name} -v {revision}`"
        raise type(error)(error.message, hint=f"{add} fetches what is missing.", **error.facts) from None
    filled = fill(output, folder, finished, files, replaceable=(), links=links)
    output.result(filled.folder, {"repo": str(repo), "commit": finished.commit, **asdict(filled)})
    output.note(filled_lines(filled, replaces=f"`hfpeer {repo.type.value} add --local-dir DIR -f FILE`"))


def _to_archive(
    invocation: Invocation,
    wanted: tuple[tuple[RepoId, Revision], ...],
    target: str,
    **options: Any,
) -> None:
    """Writes revisions to one archive. `options` are those of an ExportRequest."""
    import asyncio

    from hfpeer.node.operations.moving.archiving import ExportRequest
    from hfpeer.node.operations.moving.archiving import export as export_now

    if not wanted and not options["all_revisions"]:
        raise InvalidName("Nothing to export is named.", hint="Name repos as REPO or REPO@REV, or give `--all`.")
    if target == "-" and options["part_bytes"] is not None:
        raise InvalidName("A pipe has no parts.", hint="Leave out `--part-size`, or give `-o` a file.")
    is_pipe = target == "-"
    request = ExportRequest(wanted, sys.stdout.buffer if is_pipe else Path(target), **options)
    output = invocation.output
    if not is_pipe:
        invocation.when_interrupted = "Interrupted. The same command goes on from there."
    with watching_check(output) as on_event:
        report = asyncio.run(export_now(invocation.settings, request, on_event))
    lines = list(_export_lines(report))
    if is_pipe:
        output.note(lines)
    else:
        output.result(lines, asdict(report))
        output.note(_unpacking(report))


def wanted_configs(prepared: bool, configs: tuple[str, ...]) -> tuple[str, ...] | None:
    """The configs of the prepared sets that go along: None for no sets, empty for all. Raises InvalidName."""
    if configs and not prepared:
        raise InvalidName("`--config` is of prepared sets.", hint="Give `--prepared` too.")
    return configs if prepared else None


def _export_lines(report: ExportReport) -> Iterator[str]:
    for one in report.revisions:
        whole = counted(one.listed_files, "file")
        files = whole if one.files == one.listed_files else f"{one.files:,} of {whole}"
        proof = "proved" if one.is_proved else "listed, not proved"
        refs = f" ({', '.join(one.refs)})" if one.refs else ""
        size = human_size(one.size_bytes)
        yield f"{one.repo} at {one.commit[:12]}{refs}: {files}, {size}, {proof}"
    yield from map(packed_set_line, report.sets)
    first, *others = report.paths
    yield first if not others else f"{first} to {others[-1]}"
    left_out = f", {counted(report.omitted_blobs, 'blob')} left out" if report.omitted_blobs else ""
    speed = f"wrote {human_size(report.written_bytes)} in {human_time(report.seconds)}"
    blobs = f"{counted(report.blobs, 'blob')}{left_out}"
    yield f"Archive {report.archive}: {blobs}, {human_size(report.size_bytes)}; {speed}."
    yield from report.notes


def packed_set_line(packed: ExportedSet) -> str:
    """A prepared set that goes along, in a line."""
    at = f" at {packed.commit[:12]}" if packed.commit else ""
    size = f"{packed.rows:,} rows, {human_size(packed.size_bytes)}"
    return (
        f"prepared set {packed.config_id} of datasets/{packed.repo}{at}: {size}, not proved: made by {packed.made_by}"
    )


def _unpacking(report: ExportReport) -> list[str]:
    """The command that unpacks the archive without hfpeer."""
    first = report.paths[0]
    words = quote(first) if len(report.paths) == 1 else f"{quote(first.removesuffix('000'))}*"
    unpack = (
        f'tar xf {words} -C "$HF_HUB_CACHE"' if len(report.paths) == 1 else f'cat {words} | tar xf - -C "$HF_HUB_CACHE"'
    )
    if report.omitted_blobs:
        return [f"There: hfpeer import {words}"]
    lines = [f"There: hfpeer import {words}", f"Or, without hfpeer and unchecked: {unpack}"]
    for one in report.sets[:MAX_SETS]:
        there = f'"$HF_HOME/datasets/{one.folder}"'
        lines.append(f'  and the prepared set: mkdir -p {there} && cp -L "$HF_HUB_CACHE/{one.snapshot}"/* {there}')
        if one.names_files:
            lines.append("  (without hfpeer its pictures or sounds are asked of the Hub, as hf:// paths)")
    if len(report.sets) > MAX_SETS:
        lines.append(f"  and the same for {len(report.sets) - MAX_SETS:,} more prepared sets; --json has all.")
    return lines


@click.command("have", cls=Verb, examples=["hfpeer have -o have.txt"])
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there."
)
@click.option(
    "--only",
    type=click.File("r"),
    metavar="FILE|-",
    help="Only the blobs whose digests are the lines of FILE, or of stdin.",
)
@pass_invocation
def have(invocation: Invocation, target: Path | None, only: TextIO | None) -> None:
    """List the blobs of this cache, so that an export for it can leave them out (`hfpeer export --have FILE`)."""
    import asyncio

    from hfpeer.cache.disk.os_errors import free_bytes
    from hfpeer.cache.snapshots import write_file
    from hfpeer.node.operations.moving.archiving import have as have_now

    wanted = None if only is None else [Digest.parse(line.strip()) for line in only if line.strip()]
    found = asyncio.run(have_now(invocation.settings))
    if wanted is not None:
        found = found.of(wanted)
    if target is None:
        prefixes = {str(digest): count for digest, count in found.prefixes.items()}
        cache = invocation.settings.cache
        document = {
            "digests": sorted(map(str, found.whole)),
            "prefixes": prefixes,
            "cache": str(cache),
            "free_bytes": free_bytes(cache),
        }
        invocation.output.result(found.to_text().splitlines(), document)
        return
    write_file(target.absolute(), found.to_text())
    parts = f", and the beginnings of {counted(len(found.prefixes), 'blob')}" if found.prefixes else ""
    counts = {"path": str(target), "blobs": len(found.whole), "prefixes": len(found.prefixes)}
    invocation.output.result(f"{counted(len(found.whole), 'blob')} in {target}{parts}.", counts)


@click.command(
    "import",
    cls=Verb,
    examples=[
        "hfpeer import /media/stick/both.tar",
        "hfpeer import /media/stick/both.tar.*",
        "hfpeer import /media/stick/hub",
        "ssh host hfpeer export Qwen/Qwen3-0.6B -o - | hfpeer import -",
    ],
)
@click.argument("places", nargs=-1, required=True, metavar="[FILE|DIR|-]...")
@click.option(
    "-v", "--revision", "commit", type=Word("commit", Commit.parse), metavar="COMMIT", help="It must be this commit."
)
@click.option("--trust-archive", is_flag=True, help="Take lists of files that no commit proves.")
@click.option("--no-share", is_flag=True, help="Do not take its word on what is public.")
@click.option("--no-prepared", is_flag=True, help="Leave out its prepared sets, which no commit proves.")
@click.option("--dry-run", is_flag=True, help="Say what it would take, and change nothing.")
@pass_invocation
def import_(
    invocation: Invocation,
    places: tuple[str, ...],
    commit: Commit | None,
    trust_archive: bool,
    no_share: bool,
    no_prepared: bool,
    dry_run: bool,
) -> None:
    """Take the revisions of an archive, its parts in any order, or a folder that is a cache: a copy, a stick.

    Needs no network. Only bytes with the digests of a proved commit enter the cache. Whole blobs are taken even if the
    rest is damaged (exit code 7). After an interruption the same command goes on. Prepared sets come into the datasets
    cache; what made them is printed, because no commit proves them.
    """
    import asyncio

    from hfpeer.archive.importing import ImportOptions, damage_error
    from hfpeer.node.operations.moving.archiving import import_all

    settings = invocation.settings
    hubs = tuple(upstream.url for upstream in settings.upstreams)
    options = ImportOptions(commit, trust_archive, not no_share, dry_run, hubs)
    sources: list[Path | BinaryIO] = [sys.stdin.buffer if place == "-" else Path(place) for place in places]
    invocation.when_interrupted = "Interrupted. The same command goes on from there."
    output = invocation.output
    with watching_check(output) as on_event:
        reports = asyncio.run(import_all(settings, sources, options, on_event, takes_sets=not no_prepared))
    output.result([line for report in reports for line in _import_lines(report)], [asdict(one) for one in reports])
    error = damage_error(reports)
    if error is not None:
        raise error
    for problem in (problem for report in reports for problem in report.failed_sets):
        raise from_problem(problem)


def _import_lines(report: ImportReport) -> Iterator[str]:
    for one in report.revisions:
        yield _imported(one, is_dry_run=report.is_dry_run)
        if one.refs:
            yield f"  refs: {', '.join(one.refs)}"
        for ref, _, commit in (kept.partition(" ") for kept in one.kept_refs):
            yield f"  {ref} stays at {commit[:12]}, as a hub or you set it; the archive says {one.commit[:12]}"
        if one.is_shared:
            yield f"  shared with peers: {one.visibility}, by the word of the archive or of a hub"
    for made in report.sets:
        yield from set_lines(made)
    for problem in report.failed_sets:
        yield f"NOT TAKEN  a prepared set: {problem['message']}"
    verb = "Would take" if report.is_dry_run else "Took"
    taken = f"{counted(report.taken_blobs, 'blob')}, {human_size(report.taken_bytes)}"
    here = f"{human_size(report.present_bytes)} were here"
    yield f"{verb} {taken} from {report.archive}; {here}. {human_time(report.seconds)}."
    yield from report.notes
    yield from _damage_lines(report)


def _damage_lines(report: ImportReport) -> Sequence[str]:
    lines = [f"DAMAGED  {one}" for one in report.damage[:MAX_DAMAGE]]
    more = len(report.damage) - MAX_DAMAGE
    return [*lines, f"DAMAGED  and {more:,} more"] if more > 0 else lines


def _imported(one: ImportedRevision, *, is_dry_run: bool) -> str:
    proof = "proved" if one.is_proved else "listed, not proved"
    packed = counted(one.packed_files, "file")
    files = packed if is_dry_run else f"{one.files:,} of {packed}"
    left = one.listed_files - one.packed_files
    rest = f"; {counted(left, 'file')} of the commit not in the archive" if left else ""
    return f"{one.repo} at {one.commit[:12]}: {proof}, {files}, {human_size(one.size_bytes)}{rest}"
