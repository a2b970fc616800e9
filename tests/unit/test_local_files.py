"""Files of this machine as a source of a blob: what is right of them is not fetched, what is wrong never gets out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fakes.peers import digest_of
from fakes.sources import FakeSource
from hfpeer.cache.disk import linking
from hfpeer.cache.partial.blob import PartialBlob, open_partial
from hfpeer.errors import CorruptData
from hfpeer.git.lfs import pointer_text
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.ranges import MIB
from hfpeer.transfer.events import Event, SourceFailed
from hfpeer.transfer.fetch.fetch import BlobFetch
from hfpeer.transfer.picker.stalls import StallLimits
from hfpeer.transfer.report import FetchReport
from hfpeer.transfer.sources.local_files import LocalFile, fill, spans_of_files
from hfpeer.transfer.sources.sources import WantedBlob

DATA = os.urandom(5 * MIB + 17)
LIMITS = StallLimits(silence_seconds=0.3, far_ratio=1.0, patience_seconds=2.0)


@dataclass
class Repair:
    """A blob that files of this machine may have, and its fetch."""

    folder: Path
    events: list[Event] = field(default_factory=list)
    fetch: BlobFetch | None = None

    def file(self, data: bytes, *, is_wrong: bool = False) -> LocalFile:
        path = self.folder / f"file-{len(list(self.folder.iterdir()))}"
        path.write_bytes(data)
        return LocalFile(path, is_wrong)

    def open(self, *files: LocalFile) -> PartialBlob:
        partial = open_partial(self.folder / "cache", digest_of(DATA), len(DATA))
        fill(partial, files)
        return partial

    def begin(self, partial: PartialBlob, *sources: FakeSource) -> BlobFetch:
        blob = WantedBlob(partial.digest, len(DATA), RepoId.parse("a/b"), Commit("0" * 40), FilePath("w"))
        self.fetch = BlobFetch(blob, partial, self.events.append, limits=LIMITS)
        for source in sources:
            self.fetch.add_source(source)
        self.fetch.start()
        return self.fetch

    def run(self, partial: PartialBlob, *sources: FakeSource) -> FetchReport:
        report = self.begin(partial, *sources).result.result(20)
        assert partial.path.read_bytes() == DATA
        return report

    def liars(self) -> list[str]:
        return [event.source for event in self.events if isinstance(event, SourceFailed) and event.was_lying]


@pytest.fixture
def repair(tmp_path: Path) -> Iterator[Repair]:
    (tmp_path / "cache").mkdir()
    repair = Repair(tmp_path)
    yield repair
    if repair.fetch is not None:
        repair.fetch.stop()
        repair.fetch.partial.close()


def flipped(*offsets: int) -> bytes:
    data = bytearray(DATA)
    for offset in offsets:
        data[offset] ^= 1
    return bytes(data)


def test_a_good_file_needs_no_source(repair: Repair) -> None:
    bad, good = repair.file(flipped(7), is_wrong=True), repair.file(DATA)
    assert repair.run(repair.open(bad, good)).bytes_by_source == {}
    assert repair.liars() == []


def test_a_good_file_is_found_among_others_of_its_size(repair: Repair) -> None:
    files = [repair.file(flipped(0)), repair.file(DATA[:100_000]), repair.file(DATA)]
    assert repair.run(repair.open(*files)).bytes_by_source == {}


@pytest.mark.parametrize("kind", ["peer", "origin"])
def test_a_short_file_costs_its_missing_end(repair: Repair, kind: str) -> None:
    source = FakeSource("other", DATA, kind=kind)  # type: ignore[arg-type]
    report = repair.run(repair.open(repair.file(DATA[:3_000_000])), source)
    assert report.bytes_by_source == {"other": len(DATA) - 3_000_000}
    assert source.digests_told == 0


def test_a_flipped_byte_costs_one_piece_of_a_peer(repair: Repair) -> None:
    peer, hub = FakeSource("peer", DATA), FakeSource("hub", DATA, kind="origin")
    report = repair.run(repair.open(repair.file(flipped(3 * MIB + 5), is_wrong=True)), peer, hub)
    assert report.bytes_by_source == {"peer": MIB}
    assert (report.refetched_bytes, repair.liars(), hub.given) == (0, [], [])


def test_a_short_file_with_a_flipped_byte_costs_its_end_and_a_piece(repair: Repair) -> None:
    peer = FakeSource("peer", DATA)
    report = repair.run(repair.open(repair.file(flipped(MIB + 5)[: 3 * MIB])), peer)
    assert report.bytes_by_source == {"peer": len(DATA) - 2 * MIB}


def test_with_a_hub_alone_a_wrong_file_costs_all_of_it(repair: Repair) -> None:
    report = repair.run(repair.open(repair.file(flipped(3), is_wrong=True)), FakeSource("hub", DATA, kind="origin"))
    assert report.bytes_by_source == {"hub": len(DATA)}
    assert repair.liars() == []


def test_a_peer_that_tells_no_digests_gives_all_of_it(repair: Repair) -> None:
    report = repair.run(repair.open(repair.file(flipped(3))), FakeSource("old", DATA, tells_digests=False))
    assert report.bytes_by_source == {"old": len(DATA)}


def test_a_peer_that_tells_wrong_digests_is_found_out(repair: Repair) -> None:
    liar = FakeSource("liar", DATA, digests_lie_at=frozenset({1, 2}))
    report = repair.run(repair.open(repair.file(flipped(3), is_wrong=True)), liar)
    assert report.bytes_by_source == {"liar": 3 * MIB}
    assert repair.liars() == ["liar"]


def test_a_peer_that_hides_the_wrong_piece_costs_no_more_than_all_of_it(repair: Repair) -> None:
    confirming = FakeSource("confirming", flipped(3))
    hub = FakeSource("hub", DATA, kind="origin")
    report = repair.run(repair.open(repair.file(flipped(3), is_wrong=True)), confirming, hub)
    assert report.bytes_by_source["hub"] <= len(DATA) + 2 * MIB


def test_when_no_source_is_right_nothing_is_kept(repair: Repair) -> None:
    partial = repair.open(repair.file(flipped(3)))
    with pytest.raises(CorruptData, match="it came from liar"):
        repair.begin(partial, FakeSource("liar", flipped(9), kind="origin")).result.result(20)
    assert partial.present.total == 0


def test_peers_get_nothing_of_a_local_file_before_it_is_verified(repair: Repair) -> None:
    partial = repair.open(repair.file(flipped(3)[: 2 * MIB + 100]))
    silent = FakeSource("hub", DATA, kind="origin", never_answers=True)
    fetch = repair.begin(partial, silent)
    assert fetch.present().total == 2 * MIB + 100
    assert fetch.present_for_peers().total == 0
    assert not any(map(fetch.piece_map().has, range(6)))
    assert not fetch.is_coming(0, MIB)
    silent.released.set()


def test_a_fetch_that_goes_on_knows_which_bytes_came_from_files(repair: Repair) -> None:
    repair.open(repair.file(flipped(3)[: 4 * MIB])).close()
    partial = repair.open()
    assert sum(span.size_bytes for span in spans_of_files(partial)) == 4 * MIB
    report = repair.run(partial, FakeSource("peer", DATA))
    assert report.bytes_by_source == {"peer": len(DATA) - 3 * MIB}


def test_bytes_that_are_here_are_not_taken_again(repair: Repair) -> None:
    partial = repair.open()
    partial.write(0, memoryview(DATA)[:MIB])
    partial.record(0, MIB, "peer")
    fill(partial, [repair.file(flipped(3))])
    assert repair.run(partial).bytes_by_source == {}


def test_pointers_links_and_folders_are_no_sources(repair: Repair) -> None:
    link = repair.folder / "link"
    link.symlink_to(repair.file(DATA).path)
    files = [LocalFile(link), LocalFile(repair.folder), LocalFile(repair.folder / "none")]
    partial = repair.open(*files, repair.file(pointer_text("0" * 64, len(DATA))))
    assert partial.present.total == 0
    partial.close()


def test_a_longer_file_gives_its_beginning(repair: Repair) -> None:
    assert repair.run(repair.open(repair.file(DATA + b"twice"))).bytes_by_source == {}


@pytest.mark.parametrize("way", ["kernel", "process"])
def test_ways_to_copy_a_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    if way == "process":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    (tmp_path / "old").write_bytes(DATA)
    (tmp_path / "new").write_bytes(bytes(len(DATA)))
    with (tmp_path / "old").open("rb") as old, (tmp_path / "new").open("r+b") as new:
        assert linking.copy_range(old.fileno(), new.fileno(), 4096, 3_000_001) == 3_000_001 - 4096
        assert linking.copy_range(old.fileno(), new.fileno(), len(DATA) - 5, len(DATA) + 5) == 5
        assert linking.copy_range(old.fileno(), new.fileno(), len(DATA) + 1, len(DATA) + 5) == 0
    assert (tmp_path / "new").read_bytes() == bytes(4096) + DATA[4096:3_000_001] + bytes(
        len(DATA) - 3_000_001 - 5
    ) + DATA[-5:]


def test_a_part_that_the_disk_cannot_read_is_left_out(repair: Repair, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_range = linking.copy_range

    def failing(old: int, new: int, start: int, stop: int) -> int:
        if start < 2 * MIB + 10 < stop:
            raise OSError(5, "Input/output error")
        return copy_range(old, new, start, stop)

    monkeypatch.setattr("hfpeer.cache.partial.blob.copy_range", failing)
    partial = repair.open(repair.file(DATA))
    assert [tuple(gap) for gap in partial.present.gaps(0, len(DATA))] == [(2 * MIB, 3 * MIB)]
    assert repair.run(partial, FakeSource("peer", DATA)).bytes_by_source == {"peer": MIB}
