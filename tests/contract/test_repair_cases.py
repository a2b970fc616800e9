"""A cache that was moved, cut short or filled by hand: a repair makes it right, and fetches exactly what is missing.

The cache is made by the Hub client from the hub simulator, which counts what it gives. Cases 1 to 15 are what goes
wrong when caches move; the verification names each of them (`test_verify_cases`). Afterwards the Hub client loads every
revision without a network.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from fakes.exfat import exfat_volume
from fakes.exfat import why_not as why_no_exfat
from fakes.repairs import (
    FILES,
    LARGE,
    ONNX,
    REPO,
    WEIGHTS,
    Scene,
    check_right,
    is_whole,
    outcomes,
    peer_of,
)
from hfpeer.cache.repair.results import FAILED, LEFT, REPAIRED, RepairReport
from hfpeer.control.operations import RepairRequest, ToldRef
from hfpeer.git.lfs import pointer_text
from hfpeer.names import MAIN, Commit
from hfpeer.node.node import Node


def test_nothing_is_done_where_nothing_is_wrong(scene: Scene) -> None:
    report = scene.repair()
    assert (report.findings, report.exit_code, scene.hub.requests) == ((), 0, [])


# The fifteen cases


def test_case_1_links_left_behind(scene: Scene) -> None:
    for path in FILES:
        (scene.snapshot / path).unlink()
    check_right(scene, scene.repair())


def test_case_1_without_any_list(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "trees")
    snapshot = scene.snapshot
    shutil.rmtree(snapshot)
    snapshot.mkdir()
    check_right(scene, scene.repair())


def test_case_1_without_any_list_and_offline_says_which_command_would_help(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "trees")
    snapshot = scene.snapshot
    shutil.rmtree(snapshot)
    snapshot.mkdir()
    scene.is_offline = True
    report = scene.repair()
    (failed,) = (one for one in report.findings if one.outcome == FAILED)
    assert f"hfpeer model add -r acme/tiny -v {snapshot.name}" in failed.detail
    assert report.exit_code == 6


@pytest.mark.parametrize("has_list", [True, False], ids=["listed", "named"])
def test_case_2_links_followed(scene: Scene, has_list: bool, tmp_path: Path) -> None:
    if not has_list:
        shutil.rmtree(scene.folder / "trees")
    shutil.copytree(scene.cache, tmp_path / "copy" / "hub")
    scene.cache = tmp_path / "copy" / "hub"
    check_right(scene, scene.repair())
    assert all((scene.snapshot / path).is_symlink() for path in FILES)


def test_case_2_the_right_one_of_two_is_kept(scene: Scene) -> None:
    blob = scene.blob()
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / LARGE).write_bytes(WEIGHTS)
    blob.write_bytes(bytes(len(WEIGHTS)))
    check_right(scene, scene.repair())
    assert (scene.snapshot / LARGE).is_symlink() and blob.read_bytes() == WEIGHTS


def test_case_2_a_copy_with_other_bytes_becomes_a_link(scene: Scene) -> None:
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / LARGE).write_bytes(bytes(len(WEIGHTS)))
    check_right(scene, scene.repair())


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    with exfat_volume(tmp_path) as volume:
        yield volume


@pytest.mark.skipif(why_no_exfat() is not None, reason=why_no_exfat() or "")
def test_case_3_a_stick_without_links(scene: Scene, stick: Path) -> None:
    shutil.copytree(scene.cache, stick / "hub", ignore=lambda folder, names: names if "snapshots" in folder else [])
    for path in FILES:
        (scene.snapshot / path).unlink()
    report = scene.repair_elsewhere(stick / "hub")
    assert (report.exit_code, scene.fetched()) == (0, 0)
    assert is_whole(stick / "hub")


def test_case_4_a_ref_with_a_newline(scene: Scene) -> None:
    (scene.folder / "refs" / "main").write_text(f"{scene.commit}\n")
    check_right(scene, scene.repair())


def test_case_5_no_ref_at_all_and_a_hub_that_knows_it(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "refs")
    check_right(scene, scene.repair())


def test_case_5_no_ref_at_all_and_nothing_that_knows_it(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "refs")
    scene.is_offline = True
    commit = scene.commit
    report = scene.repair()
    assert report.exit_code == 0
    assert not (scene.folder / "refs" / "main").exists()
    assert (scene.folder / "refs" / "hfpeer" / commit[:12]).read_text() == commit
    assert scan_cache_dir(scene.cache).warnings == []


def test_case_5_the_node_remembers_the_ref(scene: Scene) -> None:
    scene.repair()  # a scan notes the refs
    shutil.rmtree(scene.folder / "refs")
    scene.is_offline = True
    check_right(scene, scene.repair())
    assert [path.name for path in (scene.folder / "refs").iterdir()] == ["main"]


def test_case_5_the_user_tells_the_ref(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "refs")
    scene.is_offline = True
    check_right(scene, scene.repair(REPO, refs=(ToldRef(MAIN, Commit(scene.commit)),)))


def test_case_5_refs_to_nothing(scene: Scene) -> None:
    (scene.folder / "refs" / "v1").write_text("d" * 40)
    (scene.folder / "refs" / "v2").write_text("a branch")
    (scene.folder / "refs" / "refs" / "pr").mkdir(parents=True)
    (scene.folder / "refs" / "refs" / "pr" / "1").write_text("")
    check_right(scene, scene.repair())
    assert sorted(path.name for path in (scene.folder / "refs").iterdir()) == ["main"]


def test_case_6_a_dangling_link(scene: Scene) -> None:
    scene.blob().unlink()
    check_right(scene, scene.repair(), len(WEIGHTS))


def test_case_7_a_truncated_blob_costs_its_missing_end(scene: Scene) -> None:
    os.truncate(scene.blob(), 600_000)
    check_right(scene, scene.repair(), len(WEIGHTS) - 600_000)


def test_case_7_without_a_list(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "trees")
    os.truncate(scene.blob(), 600_000)
    check_right(scene, scene.repair(), len(WEIGHTS) - 600_000)


def test_case_8_the_shared_store_stayed_at_home(scene: Scene) -> None:
    blob = scene.blob()
    blob.unlink()
    blob.symlink_to("../../blobs/ab/abcdef")
    check_right(scene, scene.repair(), len(WEIGHTS))
    assert not blob.is_symlink()


def test_case_8_a_wrong_file_in_the_shared_store_is_not_written_to(scene: Scene) -> None:
    blob, shared = scene.blob(), scene.cache / "blobs" / "ab" / "abcdef"
    shared.parent.mkdir(parents=True)
    (scene.cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    blob.rename(shared)
    blob.symlink_to("../../blobs/ab/abcdef")
    os.truncate(shared, 700_000)
    check_right(scene, scene.repair(), len(WEIGHTS) - 700_000)
    assert shared.stat().st_size == 700_000


def test_case_9_folders_that_the_group_cannot_write(scene: Scene) -> None:
    scene.cache.chmod(0o2775)
    (tree,) = (scene.folder / "trees").iterdir()
    tree.chmod(0o600)
    check_right(scene, scene.repair())
    assert (scene.folder / "blobs").stat().st_mode & 0o2070 == 0o2070
    assert tree.stat().st_mode & 0o040


def test_case_10_locks_that_lock_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repairs at once, each of which gets every lock that it asks for. One may find that the other took a blob away
    just then, says so, and the command is run again."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    scene.flip(scene.blob(), 5)
    os.truncate(scene.blob("onnx/model.onnx"), 500_000)

    async def both() -> list[RepairReport]:
        nodes = [Node(scene.settings(home)) for home in ("one", "two")]
        for node in nodes:
            await node.start(None)
        try:
            return await asyncio.gather(*(node.repair(RepairRequest(), lambda event: None) for node in nodes))
        finally:
            for node in nodes:
                await node.stop()

    assert {0} <= {report.exit_code for report in asyncio.run(both())} <= {0, 7}
    assert scene.repair().exit_code == 0
    assert is_whole(scene.cache)


def test_case_13_a_pointer_in_place_of_the_file(scene: Scene) -> None:
    blob = scene.blob()
    blob.write_bytes(pointer_text(blob.name, len(WEIGHTS)))
    check_right(scene, scene.repair(), len(WEIGHTS))


def test_case_14_a_revision_pinned_by_its_commit(scene: Scene) -> None:
    commit = scene.commit
    (scene.folder / "refs" / "main").unlink()
    report = scene.repair()
    assert outcomes(report)["no_ref", ""] == REPAIRED
    assert (scene.folder / "refs" / "hfpeer" / commit[:12]).read_text() == commit
    assert is_whole(scene.cache, revision=commit)


def test_case_15_absolute_links_and_links_out_of_the_repo(scene: Scene, tmp_path: Path) -> None:
    blob = scene.blob()
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / LARGE).symlink_to(blob)
    (tmp_path / "elsewhere").write_bytes(ONNX)
    onnx = scene.blob("onnx/model.onnx")
    (scene.snapshot / "onnx/model.onnx").unlink()
    onnx.unlink()
    (scene.snapshot / "onnx/model.onnx").symlink_to("../../../../../elsewhere")
    check_right(scene, scene.repair())
    assert str((scene.snapshot / LARGE).readlink()) == f"../../blobs/{blob.name}"
    assert str((scene.snapshot / "onnx/model.onnx").readlink()) == f"../../../blobs/{onnx.name}"


# Bytes


def test_a_flipped_byte_costs_at_most_two_pieces_of_a_peer(scene: Scene) -> None:
    scene.flip(scene.blob(), 5)
    with peer_of(scene) as peer:
        scene.peers = [str(peer.address)]
        report = scene.repair()
        check_right_from_peer(scene, report)
        assert report.bytes_by_kind == {"peer": 1 << 20}


def test_a_truncated_half_comes_from_a_peer(scene: Scene) -> None:
    os.truncate(scene.blob(), 600_000)
    with peer_of(scene) as peer:
        scene.peers = [str(peer.address)]
        report = scene.repair(uses_wan=False)
        check_right_from_peer(scene, report)
        assert report.bytes_by_kind == {"peer": 600_000}


def test_with_a_hub_alone_a_flipped_byte_costs_the_file(scene: Scene) -> None:
    scene.flip(scene.blob(), 5)
    check_right(scene, scene.repair(), len(WEIGHTS))


def test_a_good_copy_in_another_repo_costs_nothing(scene: Scene) -> None:
    other = scene.cache / "models--acme--other"
    shutil.copytree(scene.folder, other, symlinks=True)
    scene.flip(scene.blob(), 5)
    check_right(scene, scene.repair())


def test_a_good_copy_in_a_repo_that_is_not_repaired_costs_nothing(scene: Scene) -> None:
    shutil.copytree(scene.folder, scene.cache / "models--acme--other", symlinks=True)
    os.truncate(scene.blob(), 5)
    check_right(scene, scene.repair(REPO))


def test_an_unfinished_download_of_the_client_is_a_source(scene: Scene) -> None:
    blob = scene.blob()
    blob.unlink()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(WEIGHTS[:900_000])
    check_right(scene, scene.repair(), len(WEIGHTS) - 900_000)
    assert blob.with_name(f"{blob.name}.incomplete").exists()


def test_two_revisions_share_a_wrong_blob(scene: Scene) -> None:
    other = scene.folder / "snapshots" / ("d" * 40)
    shutil.copytree(scene.snapshot, other, symlinks=True)
    commit = next(path.name for path in (scene.folder / "snapshots").iterdir() if path.name != other.name)
    blob = scene.folder / "blobs" / (other / LARGE).readlink().name
    scene.flip(blob, 9)
    report = scene.repair()
    assert (report.exit_code, scene.fetched()) == (0, len(WEIGHTS))
    assert is_whole(scene.cache, revision=commit) and is_whole(scene.cache, revision="d" * 40)


def test_a_file_that_no_source_gives_is_named_with_what_would_help(scene: Scene) -> None:
    scene.flip(scene.blob(), 5)
    scene.is_offline = True
    report = scene.repair()
    (failed,) = (one for one in report.findings if one.outcome != LEFT)
    assert (failed.outcome, report.exit_code) == (FAILED, 6)
    assert "no source has it" in failed.detail or "No source" in failed.detail
    scene.is_offline = False
    check_right(scene, scene.repair(), len(WEIGHTS))


def check_right_from_peer(scene: Scene, report: RepairReport) -> None:
    assert (report.exit_code, scene.fetched()) == (0, 0)
    assert is_whole(scene.cache)
