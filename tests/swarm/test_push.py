"""`hfpeer push` to hosts of each kind, over a real sshd on loopback."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from fakes.archives import DATA, FILES, MODEL, ROWS, fill
from fakes.hub.zoo import noise
from fakes.machine import HFPEER, Machine, Machines, Ran
from fakes.prepared import TEXTS, needs_arrow, place_of, write_arrow_set
from fakes.sshd import FarHost, far_host
from fakes.waiting import wait_until
from hfpeer.cache.partial.files import partial_bytes
from hfpeer.cache.store import Store
from hfpeer.names import RepoId, Visibility
from hfpeer.trust.visibility import Fact

BOTH = ("acme/tiny", "datasets/acme/rows", "far")
NO_FORWARDING = ("AllowTcpForwarding no", "AllowStreamLocalForwarding no")
LARGE = RepoId.parse("acme/large")
LARGE_BODY = noise(48_000_000, "large")
SECRET = RepoId.parse("acme/secret")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def here(machines: Machines) -> Machine:
    """A machine with two models and a dataset, without a daemon."""
    machine = machines.make("here")
    store = Store(machine.cache, machine.home)
    fill(store, MODEL, FILES)
    fill(store, DATA, ROWS)
    fill(store, LARGE, {"config.json": b"{}", "large.bin": LARGE_BODY})
    commit = fill(store, SECRET, {"secret.bin": LARGE_BODY[:1_500_000]}).commit
    store.learn(SECRET, [Fact(commit, "https://hub.example", True, Visibility.PRIVATE, 1e9)], ["https://hub.example"])
    store.close()
    return machine


@pytest.fixture
def settings() -> tuple[str, ...]:
    """Further lines of the configuration of sshd."""
    return ()


@pytest.fixture
def far(tmp_path_factory: pytest.TempPathFactory, settings: tuple[str, ...]) -> Iterator[FarHost]:
    # A name of its own: the path of a socket there has at most 107 bytes.
    with far_host(tmp_path_factory.mktemp("far") / "host", settings) as far:
        yield far


def be(far: FarHost, kind: str) -> None:
    """Gives the far end the programs of a kind of host."""
    far.set_programs("tar", "sha256sum", python=sys.executable if kind == "python" else None, hfpeer=kind == "hfpeer")


def push(here: Machine, far: FarHost, *words: str) -> Ran:
    return here.hfpeer("push", *words, "--ssh", far.ssh)


def check(cache: Path, repos: dict[RepoId, dict[str, bytes]]) -> None:
    """The Hub client loads all of these repos without a network."""
    for repo, bodies in repos.items():
        found = snapshot_download(repo.full_name, repo_type=repo.type.value, cache_dir=cache, local_files_only=True)
        snapshot = Path(found)
        assert {str(p.relative_to(snapshot)): p.read_bytes() for p in snapshot.rglob("*") if p.is_file()} == bodies


KINDS = ("hfpeer", "python", "tar")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_host_gets_all_and_the_second_push_sends_nothing(here: Machine, far: FarHost, kind: str) -> None:
    be(far, kind)
    ran = push(here, far, *BOTH)
    assert ran.code == 0, ran.err
    report = ran.document
    assert (report["way"], report["cache"], report["is_verified"]) == (kind, str(far.cache), True)
    assert report["notes"] == []
    assert [one["refs"] for one in report["revisions"]] == [["main"], ["main"]]
    check(far.cache, {MODEL: FILES, DATA: ROWS})
    again = push(here, far, *BOTH).document
    assert (again["sent_blobs"], again["sent_bytes"]) == (0, 0)
    assert again["present_bytes"] == report["sent_bytes"]


@pytest.mark.parametrize("settings", [NO_FORWARDING])
def test_a_host_that_forbids_forwarding_gets_all_through_a_pipe(here: Machine, far: FarHost) -> None:
    be(far, "hfpeer")
    ran = push(here, far, *BOTH)
    assert ran.code == 0, ran.err
    assert ran.document["notes"] == ["ssh may not lead a socket there, so the files went through a pipe."]
    check(far.cache, {MODEL: FILES, DATA: ROWS})


def test_a_private_repo_goes_because_it_was_named_and_stays_unshared(here: Machine, far: FarHost) -> None:
    be(far, "hfpeer")
    ran = push(here, far, "acme/secret", "far")
    assert ran.code == 0, ran.err
    assert [one["visibility"] for one in ran.document["revisions"]] == ["private"]
    code, lines = ask(far, "hfpeer", "--json-lines", "model", "ls", "-r", "acme/secret")
    (listed,) = json.loads(lines[-1])["result"]
    assert code == 0 and listed["is_complete"] and not listed["is_shared"] and listed["visibility"] == "private"


def ask(far: FarHost, *words: str) -> tuple[int, list[str]]:
    """Runs a command at the far end."""
    ran = subprocess.run([*shlex.split(far.ssh), "far", shlex.join(words)], capture_output=True, text=True, check=False)
    return ran.returncode, ran.stdout.splitlines()


def begun_bytes(cache: Path) -> int:
    """The bytes of blobs that are not whole yet."""
    staged = cache.glob(".locks/.hfpeer-push/*")
    return partial_bytes(cache) + sum(path.stat().st_size for path in staged)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [("hfpeer", ()), ("hfpeer", NO_FORWARDING), ("python", ()), ("tar", ())],
    ids=["hfpeer", "hfpeer-pipe", "python", "tar"],
)
@pytest.mark.parametrize("victim", ["this end", "the far end"])
@pytest.mark.slow
def test_a_push_that_is_killed_at_either_end_goes_on(here: Machine, far: FarHost, kind: str, victim: str) -> None:
    be(far, kind)
    process = here.begin(*HFPEER, "push", "acme/large", "far", "--ssh", far.ssh)
    wait_until(lambda: begun_bytes(far.cache) > 8_000_000 or process.poll() is not None, "bytes arrive")
    if victim == "this end":
        os.kill(process.pid, signal.SIGKILL)
    else:
        far.kill_sessions()
    ended = here.finish(process)
    if victim == "the far end" and ended.code:
        assert ended.code == 6 and "The same command goes on" in ended.err, ended.err
    ran = push(here, far, "acme/large", "far")
    assert ran.code == 0, ran.err
    assert ended.code == 0 or ran.document["sent_bytes"] < len(LARGE_BODY) - 5_000_000
    check(far.cache, {LARGE: {"config.json": b"{}", "large.bin": LARGE_BODY}})
    if victim == "this end":
        wait_until(lambda: not list((far.folder / "tmp").iterdir()), "the socket there is removed")


@needs_arrow
@pytest.mark.parametrize("kind", KINDS)
def test_a_prepared_set_goes_along_and_the_second_push_sends_nothing(
    machines: Machines, far: FarHost, kind: str, tmp_path: Path
) -> None:
    import pyarrow as pa

    machine = machines.make(f"prepared-{kind}")
    store = Store(machine.cache, machine.home)
    commit = fill(store, DATA, ROWS).commit
    store.close()
    place = place_of(DATA, commit)
    write_arrow_set(machine.home.parent / "hf/datasets", place, {"train": pa.table({"text": ["a", "b"]})}, TEXTS)
    be(far, kind)
    ran = push(machine, far, str(DATA), "far", "--prepared")
    assert ran.code == 0, ran.err
    report = ran.document
    assert [one["repo"] for one in report["revisions"]] == [str(DATA)] and len(report["sets"]) == 1
    (packed,) = report["sets"]
    if kind == "hfpeer":
        assert (far.cache.parent / "datasets" / packed["folder"] / "rows-train.arrow").is_file()
        assert not list(far.cache.glob("datasets--hfpeer-prepared*"))
    else:
        assert (far.cache / packed["snapshot"] / "rows-train.arrow").is_file()
        assert "This puts it in its place: mkdir -p" in report["notes"][-1]
    check(far.cache, {DATA: ROWS})
    again = push(machine, far, str(DATA), "far", "--prepared")
    assert again.code == 0 and again.document["sent_blobs"] == 0
