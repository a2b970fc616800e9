"""Names that a volume may take for one are found, and never written over each other or read for one another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import exfat
from fakes.exfat import exfat_volume
from fakes.hub_cache import COMMIT, REPO, manifest_of
from hfpeer.cache.disk import volume
from hfpeer.cache.disk.same_names import composed, look_alikes, reaches_another
from hfpeer.cache.disk.volume import refuse_unfit, refuse_unfit_repos
from hfpeer.cache.records import CachedFile
from hfpeer.cache.store import Store
from hfpeer.errors import NotThisVolume
from hfpeer.manifest import ManifestFile
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.node.operations.moving.local_dir import fill_folder

NFC, NFD = "caf\u00e9.txt", "cafe\u0301.txt"
OTHER = RepoId.parse(REPO.full_name.swapcase(), REPO.type)
NO_EXFAT = exfat.why_not()
needs_exfat = pytest.mark.skipif(NO_EXFAT is not None, reason=NO_EXFAT or "")


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    with exfat_volume(tmp_path) as place:
        yield place


@pytest.mark.parametrize(
    ("paths", "alike"),
    [
        ({"a", "b", "sub/a"}, set()),
        ({"README.md", "readme.md", "x"}, {"README.md", "readme.md"}),
        ({"Sub/a", "sub/b", "x"}, {"Sub/a", "sub/b"}),
        ({"Sub", "sub/b"}, {"Sub", "sub/b"}),
        ({"a/Deep/x", "a/deep/y", "a/z"}, {"a/Deep/x", "a/deep/y"}),
        ({NFC, NFD}, {NFC, NFD}),
        ({"STRASSE", "stra\u00dfe"}, {"STRASSE", "stra\u00dfe"}),
        ({"\u212bngstr\u00f6m", "a\u030angstro\u0308m"}, {"\u212bngstr\u00f6m", "a\u030angstro\u0308m"}),
    ],
)
def test_paths_that_look_alike(paths: set[str], alike: set[str]) -> None:
    assert look_alikes(paths) == alike


def test_accents_alone() -> None:
    assert look_alikes({NFC, NFD, "A", "a"}, composed) == {NFC, NFD}


def test_a_usual_volume_holds_them_all(tmp_path: Path) -> None:
    files = ["README.md", "readme.md", NFC, NFD, "Sub/a", "sub/a"]
    refuse_unfit(tmp_path, [(path, 1) for path in files], all_paths=files, there=lambda path: True)
    refuse_unfit_repos(tmp_path, ["models--Org--Name", "models--org--name"])
    for name in ("README.md", "readme.md", NFC, NFD):
        (tmp_path / name).write_text(name)
    assert not any(reaches_another(tmp_path, name) for name in ("README.md", "readme.md", NFC, NFD, "Readme.md"))


@pytest.mark.parametrize(
    ("case", "accents", "refused"),
    [
        (True, True, set()),
        (False, True, {"README.md", "readme.md", "Sub/a", "sub/b"}),
        (True, False, {NFC, NFD}),
        (False, False, {"README.md", "readme.md", "Sub/a", "sub/b", NFC, NFD, NFC.upper(), NFD.lower()}),
    ],
)
def test_a_volume_refuses_what_it_does_not_tell_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: bool, accents: bool, refused: set[str]
) -> None:
    monkeypatch.setattr(volume, "_tells_case", lambda place: case)
    monkeypatch.setattr(volume, "_tells_accents", lambda place: accents)
    files = {"README.md", "readme.md", "Sub/a", "sub/b", NFC, NFD, "fine"}
    if not refused:
        refuse_unfit(tmp_path, [(path, 1) for path in files])
        return
    with pytest.raises(NotThisVolume) as caught:
        refuse_unfit(tmp_path, [(path, 1) for path in files])
    assert set(caught.value.facts["paths"]) == refused & files
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_counts_and_one_that_is_not_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volume, "_tells_case", lambda place: False)
    everything = ["README.md", "readme.md"]
    refuse_unfit(tmp_path, [("readme.md", 1)], all_paths=everything)
    with pytest.raises(NotThisVolume, match="1 of 1 files"):
        refuse_unfit(tmp_path, [("readme.md", 1)], all_paths=everything, there=lambda path: True)


@needs_exfat
def test_a_name_that_leads_to_another_entry_is_noticed(stick: Path) -> None:
    (stick / "README.md").write_text("big")
    assert reaches_another(stick, "readme.md") and not reaches_another(stick, "README.md")
    assert not reaches_another(stick, "other.md")


@needs_exfat
@pytest.mark.parametrize(("first", "second"), [("README.md", "readme.md"), ("Sub/a.txt", "sub/a.txt")])
def test_a_file_of_a_snapshot_is_never_written_over_another(
    stick: Path, tmp_path: Path, first: str, second: str
) -> None:
    """As when a tool asks the endpoint for one file after the other."""
    bodies = {first: b"the first", second: b"the second"}
    manifest = manifest_of(bodies)
    store = Store(stick / "hub", tmp_path / "home")
    files = {str(file.path): file for file in manifest.files}
    store.ingester.ingest_many(REPO, {file.digest: bodies[file.path] for file in manifest.files})
    snapshot = store.ingester.install(REPO, COMMIT, [files[first]])
    with pytest.raises(NotThisVolume):
        store.ingester.install(REPO, COMMIT, [files[second]])
    assert (snapshot / first).read_bytes() == b"the first"
    store.scan()
    found = store.revisions.find(REPO, COMMIT)
    assert found is not None and [file.path for file in found.listing if file.is_present] == [first]
    store.close()


def store_with_a_file(stick: Path, tmp_path: Path) -> tuple[Store, ManifestFile]:
    """A cache on the stick that has the blob of a file, and the file."""
    store = Store(stick / "hub", tmp_path / "home")
    (file,) = manifest_of({"config.json": b"{}"}).files
    store.ingester.ingest_many(REPO, {file.digest: b"{}"})
    return store, file


@needs_exfat
def test_two_repos_whose_names_differ_in_case_are_never_mixed_up(stick: Path, tmp_path: Path) -> None:
    store, file = store_with_a_file(stick, tmp_path)
    store.ingester.install(REPO, COMMIT, [file])
    store.refs.write(REPO, Revision("main"), COMMIT, "hub")
    with pytest.raises(NotThisVolume):
        store.ingester.ingest_many(OTHER, {file.digest: b"{}"})
    with pytest.raises(NotThisVolume):
        refuse_unfit_repos(stick / "hub", [OTHER.folder])
    refuse_unfit_repos(stick / "hub", [REPO.folder])
    store.scan_repo(OTHER)
    assert store.revisions.of(OTHER) == [] and len(store.revisions.of(REPO)) == 1
    assert store.refs.read(OTHER, Revision("main")) is None
    store.close()


@needs_exfat
def test_two_refs_whose_names_differ_in_case_are_never_mixed_up(stick: Path, tmp_path: Path) -> None:
    store, file = store_with_a_file(stick, tmp_path)
    other = Commit(COMMIT[::-1])
    for commit in (COMMIT, other):
        store.ingester.install(REPO, commit, [file])
    store.refs.write(REPO, Revision("Dev"), COMMIT, "hub")
    store.refs.write(REPO, Revision("dev"), other, "hub")
    found = {name: store.refs.read(REPO, Revision(name)) for name in ("Dev", "dev")}
    assert {name: known[0] for name, known in found.items() if known} == {"Dev": COMMIT, "dev": other}
    store.close()


@needs_exfat
def test_a_local_folder_keeps_the_file_that_another_one_would_replace(stick: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "readme.md").write_text("lower")
    (stick / "mine").mkdir()
    (stick / "mine" / "README.md").write_text("upper")
    file = CachedFile("readme.md", 5, "sha256:" + "0" * 64, True)
    with pytest.raises(NotThisVolume):
        fill_folder(stick / "mine", tmp_path / "snapshot", COMMIT, [file], replaceable=["readme.md"])
    assert (stick / "mine" / "README.md").read_text() == "upper"


def test_forms_of_these_names_are_what_they_say() -> None:
    assert unicodedata.is_normalized("NFC", NFC) and unicodedata.is_normalized("NFD", NFD)
