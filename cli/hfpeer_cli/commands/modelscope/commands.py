"""`hfpeer modelscope`: the login, pushes of repos from the Hub, and comparisons of both sides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hfpeer.errors import InvalidName
from hfpeer.names import MAIN, RepoId, RepoType, Revision
from hfpeer_cli.commands.modelscope import site
from hfpeer_cli.commands.modelscope.report import copy_lines, document_of, print_outcomes, report_lines
from hfpeer_cli.grammar import FILE, SIZE, Noun, pass_invocation, takes_repos
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.progress import watching
from hfpeer_cli.screen.terminal import on_screen

if TYPE_CHECKING:
    from hfpeer.node.operations.modelscope.requests import PushRequest
    from hfpeer.node.operations.modelscope.results import PushOutcome

Command = TypeVar("Command", bound=Callable[..., Any])

GOES_ON = "Interrupted. What was sent stays there: the same command goes on, and sends again what was under way."
TYPES = [RepoType.MODEL.value, RepoType.DATASET.value]


@click.group(
    "modelscope",
    cls=Noun,
    no_args_is_help=True,
    examples=["hfpeer modelscope login", "hfpeer modelscope push Qwen/Qwen3-0.6B --to me/Qwen3-0.6B"],
)
def modelscope() -> None:
    """Repos of the Hub at ModelScope.

    A push sends only what ModelScope has not stored, straight from the cache. What is not in the cache is fetched
    first, from peers, mirrors and the origin.
    """


@modelscope.command("login", examples=["hfpeer modelscope login", "hfpeer modelscope login < token.txt"])
@click.option("--token", metavar="TOKEN", help="The token; asked for without echo, or read from a pipe, if not given.")
@pass_invocation
def login(invocation: Invocation, token: str | None) -> None:
    """Check a token with ModelScope and keep it.

    It is kept where ModelScope's own tools keep it, so that they find it too.
    """
    from hfpeer.modelscope.credentials import environment_hint

    endpoint, credentials = site.endpoint(invocation), site.credentials_of(invocation)
    chosen = "".join((token or _ask_token(endpoint)).split())
    user = site.whoami(invocation, chosen)
    credentials.store(chosen, endpoint, user.name, user.email)
    invocation.output.result(f"Logged in to {endpoint} as {user.name}.", {"user": user.name, "endpoint": endpoint})
    invocation.output.note("Whether the token may write shows at the first push: ModelScope does not tell before.")
    if hint := environment_hint(credentials):
        invocation.output.note(hint)


@modelscope.command("logout", examples=["hfpeer modelscope logout"])
@pass_invocation
def logout(invocation: Invocation) -> None:
    """Take the token of ModelScope's tools off this machine."""
    from hfpeer.modelscope.credentials import refuse_environment

    credentials = site.credentials_of(invocation)
    was_logged_in = credentials.remove()
    refuse_environment(credentials)
    text = "Logged out: no ModelScope token is kept on this machine." if was_logged_in else "You were not logged in."
    invocation.output.result(text, {"was_logged_in": was_logged_in})


@modelscope.command("whoami", examples=["hfpeer modelscope whoami"])
@pass_invocation
def whoami(invocation: Invocation) -> None:
    """Say whose token it is."""
    user = site.whoami(invocation, site.stored_token(invocation))
    document = {"user": user.name, "email": user.email, "endpoint": site.endpoint(invocation)}
    invocation.output.result(user.name, document)


def _source_options(command: Command) -> Command:
    """The options that name a repo of the Hub, one at ModelScope, and files."""
    options = [
        takes_repos(None, is_needed=False, is_single=True),
        click.option("--to", "target", metavar="OWNER/NAME", help="The repo at ModelScope."),
        click.option(
            "-f", "--file", "files", type=FILE, multiple=True, metavar="FILE", help="Only this file; many times."
        ),
        click.option("--include", multiple=True, metavar="GLOB", help="Only files that match; '*' crosses '/'."),
        click.option("--exclude", multiple=True, metavar="GLOB", help="No files that match."),
        click.option("--branch", default="master", metavar="B", help="The branch there (default: master)."),
        click.option("--type", "type_", type=click.Choice(TYPES), default=TYPES[0], help="What the repo is."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@modelscope.command(
    "push",
    examples=[
        "hfpeer modelscope push Qwen/Qwen3-0.6B --to me/Qwen3-0.6B",
        "hfpeer modelscope push Qwen/Qwen3-0.6B --to me/Qwen3-0.6B --dry-run",
        "hfpeer modelscope push --list models.txt --jobs 2 --min-size 100MB",
    ],
)
@_source_options
@click.option("--list", "list_", metavar="FILE|-", help="A file with REPO OWNER/NAME [REV] on each line.")
@click.option(
    "--jobs", type=click.IntRange(1, 16), default=None, metavar="N", help="Repos of a list at once (default: 1)."
)
@click.option("--min-size", type=SIZE, metavar="SIZE", help="Of a list, no repo with fewer bytes: 100MB.")
@click.option("--max-size", type=SIZE, metavar="SIZE", help="Of a list, no repo with more bytes.")
@click.option("--skip-existing", is_flag=True, help="Of a list, no repo that is there already.")
@click.option("--keep-going", is_flag=True, help="Begin with further repos of a list after one has failed.")
@click.option(
    "--uploads",
    type=click.IntRange(1, 16),
    metavar="N",
    help="Blobs of a repo sent at once (default: small ones 3 at once, large ones one by one).",
)
@click.option("--message", default="", metavar="TEXT", help="The message of the commit there.")
@click.option(
    "--private/--public", "is_private", default=None, help="Who may see a new repo there (default: as at the Hub)."
)
@click.option("--create/--no-create", "creates", default=True, help="Whether to create a repo that is not there.")
@click.option("--prune", is_flag=True, help="Remove files there that the commit does not have.")
@click.option("--with-permission", is_flag=True, help="You may pass on this gated or private repo.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and change nothing there.")
@click.pass_context
@pass_invocation
def push(invocation: Invocation, ctx: click.Context, /, **words: Any) -> None:
    """Push a repo of the Hub, or the repos of a list, to ModelScope.

    Sends what is not stored there, and makes one commit. A second push of the same commit sends nothing. A file there
    with other bytes is replaced. A file that the commit does not have stays, unless --prune.
    """
    _check_words(words)
    invocation.when_interrupted = GOES_ON
    if words["list_"] is not None:
        outcomes = _push_list(invocation, words)
        print_outcomes(invocation.output, outcomes)
        ctx.exit(next((one.exit_code for one in outcomes if one.exit_code), 0))
    request = _request(words, words["repo"].repo, words["repo"].revision or MAIN, words["target"])
    output = invocation.output
    from hfpeer.node.operations.modelscope.pushing import push as push_one

    with watching(output) as on_event:
        report = site.with_site(
            invocation, lambda parts: push_one(parts, _with_token(invocation, request), on_event), on_event
        )
    output.result(list(report_lines(report)), document_of(report))


@modelscope.command(
    "verify",
    examples=["hfpeer modelscope verify Qwen/Qwen3-0.6B --to me/Qwen3-0.6B"],
)
@_source_options
@click.pass_context
@pass_invocation
def verify(invocation: Invocation, ctx: click.Context, /, **words: Any) -> None:
    """Compare a repo of the Hub with one at ModelScope, file by file.

    By size and sha256, both ways.

    Changes nothing there. Plain files are fetched: the Hub lists no sha256 of them. Exit code 7: other bytes there. 4:
    a file is not there.
    """
    _need_one_repo(words)
    request = _request(words, words["repo"].repo, words["repo"].revision or MAIN, words["target"])
    output = invocation.output
    from hfpeer.node.operations.modelscope.pushing import compare_copy

    with watching(output) as on_event:
        report = site.with_site(
            invocation,
            lambda parts: compare_copy(parts, _with_token(invocation, request), on_event),
            on_event,
            needs_token=False,
        )
    output.result(list(copy_lines(report)), {**asdict(report), "exit_code": report.exit_code})
    ctx.exit(report.exit_code)


# What the words mean


def _ask_token(endpoint: str) -> str:
    if not sys.stdin.isatty():
        token = sys.stdin.readline().strip()
    else:
        token = str(click.prompt(on_screen(f"Token of {endpoint}/my/myaccesstoken"), hide_input=True, err=True)).strip()
    if not token:
        raise click.UsageError("No token was given: use --token, or pipe it in.")
    return token


def _check_words(words: dict[str, Any]) -> None:
    of_list = {"--jobs": "jobs", "--min-size": "min_size", "--max-size": "max_size"}
    of_list |= {"--skip-existing": "skip_existing", "--keep-going": "keep_going"}
    if words["list_"] is None:
        wrong = [option for option, name in of_list.items() if words[name] not in (None, False)]
        if wrong:
            raise click.UsageError(f"{wrong[0]} is for --list.")
        _need_one_repo(words)
        return
    of_one = {"REPO": "repo", "--to": "target", "-f": "files"}
    wrong = [option for option, name in of_one.items() if words[name]]
    if wrong:
        raise click.UsageError(f"{wrong[0]} names one repo, and --list names many: give one of the two.")


def _need_one_repo(words: dict[str, Any]) -> None:
    if not words["repo"] or not words["target"]:
        raise click.UsageError("Name the repo of the Hub, REPO, and the one at ModelScope with --to OWNER/NAME.")


def _request(words: dict[str, Any], repo: RepoId, revision: Revision, target: str) -> PushRequest:
    from hfpeer.modelscope.names import SiteRepo, parse_branch
    from hfpeer.node.operations.modelscope.requests import PushRequest

    wish = words.get("is_private")
    return PushRequest(
        repo=repo,
        target=SiteRepo.parse(target, repo.type),
        revision=revision,
        files=words["files"],
        include=words["include"],
        exclude=words["exclude"],
        message=words.get("message", ""),
        wish=None if wish is None else "private" if wish else "public",
        branch=parse_branch(words["branch"]),
        creates=words.get("creates", False),
        prunes=words.get("prune", False),
        is_dry_run=words.get("dry_run", False),
        has_permission=words.get("with_permission", False),
        uploads=words.get("uploads"),
    )


def _with_token(invocation: Invocation, request: PushRequest) -> PushRequest:
    """The request with the Hugging Face token of the environment, if there is one."""
    from dataclasses import replace

    from hfpeer.upstream.auth import environment_token

    return replace(request, token=environment_token(invocation.environ))


def _push_list(invocation: Invocation, words: dict[str, Any]) -> list[PushOutcome]:
    from hfpeer.node.operations.modelscope.push_list import push_list
    from hfpeer.node.operations.modelscope.requests import PushLimits, read_list

    lines = _read_lines(words["list_"])
    requests = [
        _with_token(invocation, _request(words, repo, revision, target.full_name))
        for repo, revision, target in read_list(lines, RepoType(words["type_"]))
    ]
    limits = PushLimits(
        words["min_size"], words["max_size"], words["skip_existing"], words["keep_going"], words["jobs"] or 1
    )
    with watching(invocation.output) as on_event:
        return site.with_site(invocation, lambda parts: push_list(parts, requests, limits, on_event), on_event)


def _read_lines(place: str) -> Sequence[str]:
    try:
        if place == "-":
            return sys.stdin.read().splitlines()
        with open(place, encoding="utf-8") as file:
            return file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise InvalidName(f"The list {place} cannot be read: {reason}.", hint="Name a text file, or -.") from error
