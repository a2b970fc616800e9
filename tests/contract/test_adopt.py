"""Adoption over a real cache and a simulated hub: bytes that lie in a place of another tool never cross the network."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import os
import random
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from fakes import cow, other_user, places
from fakes.hub import HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.places import SINGLE, WHOLE, Shelved, put, sha256
from hfpeer.adoption import adopting, hashing
from hfpeer.archive import importing
from hfpeer.cache.disk import layout, linking
from hfpeer.cache.partial.hashing import BlobHash
from hfpeer.config.settings import Settings, read_settings
from hfpeer.control.operations import AddRequest, AdoptPlace, AdoptReport, AdoptRequest
from hfpeer.errors import InvalidName, NotFound
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.node.node import Node
from hfpeer.node.session import open_node
from hfpeer.transfer.events import Finished

REPO, SINGLE_REPO = RepoId.parse("acme/tiny-1.5"), RepoId.parse("acme/one-GGUF")
FILES = {"config.json": b"{}", "onnx/model.safetensors": noise(1_500_000, "adopt"), "tokenizer.json": noise(9_000, "t")}
SINGLE_FILES = {"model.Q4_K_M.gguf": noise(1_400_000, "gguf")}
BUILDERS = [(name, build, REPO) for name, build in WHOLE.items()]
BUILDERS += [(name, build, SINGLE_REPO) for name, build in SINGLE.items()]
TOOLS = {"LM Studio", "GPT4All", "old sentence-transformers"}
NO_OTHER_USER, NO_COW = other_user.why_not(), cow.why_not()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        for repo, files in ((REPO, FILES), (SINGLE_REPO, SINGLE_FILES)):
            content: dict[str, Any] = {path: Lfs(body) if places.is_lfs(path) else body for path, body in files.items()}
            hub.put_repo("model", repo.full_name, content)
        yield hub


@pytest.fixture
def machine(hub: HubSimulator, tmp_path: Path) -> Machine:
    hub.clear()
    return Machine(hub, tmp_path)


class Machine:
    """One machine without a daemon: its node runs in this process."""

    def __init__(self, hub: HubSimulator, folder: Path) -> None:
        self.hub = hub
        self.folder = folder
        self.cache = folder / "hub"
        self.environ = {
            "HFPEER_HOME": str(folder / "home"),
            "HF_HUB_CACHE": str(self.cache),
            "HFPEER_UPSTREAMS": f"origin={hub.endpoint}",
        }

    @property
    def settings(self) -> Settings:
        return read_settings(self.environ)

    def go_offline(self) -> None:
        """The hub stays configured, and does not answer."""
        self.environ["HFPEER_UPSTREAMS"] = "origin=http://127.0.0.1:9"

    def shelved(self, repo: RepoId = REPO) -> Shelved:
        place = self.folder / "place"
        place.mkdir(exist_ok=True)
        commit = self.hub.repo("model", repo.full_name).refs()["refs/heads/main"]
        files = FILES if repo == REPO else SINGLE_FILES
        return Shelved(place, repo, commit, files, self.hub.endpoint)

    def adopt(self, *folders: Path, tool: str = "folder", **options: Any) -> AdoptReport:
        is_named = options.pop("is_named", True)
        wanted = tuple(AdoptPlace(tool, str(folder), is_named) for folder in folders)
        report = self.run(lambda node: node.adopt(AdoptRequest(wanted, **options), lambda event: None))
        assert isinstance(report, AdoptReport)
        return report

    def add(self, repo: RepoId = REPO, **options: Any) -> Finished:
        finished = self.run(lambda node: node.add(AddRequest(repo, **options), lambda event: None))
        assert isinstance(finished, Finished)
        return finished

    def run(self, work: Callable[[Any], Any]) -> Any:
        async def within() -> Any:
            async with open_node(self.settings) as node:
                return await work(node)

        return asyncio.run(within())

    def file_bytes_sent(self) -> int:
        """Bytes of files that left the hub."""
        requests = self.hub.requests_for("*", "GET", "cdn") + self.hub.requests_for("*/resolve/*", "GET", "hub")
        return sum(request.body_bytes_sent for request in requests if request.status in (200, 206))

    def contents(self, repo: RepoId = REPO) -> dict[str, bytes]:
        snapshots = layout.snapshots_folder(self.cache, repo)
        return {
            str(path.relative_to(commit)): path.read_bytes()
            for commit in (snapshots.iterdir() if snapshots.is_dir() else ())
            for path in commit.rglob("*")
            if path.is_file()
        }


def facts(folder: Path) -> dict[str, tuple[object, ...]]:
    """All that an owner could notice of files, links included."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        now = path.lstat()
        body = path.read_bytes() if stat.S_ISREG(now.st_mode) else b""
        found[str(path)] = (
            now.st_ino,
            now.st_mode,
            now.st_uid,
            now.st_nlink,
            now.st_size,
            now.st_mtime_ns,
            sha256(body),
        )
    return found


@pytest.mark.parametrize(("name", "build", "repo"), BUILDERS, ids=[name for name, _, _ in BUILDERS])
def test_an_add_fetches_nothing_of_what_lies_in_a_place(
    machine: Machine, name: str, build: Callable[[Shelved], Path], repo: RepoId
) -> None:
    folder = build(machine.shelved(repo))
    before = facts(machine.folder / "place")
    report = machine.adopt(folder, tool=name if name in TOOLS else "folder")
    assert report.troubles == () and report.files + report.here_files > 0
    machine.hub.clear()
    finished = machine.add(repo)
    assert (machine.file_bytes_sent(), finished.bytes_by_source) == (0, {})
    assert finished.reused_bytes == finished.size_bytes
    assert machine.contents(repo) == (FILES if repo == REPO else SINGLE_FILES)
    assert facts(machine.folder / "place") == before
    again = machine.adopt(folder, tool=name if name in TOOLS else "folder")
    assert again.hashed_files == 0 and (again.files, again.size_bytes) == (report.files, report.size_bytes)


def hub_client(shelved: Shelved, **options: Any) -> Path:
    huggingface_hub.snapshot_download(shelved.repo.full_name, endpoint=shelved.hub_url, token=False, **options)
    return shelved.folder


def git_lfs(shelved: Shelved) -> Path:
    filters = {"smudge": "git-lfs smudge -- %f", "process": "git-lfs filter-process", "required": "true"}
    words = [word for name, value in filters.items() for word in ("-c", f"filter.lfs.{name}={value}")]
    environ = {name: value for name, value in places.GIT_ENVIRONMENT.items() if name != "GIT_LFS_SKIP_SMUDGE"}
    command = ["git", *words, "clone", "-q", f"{shelved.hub_url}/{shelved.repo}", str(shelved.folder)]
    subprocess.run(command, check=True, env={**environ, "HOME": str(shelved.folder.parent)}, timeout=60)
    return shelved.folder


REAL: dict[str, Callable[[Shelved], Path]] = {
    "the Hub client's cache": lambda shelved: hub_client(shelved, cache_dir=shelved.folder),
    "the Hub client's folder": lambda shelved: hub_client(shelved, local_dir=shelved.folder),
}


@pytest.mark.parametrize("name", REAL)
def test_what_the_hub_client_leaves_is_read_as_it_is(machine: Machine, name: str) -> None:
    shelved = machine.shelved()
    folder = REAL[name](shelved)
    know(machine, shelved)
    before = facts(folder)
    report = machine.adopt(folder)
    (installed,) = report.installed
    assert (installed.commit, installed.files, report.troubles) == (shelved.commit, 3, ())
    assert machine.contents() == FILES and facts(folder) == before
    machine.hub.clear()
    machine.add()
    assert machine.file_bytes_sent() == 0


@pytest.mark.skipif(shutil.which("git-lfs") is None, reason="there is no git-lfs")
def test_what_git_lfs_leaves_is_read_as_it_is(machine: Machine) -> None:
    repo = RepoId.parse("acme/with-lfs")
    files = {**FILES, ".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}
    content = {path: Lfs(body) if places.is_lfs(path) else body for path, body in files.items()}
    commit = machine.hub.put_repo("model", repo.full_name, content)
    place = machine.folder / "place"
    folder = git_lfs(Shelved(place, repo, commit, files, machine.hub.endpoint))
    assert (folder / "onnx/model.safetensors").read_bytes() == files["onnx/model.safetensors"]
    before = facts(folder)
    machine.go_offline()
    report = machine.adopt(folder)
    (installed,) = report.installed
    assert (installed.commit, installed.files, report.troubles) == (commit, 4, ())
    assert report.twice_bytes == len(FILES["onnx/model.safetensors"])
    assert machine.contents(repo) == files and facts(folder) == before


def test_only_the_rest_is_fetched(machine: Machine) -> None:
    folder = places.ollama(machine.shelved(SINGLE_REPO))
    put(folder / "blobs" / f"sha256-{sha256(FILES['onnx/model.safetensors'])}", FILES["onnx/model.safetensors"])
    machine.adopt(folder)
    finished = machine.add()
    weights = len(FILES["onnx/model.safetensors"])
    assert finished.adopted_bytes == weights and machine.file_bytes_sent() < 20_000
    assert machine.contents() == FILES
    told = {file.path: file for file in machine.run(lambda node: node.why(REPO))}
    giver = told["onnx/model.safetensors"].fetch.contributions[0]
    assert giver.kind == "local" and giver.name.endswith("(Ollama)")


# Revisions


@pytest.mark.parametrize("name", ["git clone", "HF cache", "hf --local-dir", "hfd"])
def test_a_revision_whose_list_is_proved_or_known_is_installed_at_once(machine: Machine, name: str) -> None:
    shelved = machine.shelved()
    folder = WHOLE[name](shelved)
    if name != "git clone":  # a clone proves itself
        know(machine, shelved)
    machine.go_offline()
    report = machine.adopt(folder)
    (installed,) = report.installed
    assert (installed.repo, installed.commit, installed.is_proved) == (str(REPO), shelved.commit, True)
    assert (installed.files, installed.listed_files) == (3, 3) and machine.contents() == FILES
    if name in ("git clone", "HF cache"):
        assert installed.refs == ("main",)
        assert machine.add(is_local_only=True).size_bytes == sum(map(len, FILES.values()))
    assert machine.adopt(folder).hashed_files == 0


def know(machine: Machine, shelved: Shelved) -> Manifest:
    """The node gets the list of the files, and none of them."""
    manifest: list[Manifest] = []

    async def find(node: Node) -> None:
        commit = Commit(shelved.commit)
        found = await node._resolver.manifests.find(
            REPO, commit, node._upstreams, lambda event: None, trust=_nothing(), is_add=True
        )
        node.store.save_manifest(found.manifest)
        manifest.append(found.manifest)

    machine.run(find)
    return manifest[0]


def _nothing() -> Any:
    from hfpeer.resolver.peer_queries import PeerTrust

    return PeerTrust.NOTHING


def test_a_cache_that_carries_its_proof_needs_no_hub(machine: Machine, tmp_path: Path) -> None:
    other = Machine(machine.hub, tmp_path / "other")
    other.add()
    machine.go_offline()
    report = machine.adopt(other.cache)
    assert [one.files for one in report.installed] == [3] and machine.contents() == FILES
    assert report.places[0].is_hub_cache


def test_the_folder_of_one_repo_is_enough(machine: Machine, tmp_path: Path) -> None:
    other = Machine(machine.hub, tmp_path / "other")
    other.add()
    other.add(SINGLE_REPO)
    report = machine.adopt(other.cache / REPO.folder)
    assert [one.repo for one in report.installed] == [str(REPO)]


def test_a_revision_without_a_known_list_waits_and_its_files_serve(machine: Machine) -> None:
    folder = places.hub_cache(machine.shelved())
    machine.go_offline()
    report = machine.adopt(folder)
    (waiting,) = report.waiting
    assert report.installed == () and waiting.repo == REPO.full_name and "list of files" in waiting.reason
    assert report.files == 3


def test_copies_of_a_place_that_nobody_named_take_no_space(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    shelved = machine.shelved()
    folder = places.git_clone(shelved)
    monkeypatch.setattr(adopting, "can_clone", lambda source, folder: False)
    report = machine.adopt(folder, is_named=False)
    assert report.installed == () and f"hfpeer adopt {folder}" in report.waiting[0].reason
    assert machine.contents() == {} and report.files == 3
    monkeypatch.setattr(adopting, "can_clone", lambda source, folder: True)
    assert len(machine.adopt(folder, is_named=False).installed) == 1


def test_a_full_volume_leaves_the_files_known(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = places.git_clone(machine.shelved())
    monkeypatch.setattr(adopting, "can_clone", lambda source, folder: False)
    monkeypatch.setattr(importing, "free_bytes", lambda path: 512)
    report = machine.adopt(folder)
    assert report.installed == () and "free" in report.troubles[0].reason and report.files > 0


def test_a_clone_without_lfs_has_only_its_small_files(machine: Machine) -> None:
    folder = places.git_clone_without_lfs(machine.shelved())
    report = machine.adopt(folder)
    (installed,) = report.installed
    assert (installed.files, installed.listed_files, report.pointers) == (2, 3, 1)
    machine.hub.clear()
    machine.add()
    assert machine.contents() == FILES
    assert machine.file_bytes_sent() == len(FILES["onnx/model.safetensors"])


def test_a_clone_with_lfs_says_how_much_lies_twice(machine: Machine) -> None:
    report = machine.adopt(places.git_clone(machine.shelved()))
    assert report.twice_bytes == len(FILES["onnx/model.safetensors"])


def test_edited_files_of_a_clone_do_not_matter(machine: Machine) -> None:
    folder = places.git_clone(machine.shelved())
    put(folder / "config.json", b"[]")
    weights = folder / "onnx/model.safetensors"
    weights.write_bytes(b"x" * weights.stat().st_size)
    (installed,) = machine.adopt(folder).installed
    assert installed.files == 3 and machine.contents() == FILES


def test_a_clone_of_no_hub_is_no_revision_of_one(machine: Machine) -> None:
    folder = places.git_clone(machine.shelved())
    config = (folder / ".git/config").read_text().replace(machine.hub.endpoint, "https://user:hf_secret@example.org")
    put(folder / ".git/config", config)
    report = machine.adopt(folder)
    assert report.installed == () and "clone of no hub" in report.waiting[0].reason
    assert "hf_secret" not in repr(report) and report.files > 0


# Sizes first


def test_with_a_repo_only_files_of_its_sizes_are_hashed(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = places.plain_folder(machine.shelved())
    put(folder / "large.bin", bytes(5_000_000))
    put(folder / "like.bin", bytes(len(FILES["onnx/model.safetensors"])))
    report = machine.adopt(folder, repo=REPO)
    assert report.hashed_files == 4 and report.hashed_bytes < 4_000_000
    assert report.wanted is not None
    assert (report.wanted.files, report.wanted.listed_files) == (3, 3)
    machine.hub.clear()
    machine.add()
    assert machine.file_bytes_sent() == 0


def test_a_repo_that_nobody_knows_is_an_error(machine: Machine) -> None:
    with pytest.raises(NotFound):
        machine.adopt(places.plain_folder(machine.shelved()), repo=RepoId.parse("acme/none"))


# Lies and changes


def test_wrong_hints_harm_nothing(machine: Machine) -> None:
    """Every name and etag lies: it says that the bytes are those of the repo."""
    shelved = machine.shelved()
    right = FILES["onnx/model.safetensors"]
    wrong = bytes(len(right))
    folder = shelved.folder
    put(folder / "blobs" / f"sha256-{sha256(right)}", wrong)
    put(folder / "hub" / REPO.folder / "blobs" / sha256(right), wrong)
    put(folder / "hub" / REPO.folder / "snapshots" / shelved.commit / "onnx/model.safetensors", wrong)
    put(folder / "git/.git/HEAD", "ref: refs/heads/main\n")
    put(folder / "git/.git/lfs/objects" / sha256(right)[:2] / sha256(right)[2:4] / sha256(right), wrong)
    know(machine, shelved)
    report = machine.adopt(folder)
    assert machine.contents() == {} or machine.contents().get("onnx/model.safetensors") is None
    assert report.files >= 1
    machine.hub.clear()
    machine.add()
    assert machine.contents() == FILES and machine.file_bytes_sent() >= len(right)


@pytest.mark.parametrize("way", ["copy", "link"])
def test_a_file_edited_afterwards_reaches_nobody(machine: Machine, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(linking, "LINK_MIN_BYTES", 1000)
    monkeypatch.setattr(linking, "_clone", lambda old, new: False)
    folder = places.git_clone(machine.shelved())
    machine.adopt(folder, way=way)
    machine.add()
    body = FILES["onnx/model.safetensors"]
    digest = Digest("sha256", sha256(body))
    source = folder / ".git/lfs/objects" / digest.hex[:2] / digest.hex[2:4] / digest.hex
    blob = layout.blob_path(machine.cache, REPO, digest)
    assert blob.samefile(source) == (way == "link")

    def shared(node: Node) -> bytes | None:
        node.store.set_share(REPO, True)
        opened = node.provider.open_shared(digest)
        if opened is None:
            return None
        data = os.pread(opened.fd, len(body), 0)
        opened.close()
        return data

    async def give(node: Node) -> bytes | None:
        return await asyncio.to_thread(shared, node)

    assert machine.run(give) == body
    before = source.stat()
    source.chmod(0o644)
    with source.open("r+b") as file:
        file.write(b"EDITED")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert machine.run(give) in ((None,) if way == "link" else (body,))
    machine.add()
    assert machine.contents() == FILES


def test_a_file_that_changes_while_it_is_hashed_is_left_out(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(machine.folder / "place/model.gguf", noise(3_000_000, "changing"))
    really = BlobHash.update

    def update(self: Any, view: Any) -> None:
        with path.open("ab") as file:
            file.write(b"x")
        really(self, view)

    monkeypatch.setattr(BlobHash, "update", update)
    report = machine.adopt(path)
    assert report.files == 0 and "changed while it was read" in report.troubles[0].reason


def test_a_file_that_vanishes_before_the_add_is_fetched(machine: Machine) -> None:
    folder = places.plain_folder(machine.shelved())
    machine.adopt(folder)
    (folder / "some/where/onnx/model.safetensors").unlink()
    machine.hub.clear()
    machine.add()
    assert machine.contents() == FILES and machine.file_bytes_sent() >= len(FILES["onnx/model.safetensors"])


# Ways


def test_a_move_takes_the_file_along(machine: Machine) -> None:
    folder = places.ollama(machine.shelved(SINGLE_REPO))
    (blob,) = [path for path in (folder / "blobs").iterdir() if path.stat().st_size > 1_000_000]
    machine.adopt(folder, way="move")
    assert blob.exists()
    machine.add(SINGLE_REPO)
    assert not blob.exists() and machine.contents(SINGLE_REPO) == SINGLE_FILES


@pytest.mark.skipif(NO_OTHER_USER is not None, reason=str(NO_OTHER_USER))
def test_files_of_another_user_are_copied_and_unreadable_ones_named_with_owner_and_mode(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = places.ollama(machine.shelved(SINGLE_REPO))
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, other_user.NOBODY, other_user.NOBODY)
    monkeypatch.setattr(linking, "LINK_MIN_BYTES", 1000)
    monkeypatch.setattr(linking, "_clone", lambda old, new: False)
    monkeypatch.setattr(adopting, "can_clone", lambda source, folder: False)
    listed = machine.adopt(folder, way="link", is_dry_run=True).listed
    assert [(file.how, file.why) for file in listed] == [("copy", "only large files of this user are linked")]
    before = facts(folder)
    machine.adopt(folder, way="link")
    machine.add(SINGLE_REPO)
    assert facts(folder) == before and machine.contents(SINGLE_REPO) == SINGLE_FILES


@pytest.mark.skipif(NO_OTHER_USER is not None, reason=str(NO_OTHER_USER))
def test_a_place_of_another_user_is_no_word_on_a_repo_unless_the_user_names_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can make a commit with any files and call its repo as he likes: a proof does not name the repo."""
    folder = places.git_clone(machine.shelved())
    os.chown(folder, other_user.NOBODY, other_user.NOBODY)
    monkeypatch.setattr(adopting, "can_clone", lambda source, folder: True)
    report = machine.adopt(folder, is_named=False)
    assert report.installed == () and "another user's" in report.waiting[0].reason and report.files == 4
    assert machine.contents() == {}
    assert len(machine.adopt(folder).installed) == 1


@pytest.mark.skipif(NO_OTHER_USER is not None, reason=str(NO_OTHER_USER))
def test_a_place_that_may_not_be_read_is_named_with_owner_and_mode() -> None:
    from hfpeer.adoption.walking import walk

    with other_user.common_folder() as common:
        closed = common / "closed"
        closed.mkdir(0o700)
        put(common / "open/model.gguf", b"x").chmod(0o600)

        def look() -> str:
            walked = walk(common)
            hasher = hashing.Hasher(lambda hashed: None, lambda *facts: None)
            hasher.run([(str(common / path), walked.listing[path].size_bytes) for path in walked.listing])
            return "\n".join(f"{one.path} {one.reason} {one.hint}" for one in [*walked.troubles, *hasher.troubles])

        said = other_user.forked_as_nobody(look)
        assert f"{closed} this user cannot read it (drwx------, owner root)" in said
        assert f"{common}/open/model.gguf this user cannot read it (-rw-------, owner root)" in said
        assert "chmod" in said and "sudo" not in said


@pytest.mark.skipif(NO_COW is not None, reason=str(NO_COW))
def test_where_files_share_blocks_an_adoption_takes_no_space(hub: HubSimulator, tmp_path: Path) -> None:
    with contextlib.ExitStack() as mounted:
        try:
            volume = mounted.enter_context(cow.cow_volume(tmp_path))
        except cow.NoVolume as error:
            pytest.skip(str(error))
        machine = Machine(hub, volume / "machine")
        machine.folder.mkdir()
        folder = places.git_clone(machine.shelved())
        large = put(folder / "../other/model.bin", noise(20_000_000, "shared blocks")).resolve()
        repo = RepoId.parse("acme/large")
        hub.put_repo("model", repo.full_name, {"model.bin": Lfs(large.read_bytes())})
        os.sync()
        before = os.statvfs(volume).f_bavail
        listed = machine.adopt(folder, large, is_named=False, is_dry_run=True).listed
        assert {file.how for file in listed} == {"clone"}
        report = machine.adopt(folder, large, is_named=False)
        assert [one.files for one in report.installed] == [3] and machine.contents() == FILES
        hub.clear()
        machine.add(repo)
        os.sync()
        taken = (before - os.statvfs(volume).f_bavail) * os.statvfs(volume).f_frsize
        assert machine.file_bytes_sent() == 0 and taken < 10_000_000
        large.write_bytes(b"edited afterwards")
        assert len(machine.contents(repo)["model.bin"]) == 20_000_000


@pytest.mark.skipif(NO_COW is not None, reason=str(NO_COW))
def test_what_lies_in_the_cache_too_comes_to_share_its_blocks(hub: HubSimulator, tmp_path: Path) -> None:
    with contextlib.ExitStack() as mounted:
        try:
            volume = mounted.enter_context(cow.cow_volume(tmp_path))
        except cow.NoVolume as error:
            pytest.skip(str(error))
        machine = Machine(hub, volume / "machine")
        machine.folder.mkdir()
        repo, body = RepoId.parse("acme/large"), noise(8_000_000, "twice")
        hub.put_repo("model", repo.full_name, {"model.bin": Lfs(body)})
        machine.add(repo)
        other = put(machine.folder / "other/model.bin", body)
        wrong = put(machine.folder / "other/wrong.bin", b"X" + body[1:])
        other.chmod(0o444)
        blob = next((machine.cache / repo.folder / "blobs").iterdir())
        os.sync()
        before, stamps = os.statvfs(volume).f_bavail, [path.stat() for path in (other, wrong, blob)]
        report = machine.adopt(machine.folder / "other")
        assert report.shared_bytes == len(body)
        os.sync()
        freed = (os.statvfs(volume).f_bavail - before) * os.statvfs(volume).f_frsize
        assert freed > 6_000_000
        for path, facts in zip((other, wrong, blob), stamps, strict=True):
            now = path.stat()
            assert (now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_mode) == (
                facts.st_mtime_ns,
                facts.st_ctime_ns,
                facts.st_ino,
                facts.st_mode,
            )
        assert machine.adopt(machine.folder / "other").shared_bytes == 0
        other.chmod(0o644)
        other.write_bytes(b"edited afterwards")
        assert blob.read_bytes() == body


# Commands


def test_a_place_that_is_not_there_or_is_the_cache_itself_is_an_error(machine: Machine) -> None:
    with pytest.raises(NotFound, match="no file or folder"):
        machine.adopt(machine.folder / "none")
    machine.cache.mkdir()
    with pytest.raises(InvalidName, match="cache of this node"):
        machine.adopt(machine.cache)
    (machine.folder / "loop").symlink_to(machine.folder / "loop")
    with pytest.raises(NotFound):
        machine.adopt(machine.folder / "loop")


def test_links_into_the_own_cache_are_here_already(machine: Machine) -> None:
    machine.add()
    link = machine.folder / "lms/acme/tiny/model.safetensors"
    link.parent.mkdir(parents=True)
    link.symlink_to(layout.blob_path(machine.cache, REPO, Digest("sha256", sha256(FILES["onnx/model.safetensors"]))))
    report = machine.adopt(machine.folder / "lms", tool="LM Studio")
    assert (report.files, report.here_files) == (0, 1)


def test_files_that_are_gone_are_forgotten_by_the_next_adoption(machine: Machine) -> None:
    folder = places.plain_folder(machine.shelved())
    put(machine.folder / "place beside/x.gguf", b"beside")
    machine.adopt(folder, machine.folder / "place beside")
    (folder / "some/where/config.json").unlink()
    assert machine.adopt(folder).files == 2

    async def known(node: Node) -> list[str]:
        return sorted({row.path for row in node.store.adopted.table.all()})

    assert [Path(path).name for path in machine.run(known)] == ["x.gguf", "model.safetensors", "tokenizer.json"]


def test_spoiled_places_raise_nothing(machine: Machine) -> None:
    top = machine.folder / "place"
    builders = [places.hub_cache, places.ollama, places.local_dir, places.hfd, places.llama_cpp, places.a1111]
    for number, build in enumerate([*builders, places.git_clone]):
        shelved = machine.shelved()
        build(dataclasses.replace(shelved, folder=top / str(number)))
    know(machine, machine.shelved())
    machine.go_offline()
    dice = random.Random(3)
    small = [
        path for path in top.rglob("*") if path.is_file() and not path.is_symlink() and path.stat().st_size < 5_000
    ]
    for _ in range(12):
        for path in dice.sample(small, 8):
            path.chmod(0o644)
            body = bytearray(path.read_bytes())
            if body and dice.random() < 0.6:
                body[dice.randrange(len(body))] = dice.randrange(256)
            else:
                body = bytearray(dice.choice([b"", b"[", b"{}", b"\xff" * 50, b"[" * 5000, b'{"hashes": 5}']))
            path.write_bytes(body)
        machine.adopt(top)
        assert all(FILES[path] == body for path, body in machine.contents().items())


def test_what_is_forgotten_is_fetched_again(machine: Machine) -> None:
    folder = places.plain_folder(machine.shelved())
    machine.adopt(folder)
    forgotten = machine.run(lambda node: node.forget_adopted((str(folder),)))
    assert (forgotten.files, forgotten.size_bytes) == (3, sum(map(len, FILES.values())))
    machine.hub.clear()
    machine.add()
    assert machine.file_bytes_sent() > 1_000_000


def forked(work: Callable[[], object]) -> int:
    """Runs `work` in a fork of this process. Returns its process id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def kill_at(call: int) -> None:
    """Kills this process at so many calls that change the disk."""
    calls = itertools.count(1)

    def wrapped(really: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **options: Any) -> Any:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return really(*arguments, **options)

        return change

    for name in ("fsync", "link", "mkdir", "replace", "symlink", "unlink"):
        setattr(os, name, wrapped(getattr(os, name)))


def test_a_kill_at_any_moment_loses_nothing(machine: Machine) -> None:
    folder = places.git_clone(machine.shelved())
    for number in range(5):
        put(folder / f"more/{number}.bin", noise(2_000, f"more-{number}"))
    before = facts(machine.folder / "place")
    machine.go_offline()

    def work(call: int) -> None:
        kill_at(call)
        machine.adopt(folder)

    killed = 0
    for call in (1, 2, 4, 7, 11, 16, 22, 29):
        _, status = os.waitpid(forked(functools.partial(work, call)), 0)
        killed += os.WIFSIGNALED(status)
        assert facts(machine.folder / "place") == before
        assert all(FILES[path] == body for path, body in machine.contents().items())
    assert killed > 3
    report = machine.adopt(folder)
    assert report.files + report.here_files >= 8 and machine.contents() == FILES
    assert report.troubles == ()


def test_two_at_once_do_the_same(machine: Machine) -> None:
    folder = places.git_clone(machine.shelved())
    machine.go_offline()
    children = [forked(lambda: machine.adopt(folder)) for _ in range(2)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    assert machine.contents() == FILES
    assert machine.adopt(folder).hashed_files == 0


def test_a_node_without_an_adopted_file_asks_its_catalog_once(machine: Machine) -> None:
    async def count(node: Node) -> Sequence[object]:
        return [node.store.adopted.table.with_digests([Digest("sha256", "a" * 64)]) for _ in range(3)]

    assert machine.run(count) == [{}, {}, {}]
