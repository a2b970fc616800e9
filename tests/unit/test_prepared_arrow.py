"""What needs pyarrow: paths in Arrow files at any depth, and rows compared with the files of the commit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fakes.prepared import COMMIT, REPO, TEXTS, needs_arrow, place_of, write_arrow, write_arrow_set
from hfpeer.errors import CorruptData, ForeignPath
from hfpeer.names import Commit, FilePath
from hfpeer.prepared.arrow.comparison import NotComparable, SplitSources, compare_split
from hfpeer.prepared.arrow.making import Origin, describe, place_again, place_here, write_everywhere
from hfpeer.prepared.arrow.shards import foreign_texts, paths_of
from hfpeer.prepared.hashing import hashed
from hfpeer.prepared.levels import Level
from hfpeer.prepared.listing import read_set
from hfpeer.prepared.media import Snapshot
from hfpeer.prepared.verification import SourceFiles, verify_set

pytestmark = needs_arrow
IMAGE = {"image": {"_type": "Image"}, "many": {"feature": {"_type": "Image"}, "_type": "List"}}
PATHS = ("train/0.png", "train/1.png", "x.zip")


def snapshot_at(folder: Path) -> Snapshot:
    return Snapshot(REPO, Commit(COMMIT), folder / REPO.folder / "snapshots" / COMMIT, PATHS)


def media_table(where: str) -> Any:
    """Rows with pictures by path, with bytes, null, in lists, in lists of structs; some lists are null."""
    import pyarrow as pa

    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    inner = pa.struct([("n", pa.int32()), ("pic", media)])
    one = {"bytes": None, "path": f"{where}/train/0.png"}
    zipped = {"bytes": None, "path": f"zip://a.png::{where}/x.zip"}
    embedded = {"bytes": b"PNG", "path": "/home/somebody/a.png"}
    return pa.table(
        {
            "image": pa.array([one, None, embedded, zipped], media),
            "many": pa.array([[one, zipped], None, [], [None, embedded]], pa.list_(media)),
            "deep": pa.array([[{"n": 1, "pic": one}], None, [None], [{"n": 2, "pic": None}]], pa.list_(inner)),
            "fixed": pa.array([[one, one], None, [one, None], [zipped, one]], pa.list_(media, 2)),
            "text": pa.array(["a", "/home/u/x", None, ""]),
        }
    ).replace_schema_metadata({"huggingface": "{}"})


def texts(table: Any) -> str:
    return json.dumps(table.to_pylist(), default=str)


def read(path: Path) -> Any:
    import pyarrow as pa

    with pa.OSFile(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


@pytest.fixture
def there(tmp_path: Path) -> Snapshot:
    return snapshot_at(tmp_path / "there/hub")


@pytest.fixture
def here(tmp_path: Path) -> Snapshot:
    return snapshot_at(tmp_path / "here/hub")


def test_paths_at_any_depth_are_those_of_this_machine_after_a_move(
    tmp_path: Path, there: Snapshot, here: Snapshot
) -> None:
    theirs = media_table(str(there.folder))
    folder = write_arrow_set(tmp_path / "there", place_of(), {"train": theirs}, IMAGE)
    origin = Origin(REPO, there)
    manifest = describe(folder, place_of(), origin)
    assert manifest.media_paths == "snapshot" and str(there.folder) not in manifest.to_json().decode()
    write_everywhere(folder, tmp_path / "moving", manifest, origin)
    moving = {file.path: tmp_path / "moving" / file.path for file in manifest.files}
    assert all(hashed(path, name) in manifest.files for name, path in moving.items())
    assert str(tmp_path) not in texts(read(moving["plain_text-train.arrow"]))
    record = place_here(moving, tmp_path / "placed", manifest, here)
    placed = read(tmp_path / "placed/plain_text-train.arrow")
    assert texts(placed) == texts(theirs).replace(str(there.folder), str(here.folder))
    assert placed.schema.equals(theirs.schema, check_metadata=True)
    assert [hashed(tmp_path / "placed" / file.path, file.path) for file in record.files] == list(record.files)
    assert describe(tmp_path / "placed", place_of(), Origin(REPO, here)) == manifest


def test_a_set_with_paths_of_another_machine_is_mended_in_place(
    tmp_path: Path, there: Snapshot, here: Snapshot
) -> None:
    import pyarrow as pa

    tables = {"train": media_table(str(there.folder)), "test": pa.table({"text": ["a"]})}
    folder = write_arrow_set(tmp_path / "set", place_of(), tables, IMAGE)
    origin = Origin(REPO, here)
    manifest = describe(folder, place_of(), origin)
    place_again(folder, tmp_path / "made", manifest, origin)
    assert all(here.is_here(one.text) for one in paths_of(tmp_path / "made/plain_text-train.arrow"))
    same = [(where / "plain_text-test.arrow").stat().st_ino for where in (folder, tmp_path / "made")]
    assert same[0] == same[1]


@pytest.mark.parametrize("text", ["/etc/passwd", "https://example.org/a.png", "train/0.png", "file:///etc/passwd"])
def test_a_path_outside_of_the_commit_is_refused_and_named(tmp_path: Path, here: Snapshot, text: str) -> None:
    import pyarrow as pa

    media = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": None, "path": text}], media)})
    folder = write_arrow_set(tmp_path, place_of(), {"train": table}, IMAGE)
    with pytest.raises(ForeignPath, match="names a file that is not of"):
        describe(folder, place_of(), Origin(REPO, here))
    with pytest.raises(ForeignPath, match="its folder does not tell one"):
        describe(folder, place_of(), Origin(REPO, None))
    found = read_set(tmp_path, place_of(), REPO)
    assert found is not None
    verdict = verify_set(found, here, None, Level.UNCHECKED)
    assert [(one.kind, one.severity) for one in verdict.findings] == [("foreign_path", "broken")]
    assert text in verdict.findings[0].meaning and "row 0" in verdict.findings[0].meaning


def test_an_arrow_file_that_is_cut_short_or_a_link_is_a_sentence(tmp_path: Path, here: Snapshot) -> None:
    import pyarrow as pa

    path = tmp_path / "a.arrow"
    write_arrow(path, pa.table({"text": ["x" * 100] * 1000}))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CorruptData, match="cannot be read as Arrow"):
        foreign_texts(path)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(CorruptData, match="link"):
        list(paths_of(tmp_path / "link"))


# Rows against the files of the commit


def compare(tmp_path: Path, table: Any, files: dict[str, bytes], builder: str, **reading: Any) -> Any:
    write_arrow(tmp_path / "set.arrow", table)
    paths = []
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
        paths.append(tmp_path / name)
    return compare_split(SplitSources("train", (tmp_path / "set.arrow",), tuple(paths), builder, reading))


def a_table(rows: int = 2500) -> Any:
    import pyarrow as pa

    return pa.table(
        {
            "id": list(range(rows)),
            "x": [float("nan") if row % 7 == 0 else row / 10 for row in range(rows)],
            "tags": [["a"] * (row % 3) for row in range(rows)],
            "inner": [{"n": row, "t": f"漢{row}"} for row in range(rows)],
        }
    )


def parquet(table: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=700)
    return bytes(sink.getvalue())


def test_parquet_in_several_files_has_the_same_rows(tmp_path: Path) -> None:
    table = a_table()
    files = {"0": parquet(table.slice(0, 1100)), "1": parquet(table.slice(1100))}
    assert compare(tmp_path, table, files, "parquet") is None


@pytest.mark.parametrize(("row", "column"), [(0, "id"), (1500, "inner"), (2499, "x")])
def test_the_first_row_that_differs_is_named(tmp_path: Path, row: int, column: str) -> None:
    table = a_table()
    rows = table.to_pylist()
    rows[row][column] = {"id": -1, "inner": {"n": 0, "t": "other"}, "x": 0.5}[column]
    changed = type(table).from_pylist(rows, schema=table.schema)
    found = compare(tmp_path, changed, {"0": parquet(table)}, "parquet")
    assert (found.split, found.row, found.column) == ("train", row, column)


def test_missing_and_additional_rows_are_found(tmp_path: Path) -> None:
    table = a_table(1200)
    assert "more rows" in str(compare(tmp_path, table, {"0": parquet(table.slice(0, 1000))}, "parquet"))
    assert "ends too early" in str(compare(tmp_path, table.slice(0, 1000), {"0": parquet(table)}, "parquet"))


def test_lines_of_json_and_a_json_array_are_read_back(tmp_path: Path) -> None:
    import pyarrow as pa

    rows = [
        {"id": row, "q": f"q{row}", "a": {"t": ["x"] * (row % 2)}, "at": "2020-01-01T00:00:00"} for row in range(3000)
    ]
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("q", pa.string()),
            ("a", pa.struct([("t", pa.list_(pa.string()))])),
            ("at", pa.timestamp("s")),
        ]
    )
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    table = pa.table(
        {
            name: pa.array([row[name] for row in rows], pa.string() if name == "at" else schema.field(name).type)
            for name in rows[0]
        }
    )
    table = table.set_column(3, "at", table.column("at").cast(pa.timestamp("s")))
    assert compare(tmp_path, table, {"0": lines}, "json") is None
    changed = lines.replace(b'"q2999"', b'"q2998"')
    assert compare(tmp_path, table, {"0": changed}, "json").row == 2999
    plain = table.select(["id", "q", "a"])
    array = json.dumps([{key: row[key] for key in ("id", "q", "a")} for row in rows]).encode()
    assert compare(tmp_path, plain, {"0": array}, "json") is None


def test_csv_is_read_back_as_datasets_reads_it(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    import pyarrow as pa

    ids, values = [f"{row:03d}" for row in range(12_000)], [row * 0.1 for row in range(12_000)]
    table = pa.table({"id": ids, "v": values})
    text = pd.DataFrame({"id": ids, "v": values}).to_csv(index=False)
    assert compare(tmp_path, table, {"0": text.encode()}, "csv") is None
    assert compare(tmp_path, table, {"0": text.replace("\n011,", "\n012,").encode()}, "csv").row == 11
    assert compare(tmp_path, table, {"0": text.replace(",", "\t").encode()}, "csv", sep="\t") is None


def test_lines_of_text_end_where_datasets_ends_them(tmp_path: Path) -> None:
    import pyarrow as pa

    body = "a\x0bb\u2028c\x85d\r\n\n\x1c\rlast \n\n ".encode()
    lines = ["a\x0bb\u2028c\x85d", "", "\x1c", "last ", "", " "]
    assert compare(tmp_path, pa.table({"text": lines}), {"a.txt": body}, "text") is None
    found = compare(tmp_path, pa.table({"text": [*lines[:-1], "other"]}), {"a.txt": body}, "text")
    assert found is not None and found.row == 5
    assert compare(tmp_path, pa.table({"text": ["", ""]}), {"a.txt": b"\n\n"}, "text") is None


@pytest.mark.parametrize(("builder", "body"), [("json", b'{"a": 1}\n'), ("text", b"a\n")])
def test_packed_files_are_not_judged(tmp_path: Path, builder: str, body: bytes) -> None:
    import pyarrow as pa

    with pytest.raises(NotComparable, match="is packed"):
        compare(tmp_path, pa.table({"a": [1]}), {"a.gz": gzip.compress(body)}, builder)


def test_csv_with_more_values_than_names_is_not_judged(tmp_path: Path) -> None:
    import pyarrow as pa

    with pytest.raises(NotComparable, match="more values than its heading"):
        compare(tmp_path, pa.table({"a": [2], "b": [3]}), {"a.csv": b"a,b\n1,2,3\n"}, "csv")


def test_labels_by_name_are_compared_by_number(tmp_path: Path) -> None:
    import pyarrow as pa

    features = {"info": {"features": {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}}}}
    table = pa.table({"label": pa.array([1, 0, 1])}).replace_schema_metadata({"huggingface": json.dumps(features)})
    right = b'{"label": "yes"}\n{"label": "no"}\n{"label": "yes"}\n'
    assert compare(tmp_path, table, {"0": right}, "json") is None
    assert compare(tmp_path, table, {"0": right.replace(b'"no"', b'"yes"')}, "json").row == 1
    with pytest.raises(NotComparable, match="label"):
        compare(tmp_path, table, {"0": right.replace(b'"no"', b'"maybe"')}, "json")


@pytest.mark.parametrize(
    ("builder", "body", "reading"),
    [
        ("webdataset", b"", {}),
        ("json", b'{"text": {"a": 1}}\n', {}),
        ("json", b"{", {}),
        ("json", b"{}", {"field": "x"}),
    ],
)
def test_what_cannot_be_compared_says_so(tmp_path: Path, builder: str, body: bytes, reading: dict[str, Any]) -> None:
    import pyarrow as pa

    with pytest.raises(NotComparable):
        compare(tmp_path, pa.table({"text": ["a"]}), {"0": body}, builder, **reading)


def test_a_verified_set_is_checked_and_a_flipped_byte_is_named(tmp_path: Path, here: Snapshot) -> None:
    import pyarrow as pa

    table = pa.table({"text": [f"row {row}" for row in range(2000)]})
    here.folder.mkdir(parents=True)
    (here.folder / "0.parquet").write_bytes(parquet(table))
    folder = write_arrow_set(tmp_path, place_of(), {"train": table}, TEXTS)
    sources = SourceFiles(here.folder, {"train": [FilePath("0.parquet")]}, "parquet", {})
    found = read_set(tmp_path, place_of(), REPO)
    assert found is not None
    verdict = verify_set(found, here, sources, Level.ATTESTED)
    assert (verdict.level, verdict.findings, verdict.uncompared) == (Level.CHECKED, (), "")
    shard = folder / "plain_text-train.arrow"
    shard.write_bytes(shard.read_bytes().replace(b"row 1234", b"row 9234"))
    verdict = verify_set(found, here, sources, Level.ATTESTED)
    assert verdict.level is Level.UNCHECKED and verdict.is_wrong
    assert "split train, row 1,234, column text" in verdict.findings[0].meaning
    assert verify_set(found, here, None, Level.ATTESTED, why_no_sources="why").uncompared == "why"
