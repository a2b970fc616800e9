"""Golden captures: what commands print on terminals of 80 and 120 columns, over a node with fixed data.

`just captures` writes them anew into `captures/`; look at what changed before you commit it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from fakes.node import TRANSFER
from fakes.stub_node import FINISHED, PEGASUS, STATUS, TINY, StubNode
from hfpeer.cache.records import Contribution, Failure, FetchRecord
from hfpeer.control.asker import Asker
from hfpeer.control.operations import HistoryEntry, PeerStatus, Provenance
from hfpeer.control.transfers import TransferProblem
from hfpeer.errors import RepoNotFound
from hfpeer.transfer.events import FileProgress, Planned, Progressed, Resolved
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.language.chosen import choose_language
from hfpeer_cli.main import main
from hfpeer_cli.screen.bars import picture

CAPTURES = Path(__file__).parent / "captures"
WIDTHS = (80, 120)
LANGUAGES = ("en", "zh_CN")
RENEWS = bool(os.environ.get("HFPEER_RENEW_CAPTURES"))
GB = 1_000_000_000
COMMITS = ("475236b755f6" + "0" * 28, "857b995e15a5" + "1" * 28, "c0ffee000000" + "2" * 28)
QWEN = "Qwen/Qwen3-0.6B"
LONG = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
NOON = 1_767_268_800.0

REPOS = (
    replace(TINY, repo=QWEN, commit=COMMITS[0], files=10, size_bytes=1_519_000_000),
    replace(TINY, repo=LONG, commit=COMMITS[1], refs=("main", "v1.0"), files=14, size_bytes=481_000_000),
    replace(
        TINY,
        repo="our-team/translation-base-v2",
        commit=COMMITS[2],
        refs=(),
        files=1,
        size_bytes=23,
        is_complete=None,
        visibility="unknown",
        is_shared=False,
    ),
)


def _peers() -> Iterator[PeerStatus]:
    for number in (1, 2, 10):
        name, address = f"gpu-node-{number}.cluster-b.lab.example.com", f"192.168.100.{number}:9437"
        yield replace(PEGASUS, node_id=f"n{number}", name=name, address=address, received_bytes=number * GB)
    yield replace(PEGASUS, node_id="n3", name="m3", address="[fe80::d8ed:1c2b:44ff:fe12]:9437", state="gone")


RUNNING = replace(
    TRANSFER,
    repo=QWEN,
    commit=COMMITS[0],
    present_bytes=784_000_000,
    size_bytes=1_519_000_000,
    rate_bytes_per_second=112e6,
    bytes_by_source={"gpu-node-1.cluster-b.lab.example.com": 700_000_000, "hf-mirror.com": 84_000_000},
)
STATUS_FULL = replace(
    STATUS,
    peers=tuple(_peers()),
    received_bytes={"peer": 812 * GB, "mirror": 3 * GB, "origin": GB},
    peer_bytes_by_month={"2026-01": 12 * GB, "2025-12": 800 * GB},
    started_at=NOON - 7200,
    sent_bytes=77 * GB,
    revisions=3,
    files=25,
    size_bytes=2 * GB,
    addresses=("192.168.100.7:9437",),
    transfers=(RUNNING,),
)
TRANSFERS = (
    RUNNING,
    replace(TRANSFER, id=8, repo=LONG, state="queued", present_bytes=0, size_bytes=481_000_000),
    replace(
        TRANSFER,
        id=10,
        repo="acme/gated-translation",
        state="failed",
        size_bytes=2 * GB,
        present_bytes=GB,
        problem=TransferProblem("access_denied", "acme/gated-translation is gated.", "Ask for access on its page.", 5),
    ),
)
FIRST = HistoryEntry(
    id=1,
    repo=QWEN,
    revision="main",
    commit=COMMITS[0],
    outcome="done",
    asked_by=Asker("cli", "ada"),
    began_at=NOON - 4000,
    ended_at=NOON - 3600,
    seconds=400.0,
    files=10,
    size_bytes=1_519_000_000,
    bytes_by_source={"hf-mirror.com": 1_519_000_000},
    bytes_by_kind={"mirror": 1_519_000_000},
    saved_bytes=0,
)
ENTRIES = (
    FIRST,
    replace(
        FIRST,
        repo=LONG,
        commit=COMMITS[1],
        asked_by=Asker("endpoint", "", "192.168.100.44", "transformers"),
        ended_at=NOON,
        seconds=2.5,
        bytes_by_kind={"peer": 400_000_000, "origin": 81_000_000},
        saved_bytes=400_000_000,
    ),
    replace(FIRST, repo="acme/gated", outcome="failed", bytes_by_kind={}, ended_at=NOON, problem=TRANSFERS[2].problem),
)
FETCH = FetchRecord(
    "sha256:" + "a" * 64,
    GB,
    NOON - 60,
    NOON - 30,
    NOON - 30,
    (
        Contribution("gpu-node-1", "peer", "192.168.100.1:9437", "lan", "eth0", 900_000_000, ((0, 900_000_000),), 0),
        Contribution("hf-mirror.com", "mirror", "", "wan", "", 100_000_000, ((900_000_000, GB),), 0),
    ),
    (Failure("gpu-node-10", "it closed the connection", False, NOON - 40),),
)
PROVENANCE = (
    Provenance(QWEN, COMMITS[0], "config.json", "sha256:00", 726, "found", NOON - 90),
    Provenance(QWEN, COMMITS[0], "model.safetensors", "sha256:01", GB, "fetched", NOON - 30, FETCH),
)
FINISHED_ADD = replace(
    FINISHED,
    repo=QWEN,
    size_bytes=1_519_000_000,
    files=10,
    reused_bytes=19_000_000,
    bytes_by_source={"gpu-node-1.cluster-b.lab.example.com": 1_400_000_000, "hf-mirror.com": 100_000_000},
    bytes_by_kind={"peer": 1_400_000_000, "mirror": 100_000_000},
    seconds=13.4,
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "finished-add": ("add", QWEN),
    "ls": ("ls",),
    "ls-empty": ("ls",),
    "peer-ls": ("peer", "ls"),
    "status": ("status",),
    "transfers": ("transfers",),
    "history": ("history",),
    "why": ("why", QWEN),
    "error": ("add", "Qwen/Qwen3-0.6"),
}
"""By name of a capture: the command."""


def _stub(name: str) -> StubNode:
    node = StubNode()
    node.cached = [] if name == "ls-empty" else list(REPOS)
    node.peers = {peer.node_id: peer for peer in _peers()}
    node.picture, node.transfers, node.entries = STATUS_FULL, list(TRANSFERS), list(ENTRIES)
    node.provenance, node.finished = list(PROVENANCE), FINISHED_ADD
    node.events = [
        Resolved(QWEN, "main", COMMITS[0], "huggingface.co"),
        Planned(QWEN, COMMITS[0], 10, 1_519_000_000, 9, 1_500_000_000, "gpu-node-1", True),
    ]
    if name == "error":
        node.failure = RepoNotFound(
            "huggingface.co has no model Qwen/Qwen3-0.6 that you can see.",
            hint="Check the name; if it is private, a token that may see it is needed.",
        )
    return node


@pytest.fixture(autouse=True)
def fixed_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(time, "time", lambda: NOON + 90)
    with monkeypatch.context() as zone:
        zone.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def _check(name: str, language: str, width: int, text: str) -> None:
    file = CAPTURES / language / f"{name}-{width}.txt"
    if RENEWS:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), "`just captures` renews it"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_prints_what_it_did(
    name: str,
    language: str,
    width: int,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    ours = environ | {"HFPEER_LANG": language, "HF_HUB_CACHE": "/cache"}
    with pytest.raises(SystemExit):
        main(COMMANDS[name], Invocation(environ=ours, open_session=_stub(name).session))
    choose_language({})
    out, err = capsys.readouterr()
    text = (out + err).replace(environ["HFPEER_HOME"], "/home/me/hfpeer")
    table = [line for line in out.splitlines() if not line.startswith(("/", "upstreams"))]
    assert max(map(cell_len, table), default=0) <= width or name in ("status", "why")
    _check(name, language, width, text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_an_add_that_runs_is_drawn_as_it_was(language: str, width: int) -> None:
    files = (
        FileProgress("model-00001-of-00002.safetensors", 700_000_000, GB),
        FileProgress("onnx/quantized/model-00002-of-00002.safetensors", 65_000_000, 500_000_000),
    )
    given = {"gpu-node-1.cluster-b.lab.example.com": 500_000_000, "hf-mirror.com": 200_000_000}
    rates = {"gpu-node-1.cluster-b.lab.example.com": 90e6, "hf-mirror.com": 22e6}
    choose_language({"HFPEER_LANG": language})
    lines = picture(Progressed(784_000_000, 1_519_000_000, 112e6, given, rates, files, 8, 10), width)
    choose_language({})
    _check("add-progress", language, width, "\n".join(lines) + "\n")
