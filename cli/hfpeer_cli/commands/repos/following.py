"""`hfpeer model follow` and `unfollow`: repos whose new commits come by themselves."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hfpeer.config.amounts import time_seconds
from hfpeer.errors import InvalidName
from hfpeer.names import MAIN, RepoType
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.grammar import SIZE, Noun, Word, pass_invocation, takes_repos
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import human_size, human_time
from hfpeer_cli.screen.tables import age, exact, name, number, words

if TYPE_CHECKING:
    from hfpeer.control.followed import FollowedRepo
    from hfpeer.control.operations import Operations

COLUMNS = (
    name("REPO"),
    name("REVISION", rank=2, least=8),
    exact("COMMIT", rank=1),
    age("EVERY"),
    number("LIMIT"),
    age("NEXT"),
    words("STATE", least=20),
)


def _every(text: str) -> float:
    from hfpeer.control.followed import LONGEST_EVERY_SECONDS, SHORTEST_EVERY_SECONDS  # an add does not need it

    seconds = time_seconds(text)
    if seconds is None or not SHORTEST_EVERY_SECONDS <= seconds <= LONGEST_EVERY_SECONDS:
        raise InvalidName(f"{text!r} is not a time from 5 minutes to 30 days.", hint="Write 1h, 6h or 1d.", value=text)
    return seconds


def define_follow(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    """Adds the verbs `follow` and `unfollow`."""

    @noun.command(
        "follow",
        help=f"Fetch new commits of {type.value}s by itself.\n\n"
        "The daemon asks now and then what the revision means. A new commit is fetched as by an add, peers first. "
        "Older revisions stay. Without REPO, or with --ls, it lists what is followed.",
        examples=[
            f"{prefix} follow {example}",
            f"{prefix} follow {example} --every 6h --limit 20GB",
            f"{prefix} follow --ls",
        ],
    )
    @takes_repos(type, is_needed=False)
    @click.option(
        "--every",
        type=Word("time", _every),
        default="1h",
        metavar="TIME",
        help="How often to ask: 1h if left out, from 5min to 30d.",
    )
    @click.option(
        "--limit", type=SIZE, metavar="SIZE", help="Do not fetch a commit of which more than this is missing."
    )
    @click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'.")
    @click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match.")
    @click.option("--ls", "lists", is_flag=True, help="List what is followed.")
    @pass_invocation
    def follow(invocation: Invocation, /, repos: tuple[NamedRepo, ...], lists: bool, **words: Any) -> None:
        from hfpeer.control.followed import FollowedRepo  # an add does not need it

        if lists and repos:
            raise click.UsageError("--ls lists all that is followed: give no REPO.")
        wanted = [
            FollowedRepo(
                named.repo,
                named.revision or MAIN,
                tuple(words["include"]),
                tuple(words["exclude"]),
                words["every"],
                words["limit"],
            )
            for named in repos
        ]
        if not wanted:
            _list(invocation, type)
            return

        async def begin(node: Operations) -> list[FollowedRepo]:
            return [await node.follow_repo(one) for one in wanted]

        found = invocation.run(begin)
        lines = [f"Following {one.repo} at {one.revision}, every {human_time(one.every_seconds)}." for one in found]
        invocation.output.result(lines, list(map(_document, found)))
        if invocation.has_no_daemon:
            invocation.output.note("No daemon runs, so nothing is asked until one does: `hfpeer daemon start`.")

    @noun.command(
        "unfollow",
        help=f"Fetch new commits of {type.value}s no longer.\n\nWhat has come stays.",
        examples=[f"{prefix} unfollow {example}", f"{prefix} unfollow {example}@main"],
    )
    @takes_repos(type)
    @pass_invocation
    def unfollow(invocation: Invocation, repos: tuple[NamedRepo, ...]) -> None:
        async def end(node: Operations) -> list[FollowedRepo]:
            return [one for named in repos for one in await node.unfollow_repo(named.repo, named.revision)]

        gone = invocation.run(end)
        lines = [f"No longer following {one.repo} at {one.revision}." for one in gone]
        invocation.output.result(lines, list(map(_document, gone)))


def _list(invocation: Invocation, type: RepoType) -> None:
    found = [one for one in invocation.run(lambda node: node.list_followed()) if one.repo.type is type]
    output = invocation.output
    output.table(COLUMNS, map(followed_row, found), list(map(_document, found)))
    if not found:
        output.note("Nothing is followed.")


def _document(one: FollowedRepo) -> dict[str, Any]:
    return {**asdict(one), "repo": one.repo.full_name, "type": one.repo.type.value}


def followed_row(one: FollowedRepo) -> tuple[str, ...]:
    """One line of the list, under COLUMNS."""
    seconds = one.next_at - time.time()
    return (
        one.repo.full_name,
        one.revision,
        one.commit[:12],
        human_time(one.every_seconds),
        "" if one.limit_bytes is None else human_size(one.limit_bytes),
        f"in {human_time(seconds)}" if seconds > 0 else "now",
        one.problem or ("up to date" if one.commit else "not asked yet"),
    )
