"""Damage of every other kind, and what a repair never does: write into a blob, delete what it cannot explain."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir

from fakes.hub import HubSimulator
from fakes.other_user import common_folder, forked_as_nobody, why_not
from fakes.repairs import (
    LARGE,
    ONNX,
    REPO,
    WEIGHTS,
    Scene,
    check_right,
    download,
    is_whole,
    outcomes,
    peer_of,
)
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.repair import structure
from hfpeer.cache.repair.results import FAILED, LEFT, PLANNED, REPAIRED
from hfpeer.cache.verify.verification import examine
from hfpeer.names import RepoId

NO_OTHER_USER = why_not()


def kinds(scene: Scene) -> list[str]:
    """The kinds of finding of a verification that changes nothing."""
    report = examine(scene.cache, Manifests(scene.cache.parent / "no", scene.cache), None).report
    return sorted(one.kind for one in report.findings)


def picture(scene: Scene) -> list[tuple[str, int, int, int, int]]:
    facts = {str(path): path.lstat() for path in scene.cache.rglob("*")}
    return sorted((path, one.st_ino, one.st_mode, one.st_size, one.st_mtime_ns) for path, one in facts.items())


# Bytes


@pytest.mark.parametrize("size_bytes", [0, 3])
def test_a_small_file_that_is_cut_short(scene: Scene, size_bytes: int) -> None:
    os.truncate(scene.blob("tokenizer.json"), size_bytes)
    assert kinds(scene) == ["wrong_size"]
    check_right(scene, scene.repair(), len(b'{"t":1}'))


def test_a_blob_of_no_bytes(scene: Scene) -> None:
    os.truncate(scene.blob(), 0)
    check_right(scene, scene.repair(), len(WEIGHTS))


def test_a_blob_that_was_written_to_twice(scene: Scene) -> None:
    with scene.blob().open("ab") as file:
        file.write(WEIGHTS[-100:])
    check_right(scene, scene.repair())


def test_a_blob_whose_name_is_in_another_case(scene: Scene) -> None:
    blob = scene.blob()
    blob.rename(blob.with_name(blob.name.upper()))
    check_right(scene, scene.repair())
    assert [path.name for path in blob.parent.iterdir() if path.name.lower() == blob.name] == [blob.name]


def test_a_folder_in_place_of_a_blob(scene: Scene) -> None:
    blob = scene.blob()
    blob.unlink()
    blob.mkdir()
    (blob / "mine.txt").write_text("mine")
    check_right(scene, scene.repair(), len(WEIGHTS))
    assert (scene.folder / "set-aside" / "blobs" / blob.name / "mine.txt").read_text() == "mine"


def test_an_empty_folder_in_place_of_an_entry(scene: Scene) -> None:
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / LARGE).mkdir()
    check_right(scene, scene.repair())
    assert not (scene.folder / "set-aside").exists()


def test_a_folder_in_place_of_an_entry(scene: Scene) -> None:
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / LARGE).mkdir()
    (scene.snapshot / LARGE / "shard").write_text("mine")
    check_right(scene, scene.repair())
    assert next((scene.folder / "set-aside").rglob("shard")).read_text() == "mine"


def test_a_file_in_place_of_a_folder(scene: Scene) -> None:
    shutil.rmtree(scene.snapshot / "onnx")
    (scene.snapshot / "onnx").write_text("mine")
    check_right(scene, scene.repair())
    assert next((scene.folder / "set-aside").rglob("onnx")).read_text() == "mine"


def test_a_link_to_a_link(scene: Scene) -> None:
    blob = scene.blob()
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / "first").symlink_to(f"../../blobs/{blob.name}")
    (scene.snapshot / LARGE).symlink_to("first")
    report = scene.repair()
    assert outcomes(report)["wrong_link", LARGE] == REPAIRED
    assert (scene.snapshot / LARGE).readlink() == Path(f"../../blobs/{blob.name}")
    (scene.snapshot / "first").unlink()
    assert scene.fetched() == 0 and is_whole(scene.cache)


def test_a_link_to_another_blob(scene: Scene) -> None:
    (scene.snapshot / LARGE).unlink()
    (scene.snapshot / LARGE).symlink_to(f"../../blobs/{scene.blob('onnx/model.onnx').name}")
    check_right(scene, scene.repair())


def test_a_blob_that_is_a_link_out_of_the_cache(scene: Scene, tmp_path: Path) -> None:
    blob = scene.blob()
    blob.rename(tmp_path / "elsewhere")
    blob.symlink_to(tmp_path / "elsewhere")
    check_right(scene, scene.repair())
    assert not blob.is_symlink() and (tmp_path / "elsewhere").exists()


def test_a_wrong_blob_that_no_snapshot_needs_is_set_aside(scene: Scene) -> None:
    orphan = scene.folder / "blobs" / ("0" * 40)
    orphan.write_bytes(b"orphan")
    check_right(scene, scene.repair())
    assert (scene.folder / "set-aside" / "blobs" / orphan.name).read_bytes() == b"orphan"


def test_the_file_of_a_second_name_keeps_its_bytes(scene: Scene, tmp_path: Path) -> None:
    """No repair writes into an existing blob: another name, or a program, may have it."""
    blob, mine = scene.blob(), tmp_path / "mine"
    scene.flip(blob, 5)
    mine.hardlink_to(blob)
    before = mine.read_bytes()
    check_right(scene, scene.repair(), len(WEIGHTS))
    assert mine.read_bytes() == before


def test_an_edited_file_is_set_aside(scene: Scene) -> None:
    (scene.snapshot / "config.json").unlink()
    (scene.snapshot / "config.json").write_text('{"mine": true}')
    check_right(scene, scene.repair())
    assert next((scene.folder / "set-aside").rglob("config.json")).read_text() == '{"mine": true}'


def test_a_file_that_was_cut_short_in_the_snapshot_is_no_edit(scene: Scene) -> None:
    (scene.snapshot / "tokenizer.json").unlink()
    (scene.snapshot / "tokenizer.json").write_text('{"t"')
    check_right(scene, scene.repair())
    assert not any(path.is_file() for path in scene.folder.glob("set-aside/**/*"))


# Structure


def test_a_nested_ref_with_a_newline(scene: Scene) -> None:
    ref = scene.folder / "refs" / "refs" / "pr" / "1"
    ref.parent.mkdir(parents=True)
    ref.write_text(f"{scene.commit}\n")
    check_right(scene, scene.repair())
    assert ref.read_text() == scene.commit


@pytest.mark.parametrize("text", ["{", "", "[]", '{"format_version": 1, "files": {"config.json": {"size": 2}}}'])
def test_a_list_that_is_cut_short(scene: Scene, text: str) -> None:
    tree = scene.folder / "trees" / f"{scene.commit}.json"
    tree.write_text(text)
    check_right(scene, scene.repair())
    assert len(json.loads(tree.read_text())["files"]) == 5


def test_a_list_that_cannot_be_had_anew_is_removed(scene: Scene) -> None:
    tree = scene.folder / "trees" / f"{scene.commit}.json"
    tree.write_text("{")
    scene.is_offline = True
    check_right(scene, scene.repair())
    assert not tree.exists()


def test_a_damaged_proof_is_written_anew(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "trees")
    scene.blob("tokenizer.json").unlink()
    scene.repair()  # brings the list, and with it the proof
    (proof,) = (scene.folder / ".hfpeer").iterdir()
    whole = proof.read_text()
    proof.write_text(whole[:-20])
    scene.is_offline = True
    check_right(scene, scene.repair())
    assert proof.read_text() == whole


def test_a_note_that_a_file_does_not_exist(scene: Scene) -> None:
    note = scene.folder / ".no_exist" / scene.commit / "config.json"
    note.parent.mkdir(parents=True)
    note.touch()
    check_right(scene, scene.repair())
    assert not note.exists()


def test_what_belongs_to_nothing_is_named_and_left(scene: Scene) -> None:
    mine = [scene.folder / "notes.txt", scene.snapshot / "converted.gguf", scene.folder / "blobs" / "x.incomplete"]
    for path in mine:
        path.write_text("mine")
    report = scene.repair()
    assert {one.outcome for one in report.findings} == {LEFT}
    assert all(path.read_text() == "mine" for path in mine)


@pytest.mark.parametrize("repo", [RepoId.parse("acme/data", "dataset"), RepoId.parse("acme/demo", "space")], ids=str)
def test_datasets_and_spaces(repair_hub: HubSimulator, tmp_path: Path, repo: RepoId) -> None:
    download(repair_hub, tmp_path / "hub", repo)
    scene = Scene(repair_hub, tmp_path / "hub", repo)
    os.truncate(scene.blob(), 700_000)
    (scene.folder / "refs" / "main").write_text(f"{scene.commit}\n")
    (scene.snapshot / "onnx/model.onnx").unlink()
    check_right(scene, scene.repair(), len(WEIGHTS) - 700_000)


@pytest.mark.skipif(NO_OTHER_USER is not None, reason=NO_OTHER_USER or "")
def test_own_files_without_a_right_to_read_are_opened_and_those_of_others_are_not(downloaded_repo: Path) -> None:
    with common_folder() as common:
        cache = common / "hub"
        shutil.copytree(downloaded_repo, cache, symlinks=True)
        blob = next(path for path in (cache / REPO.folder / "blobs").iterdir() if path.stat().st_size == len(WEIGHTS))
        blob.chmod(0o000)
        for path in (cache, *cache.rglob("*")):
            os.chown(path, 65534, 65534, follow_symlinks=False)

        def repair() -> str:
            scene = Scene(HubSimulator(), cache)
            scene.is_offline = True
            return str(outcomes(scene.repair())["unreadable", f"blobs/{blob.name}"])

        assert forked_as_nobody(repair) == REPAIRED
        os.chown(blob, 0, 0)
        blob.chmod(0o000)
        assert forked_as_nobody(repair) == FAILED
        assert blob.stat().st_mode & 0o777 == 0


# Plans and limits


def test_a_dry_run_changes_nothing_and_says_where_the_bytes_would_come_from(scene: Scene) -> None:
    os.truncate(scene.blob(), 600_000)
    (scene.folder / "refs" / "main").write_text(f"{scene.commit}\n")
    before = picture(scene)
    report = scene.repair(is_dry_run=True)
    assert picture(scene) == before
    assert scene.fetched() == 0
    found = {one.finding.kind: one for one in report.findings}
    assert {one.outcome for one in report.findings} == {PLANNED}
    assert (found["wrong_size"].fetch_bytes, found["ref_text"].action) == (600_000, "write_ref")
    assert found["wrong_size"].detail == f"At most 600,000 bytes, from {scene.hub.endpoint.removeprefix('http://')}."
    assert report.exit_code == 7


def test_a_dry_run_names_the_peers_that_have_it(scene: Scene) -> None:
    os.truncate(scene.blob(), 600_000)
    with peer_of(scene) as peer:
        scene.peers = [str(peer.address)]
        (found,) = scene.repair(is_dry_run=True).findings
    assert found.detail == f"At most 600,000 bytes, from the peers {peer.name}."


def test_much_from_the_wan_needs_a_yes_and_the_rest_is_done(scene: Scene) -> None:
    os.truncate(scene.blob(), 600_000)
    (scene.folder / "refs" / "main").write_text(f"{scene.commit}\n")
    report = scene.repair(max_wan_bytes=599_999)
    assert (report.held_back_bytes, scene.fetched(), report.exit_code) == (600_000, 0, 7)
    assert outcomes(report) == {("wrong_size", LARGE): FAILED, ("ref_text", "refs/main"): REPAIRED}
    (failed,) = (one for one in report.findings if one.outcome == FAILED)
    assert failed.detail == "It is part of 600,000 bytes from the WAN, which `--yes` agrees to."
    check_right(scene, scene.repair(max_wan_bytes=600_000), 600_000)


def test_without_the_wan_no_hub_is_asked(scene: Scene) -> None:
    scene.blob().unlink()
    report = scene.repair(uses_wan=False)
    assert (scene.hub.requests, report.exit_code) == ([], 6)
    (failed,) = (one for one in report.findings if one.outcome != LEFT)
    assert failed.outcome == FAILED and failed.detail


def test_quick_hashes_only_what_it_links(scene: Scene) -> None:
    scene.flip(scene.blob(), 5)
    (scene.snapshot / "onnx/model.onnx").unlink()
    report = scene.repair(is_quick=True)
    assert outcomes(report) == {("no_link", "onnx/model.onnx"): REPAIRED}
    scene.flip(scene.blob("onnx/model.onnx"), 5)
    (scene.snapshot / "onnx/model.onnx").unlink()
    report = scene.repair(is_quick=True)
    assert (report.exit_code, scene.fetched()) == (0, len(ONNX))


def test_a_copy_elsewhere_is_repaired_from_this_nodes_cache(scene: Scene, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    shutil.copytree(scene.cache, stick, symlinks=True)
    blob = stick / REPO.folder / "blobs" / scene.blob().name
    scene.flip(blob, 5)
    (stick / REPO.folder / "blobs" / scene.blob("onnx/model.onnx").name).unlink()
    scene.is_offline = True
    report = scene.repair_elsewhere(stick)
    assert (report.exit_code, report.bytes_by_kind) == (0, {})
    assert is_whole(stick)
    assert scan_cache_dir(scene.cache).warnings == []


def test_a_file_that_is_kept_because_it_may_be_an_edit_is_small_and_no_link(scene: Scene) -> None:
    assert structure.keep_edited(scene.cache, REPO, scene.snapshot / LARGE) is None
    large = scene.snapshot / "large.bin"
    large.write_bytes(b"1")
    os.truncate(large, 11_000_000)
    assert structure.keep_edited(scene.cache, REPO, large) is None
