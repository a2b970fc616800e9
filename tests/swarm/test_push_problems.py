"""What can go wrong with a push: each is one sentence, and what has arrived is kept."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archives import DATA, FILES, MODEL, ROWS, contents, fill
from fakes.machine import HFPEER, Machine, Machines, Ran
from fakes.pythons import oldest
from fakes.sshd import FarHost, far_host
from hfpeer.cache.disk import layout
from hfpeer.cache.store import Store
from hfpeer.names import Commit


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("machines")) as machines:
        yield machines


@pytest.fixture(scope="module")
def commit() -> list[Commit]:
    return []


@pytest.fixture(scope="module")
def here(machines: Machines, commit: list[Commit]) -> Machine:
    machine = machines.make("here")
    store = Store(machine.cache, machine.home)
    commit.append(fill(store, MODEL, FILES).commit)
    fill(store, DATA, ROWS)
    store.close()
    return machine


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarHost]:
    with far_host(tmp_path_factory.mktemp("far") / "host") as far:
        far.set_programs("tar", "sha256sum")
        yield far


def push(here: Machine, ssh: str, *words: str) -> Ran:
    return here.hfpeer("push", *words, "--ssh", ssh)


def test_without_a_program_that_hashes_it_is_sent_and_not_verified(here: Machine, far: FarHost) -> None:
    far.set_programs("tar")
    ran = push(here, far.ssh, "acme/tiny", "far:unverified")
    far.set_programs("tar", "sha256sum")
    assert ran.code == 6 and "sent, not verified" in ran.err
    assert ran.document["is_verified"] is False and ran.document["sent_blobs"] == 5
    assert (far.home / "unverified" / MODEL.folder / "refs" / "main").is_file()
    ran = push(here, far.ssh, "acme/tiny", "far:unverified", "--check")
    assert ran.code == 0 and ran.document["is_present_verified"] and ran.document["sent_blobs"] == 0


@pytest.mark.parametrize("kind", ["tar", "python"])
def test_check_finds_wrong_bytes_that_are_there_and_replaces_them(
    here: Machine, far: FarHost, commit: list[Commit], kind: str
) -> None:
    far.set_programs("tar", "sha256sum", python=oldest() if kind == "python" else None)
    cache = far.home / f"checked-{kind}"
    assert push(here, far.ssh, "acme/tiny", "far", "--cache", cache.name).code == 0
    blob = (cache / MODEL.folder / "snapshots" / commit[0] / "weights.bin").resolve()
    blob.write_bytes(b"\1" * len(FILES["weights.bin"]))
    ran = push(here, far.ssh, "acme/tiny", "far", "--cache", cache.name)
    assert ran.code == 0 and ran.document["sent_blobs"] == 0 and not ran.document["is_present_verified"]
    ran = push(here, far.ssh, "acme/tiny", "far", "--cache", cache.name, "--check")
    assert ran.code == 0 and ran.document["sent_blobs"] == 1, ran.err
    assert blob.read_bytes() == FILES["weights.bin"]
    far.set_programs("tar", "sha256sum")


def test_only_selected_files_and_a_dry_run_changes_nothing(here: Machine, far: FarHost, commit: list[Commit]) -> None:
    words = ("acme/tiny", "far:some", "--include", "*.json")
    planned = push(here, far.ssh, *words, "--dry-run").document
    assert (planned["is_dry_run"], planned["sent_blobs"]) == (True, 2) and not (far.home / "some").exists()
    ran = push(here, far.ssh, *words)
    assert ran.code == 0, ran.err
    snapshot = far.home / "some" / MODEL.folder / "snapshots" / commit[0]
    assert {str(p.relative_to(snapshot)) for p in snapshot.rglob("*") if p.is_file()} == {
        name for name in FILES if name.endswith(".json")
    }


def test_a_newer_ref_there_stays_and_is_told(here: Machine, far: FarHost) -> None:
    push(here, far.ssh, "acme/tiny", "far:refs")
    ref = far.home / "refs" / MODEL.folder / "refs" / "main"
    ref.write_text("d" * 40)
    ran = here.run(*HFPEER, "push", "acme/tiny", "far:refs", "--ssh", far.ssh)
    assert ran.code == 0 and f"main stays at {'d' * 12} there" in ran.out and ref.read_text() == "d" * 40
    assert re.search(r"Sent 0 blobs, 0 B, verified there; .* were there already, by name and size", ran.out)


def test_two_repos_share_a_blob_there(here: Machine, far: FarHost) -> None:
    assert push(here, far.ssh, "acme/tiny", "datasets/acme/rows", "far:both").code == 0
    twins = list((far.home / "both").glob("*/blobs/*"))
    found = {path.stat().st_ino for path in twins}
    assert len(twins) == len(found) + 1


def test_an_unknown_host_key_says_what_to_type(here: Machine, far: FarHost, tmp_path: Path) -> None:
    ssh = f"{far.ssh} -o UserKnownHostsFile={tmp_path / 'none'}"
    ran = push(here, ssh, "acme/tiny", "far")
    assert ran.code == 6 and ran.problem["code"] == "ssh_failed"
    assert "Host key verification failed" in ran.problem["message"] and "`ssh far true`" in ran.problem["hint"]


def test_another_key_of_a_known_host_is_a_warning(here: Machine, far: FarHost, tmp_path: Path) -> None:
    key = (far.folder / "user_key.pub").read_text().split()[1]
    (tmp_path / "known").write_text(f"[127.0.0.1]:{far.port} ssh-ed25519 {key}\n")
    ran = push(here, f"{far.ssh} -o UserKnownHostsFile={tmp_path / 'known'}", "acme/tiny", "far")
    assert ran.code == 6 and "Another machine answers as far" in ran.problem["hint"]


def test_a_refused_login_is_told(here: Machine, far: FarHost, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    options = far.ssh.replace("ssh ", f"ssh -i {shlex.quote(str(tmp_path / 'other'))} ", 1)
    config = (far.folder / "ssh_config").read_text()
    (tmp_path / "config").write_text("".join(line for line in config.splitlines(True) if "IdentityFile" not in line))
    options = options.replace(str(far.folder / "ssh_config"), str(tmp_path / "config"))
    ran = push(here, options, "acme/tiny", "far")
    assert ran.code == 6 and "Permission denied" in ran.problem["message"] and "ssh-add" in ran.problem["hint"]


def test_a_host_that_does_not_answer_is_told_with_the_words_of_ssh(here: Machine, far: FarHost) -> None:
    ran = push(here, f"{far.ssh} -o Port=1", "acme/tiny", "far")
    assert ran.code == 6 and "Connection refused" in ran.problem["message"]


def test_a_folder_that_is_a_file_is_refused_before_the_first_byte(here: Machine, far: FarHost) -> None:
    (far.home / "file").write_text("x")
    ran = push(here, far.ssh, "acme/tiny", "far:file/hub")
    assert ran.code == 8 and "file is no folder" in ran.problem["message"]
    assert "Name another folder" in ran.problem["hint"]


def test_too_little_space_is_told_with_both_numbers(here: Machine, far: FarHost) -> None:
    df = far.folder / "bin" / "df"
    df.unlink()
    df.write_text("#!/bin/sh\necho head\necho /dev/x 100 50 50 50% /\n")
    df.chmod(0o755)
    ran = push(here, far.ssh, "acme/tiny", "far:small")
    far.set_programs("tar", "sha256sum")
    assert ran.code == 8 and ran.problem["code"] == "no_space"
    facts = ran.problem["facts"]
    assert facts["free_bytes"] == 50 * 1024 and facts["needed_bytes"] > 3_000_000
    assert not (far.home / "small").exists()


def test_a_repo_that_is_not_here_asks_nobody(here: Machine) -> None:
    ran = push(here, "ssh -o ProxyCommand=false", "acme/none", "far")
    assert ran.code == 4 and "acme/none" in ran.problem["message"]


def test_wrong_bytes_here_are_not_sent(machines: Machines, far: FarHost) -> None:
    machine = machines.make("wrong")
    store = Store(machine.cache, machine.home)
    manifest = fill(store, MODEL, FILES)
    store.close()
    blob = layout.blob_path(machine.cache, MODEL, next(f for f in manifest.files if f.path == "weights.bin").digest)
    blob.write_bytes(b"\1" * len(FILES["weights.bin"]))
    ran = push(machine, far.ssh, "acme/tiny", "far:wrong")
    assert ran.code == 7 and "wrong bytes" in ran.problem["message"] and not (far.home / "wrong").exists()


@pytest.mark.parametrize("kind", ["hfpeer", "python", "tar"])
def test_bytes_that_a_disk_changed_here_are_refused_there_and_named(
    machines: Machines, far: FarHost, kind: str
) -> None:
    """The times of the file say that nothing has changed, so they are not hashed again before they are sent."""
    machine = machines.make(f"rot-{kind}")
    store = Store(machine.cache, machine.home)
    manifest = fill(store, MODEL, FILES)
    digest = next(file.digest for file in manifest.files if file.path == "weights.bin")
    blob = layout.blob_path(machine.cache, MODEL, digest)
    blob.write_bytes(b"\1" * len(FILES["weights.bin"]))
    store.inventory.remember([store.inventory.seen(blob, digest, is_verified=True)])
    store.close()
    far.set_programs("tar", "sha256sum", python=sys.executable, hfpeer=True)
    try:
        ran = push(machine, far.ssh, "acme/tiny", f"far:rot-{kind}", "--way", kind)
    finally:
        far.set_programs("tar", "sha256sum")
    assert ran.code == 7 and str(blob) in ran.problem["message"] and "verify --repair" in ran.problem["hint"]
    assert not layout.blob_path(far.home / f"rot-{kind}", MODEL, digest).exists()


def test_a_connection_of_the_user_is_used_and_left_open(here: Machine, far: FarHost, tmp_path: Path) -> None:
    ssh = f"{far.ssh} -o ControlPath={tmp_path / 'own'}"
    words = shlex.split(ssh)
    subprocess.run([*words, "-o", "ControlMaster=yes", "-o", "ControlPersist=60", "far", "true"], check=True)
    before = far.log.count("Accepted publickey")
    ran = push(here, ssh, "acme/tiny", "far:mine")
    assert ran.code == 0, ran.err
    assert far.log.count("Accepted publickey") == before
    subprocess.run([*words, "-O", "exit", "far"], check=True, capture_output=True)


def test_a_cache_that_hfpeer_there_does_not_use_gets_a_catalog_of_its_own(
    here: Machine, far: FarHost, machines: Machines
) -> None:
    far.set_programs("tar", "sha256sum", hfpeer=True)
    ran = push(here, far.ssh, "acme/tiny", "far:elsewhere")
    assert ran.code == 0 and ran.document["way"] == "hfpeer", ran.err
    store = Store(far.home / "elsewhere", far.folder / "looker")
    assert contents(store, MODEL) == FILES
    store.close()
    assert list((far.home / ".local/state/hfpeer/pushed").iterdir())
    far.set_programs("tar", "sha256sum")
