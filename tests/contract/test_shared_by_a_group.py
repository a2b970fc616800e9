"""One cache, two users of a group: each gets right files, or one sentence with the command that helps."""

from __future__ import annotations

import grp  # noqa: F401  loaded for the forks that are other users'
import os
import pwd  # noqa: F401
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes import other_user
from fakes.group import ANN, BOB, GROUP, forked_as, shared_folder
from fakes.hub_cache import REPO, download, proved_manifest_of
from hfpeer.cache.disk.access import closed_repos
from hfpeer.cache.snapshots import read_tree
from hfpeer.cache.store import Store
from hfpeer.cache.verify import verification  # noqa: F401
from hfpeer.names import FilePath, Revision

NO_OTHER_USER = other_user.why_not()
pytestmark = pytest.mark.skipif(NO_OTHER_USER is not None, reason=NO_OTHER_USER or "")

BODIES = {"config.json": b"{}", "sub/notes.txt": b"notes", "weights.bin": bytes(range(256)) * 8000}
NEXT = {**BODIES, "config.json": b"{1}", "more.bin": b"more" * 3000}


@pytest.fixture(params=[False, True], ids=["mode", "acl"])
def cache(request: pytest.FixtureRequest) -> Iterator[Path]:
    with shared_folder(has_default_acl=request.param) as place:
        yield place


@pytest.fixture
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Path]]:
    with other_user.common_folder() as common:
        found = {}
        for uid in (ANN, BOB):
            found[uid] = common / str(uid)
            found[uid].mkdir(mode=0o700)
            os.chown(found[uid], uid, uid)
        yield found


def add(cache: Path, home: Path, bodies: dict[str, bytes]) -> str:
    """What an add does once the bytes came: large files by their partials, small ones together, links, list, ref."""
    store = Store(cache, home)
    manifest = proved_manifest_of(bodies)
    store.save_manifest(manifest)
    store.scan()
    for file in store.inventory.missing(manifest.files):
        body = bodies[file.path]
        if not file.is_lfs:
            store.ingester.ingest_files(REPO, manifest.commit, [file], {file.digest: body})
            continue
        partial = store.open_partial(file.digest, file.size_bytes)
        partial.write(0, memoryview(body))
        partial.record(0, len(body), "peer")
        store.ingester.ingest_blob(partial, REPO)
    snapshot = store.ingester.install(REPO, manifest.commit, manifest.files)
    store.refs.write(REPO, Revision("main"), manifest.commit, "hub")
    found = {str(path.relative_to(snapshot)): path.read_bytes() for path in snapshot.rglob("*") if path.is_file()}
    tree = read_tree(cache / REPO.folder / "trees" / f"{manifest.commit}.json")
    store.close()
    return "right" if found == bodies and tree is not None else f"wrong: {sorted(found)} {tree is not None}"


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077], ids=["022", "002", "077"])
def test_what_one_of_us_fetched_the_other_continues_replaces_and_removes(
    cache: Path, homes: dict[int, Path], umask: int
) -> None:
    assert forked_as(ANN, umask, lambda: add(cache, homes[ANN], BODIES)) == "right"
    for folder in [cache, *(path for path in cache.rglob("*") if path.is_dir() and not path.is_symlink())]:
        facts = folder.stat()
        assert (facts.st_gid, facts.st_mode & 0o2070) == (GROUP, 0o2070), folder
    files = [path for path in (cache / REPO.folder).rglob("*") if path.is_file() and not path.is_symlink()]
    assert files and all(path.stat().st_mode & 0o040 for path in files), "the group reads them, whatever the umask"
    assert forked_as(BOB, umask, lambda: add(cache, homes[BOB], NEXT)) == "right"
    assert forked_as(ANN, umask, lambda: add(cache, homes[ANN], {**NEXT, "last.json": b"[]"})) == "right"

    def damage_and_mend() -> str:
        blob = cache / REPO.folder / "blobs" / proved_manifest_of(BODIES).files[-1].digest.hex
        blob.unlink()
        return add(cache, homes[BOB], BODIES)

    assert forked_as(BOB, umask, damage_and_mend) == "right"

    def verify_and_remove() -> str:
        store = Store(cache, homes[BOB])
        kinds = {one.kind for one in store.verify().findings if one.severity != "noted"}
        return f"{sorted(kinds)} {len(store.remove(REPO).commits)}"

    assert forked_as(BOB, umask, verify_and_remove) == "[] 3"


@pytest.mark.slow
@pytest.mark.parametrize("umask", [0o022, 0o002], ids=["022", "002"])
def test_a_repo_that_a_hub_client_closed_to_the_group_is_named_with_the_command(
    cache: Path, homes: dict[int, Path], umask: int
) -> None:
    """The Hub client makes folders by the umask alone."""

    def fetch() -> str:
        download(cache, BODIES, proved_manifest_of(BODIES).commit)
        (cache / ".locks" / REPO.folder).mkdir(parents=True)
        return "fetched"

    assert forked_as(ANN, umask, fetch) == "fetched"
    said = forked_as(BOB, umask, lambda: add(cache, homes[BOB], NEXT))
    if umask == 0o002 or "system.posix_acl_default" in os.listxattr(cache):
        assert said == "right"
        return
    kind, message, hint = said.split("|")
    assert kind == "BrokenCache" and str(cache) in message
    command = hint.partition(": ")[2].partition(";")[0]
    assert command == f"find {cache} -user {ANN} ! -type l -exec chmod g+rwX {{}} +"
    assert forked_as(ANN, umask, lambda: _run(command)) == "0"
    assert forked_as(BOB, umask, lambda: add(cache, homes[BOB], NEXT)) == "right"


@pytest.mark.slow
def test_a_repo_that_is_closed_to_the_others_is_passed_over_with_a_word(cache: Path, homes: dict[int, Path]) -> None:
    assert forked_as(ANN, 0o022, lambda: add(cache, homes[ANN], BODIES)) == "right"
    hidden = cache / "models--ann--private"
    (hidden / "snapshots").mkdir(parents=True)
    os.chown(hidden, ANN, GROUP)
    hidden.chmod(0o700)

    def look() -> str:
        store = Store(cache, homes[BOB])
        store.scan()
        report = store.verify()
        faults = [f"{one.repo} {one.kind} {one.path!r}" for one in report.findings if one.severity != "noted"]
        closed = [one for one in report.findings if one.kind == "closed"]
        found = [one.repo for one in store.revisions.all()]
        return f"{found} {report.exit_code} {faults} {len(closed)} {closed[0].meaning}|{store.passed_over}"

    said, _, passed_over = forked_as(BOB, 0o022, look).partition("|")
    assert said == f"['{REPO.full_name}'] 0 [] 1 this user cannot read it (drwx------, owner {ANN})"
    assert f"{hidden} is passed over: this user cannot read it (drwx------, owner {ANN})." in passed_over
    assert forked_as(BOB, 0o022, lambda: str(closed_repos(cache))).startswith(f"[(PosixPath('{hidden}')")
    assert forked_as(BOB, 0o022, lambda: add(cache, homes[BOB], NEXT)) == "right"

    def own() -> str:
        findings = Store(cache, homes[ANN]).verify().findings
        return str([(one.kind, one.severity) for one in findings if one.repo == "ann/private"])

    hidden.chmod(0o000)
    assert forked_as(ANN, 0o022, own) == "[('unreadable', 'broken')]"


def test_closed_locks_stop_no_look_at_the_cache(cache: Path, homes: dict[int, Path]) -> None:
    forked_as(ANN, 0o022, lambda: add(cache, homes[ANN], BODIES))
    (cache / ".locks").chmod(0o700)

    def look() -> str:
        store = Store(cache, homes[BOB])
        store.scan()
        report = store.verify()
        return f"{len(report.revisions)} {store.cleaner.collect_catalog(is_dry_run=True)}"

    assert forked_as(BOB, 0o022, look) == "1 None"


@pytest.mark.slow
def test_a_closed_folder_is_named_by_its_path_with_a_command_for_no_more_than_the_cache(
    cache: Path, homes: dict[int, Path]
) -> None:
    private = homes[ANN] / "hub"
    assert forked_as(ANN, 0o022, lambda: add(private, homes[ANN], BODIES)) == "right"
    homes[ANN].chmod(0o755)
    kind, message, hint = forked_as(BOB, 0o022, lambda: add(private, homes[BOB], NEXT)).split("|")
    assert kind == "BrokenCache" and str(private) in message
    assert f"setfacl -R -m u:{BOB}:rwX -m d:u:{BOB}:rwX {private}; or" in hint

    assert forked_as(ANN, 0o022, lambda: add(cache, homes[ANN], BODIES)) == "right"
    refs = cache / REPO.folder / "refs"
    refs.chmod(0o500)
    kind, message, hint = forked_as(BOB, 0o022, lambda: add(cache, homes[BOB], NEXT)).split("|")
    assert str(refs / "main") in message and "/proc" not in f"{message} {hint}"
    assert str(cache) in hint and str(ANN) in hint


@pytest.mark.slow
def test_a_blob_that_only_its_owner_can_read_is_not_shared_and_is_fetched_anew(
    cache: Path, homes: dict[int, Path]
) -> None:
    assert forked_as(ANN, 0o022, lambda: add(cache, homes[ANN], BODIES)) == "right"
    digest = proved_manifest_of(BODIES).by_path[FilePath("weights.bin")].digest
    blob = cache / REPO.folder / "blobs" / digest.hex
    blob.chmod(0o600)

    def share() -> str:
        store = Store(cache, homes[BOB])
        store.scan()
        store.set_share(REPO, True)
        wrong = store.inventory.verify_all(store.inventory.unverified(100))
        return f"{wrong} {store.shared.blob(digest)} {store.inventory.find(digest)} {store.inventory.unverified(100)}"

    assert forked_as(BOB, 0o022, share) == "[] None None []"
    blob.chmod(0o644)
    assert "BlobFile" in forked_as(BOB, 0o022, share), "as soon as it can be read"
    blob.chmod(0o600)
    assert forked_as(BOB, 0o022, lambda: add(cache, homes[BOB], BODIES)) == "right"
    assert forked_as(ANN, 0o022, lambda: add(cache, homes[ANN], BODIES)) == "right"


def _run(command: str) -> str:
    return str(subprocess.run(shlex.split(command), check=False, capture_output=True).returncode)
