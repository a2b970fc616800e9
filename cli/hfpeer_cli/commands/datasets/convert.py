"""`hfpeer dataset convert`: a dataset as files that trainers read."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hfpeer.errors import InvalidName
from hfpeer.names import MAIN, RepoId, RepoType, Revision
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.grammar import FOLDER, Verb, Word, pass_invocation, takes_repos
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted, human_size
from hfpeer_cli.progress import watching

if TYPE_CHECKING:
    from hfpeer.conversion.results import ConversionReport
    from hfpeer.node.operations.conversion.planning import Planned
    from hfpeer.node.operations.conversion.recipes import Convert
    from hfpeer.node.operations.conversion.requests import ConversionRequest
    from hfpeer.node.operations.prepared.places import SetPlaces

MAX_MISSES = 10
"""At most this many missing pictures are printed; JSON has more."""
EXIT_MISSING = 4
ROOTS_VARIABLE = "HFPEER_IMAGE_ROOTS"
"""Image roots, between colons, for commands without --image-root."""


def _share(text: str) -> tuple[int, int]:
    """`0/4` as (0, 4). Raises InvalidName."""
    number, slash, of = text.partition("/")
    if not slash or not number.isdigit() or not of.isdigit() or int(number) >= int(of):
        raise InvalidName(f"{text!r} is no share of the parts.", hint="Write K/N, from 0/N to N-1/N.", value=text)
    return int(number), int(of)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _pair(text: str) -> tuple[str, str]:
    """`question=query` as a pair. Raises InvalidName."""
    old, equals, new = text.partition("=")
    if not equals or not old or not new:
        raise InvalidName(f"{text!r} renames no column.", hint="Write OLD=NEW.", value=text)
    return old, new


@click.command(
    "convert",
    cls=Verb,
    examples=[
        "hfpeer dataset convert rajpurkar/squad -o data/squad",
        "hfpeer dataset convert rajpurkar/squad -s 'train[:1000]' -o squad --single",
        "hfpeer dataset convert lmms-lab/MMBench_EN -s dev --max-samples 200 -o data",
        "hfpeer dataset convert rajpurkar/squad -o data/squad --part 0/8",
        "hfpeer dataset convert --recipe recipe.yaml --mode fast_dev",
    ],
)
@takes_repos(RepoType.DATASET, is_needed=False, is_single=True)
@click.option("-c", "--config", default="", metavar="NAME", help="The config of the dataset.")
@click.option(
    "-s", "--split", "splits", multiple=True, metavar="SPLIT", help="train, 'train[:1000]', 'dev=train[90%:]', a+b."
)
@click.option("-o", "--output", type=FOLDER, metavar="DIR", help="The folder to write.")
@click.option(
    "--recipe",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Make all that a recipe says (docs/en/guide/datasets.md): several datasets, in one go.",
)
@click.option("--mode", metavar="NAME", help="The mode of the recipe.")
@click.option("--format", "--to", "to", metavar="FORMAT", help="jsonl, parquet, imagefolder or tsv.")
@click.option("--shape", default="rows", metavar="SHAPE", help="rows, llamafactory, swift, qwen-vl or vlmeval.")
@click.option("--single", is_flag=True, help="One file for each split, instead of one for each source file.")
@click.option("--max-samples", type=click.IntRange(0), metavar="N", help="At most N rows of each split: the first.")
@click.option("--seed", type=int, metavar="N", help="Draw the --max-samples rows at random, always the same ones.")
@click.option("--columns", type=Word("names", _names), default="", metavar="A,B", help="Only these columns.")
@click.option(
    "--rename", "renamed", type=Word("names", _pair), multiple=True, metavar="OLD=NEW", help="Rename a column."
)
@click.option("--labels", type=click.Choice(["names", "keep"]), default="names", help="keep: numbers of labels stay.")
@click.option(
    "--images",
    type=click.Choice(["save", "ref", "base64", "embed", "drop"]),
    help="Pictures and sounds: as files, as addresses in the commit, as text, in the Parquet, or not at all.",
)
@click.option(
    "--image-root",
    "image_roots",
    multiple=True,
    metavar="DIR",
    help="Where pictures lie that rows only name: a folder, a zip, or repo:PATH in the commit.",
)
@click.option("--image-column", "image_columns", multiple=True, metavar="NAME", help="A column of names of pictures.")
@click.option(
    "--missing", type=click.Choice(["fail", "keep", "drop"]), default="fail", help="What a missing picture does."
)
@click.option("--name", default="", metavar="NAME", help="The beginning of the names of files; else that of the repo.")
@click.option("--jobs", type=click.IntRange(1, 256), default=1, metavar="N", help="Convert in N processes.")
@click.option("--part", "share", type=Word("share", _share), metavar="K/N", help="Only each Nth part, from K on.")
@click.option("--dask", "scheduler", metavar="ADDRESS", help="Convert on the workers of this Dask scheduler.")
@click.option("--plan", "plan_only", is_flag=True, help="Print the parts and what has to come. Make nothing.")
@click.option("--restart", is_flag=True, help="Remove what another conversion left in DIR, and begin anew.")
@click.option("--python", metavar="PROGRAM", help="The Python whose `datasets` says which files a config is made of.")
@click.option("--local-only", is_flag=True, help="Use only the cache; ask no peer and no hub.")
@click.option("--no-peers", is_flag=True, help="Ask only mirrors and the origin.")
@click.option("--trust-peers", is_flag=True, help="Take a manifest without proof from a peer.")
@click.pass_context
@pass_invocation
def convert(invocation: Invocation, ctx: click.Context, /, repo: NamedRepo | None, **words: Any) -> None:
    """Convert a dataset to files that trainers read.

    Brings the files of the commit that are needed, one after the other, and converts what has come. Memory stays small
    whatever the dataset. The same commit and options give the same bytes on every machine. Run it again after an
    interruption: what is done stays. Prints the folder.
    """
    if words["scheduler"] and (words["share"] or words["jobs"] > 1):
        raise click.UsageError("--dask gives all parts to its workers: leave --part and --jobs out.")
    if words["recipe"] is not None:
        ctx.exit(_by_recipe(invocation, ctx, repo, words))
    if repo is None or words["output"] is None:
        raise click.UsageError("Give REPO and -o: which dataset, and into which folder? Or a --recipe.")
    words["revision"] = repo.revision
    if words["mode"]:
        raise click.UsageError("--mode is one of a --recipe.")
    request = _request(invocation, repo.repo, words)
    invocation.when_interrupted = "Interrupted. Parts that are done are kept: the same command continues."
    output = invocation.output
    with watching(output) as on_event:
        if words["plan_only"]:
            planned = invocation.run_in_loop(lambda node: _plan(node, invocation, request, on_event))
        else:
            way = _way(words["scheduler"])
            report = invocation.run_in_loop(lambda node: way(node, _places(invocation), request, on_event))
    if words["plan_only"]:
        _print_plan(invocation, planned)
        return
    output.result(report.folder, report)
    _note_report(invocation, report)
    if report.missing and request.options.missing == "fail":
        ctx.exit(EXIT_MISSING)


def _by_recipe(invocation: Invocation, ctx: click.Context, repo: NamedRepo | None, words: dict[str, Any]) -> int:
    """Makes all that a recipe says, prints it, and returns the exit code."""
    from hfpeer.conversion.request.recipe import read_recipe
    from hfpeer.node.operations.conversion.recipes import convert_recipe

    taken = {"recipe", "mode", "output", "jobs", "share", "restart", "image_roots", "python", "scheduler"}
    taken |= {"local_only", "no_peers", "trust_peers"}
    given = [name for name in words if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    strange = [name for name in given if name not in taken] + (["named"] if repo is not None else [])
    if strange:
        options = {parameter.name: parameter.opts[-1] for parameter in ctx.command.params}
        raise click.UsageError(f"{options[strange[0]]} does not go with --recipe, which says all of that.")
    recipe = read_recipe(words["recipe"], words["mode"] or "", invocation.environ)
    folder: Path = words["output"] or recipe.output.absolute()
    first = recipe.datasets[0]
    like = _request(invocation, first.repo, {**words, "output": folder, "revision": first.revision})
    invocation.when_interrupted = "Interrupted. Parts that are done are kept: the same command continues."
    output = invocation.output
    with watching(output) as on_event:
        way = _way(words["scheduler"])
        report = invocation.run_in_loop(
            lambda node: convert_recipe(node, _places(invocation), recipe, folder, like, on_event, way)
        )
    output.result(report.folder, report)
    for name, one in report.datasets.items():
        output.note(f"{name}:")
        _note_report(invocation, one)
    output.note(f"merged {file.path}: {counted(file.rows, 'row')}." for file in report.merged)
    fails = [one for one in recipe.datasets if one.options.missing == "fail" and report.datasets[one.name].missing]
    return EXIT_MISSING if fails else 0


def _way(scheduler: str | None) -> Convert:
    """The machine that converts a dataset: this machine, or a cluster."""
    from hfpeer.conversion.extra import spare_memory
    from hfpeer.node.operations.conversion.converting import convert

    spare_memory()
    if not scheduler:
        return convert
    from hfpeer.node.cluster import convert_on_cluster

    return functools.partial(convert_on_cluster, scheduler)


def _places(invocation: Invocation) -> SetPlaces:
    from hfpeer.node.operations.prepared.places import SetPlaces

    return SetPlaces(invocation.settings)


async def _plan(node: Any, invocation: Invocation, request: ConversionRequest, on_event: Any) -> Planned:
    from hfpeer.node.operations.conversion.planning import plan_conversion
    from hfpeer.node.operations.conversion.progress import ConversionProgress

    return await plan_conversion(node, _places(invocation), request, ConversionProgress(on_event))


def _request(invocation: Invocation, repo: RepoId, words: dict[str, Any]) -> ConversionRequest:
    from hfpeer.conversion.request.options import ConversionOptions
    from hfpeer.node.operations.conversion.requests import Access, ConversionRequest
    from hfpeer.upstream.auth import environment_token

    if words["local_only"] and words["no_peers"]:
        raise click.UsageError("--local-only already asks no peers; give one of the two.")
    options = ConversionOptions(
        words["name"] or repo.name,
        words["config"],
        words["splits"],
        words["to"] or ("tsv" if words["shape"] == "vlmeval" else "jsonl"),
        words["shape"],
        is_single=words["single"],
        max_samples=words["max_samples"],
        seed=words["seed"],
        images=words["images"] or "",
        image_columns=words["image_columns"],
        missing=words["missing"],
        labels=words["labels"],
        columns=words["columns"] or (),
        renamed=words["renamed"],
    )
    revision: Revision | None = words["revision"]
    folder: Path = words["output"]
    return ConversionRequest(
        repo,
        folder,
        options,
        revision or MAIN,
        words["image_roots"] or tuple(filter(None, invocation.environ.get(ROOTS_VARIABLE, "").split(":"))),
        access=Access(
            words["local_only"] or _is_offline(invocation),
            not words["no_peers"],
            words["trust_peers"],
            environment_token(invocation.environ),
        ),
        jobs=words["jobs"],
        share=words["share"],
        restarts=words["restart"],
        python=words["python"],
    )


def _is_offline(invocation: Invocation) -> bool:
    from hfpeer.node.calls import is_offline

    return is_offline(invocation.environ)


def _print_plan(invocation: Invocation, planned: Planned) -> None:
    from hfpeer.node.operations.conversion.planning import missing_sources

    plan, missing = planned.plan, list(missing_sources(planned))
    sizes = {"size_bytes": sum(file.size_bytes for file in plan.sources)}
    sizes["missing_bytes"] = sum(file.size_bytes for file in missing)
    lines = [
        f"{plan.file_of(part)}  {part.files[0].path}  {human_size(part.size_bytes)}"
        + ("" if part.take is None else f"  {counted(part.take, 'row')}")
        for part in plan.parts
    ]
    invocation.output.result(lines, {**plan.to_json(), **sizes})
    invocation.output.note(
        f"{counted(len(plan.parts), 'part')} of {counted(len(plan.sources), 'file')}, "
        f"{human_size(sizes['size_bytes'])}; to fetch: {human_size(sizes['missing_bytes'])}."
    )


def _note_report(invocation: Invocation, report: ConversionReport) -> None:
    output = invocation.output
    pictures = f", {counted(report.pictures, 'picture')}" if report.pictures else ""
    output.note(
        f"{counted(report.rows, 'row')} of {report.repo} at {report.commit[:12]} in "
        f"{counted(len(report.files) or report.parts, 'file')}{pictures}, {human_size(report.size_bytes)}; "
        f"{report.parts:,} of {counted(report.parts_total, 'part')} done"
        + (f", {report.kept_parts:,} from before" if report.kept_parts else "")
        + f"; {human_size(report.fetched_bytes)} fetched."
    )
    output.note(f"{count:,} times {what}." for what, count in report.replaced.items())
    for miss in report.misses[:MAX_MISSES]:
        output.note(f"missing: {miss.name} ({miss.source}, row {miss.row:,}, column {miss.column})")
    if report.missing:
        output.note(f"{counted(report.missing, 'picture')} not found: name their folders with --image-root.")
