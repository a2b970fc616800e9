"""Reads a recipe: several datasets, their options by mode, and files that are merged of their splits.

`${NAME}` and `${NAME:-word}` in a text are variables of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.conversion.request.splits import parse_splits
from hfpeer.errors import InvalidName
from hfpeer.names import MAIN, RepoId, Revision

MAX_RECIPE_BYTES = 4 * 1024 * 1024
KEYS = ("output", "modes", "defaults", "datasets", "merge")
DATASET_KEYS = (
    *("repo", "revision", "config", "splits", "format", "shape", "single", "max_samples", "seed", "images"),
    *("image_roots", "image_columns", "missing", "labels", "columns", "rename"),
)
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_NAME = re.compile(r"\w[\w.-]{0,99}")
_MERGED = re.compile(r"(?:\w[\w.-]{0,99}/)?\w[\w.-]{0,99}")


@dataclass(frozen=True)
class RecipeDataset:
    """One dataset of a recipe."""

    name: str
    repo: RepoId
    revision: Revision
    options: ConversionOptions
    image_roots: tuple[str, ...]


@dataclass(frozen=True)
class Merge:
    """A file that is made of splits of datasets, in order: pairs of a dataset and a split."""

    name: str
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Recipe:
    """A recipe in one mode."""

    output: Path
    datasets: tuple[RecipeDataset, ...]
    merges: tuple[Merge, ...]


def read_recipe(file: Path, mode: str, environ: Mapping[str, str]) -> Recipe:
    """Raises InvalidName, with the place in the recipe, for anything that is not as it should be."""
    import yaml

    try:
        if file.stat().st_size > MAX_RECIPE_BYTES:
            raise InvalidName(f"{file} is no recipe: it has more than {MAX_RECIPE_BYTES:,} bytes.")
        text = file.read_text(encoding="utf-8")
        _refuse_twins(yaml.compose(text, yaml.SafeLoader))
        document = yaml.safe_load(text)
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise InvalidName(f"The recipe {file} cannot be read: {_said(error)}.", hint="It is a file of YAML.") from error
    return parse_recipe(_expanded(document, environ), mode)


def _said(error: Exception) -> str:
    """What an error of YAML says, on one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    said = f"line {mark.line + 1}: {problem}" if mark is not None and problem else str(error)
    return " ".join(said.split())


def _refuse_twins(top: Any) -> None:
    """Raises InvalidName if a mapping has a key twice: YAML would drop the first without a word."""
    from yaml import MappingNode, ScalarNode

    waiting, seen = [top], set()
    while waiting:
        node = waiting.pop()
        if node is None or isinstance(node, ScalarNode) or id(node) in seen:
            continue
        seen.add(id(node))  # an alias is the node of its anchor
        if not isinstance(node, MappingNode):
            waiting += node.value
            continue
        keys = [key.value for key, _ in node.value if isinstance(key, ScalarNode) and key.value != "<<"]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise InvalidName(
                f"The recipe has the key {twice!r} twice in the mapping from line {node.start_mark.line + 1} on.",
                hint="Give each key once.",
            )
        waiting += [value for _, value in node.value]


def parse_recipe(document: Any, mode: str) -> Recipe:
    """The recipe in a document without variables. Raises InvalidName."""
    top = _mapping(document, "The recipe", KEYS)
    modes = {str(name): _mapping(one, f"The mode {name}") for name, one in _mapping(top.get("modes"), "modes").items()}
    if mode and mode not in modes:
        raise InvalidName(
            f"The recipe has no mode {mode!r}.", hint=f"Its modes are: {', '.join(modes) or 'none'}.", modes=list(modes)
        )
    of_mode = dict(modes.get(mode, {}))
    by_dataset = _mapping(of_mode.pop("datasets", None), f"The datasets of the mode {mode}")
    defaults = _mapping(top.get("defaults"), "defaults", DATASET_KEYS)
    named = _mapping(top.get("datasets"), "datasets")
    stray = next((str(name) for name in by_dataset if name not in named), None)
    if stray is not None:
        raise InvalidName(
            f"The mode {mode} has a dataset {stray!r}, which the recipe does not have.",
            hint=f"The datasets are: {', '.join(map(str, named))}.",
        )
    datasets = []
    for name, own in named.items():
        words = {
            **defaults,
            **_mapping(own, f"The dataset {name}"),
            **of_mode,
            **_mapping(by_dataset.get(name), f"The dataset {name} of the mode {mode}"),
        }
        datasets.append(_dataset(str(name), _mapping(words, f"The dataset {name}", DATASET_KEYS)))
    if not datasets:
        raise InvalidName("The recipe names no datasets.", hint="It needs `datasets: {NAME: {repo: ORG/NAME}}`.")
    merges = tuple(
        _merge(str(name), parts, {one.name: one for one in datasets})
        for name, parts in _mapping(top.get("merge"), "merge").items()
    )
    return Recipe(Path(str(top.get("output") or "data")), tuple(datasets), merges)


def _dataset(name: str, words: Mapping[str, Any]) -> RecipeDataset:
    if not _NAME.fullmatch(name):
        raise InvalidName(f"{name!r} cannot name a dataset of a recipe.", hint="Use letters, digits and _.")
    if not words.get("repo"):
        raise InvalidName(f"The dataset {name} of the recipe names no repo.", hint="Write `repo: ORG/NAME`.")
    shape = _text(words, "shape", name) or "rows"
    options = ConversionOptions(
        name,
        _text(words, "config", name),
        _texts(words.get("splits"), name, "splits"),
        _text(words, "format", name) or ("tsv" if shape == "vlmeval" else "jsonl"),
        shape,
        _flag(words.get("single"), name),
        _number(words.get("max_samples"), name, "max_samples"),
        _number(words.get("seed"), name, "seed"),
        _text(words, "images", name),
        _texts(words.get("image_columns"), name, "image_columns"),
        _text(words, "missing", name) or "fail",
        _text(words, "labels", name) or "names",
        _texts(words.get("columns"), name, "columns"),
        tuple((str(old), str(new)) for old, new in _mapping(words.get("rename"), f"rename of {name}").items()),
    )
    roots = words.get("image_roots")
    several = roots.split(":") if isinstance(roots, str) else _texts(roots, name, "image_roots")
    revision = _text(words, "revision", name)
    repo = RepoId.parse(_text(words, "repo", name), "dataset")
    return RecipeDataset(
        name, repo, Revision.parse(revision) if revision else MAIN, options, tuple(root for root in several if root)
    )


def _merge(name: str, parts: Any, datasets: Mapping[str, RecipeDataset]) -> Merge:
    if not _MERGED.fullmatch(name):
        raise InvalidName(f"{name!r} cannot name a merged file.", hint="Write NAME or FOLDER/NAME.")
    pairs = []
    for text in _texts(parts, name, "merge"):
        dataset, slash, split = text.partition("/")
        if not slash or dataset not in datasets:
            raise InvalidName(
                f"The merged file {name} names {text!r}, which is no split of a dataset of the recipe.",
                hint=f"Write DATASET/SPLIT. The datasets are: {', '.join(datasets)}.",
            )
        if datasets[dataset].options.to != "jsonl":
            raise InvalidName(f"{dataset} is not JSONL, and only JSONL is merged.", hint="Leave `format` out.")
        chosen = [choice.name for choice in parse_splits(datasets[dataset].options.splits)]
        if chosen and split not in chosen:
            raise InvalidName(
                f"The merged file {name} names {text!r}, which the recipe does not convert.",
                hint=f"Its splits are: {', '.join(chosen)}.",
            )
        pairs.append((dataset, split))
    if not pairs:
        raise InvalidName(f"The merged file {name} is made of no split.", hint="Write [DATASET/SPLIT, …].")
    folder, _, file = name.rpartition("/")
    if folder in datasets and file.startswith((f"{folder}_", "metadata")):
        raise InvalidName(
            f"The merged file {name} could have the name of a file of the dataset {folder}.",
            hint=f"Name it otherwise, or put it in a folder of its own: {file}/{file}.",
        )
    return Merge(name, tuple(pairs))


def _expanded(value: Any, environ: Mapping[str, str]) -> Any:
    """A document with the variables of its texts filled in. Raises InvalidName for one that is not set."""
    if isinstance(value, dict):
        return {key: _expanded(inner, environ) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expanded(inner, environ) for inner in value]
    if not isinstance(value, str):
        return value

    def filled(found: re.Match[str]) -> str:
        word = environ.get(found[1]) or found[2]
        if word is None:
            raise InvalidName(
                f"The recipe needs the variable {found[1]}, which is not set.",
                hint=f"Set it, or write ${{{found[1]}:-WORD}} in the recipe.",
                variable=found[1],
            )
        return word

    return _VARIABLE.sub(filled, value)


def _mapping(value: Any, where: str, known: tuple[str, ...] = ()) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidName(f"{where} is no mapping of names to values.", hint="docs/en/guide/datasets.md has one.")
    unknown = [str(key) for key in value if known and key not in known]
    if unknown:
        raise InvalidName(f"{where} has a key {unknown[0]!r}.", hint=f"It may have: {', '.join(known)}.")
    return value


def _text(words: Mapping[str, Any], key: str, name: str) -> str:
    """The text of a key; empty without one. Raises InvalidName for what YAML does not take for a text, such as `no`."""
    value = words.get(key)
    if value is None:
        return ""
    if not _is_text(value):
        raise InvalidName(f"{key} of {name} is no text: {value!r}.", hint=f"Put it in quotes: {key}: 'WORD'.")
    return str(value)


def _is_text(value: Any) -> bool:
    """Whether a value of YAML is a text or a number; `no` and `on` are neither."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _texts(value: Any, name: str, key: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return tuple(part.strip() for part in str(value).split(",") if part.strip())
    if not isinstance(value, list) or any(
        isinstance(one, bool) or not isinstance(one, (str, int, float)) for one in value
    ):
        raise InvalidName(f"{key} of {name} is no list of names.", hint=f"Write {key}: [A, B].")
    return tuple(map(str, value))


def _number(value: Any, name: str, key: str) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"-?\d+", value):
        return int(value)
    if type(value) is not int:
        raise InvalidName(f"{key} of {name} is no number: {value!r}.", hint=f"Write {key}: 200.")
    return value


def _flag(value: Any, name: str) -> bool:
    if value not in (None, True, False):
        raise InvalidName(f"single of {name} is neither true nor false: {value!r}.", hint="Write single: true.")
    return bool(value)
