"""The names, the info and the manifest of a prepared set: parsed strictly, and the same on every machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.prepared import COMMIT, REPO, info_text, place_of
from hfpeer.errors import BadArchive, CorruptData, InvalidName
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.prepared import info as info_module
from hfpeer.prepared import manifest as manifest_module
from hfpeer.prepared.info import parse_info, reader_of, without_machine
from hfpeer.prepared.layout import SetPlace, dataset_folder, is_strange, shard_names, snake_case
from hfpeer.prepared.manifest import BuiltWith, SetFile, SetManifest, SetSplit
from hfpeer.prepared.media import Downloads, Snapshot

SNAPSHOT = Snapshot(REPO, Commit(COMMIT), Path(f"/here/hub/{REPO.folder}/snapshots/{COMMIT}"), {"a/0.png", "x.zip"})
EVERYWHERE = f"hf://datasets/acme/PlainText@{COMMIT}"


def a_manifest(**changes: Any) -> SetManifest:
    shard = SetFile("plain_text-train.arrow", 100, "a" * 64)
    made = SetManifest(
        REPO,
        Commit(COMMIT),
        "default",
        place_of(),
        (SetSplit("train", 3, (shard,)),),
        SetFile("dataset_info.json", 50, "b" * 64),
        ((FilePath("data/0.parquet"), Digest("sha256", "d" * 64)),),
        "parquet",
        BuiltWith("5.2.0", "26.0.1"),
        "flat",
        "none",
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("lmms-lab/MMBench_EN", "lmms-lab___mm_bench_en"),
        ("acme/SQuAD-v2.0", "acme___s_qu_ad-v2.0"),
        ("acme/PlainText", "acme___plain_text"),
        ("squad", "squad"),
    ],
)
def test_a_repo_has_the_folder_that_datasets_gives_it(name: str, folder: str) -> None:
    assert dataset_folder(RepoId.parse(name, "dataset")) == folder
    assert snake_case(folder) == folder or "-" in name


def test_shards_have_the_names_that_datasets_gives_them() -> None:
    assert shard_names("pq", "train", 1) == ("pq-train.arrow",)
    assert shard_names("pq", "train", 2) == ("pq-train-00000-of-00002.arrow", "pq-train-00001-of-00002.arrow")
    for split in ("", "../x", "a/b", "a" * 101):
        with pytest.raises(InvalidName):
            shard_names("pq", split, 1)
    with pytest.raises(InvalidName):
        shard_names("pq", "train", 0)


@pytest.mark.parametrize(
    "words",
    [
        ("..", "default", "0.0.0", COMMIT),
        ("a", "../x", "0.0.0", COMMIT),
        ("a", "x", "0.0.0", COMMIT[:39]),
        ("a", "x", "0.0.0", COMMIT + ".incomplete"),
        ("a", "", "0.0.0", COMMIT),
        ("a", "x/y", "0.0.0", COMMIT),
    ],
)
def test_no_name_leads_out_of_the_datasets_cache(words: tuple[str, str, str, str]) -> None:
    with pytest.raises(InvalidName):
        SetPlace.parse(*words)


def test_results_of_map_are_no_strange_files() -> None:
    shards = ["pq-train.arrow"]
    strange = ["pq-train-00000-of-00002.arrow", "tmp123.arrow"]
    mine = ["pq-train.arrow", "dataset_info.json", ".hfpeer.json", "cache-1234.arrow", "tmpab12cd", "LICENSE"]
    assert [name for name in strange + mine if is_strange(name, shards)] == strange


def test_the_info_tells_splits_shards_and_which_versions_read_it() -> None:
    features = {
        "tags": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
        "image": {"_type": "Image"},
    }
    info = parse_info(info_text({"train": [2, 3], "test": [1]}, features=features))
    assert [(one.name, one.rows, one.shards) for one in info.splits] == [("train", 5, 2), ("test", 1, 1)]
    assert (info.era, info.needs, info.has_media, info.rows) == ("list", (4, 0), True, 6)
    assert info.reader == "needs datasets 4.0 or newer" and reader_of((0, 0)) == ""


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"splits": {}}', b'{"splits": {"a": {"name": 3}}}', b"[" * 99999]
)
def test_an_info_that_datasets_did_not_write_is_a_sentence(text: bytes) -> None:
    with pytest.raises(CorruptData, match=r"dataset_info\.json cannot be used"):
        parse_info(text)


def test_the_paths_of_a_machine_are_taken_out_of_the_info() -> None:
    checksums = {"/home/u/x.csv": {"num_bytes": 1}, f"{EVERYWHERE}/a.csv": {"num_bytes": 2}}
    text = without_machine(info_text({"train": [1]}, download_checksums=checksums))
    assert b"/home/u" not in text and EVERYWHERE.encode() in text
    plain = info_text({"train": [1]})
    assert without_machine(plain) is plain


def test_a_manifest_is_the_same_everywhere_and_read_back() -> None:
    made = a_manifest()
    assert SetManifest.from_json(made.to_json()) == made
    assert made.id == a_manifest().id != a_manifest(built_with=None).id
    assert "unknown version" in a_manifest(built_with=None).made_by


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "format 2"),
        ({"commit": "d" * 40}, "another commit"),
        ({"config_id": "../../x"}, "not a name"),
        ({"hash": "e" * 16, "commit": None}, "local folder"),
        ({"splits": []}, "no split"),
        ({"era": "new"}, "none of"),
        ({"repo": "a/b/c"}, "not a repo"),
        ({"sources": [{"path": "../x", "digest": "sha256:" + "d" * 64}]}, "path of a file"),
        ({"built_with": {"datasets": "\x1b[2J", "pyarrow": "1", "num_proc": None}}, "not a version"),
    ],
)
def test_a_manifest_with_a_wrong_word_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArchive, match=said):
        SetManifest.from_document({**a_manifest().to_document(), **change})


def test_a_manifest_cannot_name_other_files_than_those_of_its_splits() -> None:
    document = a_manifest().to_document()
    document["splits"][0]["shards"][0]["path"] = "../../../../.bashrc"
    with pytest.raises(BadArchive, match="other names"):
        SetManifest.from_document(document)
    with pytest.raises(BadArchive, match="canonical"):
        SetManifest.from_json(json.dumps(a_manifest().to_document(), indent=1).encode())


def test_a_set_has_a_largest_info_and_a_largest_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(info_module, "MAX_SET_INFO_BYTES", 10)
    monkeypatch.setattr(manifest_module, "MAX_SET_MANIFEST_BYTES", 10)
    with pytest.raises(CorruptData, match="more than 10 bytes"):
        parse_info(info_text({"train": [1]}))
    with pytest.raises(BadArchive, match="more than 10 bytes"):
        SetManifest.from_json(a_manifest().to_json())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (f"/home/u/.cache/hub/{REPO.folder}/snapshots/{COMMIT}/a/0.png", "a/0.png"),
        (f"{EVERYWHERE}/a/0.png", "a/0.png"),
        (f"zip://cat/1.png::/x/{REPO.folder}/snapshots/{COMMIT}/x.zip", "x.zip"),
    ],
)
def test_a_path_of_the_commit_is_known_from_any_machine(text: str, path: str) -> None:
    chain = text[: text.index("::") + 2] if "::" in text else ""
    assert SNAPSHOT.everywhere(text) == f"{chain}{EVERYWHERE}/{path}"
    assert SNAPSHOT.here(f"{chain}{EVERYWHERE}/{path}") == f"{chain}{SNAPSHOT.folder}/{path}"
    assert SNAPSHOT.is_here(f"{chain}{SNAPSHOT.folder}/{path}")


@pytest.mark.parametrize(
    "text",
    [
        "/etc/passwd",
        "https://example.org/a.png",
        "a/0.png",
        "",
        f"/x/{REPO.folder}/snapshots/{'d' * 40}/a/0.png",
        f"/x/datasets--acme--other/snapshots/{COMMIT}/a/0.png",
        f"/x/{REPO.folder}/snapshots/{COMMIT}/../../../../etc/passwd",
        f"/x/{REPO.folder}/snapshots/{COMMIT}/not/listed.png",
        f"{EVERYWHERE}/../secret",
        f"hf://datasets/acme/other@{COMMIT}/a/0.png",
        f"zip://a::https://example.org/{REPO.folder}/snapshots/{COMMIT}/x.zip",
        f"ftp://a::/x/{REPO.folder}/snapshots/{COMMIT}/x.zip",
        "/home/u/datasets/downloads/" + "1" * 64,
    ],
)
def test_any_other_path_is_foreign(text: str) -> None:
    assert SNAPSHOT.everywhere(text) is None and SNAPSHOT.here(text) is None and not SNAPSHOT.is_here(text)


def test_the_downloads_of_datasets_2_are_known_by_their_addresses() -> None:
    downloads = Downloads({"1" * 64: f"{EVERYWHERE}/a/0.png"}, {"2" * 64: f"{EVERYWHERE}/x.zip"})
    assert SNAPSHOT.everywhere("/h/datasets/downloads/" + "1" * 64, downloads) == f"{EVERYWHERE}/a/0.png"
    extracted = "/h/datasets/downloads/extracted/" + "2" * 64 + "/cat/1.png"
    assert SNAPSHOT.everywhere(extracted, downloads) == f"zip://cat/1.png::{EVERYWHERE}/x.zip"
