"""Odd values, columns, files and folders of conversions: each is right, or one sentence that names what is wrong."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from fakes.conversion import PNG, contents, convert_here, needs_libraries, plan_of, rows_in, write_parquet
from hfpeer.conversion.output.output import OutputFolder
from hfpeer.conversion.part.part import named_files
from hfpeer.errors import ConversionFailed, EntryNotFound, InvalidName

pytestmark = needs_libraries


def rows_of(folder: Path, column: Any, **options: Any) -> list[Any]:
    """What lines have of a column of Parquet."""
    import pyarrow as pa

    write_parquet(folder / "snapshot" / "x.parquet", pa.table({"x": column}))
    report = convert_here(
        plan_of(folder / "snapshot", ["x.parquet"], "parquet", **options), folder / "snapshot", folder
    )
    return [row["x"] for row in rows_in(folder / report.files[0].path)]


# Values


def test_values_in_maps_are_written_as_outside_of_maps(tmp_path: Path) -> None:
    import pyarrow as pa

    kinds = {
        "time": (pa.time64("ns"), 1001, "00:00:00.000001001"),
        "zone": (pa.timestamp("us", "Asia/Shanghai"), 0, "1970-01-01T00:00:00.000000Z"),
        "decimal": (pa.decimal128(9, 2), "1.50", "1.50"),
        "list": (pa.list_(pa.binary()), [b"\0", None], ["AA==", None]),
        "map": (pa.map_(pa.bool_(), pa.float64()), [(True, float("nan"))], {"true": None}),
    }
    for name, (type_, value, expected) in kinds.items():
        given = pa.array([value]).cast(type_) if name == "decimal" else pa.array([value], type_)
        column = pa.MapArray.from_arrays(pa.array([0, 1, 1], pa.int32()), pa.array([7]), given)
        assert rows_of(tmp_path / name, column) == [{"7": expected}, {}]
        assert rows_of(tmp_path / f"{name}-out", pa.concat_arrays([given])) == [expected]


def test_a_long_duration_and_a_text_that_is_no_unicode_are_written(tmp_path: Path) -> None:
    import pyarrow as pa

    assert rows_of(tmp_path / "long", pa.array([10**18, None], pa.duration("us"))) == [1e12, None]
    bad = pa.array([b"a\xff", None, b"b"], pa.binary()).view(pa.string())
    assert rows_of(tmp_path / "bad", bad) == ["a\ufffd", None, "b"]
    assert "U+FFFD" in (tmp_path / "bad" / "conversion.json").read_text()


@pytest.mark.parametrize("to", ["jsonl", "parquet"])
def test_views_and_run_ends_of_arrow_are_read(tmp_path: Path, to: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "text": pa.array(["a" * 30, None, ""], pa.string_view()),
            "bytes": pa.array([b"x", None, b""], pa.binary_view()),
            "list": pa.array([[["v"], None], None, []], pa.list_view(pa.list_view(pa.string_view()))),
            "runs": pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([1, 2])),
        }
    )
    (tmp_path / "snapshot").mkdir()
    with pa.ipc.new_file(str(tmp_path / "snapshot" / "x.arrow"), table.schema) as file:
        file.write_table(table)
    plan = plan_of(tmp_path / "snapshot", ["x.arrow"], "arrow", to=to)
    convert_here(plan, tmp_path / "snapshot", tmp_path / "out")
    made = tmp_path / "out" / f"rows_train.{to}"
    rows = rows_in(made) if to == "jsonl" else pq.read_table(made).to_pylist()
    assert [row["text"] for row in rows] == ["a" * 30, None, ""]
    assert [row["list"] for row in rows] == [[["v"], None], None, []]
    assert [row["runs"] for row in rows] == [1, 1, 2]
    assert [row["bytes"] for row in rows] == (["eA==", None, ""] if to == "jsonl" else [b"x", None, b""])


def test_integers_of_csv_above_63_bits_stay_exact(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "x.csv").write_text("a,b,c\n" + "1,-1,1\n" * 10_000 + "18446744073709551615,18446744073709551615,\n")
    report = convert_here(plan_of(snapshot, ["x.csv"], "csv"), snapshot, tmp_path)
    last = rows_in(tmp_path / report.files[0].path)[-1]
    assert last == {"a": 18446744073709551615, "b": "18446744073709551615", "c": None}


def test_pictures_in_maps_are_files_and_found(tmp_path: Path) -> None:
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    values = [[("a", {"bytes": PNG, "path": "a.png"}), ("b", {"bytes": None, "path": "b.png"})], None]
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "b.png").write_bytes(PNG)
    rows = rows_of(tmp_path, pa.array(values, pa.map_(pa.string(), picture)))
    assert rows[1] is None and rows[0]["a"] == rows[0]["b"] and (tmp_path / rows[0]["a"]).read_bytes() == PNG


def test_names_of_pictures_are_found_whatever_the_writer_calls_the_items_of_lists(tmp_path: Path) -> None:
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"x.y": pa.array([[{"bytes": None, "path": "b.png"}]], pa.list_(picture)), "text": ["c.png"]})
    write_parquet(tmp_path / "x.parquet", table, use_compliant_nested_type=False)
    plan = plan_of(tmp_path, ["x.parquet"], "parquet")
    assert named_files(plan, plan.parts[0], tmp_path, {"b.png", "c.png"}) == {"b.png"}


@pytest.mark.parametrize("name", ["x" * 300, "iVBOR/w0KGgo" * 500, "a\0b.png", "é/" * 600 + "a.png"])
def test_a_text_that_cannot_name_a_file_is_a_missing_picture(tmp_path: Path, name: str) -> None:
    import pyarrow as pa

    assert rows_of(tmp_path, pa.array([name]), image_columns=("x",), missing="keep") == [name]


def test_sounds_in_parquet_stay_sounds(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound = pa.array([{"bytes": b"ID3", "path": "a"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    metadata = {"huggingface": json.dumps({"info": {"features": {"a": {"_type": "Audio", "sampling_rate": 16000}}}})}
    write_parquet(tmp_path / "x.parquet", pa.table({"a": sound}).replace_schema_metadata(metadata))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for suffix in ("mp3", "mp4", "png"):
            tar.addfile(tarfile.TarInfo(f"a.{suffix}"), io.BytesIO())
    expected = {"parquet": {"a": "Audio"}, "webdataset": {"mp3": "Audio", "mp4": "Video", "png": "Image"}}
    for builder, name in (("parquet", "x.parquet"), ("webdataset", "x.tar")):
        convert_here(plan_of(tmp_path, [name], builder, to="parquet"), tmp_path, tmp_path / builder)
        written = pq.read_schema(tmp_path / builder / "rows_train.parquet").metadata[b"huggingface"]
        features = json.loads(written)["info"]["features"]
        assert {column: feature["_type"] for column, feature in features.items()} == expected[builder]


def test_values_of_a_list_of_pictures_in_parquet_are_those_of_any_parquet(tmp_path: Path) -> None:
    import pyarrow as pa

    times = pa.array([[("k", 1001)]], pa.map_(pa.string(), pa.time64("ns")))
    write_parquet(tmp_path / "metadata.parquet", pa.table({"file_name": ["a.png"], "times": times}))
    (tmp_path / "a.png").write_bytes(PNG)
    plan = plan_of(tmp_path, ["metadata.parquet"], "imagefolder", reading={"lists": "parquet"})
    convert_here(plan, tmp_path, tmp_path / "out")
    (row,) = rows_in(tmp_path / "out" / "rows_train.jsonl")
    assert row["times"] == {"k": "00:00:00.000001001"} and row["image"].startswith("images/")


def test_every_text_comes_back_from_a_table(tmp_path: Path) -> None:
    import pandas as pd

    texts = ["a\tb", "a\nb", "a\rb", "\r", 'say "x"', "", None, "\u2028", " x ", "NA"]
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    convert_here(plan_of(tmp_path, ["x.jsonl"], "json", to="tsv"), tmp_path, tmp_path / "out")
    read = pd.read_csv(tmp_path / "out" / "rows_train.tsv", sep="\t", keep_default_na=False)
    assert list(read["text"]) == [text or "" for text in texts]


# Columns


def test_a_later_file_may_lack_a_chosen_column_and_tables_have_it_all_the_same(tmp_path: Path) -> None:
    import pyarrow as pa

    snapshot = tmp_path / "snapshot"
    write_parquet(snapshot / "a.parquet", pa.table({"id": [1], "name": ["x"]}))
    write_parquet(snapshot / "b.parquet", pa.table({"id": [2]}))
    plan = plan_of(
        snapshot, ["a.parquet", "b.parquet"], "parquet", to="tsv", is_single=True, columns=("id", "name"),
        renamed=(("name", "new"),),
    )  # fmt: skip
    convert_here(plan, snapshot, tmp_path / "out")
    assert (tmp_path / "out" / "rows_train.tsv").read_text() == "id\tnew\n1\tx\n2\t\n"


def test_a_column_of_lines_may_come_late_and_one_that_never_comes_is_named(tmp_path: Path) -> None:
    lines = ['{"a": 1}'] * 1500 + ['{"a": 1, "b": 2}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    convert_here(plan_of(tmp_path, ["x.jsonl"], "json", columns=("b",)), tmp_path, tmp_path / "late")
    assert rows_in(tmp_path / "late" / "rows_train.jsonl")[-1] == {"b": 2}
    with pytest.raises(EntryNotFound, match="no column 'c'") as error:
        convert_here(plan_of(tmp_path, ["x.jsonl"], "json", columns=("b", "c")), tmp_path, tmp_path / "none")
    assert error.value.hint == "Its columns are: a, b." and not (tmp_path / "none" / "rows_train.jsonl").exists()


def test_a_rename_never_hides_a_column_that_comes_late(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n' * 1500 + '{"a": 1, "b": 2}\n')
    with pytest.raises(InvalidName, match="Two columns would be named 'b'"):
        convert_here(plan_of(tmp_path, ["x.jsonl"], "json", renamed=(("a", "b"),)), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("other", ["file_name", "scan_file_names"])
def test_a_folder_of_pictures_has_no_other_column_that_seems_to_name_pictures(tmp_path: Path, other: str) -> None:
    import pyarrow as pa

    picture = pa.array([{"bytes": PNG, "path": "a"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    write_parquet(tmp_path / "x.parquet", pa.table({"image": picture, other: ["x"]}))
    with pytest.raises(ConversionFailed, match=f"'{other}' has no pictures"):
        convert_here(plan_of(tmp_path, ["x.parquet"], "parquet", to="imagefolder"), tmp_path, tmp_path / "out")


def test_a_list_of_pictures_with_a_column_of_the_same_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "image": "x"}\n')
    plan = plan_of(tmp_path, ["metadata.jsonl"], "imagefolder", reading={"lists": "jsonl"})
    with pytest.raises(ConversionFailed, match="such a column too"):
        convert_here(plan, tmp_path, tmp_path / "out")


# Files


def test_a_file_that_arrow_cannot_read_is_named_and_no_fault_of_the_output(tmp_path: Path) -> None:
    import pyarrow as pa

    write_parquet(tmp_path / "x.parquet", pa.table({"x": [f"text {i}" for i in range(10_000)]}))
    whole = (tmp_path / "x.parquet").read_bytes()
    for broken in (whole[:500] + b"\xff" * 200 + whole[700:], b"PAR1" + bytes(20) + b"PAR1"):
        (tmp_path / "x.parquet").write_bytes(broken)
        plan = plan_of(tmp_path, ["x.parquet"], "parquet")
        with pytest.raises(ConversionFailed, match=r"x\.parquet cannot be read"):
            convert_here(plan, tmp_path, tmp_path / "out")


@pytest.mark.parametrize(("name", "builder"), [("x.jsonl", "json"), ("x.csv", "csv"), ("x.txt", "text")])
def test_an_encoding_that_there_is_not_is_one_sentence(tmp_path: Path, name: str, builder: str) -> None:
    (tmp_path / name).write_text('{"a": 1}\n')
    plan = plan_of(tmp_path, [name], builder, reading={"encoding": "nope-8"})
    with pytest.raises(ConversionFailed, match="unknown encoding: nope-8"):
        convert_here(plan, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_json_that_is_nested_too_deeply_is_one_sentence(tmp_path: Path, name: str) -> None:
    deep = '{"a":' + "[" * 50_000 + "]" * 50_000 + "}"
    (tmp_path / name).write_text(deep if name.endswith("l") else f"[{deep}]")
    with pytest.raises(ConversionFailed, match="nested too deeply"):
        convert_here(plan_of(tmp_path, [name], "json"), tmp_path, tmp_path / "out")


def test_two_files_of_a_row_of_a_tar_with_one_suffix_are_refused_as_by_datasets(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in ("a.txt", "a.TXT"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
    with pytest.raises(ConversionFailed, match="two files with the suffix 'txt'"):
        convert_here(plan_of(tmp_path, ["x.tar"], "webdataset"), tmp_path, tmp_path / "out")


# Folders


@pytest.mark.parametrize("single", [False, True])
def test_a_file_of_the_user_is_never_overwritten(tmp_path: Path, single: bool) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    plan = plan_of(tmp_path, ["x.jsonl"], "json", is_single=single)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows_train.jsonl").write_text("mine")
    with pytest.raises(InvalidName, match="is there already"):
        convert_here(plan, tmp_path, tmp_path / "out")
    assert contents(tmp_path / "out") == {"rows_train.jsonl": b"mine"}


@pytest.mark.parametrize("place", ["../mine", "{here}/mine"])
def test_a_restart_removes_nothing_outside_of_the_folder_whatever_its_record_says(tmp_path: Path, place: str) -> None:
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "mine").write_text("mine")
    plan = plan_of(tmp_path, ["x.jsonl"], "json")
    convert_here(plan, tmp_path, tmp_path / "out")
    record = tmp_path / "out" / "conversion.json"
    document = json.loads(record.read_text())
    for files in ([{**document["files"][0], "path": place.format(here=tmp_path)}], [7], "x", None):
        record.write_text(json.dumps({**document, "files": files}))
        OutputFolder(tmp_path / "out", plan, restarts=True)
        convert_here(plan, tmp_path, tmp_path / "out")
        assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("to", ["jsonl", "imagefolder"])
def test_a_finished_conversion_notices_pictures_that_are_gone_or_cut(tmp_path: Path, to: str) -> None:
    import pyarrow as pa

    picture = pa.array([{"bytes": PNG, "path": "a"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    write_parquet(tmp_path / "x.parquet", pa.table({"image": picture}))
    plan = plan_of(tmp_path, ["x.parquet"], "parquet", to=to)
    convert_here(plan, tmp_path, tmp_path / "out")
    assert not OutputFolder(tmp_path / "out", plan).is_damaged()
    made = next((tmp_path / "out").rglob("*.png"))
    made.write_bytes(b"")
    assert OutputFolder(tmp_path / "out", plan).is_damaged()
    made.unlink()
    assert OutputFolder(tmp_path / "out", plan).is_damaged()
