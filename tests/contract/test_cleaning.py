"""`hfpeer cache rm`, `prune` and `gc` over real caches of the Hub client, without a daemon: what goes, what stays."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from huggingface_hub import scan_cache_dir, snapshot_download
from huggingface_hub.utils import _shared_blobs

from fakes.hub.zoo import noise
from fakes.hub_cache import git_sha1_of, manifest_of, sha256_of
from fakes.old_cache import ADAPTER, PARQUET, ROWS, TINY, WEIGHTS, Downloaded, age, download_all
from fakes.shared_store import share
from hfpeer.cache.cleaning.facts import CleanReport, PruneRules
from hfpeer.cache.cleaning.planning.requests import CleanRequest, parse_target
from hfpeer.cache.store import Store
from hfpeer.config.settings import read_settings
from hfpeer.control.operations import Operations
from hfpeer.errors import InvalidName, NotFound
from hfpeer.names import Commit
from hfpeer.node.session import open_node


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Downloaded:
    """Not to be changed."""
    return download_all(tmp_path_factory.mktemp("downloaded") / "hub")


@pytest.fixture
def cache(downloaded: Downloaded, tmp_path: Path) -> Path:
    shutil.copytree(downloaded.cache, tmp_path / "hub", symlinks=True)
    return tmp_path / "hub"


@pytest.fixture
def environ(cache: Path, tmp_path: Path) -> dict[str, str]:
    return {"HFPEER_HOME": str(tmp_path / "home"), "HF_HUB_CACHE": str(cache), "HFPEER_UPSTREAMS": ""}


@asynccontextmanager
async def node_of(environ: dict[str, str]) -> AsyncIterator[Operations]:
    async with open_node(read_settings(environ)) as node:
        yield node


async def clean(environ: dict[str, str], *words: str, **options: object) -> CleanReport:
    targets = tuple(map(parse_target, words))
    async with node_of(environ) as node:
        return await node.clean(CleanRequest(targets, **options))  # type: ignore[arg-type]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time at which a plan is made: a file's ctime cannot be set."""

    def move(days: float) -> None:
        now = time.time
        monkeypatch.setattr("hfpeer.cache.cleaning.cleaner.time.time", lambda: now() + days * 86400)

    return move


def kinds(report: CleanReport) -> dict[str, int]:
    return Counter(step.kind for step in report.steps)


def picture(cache: Path) -> dict[Path, tuple[int, int, int]]:
    found = {path: path.lstat() for path in everything(cache)}
    return {path: (facts.st_mode, facts.st_size, facts.st_mtime_ns) for path, facts in found.items()}


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def reasons(report: CleanReport) -> list[str]:
    return sorted(one.reason for one in report.kept)


def loads(cache: Path, commit: str) -> bool:
    """Whether the Hub client loads a revision of the model offline."""
    try:
        snapshot_download(str(TINY), revision=commit, cache_dir=cache, local_files_only=True)
    except Exception:  # noqa: BLE001
        return False
    return True


# rm


async def test_a_dry_run_tells_what_the_removal_then_does(
    environ: dict[str, str], cache: Path, downloaded: Downloaded
) -> None:
    before = picture(cache)
    told = await clean(environ, f"acme/tiny@{downloaded.old}", is_dry_run=True)
    assert picture(cache) == before
    done = await clean(environ, f"acme/tiny@{downloaded.old}")
    assert (told.freed_bytes, done.freed_bytes) == (len(ADAPTER) + 2,) * 2
    assert [step.id for step in told.steps] == [step.id for step in done.steps]
    assert loads(cache, downloaded.new) and not loads(cache, downloaded.old)
    assert scan_cache_dir(cache).warnings == []
    assert "No peer is known" in told.lan or told.lan == ""


async def test_several_words_go_at_once_and_one_that_names_nothing_is_told(
    environ: dict[str, str], cache: Path
) -> None:
    report = await clean(environ, "acme/tiny", "datasets/acme/rows", "acme/other")
    assert (kinds(report), report.missing) == ({"revision": 3}, ("acme/other",))
    assert not (cache / TINY.folder).exists() and not (cache / ROWS.folder).exists()
    with pytest.raises(NotFound):
        await clean(environ, "acme/tiny")


async def test_a_commit_by_its_first_digits_and_a_file_by_its_uri(
    environ: dict[str, str], cache: Path, downloaded: Downloaded
) -> None:
    report = await clean(environ, "hf://acme/tiny/model.safetensors")
    assert (kinds(report), report.freed_bytes) == ({"file": 2}, len(WEIGHTS))
    await clean(environ, downloaded.old[:12])
    assert [path.name for path in (cache / TINY.folder / "snapshots").iterdir()] == [downloaded.new]


async def test_digits_that_mean_several_things_remove_nothing(environ: dict[str, str], cache: Path) -> None:
    for name in ("a" * 63 + "1", "a" * 63 + "2"):
        (cache / TINY.folder / "blobs" / name).write_bytes(b"x")
    with pytest.raises(InvalidName, match="several things"):
        await clean(environ, "aaaaaaaa")
    assert kinds(await clean(environ, "sha256:" + "a" * 63 + "1")) == {"orphan": 1}


async def test_a_repo_takes_its_half_fetched_blobs_along_and_a_blob_goes_by_itself(
    environ: dict[str, str], cache: Path, tmp_path: Path
) -> None:
    bodies = {"a.bin": noise(2_000_000, "a"), "b.bin": noise(2_000_000, "b")}
    store = Store(cache, tmp_path / "home")
    store.save_manifest(manifest_of(bodies, Commit("7" * 40), TINY))
    for body in bodies.values():
        store.open_partial(sha256_of(body), len(body)).close()
    store.close()
    partials = cache / ".locks" / ".hfpeer"
    report = await clean(environ, sha256_of(bodies["a.bin"]).hex[:10])
    assert kinds(report) == {"partial": 1} and report.freed_bytes >= 2_000_000
    assert [path.name for path in partials.iterdir()] == [sha256_of(bodies["b.bin"]).hex]
    assert kinds(await clean(environ, "acme/tiny")) == {"revision": 2, "partial": 1}
    assert not partials.exists()


async def test_only_what_was_shown_goes(environ: dict[str, str], cache: Path, downloaded: Downloaded) -> None:
    told = await clean(environ, "acme/tiny", is_dry_run=True)
    ids = tuple(step.id for step in told.steps if downloaded.old in step.id)
    report = await clean(environ, "acme/tiny", only=ids)
    assert kinds(report) == {"revision": 1}
    assert loads(cache, downloaded.new)


async def test_a_download_that_a_tool_is_writing_stays_also_when_its_repo_goes(
    environ: dict[str, str], cache: Path
) -> None:
    unfinished = cache / TINY.folder / "blobs" / f"{'e' * 64}.downloadInProgress"
    with unfinished.open("wb") as file:
        file.write(b"x" * 5000)
        report = await clean(environ, "acme/tiny")
        assert unfinished.exists() and "locked" in reasons(report)
    assert kinds(await clean(environ, "acme/tiny")) == {"unfinished": 1}
    assert not (cache / TINY.folder).exists()


async def test_a_removal_frees_what_lies_in_the_shared_store(
    environ: dict[str, str], cache: Path, downloaded: Downloaded
) -> None:
    entry = share(cache / TINY.folder / "blobs" / sha256_of(ADAPTER).hex, cache)
    both = share(cache / TINY.folder / "blobs" / sha256_of(WEIGHTS).hex, cache)
    report = await clean(environ, downloaded.old)
    assert report.freed_bytes == len(ADAPTER) + 2
    assert not entry.exists() and both.exists() and loads(cache, downloaded.new)


# prune


async def test_prune_takes_a_revision_without_a_ref_once_it_is_old(
    environ: dict[str, str], cache: Path, downloaded: Downloaded, later: Callable[[float], None]
) -> None:
    assert (await clean(environ, prune=PruneRules())).steps == (), "it was used today"
    later(31)
    report = await clean(environ, prune=PruneRules())
    assert [step.id for step in report.steps] == [f"{TINY.folder}@{downloaded.old}"]
    assert report.steps[0].why == "no ref"
    assert loads(cache, downloaded.new)
    report = await clean(environ, prune=PruneRules(takes_refs=True, keep=1))
    assert kinds(report) == {"lock": 2}, "one of each repo stays"
    assert kinds(await clean(environ, prune=PruneRules(takes_refs=True)))["revision"] == 2


async def test_what_another_tool_read_lately_counts_as_used(
    environ: dict[str, str], cache: Path, downloaded: Downloaded
) -> None:
    age(cache, 60)
    async with node_of(environ) as node:
        used = {one.revision.commit: one.used_at for one in (await node.cache_report()).revisions}
    assert all(time.time() - at > 59 * 86400 for at in used.values())
    blob = cache / ROWS.folder / "snapshots" / downloaded.rows / "README.md"
    os.utime(blob, (time.time(), blob.stat().st_mtime))
    report = await clean(environ, prune=PruneRules(takes_refs=True), is_dry_run=True)
    assert {step.id.partition("@")[0] for step in report.steps if step.kind == "revision"} == {TINY.folder}


async def test_prune_takes_old_downloads_of_other_tools_but_none_that_is_under_way(
    environ: dict[str, str], cache: Path, later: Callable[[float], None]
) -> None:
    blobs = cache / TINY.folder / "blobs"
    names = [f"{letter * 64}.incomplete" for letter in "abc"]
    for name in names:
        (blobs / name).write_bytes(b"x" * 5000)
    later(31)
    lock = cache / ".locks" / TINY.folder / f"{'a' * 64}.lock"
    lock.touch()
    with lock.open("w") as held, (blobs / names[1]).open("ab"):
        fcntl.flock(held, fcntl.LOCK_EX)
        report = await clean(environ, prune=PruneRules(900 * 86400.0))
        assert "unfinished" not in kinds(report)
        report = await clean(environ, prune=PruneRules())
        assert kinds(report)["unfinished"] == 1
        assert reasons(report) == ["locked", "locked"]
    assert sorted(path.name for path in blobs.iterdir() if ".incomplete" in path.name) == names[:2]


# gc


async def test_garbage_goes_and_everything_else_stays(
    environ: dict[str, str], cache: Path, tmp_path: Path, downloaded: Downloaded, later: Callable[[float], None]
) -> None:
    folder, nines = cache / TINY.folder, "9" * 40
    stray = b"stray" * 1000
    foreign = [cache / "vllm.lock", folder / "notes.txt", folder / "blobs" / "README"]
    (folder / "blobs" / git_sha1_of(stray).hex).write_bytes(stray)
    (folder / ".12345678.hfpeer").write_text("x")
    (folder / "blobs" / f".{'a' * 64}.1a2b3c4d.shared").symlink_to("../../blobs/aa")
    (folder / "refs" / "gone").write_text(nines)
    (folder / ".no_exist" / nines).mkdir(parents=True)
    (folder / ".no_exist" / nines / "adapter.json").touch()
    (cache / ".locks" / TINY.folder / f"{'f' * 64}.lock").touch()
    (cache / "models--acme--begun" / "blobs").mkdir(parents=True)
    (cache / "models--acme--begun" / "snapshots").mkdir()
    for path in foreign:
        path.write_text("mine")
    store = Store(cache, tmp_path / "home")
    store.open_partial(sha256_of(WEIGHTS), len(WEIGHTS)).close()
    store.close()
    assert (await clean(environ, collects_garbage=True)).steps == (), "all of it is young"
    later(2)
    report = await clean(environ, collects_garbage=True)
    assert kinds(report) == {
        "orphan": 1,
        "temporary": 2,
        "lock": 1,
        "empty": 2,
        "partial": 1,
    }, "refs and lists stay while there are blobs that they may explain"
    report = await clean(environ, collects_garbage=True)
    assert kinds(report) == {"dangling_ref": 1, "stale_list": 1}, "no lock is made for an orphan"
    assert (await clean(environ, collects_garbage=True)).steps == ()
    assert all(path.read_text() == "mine" for path in foreign)
    assert loads(cache, downloaded.old) and loads(cache, downloaded.new)
    assert not (cache / "models--acme--begun").exists()
    assert not (folder / ".no_exist").exists()


async def test_a_lock_that_a_process_holds_is_no_garbage(
    environ: dict[str, str], cache: Path, later: Callable[[float], None]
) -> None:
    lock = cache / ".locks" / TINY.folder / f"{'f' * 64}.lock"
    lock.touch()
    later(2)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        report = await clean(environ, collects_garbage=True)
        assert (report.steps, reasons(report)) == ((), ["locked"])
    assert kinds(await clean(environ, collects_garbage=True)) == {"lock": 1}


async def test_blobs_of_a_cache_that_lost_its_links_are_no_garbage(
    environ: dict[str, str], cache: Path, later: Callable[[float], None]
) -> None:
    """`rsync -r` leaves the links behind. All that is needed to mend it stays."""
    for path in (cache / TINY.folder / "snapshots").rglob("*"):
        if path.is_symlink():
            path.unlink()
    before = everything(cache / TINY.folder)
    later(400)
    assert {step.kind for step in (await clean(environ, collects_garbage=True)).steps} <= {"lock"}
    assert "orphan" not in kinds(await clean(environ, prune=PruneRules(0, takes_refs=True)))
    assert before <= everything(cache / TINY.folder)


async def test_the_rest_of_an_interrupted_add_is_no_garbage_but_old_after_a_while(
    environ: dict[str, str], cache: Path, tmp_path: Path, later: Callable[[float], None]
) -> None:
    body = b"first" * 1000
    store = Store(cache, tmp_path / "home")
    store.save_manifest(manifest_of({"first.txt": body}, Commit("7" * 40), TINY))
    store.ingester.ingest_many(TINY, {git_sha1_of(body): body})
    store.close()
    later(20)
    assert (await clean(environ, collects_garbage=True)).steps == ()
    later(40)
    assert kinds(await clean(environ, prune=PruneRules()))["orphan"] == 1


async def test_entries_of_the_shared_store_go_by_the_rules_of_the_hub_client(
    environ: dict[str, str], cache: Path, later: Callable[[float], None]
) -> None:
    unused = share(cache / TINY.folder / "blobs" / sha256_of(ADAPTER).hex, cache)
    other = share(cache / ROWS.folder / "blobs" / sha256_of(PARQUET).hex, cache)
    shutil.rmtree(cache / TINY.folder)
    shutil.rmtree(cache / ".locks" / TINY.folder)
    later(2)
    with _shared_blobs._shared_blob_lock(unused):
        report = await clean(environ, collects_garbage=True)
        assert (report.steps, reasons(report)) == ((), ["locked"])
    assert kinds(await clean(environ, collects_garbage=True)) == {"shared_blob": 1}
    assert not unused.exists() and other.exists()


# Kills


def killed_removal(cache: Path, home: Path, steps: int, commit: str) -> bool:
    """Removes a revision in a process that is killed before that many names are gone. Returns whether it was."""
    child = os.fork()
    if child == 0:
        left = steps

        def count(event: str, arguments: object) -> None:
            nonlocal left
            if event in ("os.remove", "os.rmdir"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            store = Store(cache, home)
            store.scan()
            sys.addaudithook(count)
            store.remove(TINY, Commit(commit))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.slow
def test_a_removal_that_is_killed_anywhere_leaves_nothing_that_looks_whole_and_goes_on(
    environ: dict[str, str], downloaded: Downloaded, tmp_path: Path
) -> None:
    cache, home, steps, was_killed = Path(environ["HF_HUB_CACHE"]), tmp_path / "home", 0, True
    while was_killed:
        shutil.rmtree(cache)
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(downloaded.cache, cache, symlinks=True)
        was_killed = killed_removal(cache, home, steps, downloaded.old)
        assert loads(cache, downloaded.new)
        assert scan_cache_dir(cache).warnings == []
        with suppress(NotFound):
            assert reasons(asyncio.run(clean(environ, f"acme/tiny@{downloaded.old}"))) == []
        blobs = {path.name for path in (cache / TINY.folder / "blobs").iterdir()}
        assert sha256_of(ADAPTER).hex not in blobs, f"after {steps} steps"
        assert not loads(cache, downloaded.old) and loads(cache, downloaded.new)
        steps += 1
    assert steps > 5
