"""What conversions make, loaded the way its consumer loads it."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.conversion import JPEG, PNG, convert_here, needs_libraries, plan_of, rows_in, write_parquet
from hfpeer.errors import ConversionFailed, InvalidName

needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the extra `datasets` (the library)"
)
pytestmark = [needs_libraries, needs_datasets]

ROWS: list[dict[str, Any]] = [
    {
        "id": 10 + number,
        "image": {"bytes": (PNG if number % 2 else JPEG) + bytes([number // 2]), "path": "image.jpg"},
        "question": f"What is {number}?\n\tüber",
        "hint": "Look." if number == 0 else None,
        "options": ["one", 'tw"o', "three"],
        "answer": number % 3,
    }
    for number in range(6)
]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A commit with two files of questions about pictures; some pictures occur twice."""
    import pyarrow as pa

    rows = [*ROWS, *ROWS[:2]]
    write_parquet(tmp_path / "snapshot" / "0.parquet", pa.Table.from_pylist(rows[:5]))
    write_parquet(tmp_path / "snapshot" / "1.parquet", pa.Table.from_pylist(rows[5:]))
    return tmp_path / "snapshot"


def converted(snapshot: Path, **options: Any) -> Path:
    folder = snapshot.parent / "out"
    report = convert_here(plan_of(snapshot, ["0.parquet", "1.parquet"], "parquet", **options), snapshot, folder)
    assert report.is_complete and report.rows == 8
    return folder


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def source_sums() -> list[str]:
    return [sha256(row["image"]["bytes"]) for row in [*ROWS, *ROWS[:2]]]


def test_load_dataset_reads_lines_of_json(snapshot: Path) -> None:
    import datasets

    folder = converted(snapshot)
    files = sorted(map(str, folder.glob("*.jsonl")))
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(snapshot.parent / "cache"))
    assert loaded["id"][:] == [row["id"] for row in [*ROWS, *ROWS[:2]]] and loaded[0]["options"] == ROWS[0]["options"]
    assert [sha256((folder / path).read_bytes()) for path in loaded["image"]] == source_sums()


def test_load_dataset_reads_parquet_with_pictures(snapshot: Path) -> None:
    import datasets

    folder = converted(snapshot, to="parquet")
    files = sorted(map(str, folder.glob("*.parquet")))
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(snapshot.parent / "cache"))
    assert isinstance(loaded.features["image"], datasets.Image)
    plain = loaded.cast_column("image", datasets.Image(decode=False))
    assert [sha256(picture["bytes"]) for picture in plain["image"]] == source_sums()


def test_load_dataset_reads_a_folder_of_pictures(snapshot: Path) -> None:
    pytest.importorskip("PIL", reason="`datasets` needs Pillow for folders of pictures")
    import datasets

    folder = converted(snapshot, to="imagefolder", columns=("image", "question", "id"))
    assert sorted(path.name for path in folder.iterdir()) == ["conversion.json", "train"]
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(folder / "train"), split="train", cache_dir=str(snapshot.parent / "cache")
    )
    plain = loaded.cast_column("image", datasets.Image(decode=False))
    assert plain["id"][:] == [row["id"] for row in [*ROWS, *ROWS[:2]]]
    assert [sha256(Path(picture["path"]).read_bytes()) for picture in plain["image"]] == source_sums()
    assert plain[0]["question"] == ROWS[0]["question"]


def test_a_dataset_without_pictures_makes_no_folder_of_them(snapshot: Path) -> None:
    with pytest.raises(ConversionFailed, match="have no pictures"):
        converted(snapshot, to="imagefolder", columns=("id",))


def test_llamafactory_finds_the_file_the_columns_and_the_pictures(snapshot: Path) -> None:
    folder = converted(snapshot, shape="llamafactory")
    info = json.loads((folder / "dataset_info.json").read_text())
    (entry,) = info.values()
    # The fields that LLaMA-Factory's data/README.md documents for formatting "sharegpt".
    assert list(info) == ["rows_train"] and entry["formatting"] == "sharegpt"
    assert entry["columns"] == {"messages": "conversations", "images": "images"}
    assert set(entry["tags"]) <= {"role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag"}
    rows = rows_in(folder / entry["file_name"])
    tags, columns = entry["tags"], entry["columns"]
    for row, total in zip(rows, source_sums(), strict=True):
        turns = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in row[columns["messages"]]]
        assert [role for role, _ in turns] == [tags["user_tag"], tags["assistant_tag"]]
        assert "".join(text for _, text in turns).count("<image>") == len(row[columns["images"]]) == 1
        assert sha256((folder / row["images"][0]).read_bytes()) == total
    assert rows[0]["conversations"] == [
        {"from": "human", "value": '<image>\nLook.\nWhat is 0?\n\tüber\nA. one\nB. tw"o\nC. three'},
        {"from": "gpt", "value": "A"},
    ]


def test_swift_reads_messages_and_pictures(snapshot: Path) -> None:
    folder = converted(snapshot, shape="swift")
    rows = rows_in(folder / "rows_train.jsonl")
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"] and rows[0]["id"] == 10
    assert rows[1]["messages"][1]["content"] == "B" and rows[1]["messages"][0]["content"].startswith("<image>\n")
    assert [sha256((folder / row["images"][0]).read_bytes()) for row in rows] == source_sums()


def test_qwen_vl_reads_conversations_and_one_picture(snapshot: Path) -> None:
    folder = converted(snapshot, shape="qwen-vl")
    rows = rows_in(folder / "rows_train.jsonl")
    assert [sha256((folder / row["image"]).read_bytes()) for row in rows] == source_sums()
    assert rows[2]["conversations"][1] == {"from": "gpt", "value": "C"}


def test_vlmevalkit_reads_a_table_with_pictures_in_it(snapshot: Path) -> None:
    import pandas as pd

    folder = converted(snapshot, shape="vlmeval", to="tsv")
    table = pd.read_csv(folder / "rows_train.tsv", sep="\t")
    assert list(table.columns[:4]) == ["index", "image", "question", "A"] and table["index"].is_unique is False
    assert [sha256(base64.b64decode(picture)) for picture in table["image"]] == source_sums()
    assert table["question"].tolist()[:2] == [row["question"] for row in ROWS[:2]]
    assert table["answer"].tolist() == list("ABCABCAB") and table["B"].tolist() == ['tw"o'] * 8
    assert table["D"].isna().all() and table["hint"].tolist()[0] == "Look." and set(table["split"]) == {"train"}


def test_conversations_that_there_are_keep_their_turns_and_the_places_of_pictures(tmp_path: Path) -> None:
    rows = [
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "a <image 1> b <image 2>"},
                {"from": "gpt", "value": "<image>no"},
            ],
            "images": ["x.png", "y.png"],
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "t"}]},
                {"role": "assistant", "content": "u"},
            ],
            "images": ["x.png"],
        },
        {"messages": [{"role": "user", "content": "<image><image>two"}], "images": ["x.png"]},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    convert_here(plan_of(tmp_path, ["a.jsonl"], "json", shape="swift"), tmp_path, tmp_path / "out")
    made = rows_in(tmp_path / "out" / "rows_train.jsonl")
    assert [[turn["content"] for turn in row["messages"]] for row in made] == [
        ["S", "a <image> b <image>", "no"],
        ["<image>t", "u"],
        ["<image>two"],
    ]
    assert [turn["role"] for turn in made[0]["messages"]] == ["system", "user", "assistant"]
    assert made[0]["images"] == ["x.png", "y.png"]


def test_a_row_without_a_question_names_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"foo": 1, "bar": 2}')
    with pytest.raises(ConversionFailed, match="its columns are foo, bar") as told:
        convert_here(plan_of(tmp_path, ["a.jsonl"], "json", shape="qwen-vl"), tmp_path, tmp_path / "out")
    assert "--rename COLUMN=question" in str(told.value.hint)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": "vlmeval"},
        {"shape": "swift", "to": "parquet"},
        {"shape": "llamafactory", "images": "base64"},
        {"to": "imagefolder", "images": "ref"},
        {"shape": "none"},
    ],
)
def test_choices_that_do_not_go_together_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidName):
        plan_of(tmp_path, [], "json", **options)
