"""Recipes: what they say in each mode, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fakes.conversion import PNG, convert_here, needs_libraries, plan_of, rows_in, write_parquet
from hfpeer.conversion.output.merging import merge
from hfpeer.conversion.request.recipe import Merge, parse_recipe, read_recipe
from hfpeer.errors import EntryNotFound, InvalidName

RECIPE = """
output: data/processed
modes:
  fast_dev: {max_samples: 200, seed: 0, datasets: {textvqa: {max_samples: 5}}}
  paper: {}
defaults: {single: true}
datasets:
  mmbench: {repo: lmms-lab/MMBench_EN, splits: [dev, test], images: save}
  textvqa:
    repo: "${VOVNET_HF_DATASET_ID_TEXTVQA:-lmms-lab/textvqa}"
    revision: v1
    splits: validation
    max_samples: 1000
    image_roots: "${VOVNET_IMAGE_ROOTS:-}"
    rename: {image_id: image}
merge:
  mmbench_core/mmbench_core_train: [mmbench/dev]
"""


def test_a_recipe_has_modes_and_variables(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    recipe = read_recipe(file, "paper", {"VOVNET_IMAGE_ROOTS": "/a:/b"})
    mmbench, textvqa = recipe.datasets
    assert str(recipe.output) == "data/processed" and mmbench.options.splits == ("dev", "test")
    assert (str(textvqa.repo), textvqa.revision) == ("datasets/lmms-lab/textvqa", "v1")
    assert textvqa.image_roots == ("/a", "/b")
    assert textvqa.options.splits == ("validation",) and textvqa.options.renamed == (("image_id", "image"),)
    assert (mmbench.options.max_samples, textvqa.options.max_samples) == (None, 1000) and mmbench.options.is_single
    assert recipe.merges == (Merge("mmbench_core/mmbench_core_train", (("mmbench", "dev"),)),)
    recipe = read_recipe(file, "fast_dev", {"VOVNET_HF_DATASET_ID_TEXTVQA": "our/textvqa"})
    assert [one.options.max_samples for one in recipe.datasets] == [200, 5]
    assert [one.options.seed for one in recipe.datasets] == [0, 0]
    assert recipe.datasets[1].repo.full_name == "our/textvqa" and recipe.datasets[1].image_roots == ()


@pytest.mark.parametrize(
    ("document", "mode", "said"),
    [
        ([], "", "no mapping"),
        ({}, "", "names no datasets"),
        ({"datasets": {"a": {}}}, "", "names no repo"),
        ({"datasets": {"a": {"repo": "x/y", "spilts": ["train"]}}}, "", "key 'spilts'"),
        ({"datasets": {"a": {"repo": "x/y", "max_samples": "many"}}}, "", "is no number"),
        ({"datasets": {"../a": {"repo": "x/y"}}}, "", "cannot name a dataset"),
        ({"datasets": {"a": {"repo": "x/y"}}, "modes": {"fast": None}}, "slow", "no mode 'slow'"),
        ({"datasets": {"a": {"repo": "x/y"}}, "merge": {"m": ["b/train"]}}, "", "no split of a dataset"),
        ({"datasets": {"a": {"repo": "x/y", "format": "parquet"}}, "merge": {"m": ["a/train"]}}, "", "only JSONL"),
        ({"datasets": {"a": {"repo": "x/y"}}, "merge": {"../m": ["a/train"]}}, "", "cannot name a merged file"),
        ({"datasets": {"a": {"repo": "x/y", "shape": "none"}}}, "", "no shape"),
        ({"datasets": {"a": {"repo": "x/y", "config": False}}}, "", "config of a is no text: False"),  # no, in YAML
        ({"datasets": {"a": {"repo": "x/y", "splits": [True]}}}, "", "splits of a is no list"),
        ({"datasets": {"a": {"repo": ["x/y"]}}}, "", "repo of a is no text"),
        ({"datasets": {"a": {"repo": "x/y"}}, "modes": {"m": {"datasets": {"b": {}}}}}, "m", "has a dataset 'b'"),
        ({"datasets": {"a": {"repo": "x/y", "splits": ["dev"]}}, "merge": {"m": ["a/test"]}}, "", "not convert"),
        ({"datasets": {"a": {"repo": "x/y"}}, "merge": {"m": None}}, "", "made of no split"),
        ({"datasets": {"a": {"repo": "x/y"}}, "merge": {"a/a_train": ["a/train"]}}, "", "name of a file of the"),
    ],
)
def test_a_mistake_in_a_recipe_is_a_sentence(document: Any, mode: str, said: str) -> None:
    with pytest.raises(InvalidName, match=said):
        parse_recipe(document, mode)


def test_a_variable_that_is_not_set_is_named(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("datasets: {a: {repo: '${NO_SUCH_NAME}'}}")
    with pytest.raises(InvalidName, match="variable NO_SUCH_NAME, which is not set"):
        read_recipe(file, "", {})
    file.write_text("datasets: [")
    with pytest.raises(InvalidName, match="cannot be read: line 1: expected"):
        read_recipe(file, "", {})


def test_a_key_that_is_there_twice_is_named_and_aliases_are_no_second_one(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("datasets:\n  a: {repo: x/y}\n  b: {repo: x/y}\n  a: {repo: x/z}\n")
    with pytest.raises(InvalidName, match="the key 'a' twice in the mapping from line 2 on"):
        read_recipe(file, "", {})
    file.write_text("datasets:\n  a: &a {repo: x/y, single: true}\n  b: {<<: *a, repo: x/z}\n  c: *a\n")
    repos = [(one.repo.name, one.options.is_single) for one in read_recipe(file, "", {}).datasets]
    assert repos == [("y", True), ("z", True), ("y", True)]


@needs_libraries
def test_a_merged_file_finds_the_pictures_of_each_dataset(tmp_path: Path) -> None:
    import pyarrow as pa

    reports = {}
    for name in ("one", "two"):
        picture = {"bytes": PNG + name.encode(), "path": "x.png"}
        write_parquet(tmp_path / f"{name}.parquet", pa.table({"text": [f"{name} images/"], "image": [picture]}))
        plan = plan_of(tmp_path, [f"{name}.parquet"], "parquet", shape="rows")
        reports[name] = convert_here(plan, tmp_path, tmp_path / "data" / name)
    parts = (("one", "train"), ("two", "train"), ("one", "train"))
    made = merge(Merge("all/train", parts), tmp_path / "data", reports)
    rows = rows_in(tmp_path / "data" / made.path)
    assert [row["text"] for row in rows] == ["one images/", "two images/", "one images/"] and made.rows == 3
    folder = tmp_path / "data" / "all"
    assert [(folder / row["image"]).read_bytes()[8:] for row in rows] == [b"one", b"two", b"one"]
    assert json.dumps(rows).count("../one/images/") == 2
    with pytest.raises(EntryNotFound, match="no converted split 'dev'"):
        merge(Merge("all", (("one", "dev"),)), tmp_path / "data", reports)
