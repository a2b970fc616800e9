"""`hfpeer dataset … --prepared`: the sets that `load_dataset` finds without a network."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from hfpeer.names import MAIN, RepoId, RepoType
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.grammar import Noun, Repos, Verb, missing_repo, pass_invocation, takes_repos
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import Output, counted, human_size
from hfpeer_cli.progress import watching, watching_check
from hfpeer_cli.screen.tables import exact, name, number, words
from hfpeer_cli.screen.terminal import on_screen
from hfpeer_cli.several import run_each

if TYPE_CHECKING:
    from hfpeer.node.operations.prepared.at_peers import Workplace
    from hfpeer.prepared.listing import Leftover
    from hfpeer.prepared.results import ListedSet, PreparedSet, RemovedSets, VerifiedSet
    from hfpeer.transfer.events import OnEvent

Command = TypeVar("Command", bound=Callable[..., Any])

SET_COLUMNS = (
    name("REPO"),
    name("CONFIG", least=8),
    exact("COMMIT", rank=1),
    number("ROWS"),
    number("SIZE"),
    exact("BUILT WITH", rank=2),
    words("CONTENT"),
    words("", least=12),
)
MAX_PROBLEMS = 20
"""At most this many problems are printed; JSON has all."""

HOW = {
    "here": "was right already",
    "mended": "had paths of another machine; they lead to the snapshot here now",
    "built": "built here",
    "taken": "taken",
}
"""How a set became ready, for people."""

_configs = click.option(
    "--config", "configs", multiple=True, metavar="NAME", help="A config of the dataset. May be given many times."
)
_python = click.option(
    "--python", metavar="PROGRAM", help="The Python whose `datasets` is to build; else that of your environment."
)


def prepared_options(command: Command) -> Command:
    """The options with which prepared sets go along with revisions."""
    config = click.option(
        "--config", "configs", multiple=True, metavar="NAME", help="Only prepared sets of this config."
    )
    return click.option("--prepared", is_flag=True, help="Also the prepared sets of the datasets.")(config(command))


def add_prepared(noun: Noun, prefix: str, example: str) -> None:
    """Gives the noun `dataset` its verbs and options for prepared sets."""
    config = click.Option(["--config", "configs"], multiple=True, metavar="NAME", help="Of a prepared set: its config.")
    leftovers = click.Option(
        ["--leftovers"], is_flag=True, help="With --prepared: only what killed builds left, of all repos without REPO."
    )
    python = click.Option(["--python"], metavar="PROGRAM", help="With --prepared: the Python whose `datasets` builds.")
    add = [f"{prefix} add --prepared {example}"]
    _instead(noun, "add", add_prepared_sets, [config, python], add)
    noun.add_command(prepare)
    noun.add_command(verify)
    _instead(noun, "ls", list_prepared, [], [f"{prefix} ls --prepared"])
    rm = [f"{prefix} rm --prepared {example} --config en", f"{prefix} rm --prepared --leftovers"]
    _instead(noun, "rm", remove_prepared, [config, leftovers], rm)


def _instead(
    noun: Noun, verb: str, work: Callable[..., None], options: Sequence[click.Option], examples: Sequence[str]
) -> None:
    """Gives a verb the option --prepared, with which it does `work`, and options that only this work takes."""
    command = noun.commands[verb]
    assert isinstance(command, Verb) and command.callback is not None
    plain, own = command.callback, [str(option.name) for option in options]
    takes = set(inspect.signature(work).parameters)
    repos = [parameter for parameter in command.params if isinstance(parameter, Repos) and parameter.is_needed]
    flag = click.Option(["--prepared"], is_flag=True, help="The prepared sets: Arrow files that load_dataset reads.")
    shown = [parameter for parameter in command.params if parameter.name not in ("json", "log_level")]
    command.params = [*shown, flag, *options, *(one for one in command.params if one not in shown)]
    command.examples = [*command.examples, *examples]
    for parameter in repos:
        parameter.is_needed = False

    def need(words: Mapping[str, Any]) -> None:
        if repos and not words["repos"]:
            raise missing_repo(click.get_current_context())

    def either(prepared: bool, **words: Any) -> None:
        if prepared:
            _refuse_others(click.get_current_context(), takes)
            if not words.get("leftovers"):
                need(words)
            kept = {name: value for name, value in words.items() if name in takes}
            work(click.get_current_context(), **kept)
            return
        named = [name for name in own if words.pop(name)]
        if named:
            raise click.UsageError("This option is of prepared sets: give --prepared too.")
        need(words)
        plain(**words)

    command.callback = either


def _refuse_others(ctx: click.Context, taken: Collection[str]) -> None:
    """Raises UsageError for a given option that is not among those `taken` with --prepared."""
    of_repos = {"repos", "named", "revision"} if "repos" in taken else set[str]()
    for parameter in ctx.command.params:
        name = str(parameter.name)
        is_given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and parameter.expose_value and name not in {*taken, *of_repos, "prepared"}:
            raise click.UsageError(f"{parameter.opts[-1]} does not go with --prepared.")


@click.command(
    "prepare",
    cls=Verb,
    examples=[
        "hfpeer dataset prepare rajpurkar/squad",
        "hfpeer dataset prepare TIGER-Lab/MMEB-train --config MSCOCO_t2i",
        "hfpeer dataset prepare rajpurkar/squad --python ~/venvs/train/bin/python",
    ],
)
@takes_repos(RepoType.DATASET)
@_configs
@_python
@click.option("--local-only", is_flag=True, help="Use only the cache; ask no peer and no hub.")
@click.option("--no-peers", is_flag=True, help="Ask only mirrors and the origin.")
@click.option("--trust-peers", is_flag=True, help="Take a set that nothing here can compare with the commit.")
@pass_invocation
@click.pass_context
def prepare(
    ctx: click.Context,
    invocation: Invocation,
    repos: tuple[NamedRepo, ...],
    configs: tuple[str, ...],
    python: str | None,
    local_only: bool,
    no_peers: bool,
    trust_peers: bool,
) -> None:
    """Make the Arrow files that `load_dataset` finds offline.

    Adds the files of the commit that the config needs, and lets your own `datasets` build the set from them, in your
    Python, without a network. A set that is there is compared with the commit, and its paths are mended. Prints the
    folder of the set. hfpeer runs no script of a dataset; where it cannot build, it takes the set from a peer.
    """
    options = _options(configs, python, local_only, no_peers, trust_peers)
    ctx.exit(run_each(invocation, repos, lambda named: _prepare(invocation, named, **options), done="prepared"))


def add_prepared_sets(
    ctx: click.Context,
    repos: tuple[NamedRepo, ...],
    local_only: bool,
    no_peers: bool,
    trust_peers: bool,
    configs: tuple[str, ...],
    python: str | None,
) -> None:
    """Takes prepared sets from peers that share them, or else builds them here."""
    options = {**_options(configs, python, local_only, no_peers, trust_peers), "prefers_peers": True}
    invocation = ctx.ensure_object(Invocation)
    ctx.exit(run_each(invocation, repos, lambda named: _prepare(invocation, named, **options), done="added"))


def _options(
    configs: tuple[str, ...], python: str | None, local_only: bool, no_peers: bool, trust_peers: bool
) -> dict[str, Any]:
    """Those of a PrepareRequest."""
    asked = {"is_local_only": local_only, "uses_peers": not no_peers, "trusts_peers": trust_peers}
    return {"configs": configs, "python": python, **asked}


def _prepare(invocation: Invocation, named: NamedRepo, **options: Any) -> None:
    """Prepares the sets of a repo and prints them. `options` are those of a PrepareRequest."""
    from hfpeer.node.operations.prepared.preparing import PrepareRequest
    from hfpeer.node.operations.prepared.preparing import prepare as prepare_now
    from hfpeer.upstream.auth import environment_token

    token = environment_token(invocation.environ)
    request = PrepareRequest(named.repo, named.revision or MAIN, token=token, **options)
    invocation.when_interrupted = "Interrupted. Files that came are kept; a build begins anew."
    output = invocation.output
    with watching(output) as on_event:
        sets = prepare_now(_workplace(invocation, on_event), request)
    print_prepared(output, sets)


def _workplace(invocation: Invocation, on_event: OnEvent) -> Workplace:
    from hfpeer.node.operations.prepared.at_peers import Workplace

    return Workplace(invocation.settings, invocation.environ, invocation.run, on_event)


def print_prepared(output: Output, sets: Sequence[PreparedSet]) -> None:
    """Prints the folders of sets, and what each is."""
    output.result([one.folder for one in sets], sets)
    output.note(line for one in sets for line in set_lines(one))


def set_lines(one: PreparedSet) -> Iterator[str]:
    """What a set is, how it came, and how far its content is known."""
    size = f"{one.rows:,} rows, {human_size(one.size_bytes)}"
    taken = f" from {one.taken_from}" if one.taken_from else ""
    commit = f" at {one.commit[:12]}" if one.commit else ""
    yield f"prepared set {one.config_id} of datasets/{one.repo}{commit}: {size}; {HOW[one.how]}{taken}"
    yield f"  {one.level}: {one.level_meaning} (by {one.made_by}{', ' * bool(one.needs)}{one.needs})"
    yield from (f"  {note}" for note in one.notes)


@click.command(
    "verify",
    cls=Verb,
    examples=["hfpeer dataset verify --prepared", "hfpeer dataset verify --prepared rajpurkar/squad --quick"],
)
@takes_repos(RepoType.DATASET, is_needed=False, revision_help="The commit, or its first digits; also as REPO@COMMIT.")
@_configs
@click.option("--prepared", is_flag=True, help="Verify prepared sets; `hfpeer verify` verifies the Hub cache.")
@click.option("--quick", is_flag=True, help="Names and sizes only; open no Arrow file.")
@_python
@click.pass_context
@pass_invocation
def verify(
    invocation: Invocation,
    ctx: click.Context,
    repos: tuple[NamedRepo, ...],
    configs: tuple[str, ...],
    prepared: bool,
    quick: bool,
    python: str | None,
) -> None:
    """Say what prepared sets are, and what is wrong with them.

    Checks sizes and hashes by hfpeer's record of a set, looks for paths of other machines, and compares the rows with
    the proved files of the commit (Parquet, JSON, CSV, text). Changes nothing. Exit code 7: wrong bytes or rows. 8: a
    set that does not load.
    """
    if not prepared:
        raise click.UsageError("Give --prepared; `hfpeer verify` verifies the files of repos.")
    if configs and not repos:
        raise click.UsageError("--config needs a REPO: which one is meant?")
    commit = _only_revision(repos)
    ctx.exit(verify_prepared(invocation, tuple(named.repo for named in repos), configs, commit, quick, python))


def _only_revision(repos: Sequence[NamedRepo]) -> str:
    """The revision of all repos, or "". Raises UsageError where they have several."""
    found = {named.revision for named in repos}
    if len(found) > 1:
        raise click.UsageError("Several revisions are named: give a command for each.")
    return str(next(iter(found), None) or "")


def verify_prepared(
    invocation: Invocation,
    repos: tuple[RepoId, ...],
    configs: tuple[str, ...] = (),
    commit: str = "",
    quick: bool = False,
    python: str | None = None,
) -> int:
    """Verifies prepared sets, prints what it found, and returns the exit code."""
    from hfpeer.node.operations.prepared.checking import VerifySetsRequest, exit_code_of, verify_sets

    output = invocation.output
    with watching_check(output) as on_event:
        request = VerifySetsRequest(repos, configs, commit, quick, python)
        sets = verify_sets(_workplace(invocation, on_event), request)
    code = exit_code_of(sets)
    output.result([line for one in sets for line in _verified_lines(one)], {"sets": sets, "exit_code": code})
    if not sets:
        output.note(f"No prepared set is in {invocation.settings.datasets_cache}.")
    return code


def _verified_lines(one: VerifiedSet) -> Iterator[str]:
    state = {0: "right", 7: "WRONG", 8: "DOES NOT LOAD"}[one.exit_code]
    commit = f" at {one.commit[:12]}" if one.commit else ""
    yield f"{one.repo} {one.config_id}{commit}: {one.rows:,} rows, {human_size(one.size_bytes)}: {state}"
    made = f" ({one.made_by})" if one.made_by else ""
    yield f"  {one.level}: {one.level_meaning}{made}."
    if one.uncompared:
        yield f"  rows not compared: {one.uncompared}."
    repairs = dict.fromkeys(problem.repair for problem in one.findings if problem.repair)
    for problem in one.findings[:MAX_PROBLEMS]:
        yield f"  {problem.kind}  {problem.path}: {problem.meaning}."
    for repair in repairs:
        yield f"    repair: {repair}"


def list_prepared(ctx: click.Context, repos: tuple[NamedRepo, ...]) -> None:
    """Prints the prepared sets of the datasets cache, and what is wrong with them."""
    from hfpeer.node.operations.prepared.overview import prepared_sets, select_sets

    invocation = ctx.ensure_object(Invocation)
    settings = invocation.settings
    if any(named.revision for named in repos):
        raise click.UsageError("--revision does not go with --prepared.")
    for named in repos:
        select_sets(settings, named.repo)  # raises NotFound for a repo without one
    found = [prepared_sets(settings, named.repo) for named in repos] or [prepared_sets(settings)]
    sets, leftovers = ([one for part in parts for one in part] for parts in zip(*found, strict=True))
    output = invocation.output
    output.table(SET_COLUMNS, map(_row, sets), {"sets": sets, "leftovers": leftovers})
    output.note(_notes(invocation, sets, leftovers))


def remove_prepared(
    ctx: click.Context,
    repos: tuple[NamedRepo, ...],
    configs: tuple[str, ...],
    leftovers: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Takes prepared sets of repos, or the leftovers of some or of all repos, out of the datasets cache. Asks at a
    terminal."""
    from hfpeer.node.operations.prepared.removing import remove_all_leftovers, remove_prepared

    invocation = ctx.ensure_object(Invocation)
    settings = invocation.settings
    if not repos:
        if configs:
            raise click.UsageError("--config needs a REPO: which one is meant?")
        _remove(invocation, "leftovers", partial(remove_all_leftovers, settings), yes=yes, dry_run=dry_run)
        return

    def remove(named: NamedRepo) -> None:
        commit = str(named.revision or "")
        work = partial(remove_prepared, settings, named.repo, configs, commit, leftovers_only=leftovers)
        what = f"leftovers of {named.repo}" if leftovers else f" of {named.repo}"
        _remove(invocation, what, work, yes=yes, dry_run=dry_run)

    ctx.exit(run_each(invocation, repos, remove, done="done"))


def _remove(invocation: Invocation, what: str, remove: Callable[..., RemovedSets], *, yes: bool, dry_run: bool) -> None:
    """Removes, after a question at a terminal, and prints it. `what` names leftovers, or the repo of sets."""
    output, planned = invocation.output, remove(is_dry_run=True)
    if what.startswith(" "):
        what = counted(len(planned.folders), "prepared set") + what
    if dry_run:
        lines = [*planned.folders, f"Would remove {what}: {human_size(planned.freed_bytes)}."]
        output.result(lines, planned)
        return
    if not yes and sys.stdin.isatty() and not output.is_json:
        output.note(planned.folders)
        click.confirm(on_screen(f"Remove {what} ({human_size(planned.freed_bytes)})?"), abort=True, err=True)
    removed = remove(is_dry_run=False)
    output.result(f"Removed {what}; {human_size(removed.freed_bytes)} are free again.", removed)
    output.note(f"{folder} is kept: a build is running." for folder in removed.kept)


def _row(one: ListedSet) -> tuple[str, ...]:
    broken = "does not load" if any(not problem.is_harmless for problem in one.problems) else ""
    made = one.built_with or one.needs or "datasets, version unknown"
    return one.repo, one.config_id, _commit(one), f"{one.rows:,}", human_size(one.size_bytes), made, one.level, broken


def _commit(one: ListedSet) -> str:
    if one.commit:
        return one.commit[:12]
    return "of a script" if len(one.hash) == 64 else "local files"


def _notes(invocation: Invocation, sets: Sequence[ListedSet], leftovers: Sequence[Leftover]) -> Iterator[str]:
    from hfpeer.prepared.levels import Level

    if not sets:
        yield f"No prepared set is in {invocation.settings.datasets_cache}."
    for level in Level:
        if any(one.level == level for one in sets):
            yield f"{level.value}: {level.meaning}."
    problems = [(one, problem) for one in sets for problem in one.problems]
    for one, problem in problems[:MAX_PROBLEMS]:
        yield f"{one.repo} {one.config_id}: {problem.meaning} ({problem.path})."
        if problem.repair:
            yield f"  repair: {problem.repair}"
    if len(problems) > MAX_PROBLEMS:
        yield f"And {len(problems) - MAX_PROBLEMS:,} more; --json has all."
    yield from leftover_note(leftovers)


def leftover_note(leftovers: Sequence[Leftover]) -> Iterator[str]:
    """What killed builds left, with the command that removes it; nothing if they left nothing."""
    if leftovers:
        size = human_size(sum(one.size_bytes for one in leftovers))
        yield f"{counted(len(leftovers), 'unfinished folder')}, {size}: `hfpeer dataset rm --prepared --leftovers`."
