"""The files of a program that reads from the endpoint are one entry of the history."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from hfpeer.budgets import MAX_GATHERED_FETCHES
from hfpeer.endpoint.access.caller import Caller
from hfpeer.endpoint.access.grants import Grant
from hfpeer.endpoint.files.streams import FileRequest
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.node.operations.transfers.caller_fetches import CallerFetches
from hfpeer.node.operations.transfers.history import History
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.sources import WantedBlob
from hfpeer_daemon.endpoint.requests.request import program_of

COMMIT = Commit("ab" * 20)
REPO = RepoId.parse("acme/tiny")
NO_FINDER: Any = None


def request(path: str, caller: Caller, size_bytes: int = 10, repo: RepoId = REPO) -> FileRequest:
    digest = Digest("sha256", "0" * 64)
    blob = WantedBlob(digest, size_bytes, repo, COMMIT, FilePath(path))
    return FileRequest(
        blob, ManifestFile(FilePath(path), size_bytes, digest, "0" * 40), NO_FINDER, Grant.ALL, "", caller
    )


def report(**by_kind: Any) -> FetchReport:
    return FetchReport(dict(by_kind), {kind: kind for kind in by_kind}, began_at=100.0)  # type: ignore[misc]


async def entries(home: Path) -> Any:
    return await asyncio.to_thread(History(home).since, 0.0)


async def test_the_files_of_one_program_are_one_entry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fetches = CallerFetches(History(tmp_path), clock=lambda: 103.5)
    loader, guest = Caller("hf_secret", program="transformers/4.50.0"), Caller(None, False, "10.0.0.9", "hf/1")
    fetches.note(request("a", loader), report(peer=7, origin=3))
    fetches.note(request("b", loader), report(peer=10))
    fetches.note(request("b", guest), report(mirror=10))
    fetches.note(request("c", guest), report())
    await fetches.stop()
    one, other = await entries(tmp_path)
    assert (one.repo, one.commit, one.files, one.size_bytes, one.id) == ("acme/tiny", COMMIT, 2, 20, 0)
    assert (one.bytes_by_kind, one.saved_bytes, one.seconds) == ({"peer": 17, "origin": 3}, 17, 3.5)
    assert (str(one.asked_by), one.asked_by.via) == ("transformers/4.50.0", "endpoint")
    assert (other.files, str(other.asked_by)) == (1, "hf/1 from 10.0.0.9")
    kept = await asyncio.to_thread((tmp_path / "history.jsonl").read_text)
    assert "secret" not in kept and Caller("hf_secret").fingerprint not in kept
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == (
        "endpoint: fetched 2 files of acme/tiny at abababababab for transformers/4.50.0; 17 bytes from peer, "
        "3 bytes from origin"
    )


async def test_an_entry_is_written_when_the_program_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfpeer.node.operations.transfers.caller_fetches.QUIET_SECONDS", 0.01)
    fetches = CallerFetches(History(tmp_path))
    for _ in range(2):
        fetches.note(request("a", Caller()), report(peer=7))
        while fetches.gathered:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await fetches.stop()
    assert len(await entries(tmp_path)) == 2


async def test_many_programs_take_no_more_memory(tmp_path: Path) -> None:
    fetches = CallerFetches(History(tmp_path))
    for number in range(MAX_GATHERED_FETCHES + 2):
        fetches.note(request("a", Caller(None, False, "10.0.0.9", f"guest/{number}")), report(peer=1))
    assert fetches.gathered == MAX_GATHERED_FETCHES
    await fetches.stop()
    assert len(await entries(tmp_path)) == MAX_GATHERED_FETCHES + 2


@pytest.mark.parametrize(
    ("agent", "program"),
    [
        ("transformers/4.50.0; hf_hub/0.30.1; python/3.12.1", "transformers/4.50.0"),
        ("unknown/None; hf_hub/1.0.0; python/3.12.1", "hf_hub/1.0.0"),
        ("git/2.43.0", "git/2.43.0"),
        ("Mozilla", ""),
        ("", ""),
        ("x" * 500 + "/1", ""),
    ],
)
def test_a_program_is_the_first_product_of_its_user_agent(agent: str, program: str) -> None:
    assert program_of(agent) == program
