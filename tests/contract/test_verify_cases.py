"""A cache that was moved, cut short or filled by hand: a verification names exactly what is wrong, and changes nothing.

The cache is made by the Hub client from the hub simulator. Cases 1 to 15 are what goes wrong when caches move.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download

from fakes import exfat
from fakes.exfat import exfat_volume
from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.hub_cache import proved_manifest_of
from fakes.other_user import common_folder, forked_as_nobody, why_not
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.proofs import write_proof
from hfpeer.cache.disk.mounts import Mount, mount_of
from hfpeer.cache.store import Store
from hfpeer.cache.verify import checking, inspection
from hfpeer.cache.verify.checking import Progress
from hfpeer.cache.verify.findings import Finding, VerifyReport
from hfpeer.cache.verify.verification import examine
from hfpeer.errors import NotFound
from hfpeer.git.lfs import pointer_text
from hfpeer.names import Digest, RepoId
from hfpeer.system.cancellation import Stop, Stopped

REPO = RepoId.parse("acme/tiny")
WEIGHTS, ONNX = noise(1_200_000, "weights"), noise(1_100_000, "onnx")
FILES: dict[str, Content] = {
    "config.json": b"{}",
    "README.md": b"# tiny\n",
    "tokenizer.json": b'{"t":1}',
    "model.safetensors": Lfs(WEIGHTS),
    "onnx/model.onnx": Lfs(ONNX),
}
LARGE = "model.safetensors"
OTHER_USER = why_not()
NO_EXFAT = exfat.why_not()
needs_exfat = pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")
needs_other_user = pytest.mark.skipif(OTHER_USER is not None, reason=OTHER_USER or "")


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache as the Hub client left it. Not to be changed."""
    cache = tmp_path_factory.mktemp("downloaded") / "hub"
    with HubSimulator() as hub:
        hub.put_repo("model", str(REPO), FILES)
        snapshot_download(str(REPO), cache_dir=cache, endpoint=hub.endpoint)
    return cache


@pytest.fixture
def cache(downloaded: Path, tmp_path: Path) -> Path:
    shutil.copytree(downloaded, tmp_path / "hub", symlinks=True)
    return tmp_path / "hub"


@pytest.fixture
def folder(cache: Path) -> Path:
    """The folder of the repo."""
    return cache / REPO.folder


@pytest.fixture
def commit(folder: Path) -> str:
    return next((folder / "snapshots").iterdir()).name


@pytest.fixture
def snapshot(folder: Path, commit: str) -> Path:
    return folder / "snapshots" / commit


def verified(cache: Path, *repos: RepoId, home: str = "home", **options: Any) -> VerifyReport:
    """Verifies a cache that is not this node's, and checks that nothing in it has changed."""
    before = picture(cache)
    report = examine(cache, Manifests(cache.parent / home / "manifests", cache), None, repos, **options).report
    assert picture(cache) == before
    return report


def picture(cache: Path) -> list[tuple[str, int, int, int]]:
    return [
        (str(path), facts.st_mode, facts.st_size, facts.st_mtime_ns)
        for path in sorted(cache.rglob("*"))
        if (facts := path.lstat())
    ]


def kinds(report: VerifyReport) -> list[tuple[str, str]]:
    return [(finding.kind, finding.path) for finding in report.findings]


def find(report: VerifyReport, kind: str) -> Finding:
    (found,) = (finding for finding in report.findings if finding.kind == kind)
    return found


def obey(repair: str) -> None:
    assert os.system(repair) == 0


def loads_offline(cache: Path) -> bool:
    path = snapshot_download(str(REPO), cache_dir=cache, local_files_only=True)
    return {name: Path(path, name).read_bytes() for name in FILES} == {
        name: content.data if isinstance(content, Lfs) else content for name, content in FILES.items()
    }


@pytest.mark.parametrize("is_quick", [False, True], ids=["full", "quick"])
def test_a_cache_of_the_hub_client_is_all_right(cache: Path, commit: str, is_quick: bool) -> None:
    report = verified(cache, is_quick=is_quick)
    assert (report.findings, report.exit_code) == ((), 0)
    (revision,) = report.revisions
    assert (revision.repo, revision.commit, revision.refs) == (str(REPO), commit, ("main",))
    assert (revision.grade, revision.files, revision.listed_files) == ("listed", 5, 5)
    assert (report.hashed_files, report.hashed_bytes) == ((0, 0) if is_quick else (5, 2_300_016))


def test_case_1_links_left_behind(cache: Path, folder: Path, snapshot: Path) -> None:
    for path in FILES:
        (snapshot / path).unlink()
    report = verified(cache)
    assert sorted(kinds(report)) == sorted(("no_link", path) for path in FILES)
    assert report.exit_code == 8
    for finding in report.findings:
        obey(finding.repair)
    assert verified(cache).findings == ()
    assert loads_offline(cache)


def test_case_1_without_any_list(cache: Path, folder: Path, snapshot: Path) -> None:
    shutil.rmtree(folder / "trees")
    shutil.rmtree(snapshot)
    snapshot.mkdir()
    report = verified(cache)
    assert {kind for kind, _ in kinds(report)} == {"empty_revision", "orphan"}
    assert report.exit_code == 8
    assert find(report, "empty_revision").repair == f"hfpeer model add -r acme/tiny -v {snapshot.name}"
    assert not any("rm " in finding.repair for finding in report.findings)


@pytest.mark.parametrize("has_list", [True, False], ids=["listed", "named"])
def test_case_2_links_followed(cache: Path, folder: Path, tmp_path: Path, has_list: bool) -> None:
    if not has_list:
        shutil.rmtree(folder / "trees")
    shutil.copytree(cache, tmp_path / "copy" / "hub")
    report = verified(tmp_path / "copy" / "hub")
    assert sorted(kinds(report)) == sorted(("copy", path) for path in FILES)
    assert sum(finding.size_bytes for finding in report.findings) == 2_300_016
    assert report.exit_code == 8
    for finding in report.findings:
        obey(finding.repair)
    assert verified(tmp_path / "copy" / "hub").findings == ()
    assert loads_offline(tmp_path / "copy" / "hub")


def test_case_2_a_copy_with_other_bytes_is_no_copy(cache: Path, snapshot: Path) -> None:
    (snapshot / LARGE).unlink()
    (snapshot / LARGE).write_bytes(bytes(len(WEIGHTS)))
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("wrong_bytes", LARGE)], 7)
    assert ("copy", LARGE) in kinds(verified(cache, is_quick=True))


def test_case_2_the_right_one_of_two_is_not_given_up_for_the_wrong_one(cache: Path, snapshot: Path) -> None:
    blob = (snapshot / LARGE).resolve()
    (snapshot / LARGE).unlink()
    (snapshot / LARGE).write_bytes(WEIGHTS)
    assert "Without --quick" in find(verified(cache, is_quick=True), "copy").repair
    assert "ln -sfn" in find(verified(cache), "copy").repair
    blob.write_bytes(bytes(len(WEIGHTS)))
    report = verified(cache)
    assert kinds(report) == [("wrong_bytes", f"blobs/{blob.name}")]


def test_case_3_a_volume_without_links(cache: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in FILES:
        (snapshot / path).unlink()
    monkeypatch.setattr(inspection, "mount_of", lambda folder: Mount("/stick", "exfat"))
    report = verified(cache)
    assert sorted(kinds(report)) == sorted(("no_place", path) for path in FILES)
    assert report.exit_code == 8


def test_case_3_a_cache_that_was_made_without_links_is_all_right(cache: Path, folder: Path, snapshot: Path) -> None:
    for path in FILES:
        blob = (snapshot / path).resolve()
        (snapshot / path).unlink()
        blob.rename(snapshot / path)
    assert verified(cache).findings == ()
    with (snapshot / LARGE).open("r+b") as file:
        file.write(b"?")
    assert kinds(verified(cache)) == [("wrong_bytes", LARGE)]


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """An exFAT volume."""
    with exfat_volume(tmp_path) as volume:
        yield volume


@needs_exfat
def test_case_3_on_a_real_stick(cache: Path, stick: Path) -> None:
    subprocess.run(["cp", "-a", cache, stick / "hub"], check=False, capture_output=True)
    report = examine(stick / "hub", Manifests(cache.parent / "home" / "manifests", stick / "hub"), None).report
    assert sorted(kinds(report)) == sorted(("no_place", path) for path in FILES)


def test_case_4_a_ref_with_a_newline(cache: Path, folder: Path, commit: str) -> None:
    (folder / "refs" / "main").write_text(f"{commit}\n")
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("ref_text", "refs/main")], 8)
    assert find(report, "ref_text").commit == commit
    obey(find(report, "ref_text").repair)
    assert loads_offline(cache)


def test_case_5_no_ref_at_all(cache: Path, folder: Path) -> None:
    shutil.rmtree(folder / "refs")
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("no_ref", "")], 0)


def test_case_5_a_ref_that_this_node_knows(cache: Path, folder: Path, tmp_path: Path) -> None:
    store = Store(cache, tmp_path / "home")
    store.scan()
    shutil.rmtree(folder / "refs")
    report = store.verify()
    store.close()
    assert ("ref_missing", "refs/main") in kinds(report) and report.exit_code == 8
    obey(find(report, "ref_missing").repair)
    assert loads_offline(cache)


def test_case_5_a_ref_to_a_commit_that_is_not_here(cache: Path, folder: Path) -> None:
    (folder / "refs" / "v1").write_text("d" * 40)
    (folder / "refs" / "v2").write_text("a branch")
    report = verified(cache)
    assert kinds(report) == [("ref_malformed", "refs/v2"), ("ref_dangling", "refs/v1")]
    assert report.exit_code == 8


def test_case_6_a_dangling_link(cache: Path, snapshot: Path) -> None:
    (snapshot / LARGE).resolve().unlink()
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("no_bytes", LARGE)], 8)
    assert find(report, "no_bytes").size_bytes == len(WEIGHTS)


@pytest.mark.parametrize("is_quick", [False, True], ids=["full", "quick"])
def test_case_7_a_truncated_blob(cache: Path, snapshot: Path, is_quick: bool) -> None:
    os.truncate(snapshot / LARGE, 600_000)
    report = verified(cache, is_quick=is_quick)
    assert (kinds(report), report.exit_code) == ([("wrong_size", LARGE)], 7)
    assert find(report, "wrong_size").meaning == "it has 600,000 bytes instead of 1,200,000"


def test_case_7_without_a_list_only_the_hash_tells(cache: Path, folder: Path, snapshot: Path) -> None:
    shutil.rmtree(folder / "trees")
    os.truncate(snapshot / LARGE, 600_000)
    assert verified(cache, is_quick=True).findings == ()
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("wrong_bytes", LARGE)], 7)
    assert find(report, "wrong_bytes").grade == "named"


def test_case_8_the_shared_store_stayed_at_home(cache: Path, folder: Path, snapshot: Path, tmp_path: Path) -> None:
    blob = (snapshot / LARGE).resolve()
    (cache / "blobs" / "ab").mkdir(parents=True)
    blob.rename(cache / "blobs" / "ab" / "abcdef")
    blob.symlink_to("../../blobs/ab/abcdef")
    assert verified(cache).findings == ()
    shutil.copytree(folder, tmp_path / "copy" / "hub" / folder.name, symlinks=True)
    report = verified(tmp_path / "copy" / "hub")
    assert (kinds(report), report.exit_code) == ([("shared_store", LARGE)], 8)
    assert "shared store of the cache it came from" in find(report, "shared_store").meaning


def test_case_9_a_folder_that_the_group_cannot_write(cache: Path, folder: Path) -> None:
    cache.chmod(0o2775)
    report = verified(cache)
    assert (kinds(report), report.exit_code) == (
        [("not_group_writable", ".locks"), ("not_group_writable", "")],
        0,
    )
    assert f"chmod -R g+rwX {cache / '.locks'}" in report.findings[0].repair
    (cache / ".locks").chmod(0o2775)
    repair = find(verified(cache), "not_group_writable").repair
    assert f"chmod -R g+rwX {folder}" in repair and "setfacl" in repair
    for place in (folder, *folder.rglob("*")):
        if place.is_dir() and not place.is_symlink():
            place.chmod(0o2775)
    assert kinds(verified(cache)) == [("not_group_writable", "")]
    (tree,) = (folder / "trees").iterdir()
    tree.chmod(0o640)
    assert verified(cache).findings == ()


@needs_other_user
def test_case_9_a_blob_of_another_user_that_cannot_be_read(downloaded: Path) -> None:
    with common_folder() as common:
        cache = common / "hub"
        shutil.copytree(downloaded, cache, symlinks=True)
        blob = next(path for path in (cache / REPO.folder / "blobs").iterdir() if path.stat().st_size == len(WEIGHTS))
        blob.chmod(0o600)
        (tree,) = (cache / REPO.folder / "trees").iterdir()
        tree.chmod(0o644)

        def find_as_nobody() -> str:
            (one,) = examine(cache, Manifests(cache / "no-home", cache), None).report.findings
            return f"{one.kind}: {one.meaning}; {one.repair}"

        owner = pwd.getpwuid(0).pw_name
        assert forked_as_nobody(find_as_nobody) == (
            f"unreadable: this user cannot read it (-rw-------, owner {owner}); "
            f"{owner} can open it: chmod -R o+rX {blob}"
        )


def test_case_10_nothing_rests_on_locks(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_flock)
    assert verified(cache).findings == ()


@pytest.mark.parametrize("name", ["plain", "ollama", "clone"])
def test_cases_11_to_13_a_folder_that_is_no_hub_cache(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    marks = {"plain": ".cache/huggingface/download", "ollama": "manifests/registry.ollama.ai", "clone": ".git/lfs"}
    (folder / marks[name]).mkdir(parents=True)
    (folder / "blobs").mkdir()
    with pytest.raises(NotFound, match="no Hub cache") as raised:
        verified(folder)
    assert raised.value.exit_code == 4


def test_case_13_a_pointer_in_place_of_the_file(cache: Path, folder: Path, snapshot: Path) -> None:
    pointer = pointer_text(Digest.parse(f"sha256:{(snapshot / LARGE).resolve().name}").hex, len(WEIGHTS))
    (snapshot / LARGE).resolve().write_bytes(pointer)
    assert kinds(verified(cache)) == [("wrong_size", LARGE)]
    shutil.rmtree(folder / "trees")
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("lfs_pointer", LARGE)], 7)


def test_case_14_a_revision_that_prune_would_take(cache: Path, folder: Path, commit: str) -> None:
    other = folder / "snapshots" / ("d" * 40)
    other.mkdir()
    (other / "config.json").symlink_to(f"../../blobs/{Digest.parse('git-sha1:' + _etag(folder, commit)).hex}")
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("no_ref", "")], 0)
    assert find(report, "no_ref").commit == "d" * 40


def _etag(folder: Path, commit: str) -> str:
    return (folder / "snapshots" / commit / "config.json").resolve().name


def test_case_15_absolute_links_and_links_out_of_the_repo(cache: Path, snapshot: Path, tmp_path: Path) -> None:
    blob = (snapshot / LARGE).resolve()
    (snapshot / LARGE).unlink()
    (snapshot / LARGE).symlink_to(blob)
    (tmp_path / "elsewhere").write_bytes(ONNX)
    (snapshot / "onnx/model.onnx").unlink()
    (snapshot / "onnx/model.onnx").symlink_to("../../../../../elsewhere")
    report = verified(cache)
    assert kinds(report) == [("absolute_link", LARGE), ("outside_link", "onnx/model.onnx")]
    assert report.exit_code == 8
    obey(find(report, "absolute_link").repair)
    assert kinds(verified(cache)) == [("outside_link", "onnx/model.onnx")]


# What else is found


def test_a_flipped_byte(cache: Path, snapshot: Path) -> None:
    with (snapshot / LARGE).open("r+b") as file:
        file.seek(700_000)
        file.write(bytes([WEIGHTS[700_000] ^ 1]))
    assert verified(cache, is_quick=True).findings == ()
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("wrong_bytes", LARGE)], 7)


def test_a_link_to_another_blob_of_the_repo(cache: Path, snapshot: Path) -> None:
    other = (snapshot / "onnx/model.onnx").readlink().name
    (snapshot / LARGE).unlink()
    (snapshot / LARGE).symlink_to(f"../../blobs/{other}")
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("wrong_link", LARGE)], 8)


def test_what_is_left_lying_about(cache: Path, folder: Path, snapshot: Path) -> None:
    (folder / "blobs" / ("a" * 64 + ".incomplete")).write_bytes(b"half")
    (folder / "blobs" / ("0" * 40)).write_bytes(b"orphan")
    (folder / "notes.txt").write_text("mine")
    (snapshot / "converted.gguf").write_text("mine too")
    (cache / "abc.lock").touch()
    (cache / ".locks" / ".hfpeer" / "ff").mkdir(parents=True)
    (cache / ".locks" / ".hfpeer" / "ff" / "data").write_bytes(b"half")
    report = verified(cache, is_quick=True)
    assert sorted(kinds(report)) == [
        ("foreign", "abc.lock"),
        ("foreign", "converted.gguf"),
        ("foreign", "notes.txt"),
        ("orphan", f"blobs/{'0' * 40}"),
        ("unfinished", ".locks/.hfpeer/ff"),
        ("unfinished", f"blobs/{'a' * 64}.incomplete"),
    ]
    assert report.exit_code == 0


def test_files_that_were_never_fetched_are_noted(cache: Path, snapshot: Path) -> None:
    (snapshot / LARGE).resolve().unlink()
    (snapshot / LARGE).unlink()
    report = verified(cache)
    assert (kinds(report), report.exit_code) == ([("not_here", LARGE)], 0)
    assert (report.revisions[0].files, report.revisions[0].listed_files) == (4, 5)


def test_a_note_that_a_file_does_not_exist_though_it_does(cache: Path, folder: Path, commit: str) -> None:
    (folder / ".no_exist" / commit).mkdir(parents=True)
    (folder / ".no_exist" / commit / "config.json").touch()
    (folder / ".no_exist" / commit / "adapter_config.json").touch()
    assert kinds(verified(cache)) == [("false_absence", "config.json")]


def test_a_blob_that_can_be_written_through_a_second_name(cache: Path, snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").hardlink_to((snapshot / LARGE).resolve())
    assert [kind for kind, _ in kinds(verified(cache))] == ["second_name"]
    (snapshot / LARGE).resolve().chmod(0o444)
    assert verified(cache).findings == ()


def test_lists_and_proofs_that_cannot_be_used(cache: Path, folder: Path, commit: str) -> None:
    (folder / "trees" / f"{commit}.json").chmod(0o600)
    (folder / "trees" / f"{commit}.json").write_text("{")
    (folder / ".hfpeer").mkdir()
    (folder / ".hfpeer" / f"{commit}.json").write_text("{}")
    report = verified(cache)
    assert kinds(report) == [("bad_listing", f"trees/{commit}.json"), ("bad_proof", "")]
    assert report.revisions[0].grade == "named"


def test_a_proof_in_the_repos_folder_makes_it_proved(cache: Path, folder: Path) -> None:
    manifest = proved_manifest_of({"config.json": b"{}"}, RepoId.parse("acme/proved"))
    write_proof(cache, manifest)
    place = cache / manifest.repo.folder / "snapshots" / manifest.commit
    place.mkdir(parents=True)
    (place / "config.json").write_bytes(b"{}")
    (revision,) = verified(cache, manifest.repo).revisions
    assert (revision.grade, revision.files, revision.listed_files) == ("proved", 1, 1)


def test_the_manifest_of_the_home_proves_a_copy(cache: Path, tmp_path: Path) -> None:
    manifest = proved_manifest_of({"config.json": b"{}"}, RepoId.parse("acme/known"))
    Manifests(tmp_path / "home" / "manifests", tmp_path / "own").save(manifest)
    place = cache / manifest.repo.folder / "snapshots" / manifest.commit
    place.mkdir(parents=True)
    (place / "config.json").write_bytes(b"[]")
    report = verified(cache, manifest.repo)
    assert report.revisions[0].grade == "proved"
    assert ("wrong_bytes", "config.json") in kinds(report)


def test_a_name_that_would_be_obeyed_by_a_shell_is_quoted(cache: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "blobs" / ("0" * 40)).write_bytes(b"orphan")
    odd = tmp_path / "a; touch obeyed; b"
    cache.rename(odd)
    obey(f"cd {tmp_path} && {find(verified(odd), 'orphan').repair}")
    assert not (tmp_path / "obeyed").exists()
    assert verified(odd).findings == ()


def test_the_repair_of_an_absolute_link_to_a_folder_does_not_enter_it(
    cache: Path, snapshot: Path, tmp_path: Path
) -> None:
    name = (snapshot / LARGE).readlink().name
    (tmp_path / name).mkdir()
    (snapshot / LARGE).unlink()
    (snapshot / LARGE).symlink_to(tmp_path / name)
    obey(find(verified(cache), "absolute_link").repair)
    assert list((tmp_path / name).iterdir()) == []
    assert loads_offline(cache)


def test_a_link_in_place_of_a_folder_is_not_followed(cache: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "blobs").rename(tmp_path / "blobs")
    (folder / "blobs").symlink_to(tmp_path / "blobs")
    report = verified(cache)
    assert ("outside_link", "blobs") in kinds(report)
    assert report.hashed_files == 0


def test_a_repo_that_is_not_here(cache: Path) -> None:
    with pytest.raises(NotFound):
        verified(cache, RepoId.parse("acme/other"))


# Verdicts


@pytest.fixture
def store(cache: Path, tmp_path: Path) -> Iterator[Store]:
    store = Store(cache, tmp_path / "home")
    yield store
    store.close()


def test_the_next_run_hashes_only_what_has_changed(store: Store, snapshot: Path) -> None:
    assert store.verify().hashed_files == 5
    report = store.verify()
    assert (report.hashed_files, report.known_files, report.known_bytes) == (0, 5, 2_300_016)
    (snapshot / LARGE).resolve().write_bytes(bytes(len(WEIGHTS)))
    report = store.verify()
    assert (report.hashed_files, report.known_files, report.exit_code) == (1, 4, 7)
    assert store.verify().exit_code == 7
    assert store.verify(trusts_verdicts=False).hashed_files == 5


def test_bytes_that_were_found_wrong_are_fetched_again_and_never_shared(store: Store, snapshot: Path) -> None:
    store.scan()
    digest = Digest.parse(f"sha256:{(snapshot / LARGE).resolve().name}")
    (snapshot / LARGE).resolve().write_bytes(bytes(len(WEIGHTS)))
    store.verify()
    assert store.inventory.find(digest) is None


def test_a_verdict_keeps_that_the_bytes_were_given_openly(store: Store, snapshot: Path) -> None:
    blob = (snapshot / "config.json").resolve()
    row = store.inventory.seen(blob, Digest.parse(f"git-sha1:{blob.name}"), is_verified=True, is_given=True)
    store.inventory.remember([row])
    store.verify(trusts_verdicts=False)
    found = store.inventory.find(Digest.parse(f"git-sha1:{blob.name}"))
    assert found is not None and found.is_given


def test_a_volume_with_links_is_known_as_one(cache: Path) -> None:
    assert mount_of(cache).has_no_links is False


def test_verdicts_until_a_stop_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "TELL_SECONDS", 0.0)
    stop = Stop()

    def on_progress(progress: Progress) -> None:
        if progress.files_done >= 2:
            stop.set()

    with pytest.raises(Stopped):
        stop.run(lambda: store.verify(on_progress=on_progress))
    report = store.verify()
    assert report.known_files >= 2 and report.hashed_files + report.known_files == 5
