"""The receiver of a push: one file of Python that takes an archive into a cache, without hfpeer."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.archives import DATA, FILES, MAIN, MODEL, ROWS, Opener, contents, export, fill, revisions
from fakes.hub_cache import proved_manifest_of
from fakes.program import program
from fakes.pythons import oldest, pythons
from hfpeer.archive.export import plan_export
from hfpeer.archive.have import Have
from hfpeer.cache.disk import layout
from hfpeer.cache.store import Store
from hfpeer.names import Digest
from hfpeer.push.probe import OLDEST_PYTHON, have_of
from hfpeer.push.receiver.source import for_old_python, module_names, receiver_file, source_of
from hfpeer.ranges import PIECE_SIZE_BYTES


class Receiver:
    """The receiver, under one interpreter, in front of one cache."""

    def __init__(self, folder: Path, python: str) -> None:
        self._file = folder / "receiver.py"
        self._file.write_text(receiver_file())
        self._python = python
        self.cache = folder / "there" / "hub"

    def take(
        self, here: Store, *, checks_present: bool = False, cut: int | None = None
    ) -> tuple[int, list[dict[str, Any]], Have]:
        """One push of all that is `here`: the exit code, the lines that came, and what it said that it had. The archive
        ends after `cut` bytes."""
        sizes = {str(blob.digest): blob.size_bytes for blob in plan_export(here, revisions(here)).index.blobs}
        request = {"cache": str(self.cache), "sizes": sizes, "checks_present": checks_present}
        words = [self._python, "-I", str(self._file)]
        with program(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as receiver:
            assert receiver.stdin is not None and receiver.stdout is not None
            receiver.stdin.write(json.dumps(request).encode() + b"\n")
            receiver.stdin.flush()
            first = next(line for line in receiver.stdout if b'"have"' in line)
            have = have_of(json.loads(first)["have"])
            path = export(here, self._file.with_suffix(".tar"), have=have)
            path_bytes = path.read_bytes()
            path.unlink()
            with contextlib.suppress(BrokenPipeError):
                receiver.stdin.write(path_bytes[:cut])
                receiver.stdin.close()
            lines = [json.loads(line) for line in receiver.stdout]
            return receiver.wait(60), lines, have


@pytest.fixture(params=["oldest"])
def receiver(tmp_path: Path) -> Receiver:
    return Receiver(tmp_path, oldest())


@pytest.fixture
def there(receiver: Receiver, opened: Opener) -> Iterator[Store]:
    """The cache of the far end, looked at afterwards."""
    yield opened("there")


@pytest.mark.slow
@pytest.mark.parametrize("version", pythons())
def test_every_python_takes_both_repos(here: Store, opened: Opener, tmp_path: Path, version: str) -> None:
    receiver = Receiver(tmp_path, pythons()[version])
    code, lines, have = receiver.take(here)
    assert (code, have.whole) == (0, frozenset())
    result = lines[-1]["result"]
    assert result["taken_blobs"] == result["blobs"] and not result["damage"]
    assert [one["refs"] for one in result["revisions"]] == [["main"], ["main"]]
    there = opened("there")
    assert contents(there, MODEL) == FILES and contents(there, DATA) == ROWS
    there.scan()
    verified = there.verify()
    assert not verified.findings, verified.findings
    again = receiver.take(here)
    assert again[1][-1]["result"]["taken_blobs"] == 0 and len(again[2].whole) == result["blobs"]


def test_each_of_its_modules_is_python_of_the_oldest_version() -> None:
    for name in module_names():
        ast.parse(for_old_python(source_of(name)), name, feature_version=OLDEST_PYTHON)


def test_it_is_ascii_because_python_fails_on_some_long_lines_that_are_not() -> None:
    assert receiver_file().isascii()


def test_a_push_that_was_cut_goes_on_inside_a_blob(here: Store, there: Store, receiver: Receiver) -> None:
    code, lines, _ = receiver.take(here, cut=3_000_000)
    assert code == 7 and "was cut short" in lines[-1]["problem"]["message"] and contents(there, MODEL) == {}
    code, lines, have = receiver.take(here)
    (prefix,) = have.prefixes.values()
    assert code == 0 and prefix >= PIECE_SIZE_BYTES and not lines[-1]["result"]["damage"]
    assert contents(there, MODEL) == FILES and contents(there, DATA) == ROWS


def test_a_short_blob_is_replaced_and_one_with_wrong_bytes_if_it_is_to_be_hashed(
    here: Store, there: Store, receiver: Receiver
) -> None:
    receiver.take(here)
    large = proved_manifest_of(FILES, MODEL).files[-1]
    blob = layout.blob_path(there.cache, MODEL, large.digest)
    body = blob.read_bytes()
    second = receiver.cache.parent / "second name"
    for wrong, checks in ((body[:-1], False), (body[:-1] + b"X", True)):
        blob.unlink()
        blob.write_bytes(wrong)
        second.unlink(missing_ok=True)
        second.hardlink_to(blob)
        code, _lines, _ = receiver.take(here, checks_present=checks)
        assert code == 0 and blob.read_bytes() == body and second.read_bytes() == wrong


def test_a_blob_in_the_shared_store_and_one_of_another_repo_are_there(
    here: Store, there: Store, receiver: Receiver
) -> None:
    receiver.take(here)
    digests = {str(file.path): file.digest for file in proved_manifest_of(FILES, MODEL).files}
    shared, weights = (layout.blob_path(there.cache, MODEL, digests[name]) for name in ("shared.bin", "weights.bin"))
    shared.unlink()
    kept = receiver.cache / "blobs" / "ab" / ("c" * 64)
    kept.parent.mkdir(parents=True)
    weights.rename(kept)
    weights.symlink_to(f"../../blobs/ab/{kept.name}")
    code, lines, have = receiver.take(here)
    assert code == 0 and lines[-1]["result"]["taken_blobs"] == 0
    assert have.whole == frozenset(map(Digest.parse, map(str, plan_digests(here))))
    assert contents(there, MODEL) == FILES and shared.samefile(
        layout.blob_path(there.cache, DATA, digests["shared.bin"])
    )


def plan_digests(here: Store) -> list[Digest]:
    return [blob.digest for blob in plan_export(here, revisions(here)).index.blobs]


def test_a_newer_ref_of_another_tool_stays_and_an_older_one_gives_way(
    here: Store, there: Store, receiver: Receiver
) -> None:
    receiver.take(here)
    ref = layout.ref_path(there.cache, MODEL, MAIN)
    old = ref.read_text()
    newer = fill(here, MODEL, {**FILES, "config.json": b'{"new": 1}'})
    here.refs.write(MODEL, MAIN, newer.commit, "huggingface", ref.stat().st_mtime + 10)
    receiver.take(here)
    assert ref.read_text() == newer.commit != old
    ref.write_text("d" * 40)
    _code, lines, _ = receiver.take(here)
    (kept,) = [one["kept_refs"] for one in lines[-1]["result"]["revisions"] if one["commit"] == newer.commit]
    assert kept == [f"main {'d' * 40}"] and ref.read_text() == "d" * 40


def test_what_cannot_be_written_is_a_problem_in_a_sentence(here: Store, tmp_path: Path) -> None:
    receiver = Receiver(tmp_path, oldest())
    receiver.cache.parent.mkdir(parents=True)
    receiver.cache.write_text("a file")
    code, lines, _ = receiver.take(here)
    assert code == 8 and "hfpeer could not" in lines[-1]["problem"]["message"]
