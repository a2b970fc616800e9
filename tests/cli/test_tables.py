"""Tables of what a node has: with none to many rows, they fit narrow and wide terminals in both languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from fakes.lan_picture import PictureNode
from fakes.stub_node import StubNode
from hfpeer.cache.cleaning.facts import CacheReport, Place, RepoUsage, StoredRevision
from hfpeer.control.asker import Asker
from hfpeer.control.followed import FollowedRepo
from hfpeer.control.operations import Holding
from hfpeer.control.transfers import STATES, TransferProblem, TransferStatus
from hfpeer.language.amounts import human_size
from hfpeer.names import RepoId
from hfpeer_cli.language.chosen import choose_language
from hfpeer_cli.output import Output
from hfpeer_cli.screen.tables import Column, table_lines

Run = Callable[..., Any]
Table = tuple[Sequence[Column], Sequence[Sequence[str]]]

ROWS, WIDTHS, LANGUAGES = (0, 1, 5, 30, 200), (60, 80, 120, 200), ("en", "zh_CN")
HOSTS = ("gpu-node-{}.cluster-b.lab.example.com", "模型服务器-{}.实验室", "m{}", "x" * 60 + "{}")
ADDRESSES = ("192.168.100.{}:9437", "[fe80::d8ed:1c2b:44ff:{:x}%wlp0s20f3]:9437", "10.0.0.{}:65535")
LONG = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2-{}"
COMMANDS = {
    "peers": ("peer", "ls"),
    "repos": ("ls",),
    "copies": ("search", "acme/tiny"),
    "transfers": ("transfers", "-a"),
    "history": ("history", "-n", "0"),
    "cache": ("cache", "ls", "--revisions"),
    "space": ("cache", "du", "--repos"),
    "followed": ("model", "follow", "--ls"),
    "settings": ("conf", "ls"),
}


def lan_of(rows: int) -> StubNode:
    """A node that has this many of everything, with long, wide and narrow names and addresses."""
    like, node = PictureNode(rows, rows), StubNode()
    peers = [
        replace(peer, name=HOSTS[number % 4].format(number), address=ADDRESSES[number % 3].format(number))
        for number, peer in enumerate(like.peers.values())
    ]
    node.peers = {peer.address: peer for peer in peers}
    node.cached = [
        replace(
            cached,
            repo=cached.repo if number % 3 else LONG.format(number),
            refs=cached.refs if number % 4 else ("main", "v1.0-of-a-long-name", "refs/pr/12"),
            listed_bytes=None if number % 7 else cached.size_bytes * 2,
        )
        for number, cached in enumerate(like.cached)
    ]
    node.found = [
        Holding(peer.name, peer.address, "acme/tiny", f"{number // 3:040x}", ("main",), number % 2 == 0, "", 10**9)
        for number, peer in enumerate(peers)
    ]
    problem = TransferProblem("storage", "The disk is full.", None, 8)
    node.transfers = [
        TransferStatus(
            number,
            cached.repo,
            "main",
            cached.commit,
            STATES[number % len(STATES)],
            size_bytes=10**11,
            rate_bytes_per_second=112e6,
            bytes_by_source={peer.name: 5 for peer in peers[:6]},
            node="" if number % 5 else peers[number].name,
            problem=problem if STATES[number % len(STATES)] == "failed" else None,
        )
        for number, cached in enumerate(node.cached)
    ]
    asker = Asker("endpoint", "ada", "192.168.100.44", "transformers")
    node.entries = [
        replace(entry, repo=node.cached[number % rows].repo, asked_by=asker)
        for number, entry in enumerate((like.entries * 4)[:rows])
    ]
    stored = tuple(StoredRevision(one, one.size_bytes, one.used_at) for one in node.cached)
    usages = tuple(RepoUsage(one.repo, one.size_bytes, 3, one.size_bytes) for one in node.cached)
    node.stored = CacheReport(
        "/cache", (Place("cache", "/cache", rows, 1, ()),), usages, stored, (), 0, 0, 10**10, 10**11
    )
    node.followed = [
        FollowedRepo(RepoId.parse(one.repo), commit=one.commit, seen_commit=one.commit, problem="x" * (number % 90))
        for number, one in enumerate(node.cached)
    ]
    node.picture = replace(like.picture, peers=tuple(peers), transfers=tuple(node.transfers))
    return node


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Table]]:
    """The tables that commands print, before they are fitted."""
    printed = list[Table]()
    monkeypatch.setattr(Output, "_table", lambda self, columns, rows: printed.append((columns, list(rows))))
    yield printed
    choose_language({})


@pytest.fixture(params=ROWS)
def node(request: pytest.FixtureRequest) -> StubNode:
    return lan_of(request.param)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_folds_and_no_address_is_cut(hfpeer: Run, tables: list[Table], node: StubNode, name: str) -> None:
    ran = hfpeer(*COMMANDS[name])
    assert ran.code in (0, 4), ran
    assert name == "settings" or sum(len(rows) for _, rows in tables) >= len(node.peers)
    for language in LANGUAGES:
        choose_language({"HFPEER_LANG": language})
        for width in WIDTHS if len(node.peers) < 100 else WIDTHS[:2]:
            for columns, rows in tables:
                lines = table_lines(columns, rows, width).lines
                assert max(map(cell_len, lines)) <= width, (language, width)
                assert len(lines) == len(rows) + 1
                kept = [place for place, column in enumerate(columns) if column.kind == "exact" and not column.rank][:1]
                for line, row in zip(lines[1:], rows, strict=True):
                    assert all(row[place] in line for place in kept), (language, width)


@pytest.mark.parametrize("node", [30, 200], indirect=True)
def test_the_sums_are_those_of_all_rows(hfpeer: Run, node: StubNode) -> None:
    many, size = len(node.cached), sum(one.size_bytes for one in node.cached)
    repos = len({(one.type, one.repo) for one in node.cached})
    assert f"{repos} repos, {many} revisions, {human_size(size)}." in hfpeer("ls").err
    gone = sum(peer.state == "gone" for peer in node.peers.values())
    assert f"{many} peers: {many - gone} alive, {gone} gone." in hfpeer("peer", "ls").err
    came = sum(sum(entry.bytes_by_kind.values()) for entry in node.entries)
    assert f"{many} entries: {human_size(came)} came" in hfpeer("history", "-n", "0").err
    assert f"Found {-(-many // 3)} revisions of acme/tiny at {many} peers." in hfpeer("search", "acme/tiny").err


@pytest.mark.parametrize("node", [200], indirect=True)
def test_the_status_counts_what_is_too_much_to_list(hfpeer: Run, node: StubNode) -> None:
    lines = hfpeer("status").out.splitlines()
    assert len(lines) <= 30
    assert "           and 194 transfers more (`hfpeer transfers` lists them)" in lines
    assert any(line.startswith("peers      200 peers: ") for line in lines)
