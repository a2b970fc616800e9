"""When a bundle fetch goes on although nothing comes."""

from __future__ import annotations

from hfpeer.names import Commit, Digest, FilePath, RepoId
from hfpeer.net.body import SourceFault
from hfpeer.peers.protocol.pieces import PieceMap
from hfpeer.transfer.credit import Credits
from hfpeer.transfer.small.picker import FOUND_AGAIN_SECONDS, LEECHER_PATIENCE_SECONDS, BundlePicker
from hfpeer.transfer.sources.sources import PeerSource, WantedBlob

LATE = LEECHER_PATIENCE_SECONDS + 1.0
BLOB = WantedBlob(
    Digest("sha256", "0" * 64), 1, RepoId.from_api_path("models/a/b"), Commit("0" * 40), FilePath("w.bin")
)
PEER = PeerSource("peer", "id of the peer", None)  # type: ignore[arg-type]


def a_picker() -> BundlePicker:
    """A picker at 0.0 whose only source has told that it has all of the bundle."""
    picker = BundlePicker({BLOB.digest: BLOB}, None, Credits(), 60.0, 0.0)
    picker.bundle.free([BLOB.digest])
    picker.add_leecher(PEER, PieceMap(1, 1, 1, None), 0.0)
    return picker


def test_a_peer_that_is_asked_is_waited_for_until_its_request_has_ended_and_then_to_be_found_elsewhere() -> None:
    picker = a_picker()
    hold = picker.promises.begin(PEER)
    batch = picker.claim(PEER, 1, 0.0, 0.0)
    assert batch == [BLOB]
    assert picker.may_go_on([PEER], LATE)
    picker.end_batch(hold, batch, SourceFault("the connection ended early"), LATE)
    assert picker.may_go_on([], LATE + FOUND_AGAIN_SECONDS - 0.1)
    assert not picker.may_go_on([], LATE + FOUND_AGAIN_SECONDS)


def test_a_leecher_that_is_not_asked_is_waited_for_only_while_files_come() -> None:
    picker = a_picker()
    assert picker.may_go_on([PEER], LEECHER_PATIENCE_SECONDS - 0.1)
    assert not picker.may_go_on([PEER], LATE)


def test_a_file_that_another_fetch_requests_is_waited_for_without_a_source() -> None:
    picker = BundlePicker({BLOB.digest: BLOB}, None, Credits(), 60.0, 0.0)
    assert picker.may_go_on([], LATE)
    picker.bundle.free([BLOB.digest])
    assert not picker.may_go_on([], LATE)
