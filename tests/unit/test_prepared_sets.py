"""The datasets cache: what lies in it, what is wrong with it, and how a set comes in and goes out."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from fakes.prepared import COMMIT, OLDER, REPO, place_of, write_set
from hfpeer.errors import BrokenCache, Locked, NotFound
from hfpeer.names import MAIN, Commit
from hfpeer.prepared import installation
from hfpeer.prepared.hashing import hashed
from hfpeer.prepared.installation import (
    done_with,
    install,
    remove_leftover,
    remove_leftovers,
    remove_set,
    settle,
    staging,
)
from hfpeer.prepared.layout import INFO, MANIFEST, OWN
from hfpeer.prepared.levels import Level
from hfpeer.prepared.listing import FoundSet, list_sets, read_set
from hfpeer.prepared.manifest import SetFile, SetManifest, SetSplit
from hfpeer.prepared.records import Levels, SetRecord, read_record, write_record


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "datasets"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A Hub cache in which main of REPO is COMMIT."""
    ref = tmp_path / "hub" / REPO.folder / "refs" / MAIN
    ref.parent.mkdir(parents=True)
    ref.write_text(COMMIT)
    return tmp_path / "hub"


def record_of(folder: Path, config: str = "default") -> SetRecord:
    shard = hashed(folder / "plain_text-train.arrow", "plain_text-train.arrow")
    info = hashed(folder / INFO, INFO)
    manifest = SetManifest(
        REPO,
        Commit(folder.name),
        config,
        place_of(hash=folder.name, config=config),
        (SetSplit("train", 3, (shard,)),),
        info,
        (),
        "parquet",
        None,
        "flat",
        "none",
    )
    return SetRecord(manifest, (shard, info))


def only(cache: Path, hub: Path) -> FoundSet:
    (found,) = list_sets(cache, hub).sets
    return found


def kinds(found: FoundSet) -> list[str]:
    return [one.kind for one in found.problems]


def test_a_whole_set_is_listed_under_the_name_of_its_repo(cache: Path, hub: Path) -> None:
    write_set(cache, place_of(), {"train": [3, 4], "test": [2]})
    found = only(cache, hub)
    assert (found.repo, found.place.commit, found.is_whole, kinds(found)) == (REPO, COMMIT, True, [])
    assert len(found.shards) == 3 and found.info is not None and found.info.rows == 9
    assert list_sets(cache / "none", hub).sets == ()


def test_what_makes_loads_fail_is_named(cache: Path, hub: Path) -> None:
    folder = write_set(cache, place_of(), {"train": [3, 4], "test": [2]})
    (folder / "plain_text-test.arrow").unlink()
    (folder / "plain_text-train-00000-of-00004.arrow").write_bytes(b"left by a killed build")
    (folder / "cache-12ab.arrow").write_bytes(b"of map")
    (folder.parent / f"{OLDER}.incomplete").mkdir()
    found = only(cache, hub)
    assert kinds(found) == ["no_shard", "strange_file", "unfinished"] and not found.is_whole
    assert found.other_bytes == len(b"left by a killed build") + len(b"of map")
    (folder / INFO).write_bytes(b"{")
    assert "bad_info" in kinds(only(cache, hub))
    (folder / INFO).unlink()
    assert "no_info" in kinds(only(cache, hub))


def test_several_configs_of_one_commit_are_named_and_harmless(cache: Path, hub: Path) -> None:
    for config in ("en", "zh"):
        write_set(cache, place_of(config=config), {"train": [1]})
    sets = list_sets(cache, hub).sets
    assert [kinds(one) for one in sets] == [["several_configs"]] * 2
    assert all(one.is_harmless for found in sets for one in found.problems)


def test_an_older_commit_with_a_newer_folder_is_named_and_settled(cache: Path, hub: Path) -> None:
    newest, older = (write_set(cache, place_of(hash=hash), {"train": [1]}) for hash in (COMMIT, OLDER))
    os.utime(newest, (1000, 1000))
    assert {one.place.hash: kinds(one) for one in list_sets(cache, hub).sets} == {COMMIT: ["not_newest"], OLDER: []}
    assert settle(cache, hub, REPO) and not settle(cache, hub, REPO)
    assert newest.stat().st_mtime > older.stat().st_mtime
    assert [kinds(one) for one in list_sets(cache, hub).sets] == [[], []]


def test_a_set_of_a_local_folder_or_of_an_old_version_is_named(cache: Path, hub: Path) -> None:
    write_set(cache, place_of(hash="1" * 16), {"train": [1]})
    write_set(cache, place_of(hash="2" * 64), {"train": [1]})
    assert [kinds(one) for one in list_sets(cache, hub).sets] == [["local"], ["old_layout"]]


def test_no_link_is_followed(cache: Path, hub: Path, tmp_path: Path) -> None:
    folder = write_set(cache, place_of(), {"train": [3]})
    (tmp_path / "elsewhere").write_bytes(b"AAA")
    (folder / "plain_text-train.arrow").unlink()
    (folder / "plain_text-train.arrow").symlink_to(tmp_path / "elsewhere")
    (cache / "other").symlink_to(folder)
    assert kinds(only(cache, hub)) == ["no_shard"]


# Records and levels


def test_a_record_travels_with_the_folder_and_a_level_does_not(cache: Path, hub: Path, tmp_path: Path) -> None:
    folder = write_set(cache, place_of(), {"train": [3]})
    os.utime(folder, (1000, 1000))
    record = record_of(folder)
    write_record(folder, record)
    assert folder.stat().st_mtime == 1000 and read_record(folder) == record
    levels = Levels(tmp_path / "home")
    levels.note(folder, record, Level.CHECKED, "me")
    assert levels.of(folder, only(cache, hub).record).level is Level.CHECKED
    assert Levels(tmp_path / "elsewhere").of(folder, record).level is Level.UNCHECKED
    changed = SetRecord(record.manifest, (SetFile("plain_text-train.arrow", 3, "0" * 64), record.files[1]))
    assert levels.of(folder, changed).level is Level.UNCHECKED
    (tmp_path / "home/prepared.json").write_text("[]")
    assert levels.of(folder, record).level is Level.UNCHECKED


def test_a_record_of_another_place_or_size_is_named(cache: Path, hub: Path) -> None:
    folder = write_set(cache, place_of(), {"train": [3]})
    write_record(folder, record_of(folder))
    (folder / "plain_text-train.arrow").write_bytes(b"AAAA")
    assert kinds(only(cache, hub)) == ["wrong_size"]
    other = write_set(cache, place_of(hash=OLDER), {"train": [3]})
    (other / MANIFEST).write_bytes((folder / MANIFEST).read_bytes())
    assert "bad_record" in [kind for one in list_sets(cache, hub).sets for kind in kinds(one)]


# Installing


def made_set(cache: Path, name: str = "made", hash: str = COMMIT) -> Path:
    """A set in hfpeer's own folder, as it is before it is installed."""
    elsewhere = write_set(cache / OWN / f"{name}.d", place_of(hash=hash), {"train": [3]})
    target = cache / OWN / name / hash
    target.parent.mkdir(parents=True)
    elsewhere.rename(target)
    return target


def test_a_set_comes_in_by_a_rename_and_main_stays_the_newest(cache: Path, hub: Path) -> None:
    first = install(cache, hub, REPO, place_of(), made_set(cache))
    older = install(cache, hub, REPO, place_of(hash=OLDER), made_set(cache, "older", OLDER))
    assert first.stat().st_mtime > older.stat().st_mtime
    assert [kinds(one) for one in list_sets(cache, hub).sets] == [[], []]
    os.utime(older, (2**31, 2**31))
    again = install(cache, hub, REPO, place_of(), made_set(cache, "again"))
    assert again == first and again.stat().st_mtime > 2**31


def test_results_of_map_go_over_to_a_mended_set_and_not_to_another(cache: Path, hub: Path) -> None:
    folder = install(cache, hub, REPO, place_of(), made_set(cache))
    (folder / "cache-1.arrow").write_bytes(b"of map")
    install(cache, hub, REPO, place_of(), made_set(cache, "mended"), keeps_derived=True)
    assert (folder / "cache-1.arrow").read_bytes() == b"of map"
    install(cache, hub, REPO, place_of(), made_set(cache, "built"))
    assert not (folder / "cache-1.arrow").exists()


def test_a_link_in_the_place_of_a_set_is_not_followed(cache: Path, hub: Path, tmp_path: Path) -> None:
    folder = place_of().folder(cache)
    folder.parent.mkdir(parents=True)
    folder.symlink_to(tmp_path)
    with pytest.raises(BrokenCache, match="should be a folder"):
        install(cache, hub, REPO, place_of(), made_set(cache))
    assert folder.is_symlink()


def test_a_set_waits_for_a_build_of_datasets(cache: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "LOCK_SECONDS", 0.0)
    made = made_set(cache)
    lock = place_of().lock(cache)
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="is building"):
            install(cache, hub, REPO, place_of(), made)
    assert install(cache, hub, REPO, place_of(), made).is_dir()


def test_one_process_fills_a_folder_and_the_next_goes_on(cache: Path) -> None:
    with staging(cache, "x") as folder:
        (folder / "part").write_bytes(b"1")
        with pytest.raises(Locked, match="Another hfpeer"), staging(cache, "x"):
            pass
    with staging(cache, "x") as folder:
        assert (folder / "part").exists()
        (left,) = list_sets(cache, cache).leftovers
        with pytest.raises(Locked):
            remove_leftover(cache, left)
    assert (left.is_own, remove_leftover(cache, left)) == (True, 1) and not (cache / OWN).exists()
    with staging(cache, "y") as folder:
        done_with(folder)
    assert not (cache / OWN).exists()


# Removing


def test_a_removed_set_leaves_nothing_and_takes_nothing_else(cache: Path, hub: Path) -> None:
    folder = write_set(cache, place_of(), {"train": [3]})
    kept = write_set(cache, place_of(config="en"), {"train": [3]})
    place_of().lock(cache).touch()
    found = next(one for one in list_sets(cache, hub).sets if one.folder == folder)
    assert remove_set(cache, found) == found.size_bytes
    assert not folder.parent.exists() and kept.is_dir() and not (cache / OWN).exists()


def test_leftovers_go_unless_a_build_is_running(cache: Path, hub: Path) -> None:
    folder = write_set(cache, place_of(), {"train": [3]})
    os.utime(folder, (1000, 1000))
    (folder / "plain_text-test.arrow").write_bytes(b"12345")
    left = folder.parent / f"{OLDER}.incomplete"
    left.mkdir()
    (left / "part.arrow").write_bytes(b"123")
    os.utime(folder, (1000, 1000))
    found = read_set(cache, place_of(), REPO)
    assert found is not None
    with place_of(hash=OLDER).lock(cache).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="is running"):
            remove_leftovers(cache, found)
    assert left.is_dir() and remove_leftovers(cache, found) == 3
    assert not left.exists() and kinds(only(cache, hub)) == [] and folder.stat().st_mtime == 1000


def test_a_set_that_is_not_there_is_a_sentence_with_those_that_are(
    cache: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hfpeer.config.settings import read_settings
    from hfpeer.node.operations.prepared.removing import remove_prepared

    settings = read_settings(
        {"HFPEER_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(hub), "HF_DATASETS_CACHE": str(cache)}
    )
    write_set(cache, place_of(), {"train": [3]})
    with pytest.raises(NotFound, match="No prepared set of config zh") as error:
        remove_prepared(settings, REPO, ["zh"])
    assert f"default at {COMMIT[:12]}" in str(error.value.hint)
    removed = remove_prepared(settings, REPO, commit=COMMIT[:7])
    assert removed.freed_bytes > 0 and list_sets(cache, hub).sets == ()
