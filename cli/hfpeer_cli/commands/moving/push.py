"""`hfpeer push`: revisions to another machine over ssh."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from hfpeer.errors import InvalidName, SshFailed
from hfpeer.names import MAIN
from hfpeer.repo_words import parse_repo_word
from hfpeer_cli.commands.datasets.prepared import prepared_options
from hfpeer_cli.commands.moving.archive import packed_set_line, wanted_configs
from hfpeer_cli.grammar import Verb, pass_invocation, type_option
from hfpeer_cli.grammar.repos import RepoWord
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size, human_time
from hfpeer_cli.progress import watching_check

if TYPE_CHECKING:
    from hfpeer.push.results import PushReport

WAYS = ("hfpeer", "python", "tar")


@click.command(
    "push",
    cls=Verb,
    examples=[
        "hfpeer push Qwen/Qwen3-0.6B datasets/rajpurkar/squad cluster",
        "hfpeer push Qwen/Qwen3-0.6B@main me@login.example.org:/scratch/me/hub",
        "hfpeer push Qwen/Qwen3-0.6B node7 --ssh 'ssh -J me@gateway'",
    ],
)
@click.argument("words", nargs=-1, metavar="REPO[@REV]... [USER@]HOST[:CACHE]", type=RepoWord(None))
@click.option(
    "-r",
    "--repo",
    "behind_option",
    multiple=True,
    metavar="REPO",
    type=RepoWord(None),
    help="The same as a REPO before HOST.",
)
@click.option("--cache", metavar="FOLDER", default="", help="The folder of the cache there, as after HOST:.")
@click.option("--ssh", "ssh_command", default="ssh", metavar="COMMAND", help="How to call ssh: 'ssh -J gateway'.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match.")
@prepared_options
@click.option("--check", is_flag=True, help="Hash also the files that are there already.")
@click.option("--way", type=click.Choice(WAYS), help="The program to use there. By default the first that is there.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and change nothing.")
@type_option
@pass_invocation
def push(
    invocation: Invocation,
    words: tuple[str, ...],
    behind_option: tuple[str, ...],
    cache: str,
    ssh_command: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    prepared: bool,
    configs: tuple[str, ...],
    check: bool,
    way: str | None,
    dry_run: bool,
    type_: str,
) -> None:
    """Bring revisions of this cache into the cache of another machine, over ssh.

    The other machine needs hfpeer, or Python 3.8, or only sh and tar. What it has is not sent again, and every byte
    that is sent is hashed there. After an interruption at either end the same command goes on. Gated and private repos
    go too, because you name them.
    """
    import asyncio

    from hfpeer.node.operations.moving.pushing import PushRequest, push_revisions
    from hfpeer.push.push import Way

    if not words or len(words) + len(behind_option) < 2:
        raise InvalidName("A push needs a REPO and a HOST.", hint="Write `hfpeer push REPO HOST`.")
    *bare, target = words
    repos = [parse_repo_word(word, type_) for word in (*behind_option, *bare)]
    host, folder = parse_target(target)
    if folder and cache and folder != cache:
        raise InvalidName("The cache there is named twice.", hint="Write HOST:FOLDER, or `--cache FOLDER`.")
    request = PushRequest(
        tuple((named.repo, named.revision or MAIN) for named in repos),
        host,
        folder or cache,
        ssh_command,
        Way(way) if way else None,
        include,
        exclude,
        check,
        dry_run,
        wanted_configs(prepared, configs),
    )
    invocation.when_interrupted = "Interrupted. The same command goes on from there."
    output = invocation.output
    with watching_check(output) as on_event:
        report = asyncio.run(push_revisions(invocation.settings, request, on_event))
    output.result(list(_lines(report)), report)
    output.note(report.notes)
    if not report.is_verified and not dry_run:
        raise SshFailed(
            f"{report.host} has the bytes, but no program that hashes them: sent, not verified.",
            hint="With Python 3.8, `sha256sum` or hfpeer at the other end the same command verifies them.",
            host=report.host,
        )


def parse_target(text: str) -> tuple[str, str]:
    """The host and the folder of `[USER@]HOST[:CACHE]`. An IPv6 address needs brackets before a folder."""
    user, at, rest = text.rpartition("@")
    if rest.startswith("["):
        host, bracket, folder = rest[1:].partition("]")
        if bracket and (not folder or folder.startswith(":")):
            return f"{user}{at}{host}", folder[1:]
    if rest.count(":") > 1 and not rest.partition(":")[2].startswith(("/", "~", ".")):
        return text, ""
    host, _, folder = rest.partition(":")
    return f"{user}{at}{host}", folder


def _lines(report: PushReport) -> Iterator[str]:
    for one in report.revisions:
        whole = counted(one.listed_files, "file")
        files = whole if one.files == one.listed_files else f"{one.files:,} of {whole}"
        proof = "proved" if one.is_proved else "listed, not proved"
        refs = f" ({', '.join(one.refs)})" if one.refs else ""
        yield f"{one.repo} at {one.commit[:12]}{refs}: {files}, {human_size(one.size_bytes)}, {proof}"
        for ref, _, commit in (kept.partition(" ") for kept in one.kept_refs):
            yield f"  {ref} stays at {commit[:12]} there, as a hub or a user set it"
    yield from map(packed_set_line, report.sets)
    yield f"{report.host}:{report.cache}, by {report.way}"
    sent = f"{counted(report.sent_blobs, 'blob')}, {human_size(report.sent_bytes)}"
    present = human_size(report.present_bytes)
    if report.is_dry_run:
        yield f"Would send {sent}; {present} are there already."
        return
    how = "verified there" if report.is_verified else "not verified"
    were = "" if report.is_present_verified or not report.present_bytes else ", by name and size"
    took = human_time(report.seconds)
    yield f"Sent {sent}, {how}; {present} were there already{were}. {took}."
