"""Parts of conversions: values, pictures, files, resumption. Files of a snapshot in, bytes out."""

from __future__ import annotations

import datetime
import decimal
import errno
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fakes.conversion import (
    JPEG,
    PNG,
    contents,
    convert_here,
    needs_libraries,
    plan_of,
    rows_in,
    write_parquet,
)
from hfpeer.conversion.features import of_card
from hfpeer.conversion.output.output import OutputFolder
from hfpeer.conversion.part.part import convert_part, named_files
from hfpeer.conversion.plan import ConversionPlan
from hfpeer.errors import ConversionFailed, EntryNotFound, InvalidName, NoSpace

pytestmark = needs_libraries

MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)


def edge_table() -> Any:
    """One row of every kind of value that JSON does not have, and one of nulls."""
    import pyarrow as pa

    nan, infinity = float("nan"), float("inf")
    zone = pa.timestamp("us", "Asia/Shanghai")
    nested = pa.struct([("when", pa.timestamp("s")), ("bits", pa.binary()), ("floats", pa.list_(pa.float32()))])
    inner = {"when": MOMENT.replace(microsecond=0), "bits": b"\0\xff", "floats": [0.1, infinity]}
    columns: dict[str, tuple[Any, Any]] = {
        "nan": (nan, pa.float64()),
        "infinity": (-infinity, pa.float32()),
        "large": (2**63 - 1, pa.int64()),
        "unsigned": (2**64 - 1, pa.uint64()),
        "emoji": ('é😀\n"\u2028\0', pa.string()),
        "moment": (MOMENT, pa.timestamp("us")),
        "zoned": (MOMENT.replace(tzinfo=datetime.timezone.utc), zone),
        "day": (MOMENT.date(), pa.date32()),
        "time": (MOMENT.time(), pa.time64("us")),
        "long": (datetime.timedelta(minutes=1, milliseconds=500), pa.duration("ms")),
        "price": (decimal.Decimal("12.50"), pa.decimal128(10, 2)),
        "bits": (b"\0\x01\xfe", pa.binary()),
        "map": ([("a", nan), ("b", 2.0)], pa.map_(pa.string(), pa.float64())),
        "numbered": ([(1, MOMENT)], pa.map_(pa.int64(), pa.timestamp("us"))),
        "nested": ([inner, None], pa.list_(nested)),
        "word": ("x", pa.dictionary(pa.int32(), pa.string())),
    }
    return pa.table({name: pa.array([value, None], type_) for name, (value, type_) in columns.items()})


def test_every_value_is_strict_json_by_the_rules(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", edge_table())
    report = convert_here(plan_of(tmp_path, ["a.parquet"], "parquet"), tmp_path, tmp_path / "out")
    full, empty = rows_in(tmp_path / "out" / "rows_train.jsonl")
    assert full == {
        "nan": None,
        "infinity": None,
        "large": 2**63 - 1,
        "unsigned": 2**64 - 1,
        "emoji": 'é😀\n"\u2028\0',
        "moment": "2024-01-02T03:04:05.678901",
        "zoned": "2024-01-02T03:04:05.678901Z",
        "day": "2024-01-02",
        "time": "03:04:05.678901",
        "long": 60.5,
        "price": "12.50",
        "bits": "AAH+",
        "map": {"a": None, "b": 2.0},
        "numbered": {"1": "2024-01-02T03:04:05.678901"},
        "nested": [{"when": "2024-01-02T03:04:05.000", "bits": "AP8=", "floats": [0.10000000149011612, None]}, None],
        "word": "x",
    }
    assert set(empty.values()) == {None} and report.replaced == {"NaN or infinity became null": 4}


def test_whole_columns_give_the_bytes_that_rows_give() -> None:
    import pyarrow as pa

    from hfpeer.conversion.rows.json_columns import json_lines
    from hfpeer.conversion.rows.json_text import JsonText

    every = "".join(map(chr, range(0x20, 0x90))) + "é\u2028😀"
    item = pa.struct([("role", pa.string()), ('"key\\', pa.list_(pa.float32()))])
    message = {"role": "a\n", '"key\\': [0.5, None]}
    table = pa.table(
        {
            "text": ["plain", every, None, "", *map(chr, range(32)), '\\n"', "\n\\"],
            "float": [0.1, 1.0, -0.0, 1e16, 1e-7, 1e300, 123456789.125, None] * 4 + [5e-324] * 6,
            "small": pa.array([0.1, 1.0, None, 3e38, 1e-40, 16777216.0, 2.5] * 5 + [0.0] * 3, pa.float32()),
            "int": [2**63 - 1, -(2**63), 0, None] * 9 + [7] * 2,
            "unsigned": pa.array([2**64 - 1, None] * 19, pa.uint64()),
            "bool": [True, False, None] * 12 + [True] * 2,
            "nothing": pa.nulls(38),
            "list": pa.array([[1, None], [], None, [2]] * 9 + [[3]] * 2, pa.large_list(pa.int16())),
            "nested": pa.array([[message, None], [], None] * 12 + [[]] * 2, pa.list_(item)),
        }
    )
    whole = table.combine_chunks().to_batches()[0]
    for batch in (whole, whole.slice(3, 20), whole.slice(37), whole.slice(0, 0)):
        by_row = b"".join(JsonText(Counter()).line(row) for row in batch.to_pylist())
        assert bytes(json_lines(batch) or b"") == by_row


def test_labels_are_names_also_in_lists_and_unknown_ones_are_null(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"label": [1, -1, None], "tags": [[0, 1], [], None]})
    write_parquet(tmp_path / "a.parquet", table)
    names = {"class_label": {"names": {"0": "no", "1": "yes"}}}
    features = of_card([{"name": "label", "dtype": names}, {"name": "tags", "sequence": names}])
    convert_here(plan_of(tmp_path, ["a.parquet"], "parquet", features=features), tmp_path, tmp_path / "out")
    assert rows_in(tmp_path / "out" / "rows_train.jsonl") == [
        {"label": "yes", "tags": ["no", "yes"]},
        {"label": None, "tags": []},
        {"label": None, "tags": None},
    ]
    plan = plan_of(tmp_path, ["a.parquet"], "parquet", features=features, labels="keep")
    convert_here(plan, tmp_path, tmp_path / "numbers")
    assert rows_in(tmp_path / "numbers" / "rows_train.jsonl")[0] == {"label": 1, "tags": [0, 1]}


def test_lines_of_json_keep_what_they_say(tmp_path: Path) -> None:
    text = '{"a": NaN, "big": 123456789012345678901234567890, "t": "\\ud83d\\ude00"}\n\n{"b": [1e999, {"c": 2}]}\n'
    (tmp_path / "a.jsonl").write_text(text + '{"half": "\\ud83d"}')
    report = convert_here(plan_of(tmp_path, ["a.jsonl"], "json"), tmp_path, tmp_path / "out")
    assert rows_in(tmp_path / "out" / "rows_train.jsonl") == [
        {"a": None, "big": 123456789012345678901234567890, "t": "😀"},
        {"b": [None, {"c": 2}]},
        {"half": "\ufffd"},
    ]
    assert report.rows == 3 and sum(report.replaced.values()) == 3


@pytest.mark.parametrize(
    ("name", "text", "reading"),
    [
        ("a.json", json.dumps([{"n": n, "t": "x" * n} for n in range(3000)]), {}),
        ("a.json", json.dumps([{"n": n, "t": "x" * n} for n in range(3000)], indent=2), {}),
        ("a.json", json.dumps({"data": [{"n": n, "t": "x" * n} for n in range(3000)]}), {"field": "data"}),
        ("a.json", "\n".join(json.dumps({"n": n, "t": "x" * n}, indent=1) for n in range(3000)), {}),
        ("a.jsonl", "\n".join(json.dumps({"n": n, "t": "x" * n}) for n in range(3000)), {}),
        ("a.jsonl.gz", "\n".join(json.dumps({"n": n, "t": "x" * n}) for n in range(3000)), {}),
    ],
)
def test_every_form_of_json_is_read(tmp_path: Path, name: str, text: str, reading: dict[str, Any]) -> None:
    import gzip

    content = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    plan = plan_of(tmp_path, [name], "json", reading=reading)
    assert convert_here(plan, tmp_path, tmp_path / "out").rows == 3000
    rows = rows_in(tmp_path / "out" / "rows_train.jsonl")
    assert [row["n"] for row in rows] == list(range(3000)) and rows[-1]["t"] == "x" * 2999


def test_a_file_that_is_not_what_its_name_says_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConversionFailed, match=r"a\.parquet cannot be read"):
        convert_here(plan_of(tmp_path, ["a.parquet"], "parquet"), tmp_path, tmp_path / "out")
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": \n')
    with pytest.raises(ConversionFailed, match=r"a\.jsonl, line 2 is no JSON"):
        convert_here(plan_of(tmp_path, ["a.jsonl"], "json"), tmp_path, tmp_path / "out2")
    (tmp_path / "b.jsonl").write_bytes(b'{"a": 1}\n[1]\n')
    with pytest.raises(ConversionFailed, match="row 1 is no object"):
        convert_here(plan_of(tmp_path, ["b.jsonl"], "json"), tmp_path, tmp_path / "out3")


@pytest.mark.parametrize("builder", ["parquet", "json"])
def test_columns_are_chosen_and_renamed_and_a_mistake_names_those_that_there_are(tmp_path: Path, builder: str) -> None:
    import pyarrow as pa

    path = "a.parquet" if builder == "parquet" else "a.jsonl"
    write_parquet(tmp_path / "a.parquet", pa.table({"a": [1], "b": ["x"], "c": [2.5]}))
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": "x", "c": 2.5}')
    plan = plan_of(tmp_path, [path], builder, columns=("c", "b"), renamed=(("b", "query"),))
    convert_here(plan, tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "rows_train.jsonl").read_text() == '{"c":2.5,"query":"x"}\n'
    with pytest.raises(EntryNotFound, match="no column 'z'") as told:
        convert_here(plan_of(tmp_path, [path], builder, columns=("z",)), tmp_path, tmp_path / "out2")
    assert told.value.hint == "Its columns are: a, b, c."
    with pytest.raises(InvalidName, match="named 'c'"):
        convert_here(plan_of(tmp_path, [path], builder, renamed=(("b", "c"),)), tmp_path, tmp_path / "out3")


# Pictures


def picture_table(rows: int) -> Any:
    import pyarrow as pa

    pictures = [{"bytes": (PNG if row % 2 else JPEG) + bytes([row % 7]), "path": "image.jpg"} for row in range(rows)]
    several = [[pictures[row], None] if row else None for row in range(rows)]
    return pa.table({"id": list(range(rows)), "image": pictures, "images": several})


def test_pictures_are_files_named_by_their_hash_byte_by_byte_as_they_were(tmp_path: Path) -> None:
    table = picture_table(30)
    write_parquet(tmp_path / "a.parquet", table)
    report = convert_here(plan_of(tmp_path, ["a.parquet"], "parquet"), tmp_path, tmp_path / "out")
    rows = rows_in(tmp_path / "out" / "rows_train.jsonl")
    for row, source in zip(rows, table.to_pylist(), strict=True):
        content = (tmp_path / "out" / row["image"]).read_bytes()
        assert content == source["image"]["bytes"]
        sha256 = hashlib.sha256(content).hexdigest()
        assert row["image"] == f"images/{sha256[:2]}/{sha256}.{'png' if row['id'] % 2 else 'jpg'}"
        assert row["images"] == (None if row["id"] == 0 else [row["image"], None])
    assert report.pictures == 59 and len(list((tmp_path / "out").rglob("images/*/*"))) == 14


@pytest.mark.parametrize("way", ["ref", "base64", "drop"])
def test_the_other_ways_of_pictures(tmp_path: Path, way: str) -> None:
    write_parquet(tmp_path / "data" / "a.parquet", picture_table(3))
    plan = plan_of(tmp_path, ["data/a.parquet"], "parquet", images=way)
    convert_here(plan, tmp_path, tmp_path / "out")
    row = rows_in(tmp_path / "out" / "rows_train.jsonl")[1]
    if way == "drop":
        assert row == {"id": 1}
    elif way == "ref":
        assert row["image"] == f"hf://datasets/acme/rows@{'c' * 40}/data/a.parquet#image[1]"
    else:
        assert row["image"] == "iVBORw0KGgoB"
    assert not (tmp_path / "out" / "images").exists()


def test_parquet_keeps_types_and_pictures_and_is_read_by_datasets(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = picture_table(30).append_column("moment", [[MOMENT] * 30])
    write_parquet(tmp_path / "a.parquet", table, row_group_size=7)
    convert_here(plan_of(tmp_path, ["a.parquet"], "parquet", to="parquet"), tmp_path, tmp_path / "out")
    made = pq.read_table(tmp_path / "out" / "rows_train.parquet")
    assert made.column("moment").to_pylist() == [MOMENT] * 30
    assert made.column("image").to_pylist() == table.column("image").to_pylist()
    features = json.loads(made.schema.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}, "images": [{"_type": "Image"}]}


def test_rows_of_json_become_parquet_with_the_types_of_all_rows(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = [
        {"a": 1, "b": {"x": 1}, "m": 1},
        {"a": 1.5, "b": {"y": [1]}, "m": "text"},
        {"c": [None, "t"], "m": {"k": 2}},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    convert_here(plan_of(tmp_path, ["a.jsonl"], "json", to="parquet"), tmp_path, tmp_path / "out")
    assert pq.read_table(tmp_path / "out" / "rows_train.parquet").to_pylist() == [
        {"a": 1.0, "b": {"x": 1, "y": None}, "m": "1", "c": None},
        {"a": 1.5, "b": {"x": None, "y": [1]}, "m": "text", "c": None},
        {"a": None, "b": None, "m": '{"k":2}', "c": [None, "t"]},
    ]


def test_all_files_of_a_split_have_one_schema(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    texts = ['{"a": 1}', '{"a": 2.5, "b": {"x": [1]}}', '{"b": {"y": "t"}, "a": null}']
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.jsonl").write_text(text)
    plan = plan_of(tmp_path, [f"{number}.jsonl" for number in range(3)], "json", to="parquet")
    report = convert_here(plan, tmp_path, tmp_path / "out")
    files = [tmp_path / "out" / file.path for file in report.files]
    assert len(files) == 3 and len({str(pq.read_schema(file)) for file in files}) == 1
    nothing = {"x": None, "y": None}
    assert [pq.read_table(file).to_pylist() for file in files] == [
        [{"a": 1.0, "b": None}],
        [{"a": 2.5, "b": {**nothing, "x": [1]}}],
        [{"a": None, "b": {**nothing, "y": "t"}}],
    ]
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == [one.sha256 for one in report.files]
    (tmp_path / "1.jsonl").write_text('{"a": "text"}')
    with pytest.raises(ConversionFailed, match="different types"):
        convert_here(plan, tmp_path, tmp_path / "no type")


def name_table() -> Any:
    import pyarrow as pa

    return pa.table({"id": [0, 1, 2, 3], "image": ["in.png", "root.png", "/etc/passwd", "http://host/x.png"]})


@pytest.mark.parametrize("missing", ["fail", "keep", "drop"])
def test_pictures_that_rows_name_are_found_in_the_commit_and_in_roots_and_nowhere_else(
    tmp_path: Path, missing: str
) -> None:
    snapshot, root = tmp_path / "snapshot", tmp_path / "root"
    write_parquet(snapshot / "data" / "a.parquet", name_table())
    (snapshot / "data" / "in.png").write_bytes(PNG + b"in")
    root.mkdir()
    (root / "root.png").write_bytes(PNG + b"root")
    plan = plan_of(snapshot, ["data/a.parquet"], "parquet", image_columns=("image",), missing=missing)
    paths = {"data/a.parquet", "data/in.png", "data/other.png"}
    assert named_files(plan, plan.parts[0], snapshot, paths) == {"data/in.png"}
    report = convert_here(plan, snapshot, tmp_path / "out", [str(root)])
    assert (report.missing, report.misses[0].name, report.misses[0].row) == (1, "/etc/passwd", 2)
    file = tmp_path / "out" / "rows_train.jsonl"
    if missing == "fail":
        assert not file.exists() and not report.is_complete
        return
    rows = rows_in(file)
    assert [(tmp_path / "out" / row["image"]).read_bytes()[8:] for row in rows[:2]] == [b"in", b"root"]
    assert rows[-1]["image"] == "http://host/x.png"
    assert [row["id"] for row in rows] == ([0, 1, 2, 3] if missing == "keep" else [0, 1, 3])
    assert missing == "drop" or rows[2]["image"] == "/etc/passwd"


def test_a_root_may_be_a_zip_also_one_of_the_commit(tmp_path: Path) -> None:
    import zipfile

    (tmp_path / "a.jsonl").write_text('{"image": "cat/1.png"}\n{"image": "zip://cat/1.png::x.zip"}\n')
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr("deep/cat/1.png", PNG)
        packed.writestr("cat/1.png", PNG + b"!")
    for root in ("repo:x.zip", str(tmp_path / "x.zip")):
        plan = plan_of(tmp_path, ["a.jsonl"], "json", image_columns=("image",), images="base64")
        convert_here(plan, tmp_path, tmp_path / f"out{root[:4]}".replace("/", "_"), [root])
    assert [path.read_text() for path in sorted(tmp_path.rglob("rows_train.jsonl"))] == [
        '{"image":"iVBORw0KGgoh"}\n{"image":"iVBORw0KGgoh"}\n'
    ] * 2
    with pytest.raises(InvalidName, match="neither a folder nor a zip"):
        convert_here(plan_of(tmp_path, ["a.jsonl"], "json"), tmp_path, tmp_path / "bad", ["/no/such"])


# The folder


def three_files(snapshot: Path) -> list[str]:
    import pyarrow as pa

    for number in range(3):
        table = pa.table({"id": [number * 10 + row for row in range(10)]})
        write_parquet(snapshot / f"{number}.parquet", table, row_group_size=4)
    return [f"{number}.parquet" for number in range(3)]


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
@pytest.mark.parametrize("single", [False, True])
def test_the_same_bytes_in_another_folder_in_another_order_and_after_a_stop(
    tmp_path: Path, to: str, single: bool
) -> None:
    snapshot = tmp_path / "snapshot"
    plan = plan_of(snapshot, three_files(snapshot), "parquet", to=to, is_single=single)
    convert_here(plan, snapshot, tmp_path / "one")
    output = OutputFolder(tmp_path / "two", ConversionPlan.from_json(json.loads(plan.to_bytes())))
    convert_part(plan, plan.parts[2], snapshot, output)
    scratch = tmp_path / "two" / ".conversion" / "parts" / "000000.work"
    scratch.mkdir()
    (scratch / "rows_train.partial").write_bytes(b"half a li")  # of a process that was killed
    assert not output.finish() and len(output.missing_parts()) == 2
    convert_here(plan, snapshot, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == (2 if single else 4)


def test_a_part_whose_file_has_changed_is_made_again(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, three_files(tmp_path), "parquet")
    output = OutputFolder(tmp_path / "out", plan)
    convert_part(plan, plan.parts[0], tmp_path, output)
    made = output.file_of(plan.parts[0])
    right = made.read_bytes()
    made.write_bytes(right.replace(b"3", b"4"))
    assert output.done(plan.parts[0]) is None
    convert_part(plan, plan.parts[0], tmp_path, output)
    assert made.read_bytes() == right and output.done(plan.parts[0]) is not None


def test_another_conversion_is_not_mixed_in_and_restart_removes_only_what_it_made(tmp_path: Path) -> None:
    three_files(tmp_path)
    write_parquet(tmp_path / "pictures.parquet", picture_table(3))
    plan = plan_of(tmp_path, ["pictures.parquet", "1.parquet"], "parquet")
    other = plan_of(tmp_path, ["0.parquet"], "parquet", columns=("id",))
    folder = tmp_path / "out"
    convert_here(plan, tmp_path, folder)
    report = convert_part(plan, plan.parts[1], tmp_path, OutputFolder(folder, plan))
    assert report.rows == 10 and report.sha256
    (folder / "mine.txt").write_text("mine")
    (folder / "images" / "mine.png").write_bytes(PNG)
    with pytest.raises(InvalidName, match="has another conversion: acme/rows at cccccccccccc"):
        OutputFolder(folder, other)
    OutputFolder(folder, other, restarts=True)
    convert_here(other, tmp_path, folder)
    assert sorted(contents(folder)) == ["conversion.json", "images/mine.png", "mine.txt", "rows_train.jsonl"]
    assert list((folder / "images").iterdir()) == [folder / "images" / "mine.png"]


def test_a_full_disk_is_one_sentence_and_nothing_half_made_is_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path, three_files(tmp_path), "parquet")

    def full(file: object, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(NoSpace):
        patch.setattr("hfpeer.conversion.writers.hashed.HashedFile.write", full)
        convert_here(plan, tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.jsonl"))
    convert_here(plan, tmp_path, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.jsonl"))) == 3


def test_a_split_without_rows_is_an_empty_file(tmp_path: Path) -> None:
    three_files(tmp_path)
    plan = plan_of(tmp_path, ["0.parquet"], "parquet", selected={"take": 0})
    report = convert_here(plan, tmp_path, tmp_path / "out")
    assert report.rows == 0 and (tmp_path / "out" / "rows_train.jsonl").read_bytes() == b""
