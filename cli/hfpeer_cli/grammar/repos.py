"""The words of a command line that name repos: REPO as an argument or behind -r, and the revision behind -v.

A word is read by `hfpeer.repo_words`: a name, a name with `@REV`, or a pasted address.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import click

from hfpeer.errors import InvalidName
from hfpeer.names import RepoId, RepoType, Revision
from hfpeer.repo_words import NamedRepo, parse_repo_word
from hfpeer_cli.grammar.completions import cached_names, complete_repo
from hfpeer_cli.grammar.words import REVISION
from hfpeer_cli.invocation import Invocation

Command = TypeVar("Command", bound=Callable[..., Any])

FILE_ENDINGS = (
    *(".bin", ".ckpt", ".csv", ".gguf", ".h5", ".json", ".jsonl", ".md", ".model", ".msgpack", ".onnx", ".parquet"),
    *(".pt", ".pth", ".py", ".safetensors", ".tar", ".txt", ".yaml", ".yml", ".zip"),
)
"""A word that ends so, and no option, is taken for a file: `hf download REPO FILE` has it in this place."""
_MAGIC = re.compile(r"[*?\[]")


class RepoWord(click.ParamType):  # type: ignore[type-arg] # generic only since click 8.4
    """One word that names a repo of a type, or of any. It is parsed when all words are known (`Repos.settle`)."""

    name = "repo"

    def __init__(self, type: RepoType | None) -> None:
        self.of_type = type

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        return complete_repo(ctx, self.of_type, incomplete)


class Repos(click.Argument):
    """The argument REPO..., with what belongs to it: -r, and -v if the command has it.

    When all words are parsed it puts NamedRepo values into the parameter `repos`, each with its revision. With
    `takes_globs` words with `*` or `?` go to the parameter `globs`. A command that `is_single` gets `repo`, one or
    None.
    """

    def __init__(
        self,
        type: RepoType | None,
        *,
        is_needed: bool,
        is_single: bool,
        takes_globs: bool,
        takes_paths: bool,
    ) -> None:
        super().__init__(["repos"], nargs=-1, type=RepoWord(type), metavar=_metavar(is_needed, is_single))
        self.is_needed = is_needed
        self._type, self._is_single = type, is_single
        self._takes_globs, self._takes_paths = takes_globs, takes_paths

    def settle(self, ctx: click.Context) -> None:
        """Parses the words. Raises InvalidName and UsageError."""
        behind_option = ctx.params.pop("named") or ()
        words = (*behind_option, *(ctx.params.pop("repos") or ()))
        self._refuse_type(ctx, [word for word in words if word not in behind_option])
        revision: Revision | None = ctx.params.pop("revision", None) if self._has_revision(ctx) else None
        globs = tuple(word for word in words if self._takes_globs and "://" not in word and _MAGIC.search(word))
        named = [self._parsed(ctx, word, is_bare=word not in behind_option) for word in words if word not in globs]
        found = tuple(dict.fromkeys(self._at(ctx, one, revision) for one in named))
        if revision is not None and (globs or not found):
            raise click.UsageError(
                f"-v took {revision!r} as a revision, and no REPO is left. Write `REPO -v REV`, or REPO@REV.", ctx
            )
        if self.is_needed and not found:
            raise missing_repo(ctx)
        if self._is_single:
            if len(found) > 1:
                raise click.UsageError(f"`{ctx.command_path}` takes one REPO, not {len(found)}.", ctx)
            ctx.params["repo"] = found[0] if found else None
            return
        ctx.params["repos"] = found
        if self._takes_globs:
            ctx.params["globs"] = globs

    def _refuse_type(self, ctx: click.Context, words: Sequence[str]) -> None:
        """Raises InvalidName if the first of these words is a type of repos: the noun stands before the verb."""
        meant = next((kind for kind in RepoType if words and words[0] in (kind.value, kind.plural)), None)
        if meant is None:
            return
        verb = " ".join([ctx.command.name or "", *words[1:]])
        raise InvalidName(
            f"{words[0]!r} is a type of repos, and a REPO is expected here.",
            hint=f"`hfpeer {meant.value} {verb}`",
            word=words[0],
        )

    def _has_revision(self, ctx: click.Context) -> bool:
        return any(isinstance(parameter, RevisionOption) for parameter in ctx.command.params)

    def _parsed(self, ctx: click.Context, word: str, *, is_bare: bool) -> NamedRepo:
        wanted = self._type or RepoType(ctx.params.get("type_") or RepoType.MODEL)
        if is_bare:
            refuse_file(ctx.ensure_object(Invocation), word, self._type)
        try:
            named = parse_repo_word(word, wanted)
        except InvalidName:
            if "://" not in word:
                raise
            settings = ctx.ensure_object(Invocation).settings
            named = parse_repo_word(word, wanted, [upstream.url for upstream in settings.upstreams])
        if self._type is not None and named.repo.type is not self._type:
            raise of_other_type(named.repo, self._type, ctx.info_name or "")
        return named

    def _at(self, ctx: click.Context, named: NamedRepo, revision: Revision | None) -> NamedRepo:
        """The repo at the revision of the word itself, else at that of -v."""
        if not self._takes_paths and (named.file or named.folder):
            raise click.UsageError(f"`{ctx.command_path}` takes whole repos, and a word names a part of one.", ctx)
        if not self._has_revision(ctx):
            if named.revision is not None:
                raise click.UsageError(f"`{ctx.command_path}` takes no revision: leave out @{named.revision}.", ctx)
            return named
        if None not in (named.revision, revision) and named.revision != revision:
            raise click.UsageError(f"{named.repo} is named at {named.revision} and with -v {revision}.", ctx)
        return replace(named, revision=named.revision or revision)


class RevisionOption(click.Option):
    """-v, the revision of every REPO that names none itself."""


def refuse_file(invocation: Invocation, word: str, type: RepoType | None) -> None:
    """Raises InvalidName if a word looks like a file, and no repo of that name is in the cache."""
    if not word.lower().endswith(FILE_ENDINGS) or "://" in word or word.count("/") > 1:
        return
    if word in cached_names(invocation, type):
        return
    files = f"--include '{word}'" if _MAGIC.search(word) else f"-f {word}"
    raise InvalidName(
        f"{word!r} looks like a file, and a REPO is expected here.",
        hint=f"Name files with an option: `{files}`. If it is a repo: `-r {word}`.",
        word=word,
    )


def missing_repo(ctx: click.Context) -> click.UsageError:
    """The error for a command that needs a REPO and got none."""
    return click.UsageError(f"Missing argument 'REPO'. Which one? `{ctx.command_path} ORG/NAME`", ctx)


def of_other_type(repo: RepoId, type: RepoType, verb: str) -> InvalidName:
    """The error for a word that names a repo of another type than the command is for."""
    return InvalidName(
        f"{repo} is a {repo.type.value}, and this command is for {type.plural}.",
        hint=f"`hfpeer {repo.type.value} {verb} {repo.full_name}`",
        repo=str(repo),
    )


def takes_repos(
    type: RepoType | None,
    *,
    is_needed: bool = True,
    is_single: bool = False,
    has_revision: bool = True,
    takes_globs: bool = False,
    takes_paths: bool = False,
    revision_help: str = "A branch, a tag, refs/pr/N or a commit id; also as REPO@REV.",
) -> Callable[[Command], Command]:
    """Gives a command the argument REPO and the options -r and -v; see `Repos`. `type` None: of any type, a model
    without a prefix or `--type`. `takes_paths`: the command knows what to do with a file or folder of an address."""

    def decorate(command: Command) -> Command:
        parameters: list[click.Parameter] = [
            Repos(type, is_needed=is_needed, is_single=is_single, takes_globs=takes_globs, takes_paths=takes_paths),
            click.Option(
                ["-r", "--repo", "named"],
                type=RepoWord(type),
                multiple=True,
                metavar="REPO",
                help="The same as REPO: ORG/NAME, REPO@REV, or the address of its page.",
            ),
        ]
        if has_revision:
            parameters.append(
                RevisionOption(
                    ["-v", "--rev", "--revision", "revision"], type=REVISION, metavar="REV", help=revision_help
                )
            )
        memo: list[click.Parameter] = getattr(command, "__click_params__", [])
        command.__click_params__ = [*memo, *reversed(parameters)]  # type: ignore[attr-defined] # click's own protocol
        return command

    return decorate


def globs_of(named: NamedRepo) -> tuple[str, ...]:
    """The glob of the folder that a word names, if it names one."""
    if named.folder is None:
        return ()
    return (_MAGIC.sub(r"[\g<0>]", named.folder) + "/*",)


def _metavar(is_needed: bool, is_single: bool) -> str:
    word = "REPO" if is_needed else "[REPO]"
    return word if is_single else f"{word}..."
