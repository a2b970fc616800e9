"""Tars, folders of pictures, zips, CSV and text as sources of conversions."""

from __future__ import annotations

import bz2
import gzip
import importlib.util
import io
import json
import lzma
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fakes.conversion import JPEG, PNG, convert_here, needs_libraries, plan_of, rows_in, write_parquet
from hfpeer.conversion.features import Feature
from hfpeer.conversion.part.part import named_files
from hfpeer.conversion.sources.batches import LocalFile
from hfpeer.conversion.sources.folder import has_labels
from hfpeer.conversion.sources.kinds import source_of
from hfpeer.errors import ConversionFailed

pytestmark = needs_libraries


def write_tar(path: Path, files: list[tuple[str, bytes]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload] # a mode that is not known before
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return rows_in(folder / "rows_train.jsonl")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_the_files_of_a_tar_with_one_name_are_a_row_also_when_their_order_changes(tmp_path: Path, mode: str) -> None:
    files = [
        ("a/1.jpg", JPEG + b"1"),
        ("a/1.json", b'{"caption": "one", "nan": NaN}'),
        ("a/1.cls", b"7"),
        ("a/2.txt", "zwei ü".encode()),
        ("a/2.jpg", JPEG + b"2"),
        ("a/._2.jpg", b"of a Mac"),
        ("a/2.bin", b"\0"),
        ("a/3.seg.png", PNG),
    ]
    write_tar(tmp_path / "a.tar", files, mode)
    convert_here(plan_of(tmp_path, ["a.tar"], "webdataset"), tmp_path, tmp_path / "out")
    first, second, third = lines_of(tmp_path / "out")
    assert (tmp_path / "out" / first.pop("jpg")).read_bytes() == JPEG + b"1"
    assert first == {"json": {"caption": "one", "nan": None}, "cls": 7, "__key__": "a/1", "__url__": "a.tar"}
    assert (tmp_path / "out" / second["jpg"]).read_bytes() == JPEG + b"2"
    assert (second["txt"], second["bin"]) == ("zwei ü", "AA==") and third["seg.png"].endswith(".png")
    plan = plan_of(tmp_path, ["a.tar"], "webdataset", selected={"skip": 1, "take": 1})
    convert_here(plan, tmp_path, tmp_path / "slice")
    assert [row["__key__"] for row in lines_of(tmp_path / "slice")] == ["a/2"]


def test_a_tar_becomes_parquet_with_its_pictures_in_it(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_tar(tmp_path / "a.tar", [("1.jpg", JPEG), ("1.txt", b"one"), ("2.jpg", PNG), ("2.txt", b"two")])
    convert_here(plan_of(tmp_path, ["a.tar"], "webdataset", to="parquet"), tmp_path, tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "rows_train.parquet")
    assert table.column("jpg").to_pylist() == [{"bytes": JPEG, "path": "1.jpg"}, {"bytes": PNG, "path": "2.jpg"}]
    assert b'"jpg": {"_type": "Image"}' in table.schema.metadata[b"huggingface"]


def test_a_broken_tar_is_one_sentence(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.txt", b"x" * 5000)])
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:3000])
    with pytest.raises(ConversionFailed, match=r"a\.tar cannot be read as a tar"):
        convert_here(plan_of(tmp_path, ["a.tar"], "webdataset"), tmp_path, tmp_path / "out")


def test_a_folder_of_pictures_has_the_names_of_folders_as_labels(tmp_path: Path) -> None:
    paths = [f"train/{label}/{number}.jpg" for label in ("cat", "dog") for number in range(2)]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(JPEG + path.encode())
    assert has_labels(paths) and not has_labels(["train/1.jpg", "train/2.jpg"])
    plan = plan_of(tmp_path, [paths], "imagefolder", reading={"labels": True})
    convert_here(plan, tmp_path, tmp_path / "out")
    rows = lines_of(tmp_path / "out")
    assert [row["label"] for row in rows] == ["cat", "cat", "dog", "dog"]
    assert [(tmp_path / "out" / row["image"]).read_bytes()[4:].decode() for row in rows] == paths
    plan = plan_of(tmp_path, [paths], "imagefolder", images="ref")
    convert_here(plan, tmp_path, tmp_path / "refs")
    assert lines_of(tmp_path / "refs")[0] == {"image": f"hf://datasets/acme/rows@{'c' * 40}/train/cat/0.jpg"}


def test_a_zip_of_folders_of_pictures_keeps_their_labels(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("dog/1.png", PNG + b"dog")
        packed.writestr("cat/1.png", PNG + b"cat")
        packed.writestr("__MACOSX/cat/._1.png", b"of a Mac")
        packed.writestr("README.md", b"not a picture")
    plan = plan_of(tmp_path, ["a.zip"], "imagefolder", reading={"labels": True})
    convert_here(plan, tmp_path, tmp_path / "out")
    rows = lines_of(tmp_path / "out")
    assert [(row["label"], (tmp_path / "out" / row["image"]).read_bytes()[8:]) for row in rows] == [
        ("cat", b"cat"),
        ("dog", b"dog"),
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_list_of_pictures_gives_the_rows(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "train").mkdir()
    for name in ("1.png", "2.png", "unlisted.png"):
        (tmp_path / "train" / name).write_bytes(PNG + name.encode())
    texts = {
        "jsonl": '{"file_name": "2.png", "text": "two"}\n{"file_name": "1.png", "text": "one"}\n',
        "csv": "file_name,text\n2.png,two\n1.png,one\n",
    }
    (tmp_path / "train" / f"metadata.{suffix}").write_text(texts[suffix])
    path = f"train/metadata.{suffix}"
    plan = plan_of(tmp_path, [path], "imagefolder", reading={"lists": suffix})
    commit = {path, "train/1.png", "train/2.png", "train/unlisted.png"}
    assert named_files(plan, plan.parts[0], tmp_path, commit) == {"train/1.png", "train/2.png"}
    convert_here(plan, tmp_path, tmp_path / "out")
    rows = lines_of(tmp_path / "out")
    assert [row["text"] for row in rows] == ["two", "one"]
    assert [(tmp_path / "out" / row["image"]).read_bytes()[8:] for row in rows] == [b"2.png", b"1.png"]


def test_a_column_of_csv_has_one_type_in_the_whole_file(tmp_path: Path) -> None:
    head = "n,f,t,flag,empty\n"
    numbers = "".join(f"{n},{n},{n},true,\n" for n in range(12_000))
    (tmp_path / "a.csv").write_text(head + numbers + ',1.5,"a, ""b""",false,\n')
    convert_here(plan_of(tmp_path, ["a.csv"], "csv"), tmp_path, tmp_path / "out")
    rows = lines_of(tmp_path / "out")
    assert rows[3] == {"n": 3, "f": 3.0, "t": "3", "flag": True, "empty": None}
    assert rows[-1] == {"n": None, "f": 1.5, "t": 'a, "b"', "flag": False, "empty": None}
    plan = plan_of(tmp_path, ["a.csv"], "csv", selected={"skip": 11_999, "take": 1})
    assert convert_here(plan, tmp_path, tmp_path / "slice").rows == 1
    (tmp_path / "b.csv").write_text("a;b\n001;x\n")
    plan = plan_of(tmp_path, ["b.csv"], "csv", reading={"sep": ";"})
    convert_here(plan, tmp_path, tmp_path / "semicolons")
    assert lines_of(tmp_path / "semicolons") == [{"a": 1, "b": "x"}]


needs_datasets = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="needs the extra `datasets` (the library)"
)


@needs_datasets
def test_other_files_are_read_by_datasets_in_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\n\nfour\n")
    plan = plan_of(tmp_path, ["a.txt"], "text", reading={"sample_by": "paragraph"}, selected={"take": 2})
    convert_here(plan, tmp_path, tmp_path / "out")
    assert [row["text"] for row in lines_of(tmp_path / "out")] == ["one\ntwo", "three"]


@needs_datasets
def test_what_datasets_says_of_a_file_that_it_cannot_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    plan = plan_of(tmp_path, ["a.txt"], "text", reading={"sample_by": "paragraph"})
    with pytest.raises(ConversionFailed, match=r"datasets cannot read a\.txt: Unicode"):
        convert_here(plan, tmp_path, tmp_path / "out")


def test_lines_of_text_are_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\n\nthree ü".encode())
    convert_here(plan_of(tmp_path, ["a.txt"], "text"), tmp_path, tmp_path / "out")
    assert [row["text"] for row in lines_of(tmp_path / "out")] == ["one", "", "three ü"]


def packed(kind: str, content: bytes) -> bytes:
    import pyarrow as pa

    if kind == "zip":
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            half = content.index(b"\n") + 1
            archive.writestr("a/1", content[:half])
            archive.writestr("a/2", content[half:])
        return made.getvalue()
    if kind in ("zstd", "lz4"):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, kind) as stream:
            stream.write(content)
        return bytes(sink.getvalue())
    if kind == "gzip":
        return gzip.compress(content)
    return bz2.compress(content) if kind == "bz2" else lzma.compress(content)


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd", "lz4", "zip"])
def test_a_packed_file_is_known_by_its_bytes_and_a_broken_one_is_a_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.json").write_bytes(packed(kind, '{"a": 1}\n{"a": "ü"}\n'.encode()))
    (tmp_path / "a.txt").write_bytes(packed(kind, b"one\ntwo\n"))
    for name, builder in (("a.json", "json"), ("a.txt", "text")):
        plan = plan_of(tmp_path, [name], builder)
        convert_here(plan, tmp_path, tmp_path / builder)
        assert source_of(plan, Counter()).count([LocalFile(name, tmp_path / name)]) == 2
    assert lines_of(tmp_path / "json") == [{"a": 1}, {"a": "ü"}]
    assert lines_of(tmp_path / "text") == [{"text": "one"}, {"text": "two"}]
    whole = (tmp_path / "a.json").read_bytes()
    (tmp_path / "a.json").write_bytes(whole[:-12])
    with pytest.raises(ConversionFailed, match=r"a\.json cannot be read|no JSON"):
        convert_here(plan_of(tmp_path, ["a.json"], "json"), tmp_path, tmp_path / "broken")


@pytest.mark.parametrize("name", ["a.rar", "a.7z"])
def test_a_packing_that_is_not_unpacked_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"Rar!\x1a\x07\0" if name == "a.rar" else b"7z\xbc\xaf\x27\x1c")
    with pytest.raises(ConversionFailed, match="is packed as"):
        convert_here(plan_of(tmp_path, [name], "json"), tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('["x", null, [1]]', [{"text": "x"}, {"text": None}, {"text": [1]}]),
        (' [ {"a": 1} , {"a": [1, {"b": 2}]} ] \n', [{"a": 1}, {"a": [1, {"b": 2}]}]),
        ("[]", []),
        ("", []),
        ('{\n "a": 1\n}\n{\n "a": 2\n}', [{"a": 1}, {"a": 2}]),
        ('\ufeff{"a": 1}\r\n\r\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        ('\ufeff[{"a": 1}]', [{"a": 1}]),
    ],
)
def test_json_of_every_layout_gives_its_rows(tmp_path: Path, text: str, rows: list[Any]) -> None:
    (tmp_path / "a.json").write_text(text)
    convert_here(plan_of(tmp_path, ["a.json"], "json"), tmp_path, tmp_path / "out")
    assert lines_of(tmp_path / "out") == rows


@pytest.mark.parametrize("text", ["[1]\n[2]\n", '[{"a": 1}', '[{"a": 1}, {"a":', '"x"\n"y"\n', "hello", '{"a": 1} x'])
def test_json_that_is_not_whole_or_has_more_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConversionFailed, match=r"a\.json"):
        convert_here(plan_of(tmp_path, ["a.json"], "json"), tmp_path, tmp_path / "out")


def test_a_large_array_is_read_value_by_value(tmp_path: Path) -> None:
    """Also a value that is larger than what is read at a time."""
    rows = [{"id": number, "text": "ü" * number} for number in (1, 700_000, 2_500_000, 3)] + [{"id": 4}] * 20_000
    (tmp_path / "a.json").write_text(json.dumps(rows, ensure_ascii=False, indent=1))
    convert_here(plan_of(tmp_path, ["a.json"], "json"), tmp_path, tmp_path / "out")
    assert lines_of(tmp_path / "out") == rows


def test_texts_in_another_encoding_are_read_as_the_config_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes('{"a": "é"}\n{"a": 2}\n'.encode("latin-1"))
    (tmp_path / "a.txt").write_bytes("é\rü\r\nx\x0by".encode("utf-16"))
    for name, builder, encoding in (("a.jsonl", "json", "latin-1"), ("a.txt", "text", "utf-16")):
        plan = plan_of(tmp_path, [name], builder, reading={"encoding": encoding})
        convert_here(plan, tmp_path, tmp_path / builder)
        with pytest.raises(ConversionFailed, match=r"cannot be read|no JSON"):
            convert_here(plan_of(tmp_path, [name], builder), tmp_path, tmp_path / f"bad {builder}")
    assert lines_of(tmp_path / "json") == [{"a": "é"}, {"a": 2}]
    assert [row["text"] for row in lines_of(tmp_path / "text")] == ["é", "ü", "x\x0by"]


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n4,5,6\n", "a,b\n1,2,\n3,4,\n", "a\n1,2,3\n", "a,b\n1,2,3\n4,5\n"])
def test_rows_of_csv_with_more_values_than_names_are_refused(tmp_path: Path, text: str) -> None:
    """pandas takes the first values as names of rows, and gives each other value to the column before its own."""
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConversionFailed, match=r"a\.csv has rows with more values than its heading has names"):
        convert_here(plan_of(tmp_path, ["a.csv"], "csv"), tmp_path, tmp_path / "out")


def test_a_config_may_name_the_column_of_csv_that_names_its_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    convert_here(plan_of(tmp_path, ["a.csv"], "csv", reading={"index_col": 0}), tmp_path, tmp_path / "out")
    assert lines_of(tmp_path / "out")[0]["b"] == 2


def test_a_split_without_rows_has_the_columns_of_its_files_or_features(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_parquet(tmp_path / "a.parquet", pa.table({"n": [1, 2], "text": ["x", "y"]}))
    (tmp_path / "a.csv").write_text("n,text\n")
    (tmp_path / "a.jsonl").write_text('{"n": 1, "text": "x"}\n')
    (tmp_path / "none.jsonl").touch()
    features = Feature(fields={"n": Feature(), "text": Feature(labels=("no", "yes"))})
    for number, (file, builder) in enumerate(
        [("a.parquet", "parquet"), ("a.csv", "csv"), ("a.jsonl", "json"), ("none.jsonl", "json")]
    ):
        for to in ("parquet", "tsv"):
            selected = {"skip": 2, "take": 0}
            options: dict[str, Any] = {"to": to, "renamed": (("text", "label"),), "columns": ("text", "n")}
            plan = plan_of(tmp_path, [file], builder, features=features, selected=selected, **options)
            convert_here(plan, tmp_path, tmp_path / f"{number}-{to}")
            made = tmp_path / f"{number}-{to}" / f"rows_train.{to}"
            if to == "tsv":
                assert made.read_text() == "label\tn\n", file
            else:
                assert pq.read_schema(made).names == ["label", "n"] and pq.read_metadata(made).num_rows == 0, file


def test_a_part_without_rows_decides_nothing_for_the_others(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "none.jsonl").touch()
    (tmp_path / "a.jsonl").write_text('{"text": "x", "n": 1}\n')
    features = Feature(fields={"n": Feature(), "text": Feature(), "never": Feature()})
    for to in ("parquet", "tsv"):
        plan = plan_of(tmp_path, ["none.jsonl", "a.jsonl"], "json", features=features, to=to)
        convert_here(plan, tmp_path, tmp_path / to)
    assert joined_text(tmp_path / "tsv") == "text\tn\nx\t1\n"
    schemas = {str(pq.read_schema(file).names) for file in (tmp_path / "parquet").rglob("*.parquet")}
    assert schemas == {"['text', 'n']"}


def joined_text(folder: Path) -> str:
    (file,) = folder.glob("*.tsv")
    return file.read_text()
