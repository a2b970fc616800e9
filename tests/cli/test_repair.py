"""`hfpeer verify --repair`: what is printed for each finding, the questions it asks, its JSON and its exit code."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.hub_cache import REPO as TINY
from fakes.hub_cache import download
from fakes.machine import HFPEER, Machine, Machines
from fakes.stub_node import COMMIT, StubNode
from hfpeer.cache.repair.results import (
    CANNOT,
    FAILED,
    FETCH,
    LEAVE,
    LEFT,
    LINK,
    PLANNED,
    REPAIRED,
    RepairedFinding,
    RepairReport,
)
from hfpeer.cache.verify.findings import CheckedFolder, Finding, VerifyReport
from hfpeer.control.operations import RepairRequest, ToldRef
from hfpeer.git.lfs import pointer_text
from hfpeer.names import Commit, RepoId, Revision

Run = Callable[..., Any]
OTHER = RepoId.parse("acme/other")
SHORT = Finding("acme/tiny", COMMIT, "w.bin", "wrong_size", "sha256:00", 12_000_000, "proved", "hfpeer model add")
NO_LINK = replace(SHORT, path="a.json", kind="no_link", size_bytes=2)
ORPHAN = replace(SHORT, commit="", path="blobs/00", kind="orphan")
RIGHT = VerifyReport("/cache", False, (), (), folders=(CheckedFolder("/cache"),))
GOT = RepairedFinding(SHORT, FETCH, REPAIRED, "", 6_000_000)
DONE = RepairReport("/cache", False, (GOT,), RIGHT, {"pegasus": 6_000_000}, {"peer": 6_000_000}, seconds=2.0)
SIZE = 300_000


def still(*findings: Finding) -> VerifyReport:
    return replace(RIGHT, findings=findings)


# What is printed


def test_what_was_done_where_the_bytes_came_from_and_that_all_is_right(hfpeer: Run, node: StubNode) -> None:
    node.repaired = replace(DONE, findings=(GOT, RepairedFinding(ORPHAN, LEAVE, LEFT)), local_bytes=6_000_000)
    ran = hfpeer("verify", "--repair")
    assert ran.out.splitlines() == [
        f"acme/tiny at {COMMIT[:12]}:",
        "  got the missing bytes  wrong_size  w.bin (12.0 MB): it has another size than the commit says.",
        "acme/tiny:",
        "  left alone  orphan  blobs/00 (12.0 MB): no snapshot needs this blob.",
    ]
    assert ran.err.splitlines() == [
        "Looked at /cache.",
        "Repaired 1 of 1 finding in 2.0 s.",
        "Bytes: 6.0 MB from peers, 6.0 MB from files of this machine.",
        "All is right now.",
    ]
    assert ran.code == 0


def test_what_could_not_be_repaired_comes_last_with_its_reason(hfpeer: Run, node: StubNode) -> None:
    failed = RepairedFinding(SHORT, FETCH, FAILED, "No source has it.")
    node.repaired = replace(
        DONE, findings=(failed, RepairedFinding(NO_LINK, LINK, REPAIRED)), after=still(SHORT), bytes_by_kind={}
    )
    ran = hfpeer("verify", "--repair")
    assert [line.split("  ")[1] for line in ran.out.splitlines()[1:3]] == ["made the link", "FAILED"]
    assert ran.out.splitlines()[3] == "    No source has it."
    assert "Repaired 1 of 2 findings in 2.0 s.\nBytes: none were needed.\n1 fault left: see FAILED above." in ran.err
    assert ran.code == 7


def test_nothing_wrong_and_nothing_to_repair_are_told_apart(hfpeer: Run, node: StubNode) -> None:
    node.repaired = RepairReport("/cache", False, (), RIGHT)
    ran = hfpeer("verify", "--repair")
    assert (ran.code, ran.out, ran.err) == (0, "Nothing is wrong.\n", "Looked at /cache.\n")
    node.repaired = RepairReport("/cache", False, (RepairedFinding(ORPHAN, LEAVE, LEFT),), RIGHT)
    ran = hfpeer("verify", "--repair")
    assert (ran.code, ran.err) == (0, "Looked at /cache.\nNothing was to be repaired.\n")


def test_a_dry_run_says_what_it_would_do_and_how_much_would_come(hfpeer: Run, node: StubNode) -> None:
    plan = (
        replace(GOT, outcome=PLANNED, detail="At most 6,000,000 bytes, from the peers pegasus."),
        RepairedFinding(NO_LINK, CANNOT, FAILED, "Nothing lists the commit."),
    )
    node.repaired = RepairReport("/cache", True, plan, still(SHORT, NO_LINK))
    ran = hfpeer("verify", "--repair", "--dry-run")
    assert ran.out.splitlines()[1].startswith("  would get the missing bytes  wrong_size  w.bin (12.0 MB)")
    assert ran.out.splitlines()[2] == "    At most 6,000,000 bytes, from the peers pegasus."
    assert "1 finding would be repaired; at most 6.0 MB would come over a network." in ran.err
    assert "Dry run: nothing was changed." in ran.err
    assert ran.code == 7, "the code says what is wrong now"


def test_many_alike_are_cut_short_but_not_in_json(hfpeer: Run, node: StubNode) -> None:
    many = [replace(GOT, finding=replace(SHORT, path=f"{n}.bin"), detail=f"Detail {n}.") for n in range(20)]
    node.repaired = replace(DONE, findings=tuple(many))
    out = hfpeer("verify", "--repair").out.splitlines()
    assert len(out) == 1 + 2 * 5 + 1
    assert out[-1] == "  got the missing bytes  wrong_size  and 15 more (180.0 MB)."
    assert len(hfpeer("verify", "--repair", "--json").document["findings"]) == 20


def test_json_has_what_was_done_about_each_finding(hfpeer: Run, node: StubNode) -> None:
    node.repaired = replace(DONE, others=(CheckedFolder("/mnt/share", broken=1),))
    ran = hfpeer("verify", "--repair", "--json")
    (finding,) = ran.document["findings"]
    assert (finding["kind"], finding["repair"], finding["outcome"]) == ("wrong_size", "fetch", "repaired")
    assert (finding["fetch_bytes"], finding["command"], finding["severity"]) == (6_000_000, "hfpeer model add", "wrong")
    assert ran.document["bytes_by_kind"] == {"peer": 6_000_000} and ran.document["is_dry_run"] is False
    assert ran.document["others"][0]["cache"] == "/mnt/share"
    assert "findings" not in ran.document["after"]
    assert ran.code == ran.document["exit_code"] == 8


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"after": still(NO_LINK)}, 8),
        ({"after": still(NO_LINK, SHORT)}, 7),
        ({"after": still(SHORT), "is_unreachable": True}, 6),
        ({"others": (CheckedFolder("/mnt/share", away="it is not there"),)}, 0),
        ({"after": still(NO_LINK), "others": (CheckedFolder("/mnt/share", wrong=1),)}, 7),
        ({"after": still(SHORT), "is_unreachable": True, "others": (CheckedFolder("/s", broken=1),)}, 6),
    ],
    ids=["right", "structure", "bytes", "no source", "another is away", "another has wrong bytes", "both"],
)
def test_the_exit_code_says_what_is_left(hfpeer: Run, node: StubNode, change: dict[str, Any], code: int) -> None:
    node.repaired = replace(DONE, **change)
    assert hfpeer("verify", "--repair").code == code


# Words and questions


def test_the_words_become_a_request(hfpeer: Run, node: StubNode) -> None:
    hfpeer("verify", "--repair", "acme/tiny", "--ref", f"main={COMMIT}", "--quick", "--again", "--no-wan", "--dry-run")
    ref = ToldRef(Revision("main"), Commit(COMMIT))
    request = RepairRequest((RepoId.parse("acme/tiny"),), True, True, True, False, 1_000_000_000, (ref,))
    assert node.calls[-1] == ("repair", {"request": request})
    hfpeer("verify", "--repair", "--yes")
    assert node.calls[-1] == ("repair", {"request": RepairRequest()})


@pytest.mark.parametrize(
    "words",
    [
        ("--dry-run",),
        ("--no-wan",),
        ("--yes",),
        ("acme/tiny", "--ref", f"main={COMMIT}"),
        ("--repair", "--ref", f"main={COMMIT}"),
        ("--repair", "a/b", "c/d", "--ref", f"main={COMMIT}"),
        ("--repair", "a/b", "--ref", "main"),
        ("--repair", "a/b", "--ref", "main=5a0d"),
    ],
)
def test_words_that_do_not_go_together_end_it_before_anything_is_done(
    hfpeer: Run, node: StubNode, words: tuple[str, ...]
) -> None:
    assert hfpeer("verify", *words).code == 2
    assert node.calls == []


HELD = replace(DONE, findings=(RepairedFinding(SHORT, FETCH, FAILED),), after=still(SHORT), held_back_bytes=6 * 10**9)


def test_much_from_the_wan_is_not_fetched_without_a_word(hfpeer: Run, node: StubNode) -> None:
    node.repaired = HELD
    ran = hfpeer("verify", "--repair")
    assert "Not fetched: 6.0 GB from the WAN. `--yes` agrees to that;" in ran.err
    assert (ran.code, len(node.calls)) == (7, 1)


@pytest.mark.parametrize("answer", [True, False])
def test_at_a_terminal_it_asks_before_much_comes_over_the_wan(
    hfpeer: Run, node: StubNode, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def confirm(text: str, **_: Any) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr("click.confirm", confirm)
    node.repaired = HELD
    hfpeer("verify", "--repair", "--again")
    assert asked == ["The rest needs 6.0 GB from the WAN. Fetch it?"]
    limits = [arguments["request"].max_wan_bytes for _, arguments in node.calls]
    assert limits == ([1_000_000_000, None] if answer else [1_000_000_000])
    hfpeer("verify", "--repair", "--json")
    assert len(asked) == 1, "never with --json"


# On a real cache


LFS = ("whole", "short", "flipped", "gone", "pointer", "wrong", "absolute")
FILES = {f"{name}.bin": Lfs(noise(SIZE, name)) for name in LFS} | {
    name: name.encode() for name in ("config.json", "README.md", "present.json")
}


def damage(cache: Path, commit: str) -> dict[str, tuple[str, str]]:
    """Damages a cache in all ways. By kind of finding: what a dry run, and what a repair prints about it."""
    folder = cache / TINY.folder
    snapshot = folder / "snapshots" / commit
    os.truncate(snapshot / "short.bin", 100_000)
    (snapshot / "flipped.bin").resolve().write_bytes(bytes(SIZE))
    (snapshot / "gone.bin").resolve().unlink()
    blob = (snapshot / "pointer.bin").resolve()
    blob.write_bytes(pointer_text(blob.name, SIZE))
    relink(snapshot / "wrong.bin", (snapshot / "whole.bin").readlink())
    relink(snapshot / "absolute.bin", (snapshot / "absolute.bin").resolve())
    (snapshot / "config.json").unlink()
    (snapshot / "README.md").unlink()
    (snapshot / "README.md").write_bytes(b"README.md")
    (folder / "refs" / "main").write_text(f"{commit}\n")
    (folder / "refs" / "v1").write_text("d" * 40)
    (folder / "refs" / "v2").write_text("a branch")
    (folder / "trees").mkdir(exist_ok=True)
    (folder / "trees" / f"{commit}.json").write_text("{")
    (folder / ".hfpeer" / f"{commit}.json").write_text("{")
    (folder / ".no_exist" / commit).mkdir(parents=True)
    (folder / ".no_exist" / commit / "present.json").touch()
    (folder / "notes.txt").write_text("mine")
    fetch, link = ("would get the missing bytes", "got the missing bytes"), ("would make the link", "made the link")
    return {
        "wrong_size": fetch,
        "wrong_bytes": fetch,
        "no_bytes": fetch,
        "wrong_link": link,
        "absolute_link": link,
        "no_link": link,
        "copy": link,
        "ref_text": ("would write the ref", "wrote the ref"),
        "ref_dangling": ("would remove the ref", "removed the ref"),
        "ref_malformed": ("would remove the ref", "removed the ref"),
        "bad_listing": ("would write the list anew", "wrote the list anew"),
        "bad_proof": ("would write the proof anew", "wrote the proof anew"),
        "false_absence": ("would remove it", "removed it"),
        "foreign": ("left alone", "left alone"),
    }


def relink(path: Path, target: Path) -> None:
    path.unlink()
    path.symlink_to(target)


@pytest.mark.slow
def test_each_kind_of_finding_is_told_and_repaired(tmp_path: Path) -> None:
    with HubSimulator() as hub, Machines(tmp_path) as machines:
        commit = hub.put_repo("model", str(TINY), FILES)
        machine = machines.make("one", upstreams=f"origin={hub.endpoint}")
        machine.do("model", "add", "-r", str(TINY))
        expected = damage(machine.cache, commit)
        before = picture(machine.cache)
        ran = plain(machine, "verify", "--repair", "--dry-run")
        assert told(ran.out, expected) == {kind: {would} for kind, (would, _) in expected.items()}
        assert (ran.code, picture(machine.cache)) == (7, before)
        first = plain(machine, "verify", "--repair", "--no-wan")
        for name in ("short.bin", "flipped.bin", "gone.bin", "pointer.bin"):
            assert f"No source can give the rest of {name}: no source has it." in first.out
        assert "4 faults left: see FAILED above. No source gave the bytes; a later run goes on." in first.err
        assert first.code == 6
        ran = plain(machine, "verify", "--repair")
        assert told(first.out + ran.out, expected) == {kind: {did} for kind, (_, did) in expected.items()}
        assert ran.err.splitlines()[-1] == "All is right now." and ran.code == 0


def told(out: str, kinds: Iterable[str]) -> dict[str, set[str]]:
    """By kind of finding: what the lines say was done, or would be, where it did not fail."""
    found: dict[str, set[str]] = {kind: set() for kind in kinds}
    for done, kind in re.findall(r"^  (\S.*?)  (\w+)  ", out, re.MULTILINE):
        if kind in found and done != "FAILED":
            found[kind].add(done)
    return found


def picture(cache: Path) -> dict[str, tuple[int, int, int]]:
    """Everything below a cache with what a write would change."""
    paths = [(path, path.lstat()) for path in cache.rglob("*")]
    return {str(path): (facts.st_ino, facts.st_size, facts.st_mtime_ns) for path, facts in paths}


def plain(machine: Machine, *words: str) -> Any:
    """Runs a command without `--json`."""
    return machine.run(*HFPEER, *words)


# While the daemon runs


@pytest.mark.slow
def test_the_daemon_repairs_and_knows_what_it_has_afterwards(tmp_path: Path) -> None:
    """A peer then gets the repaired files from it, and no hub is left to ask."""
    with Machines(tmp_path) as machines:
        with HubSimulator() as hub:
            commit = hub.put_repo("model", str(TINY), FILES)
            one = machines.make("one", upstreams=f"origin={hub.endpoint}")
            one.start()
            one.do("model", "add", "-r", str(TINY))
            damage(one.cache, commit)
            assert one.hfpeer("verify").code == 7
            report = one.do("verify", "--repair")
            assert report["bytes_by_kind"] == {"origin": 4 * SIZE - 100_000}
        (revision,) = one.found("model", "ls", "-r", str(TINY))
        assert (revision["files"], revision["is_complete"], revision["refs"]) == (len(FILES), True, ["main"])
        assert one.status().unverified_files == 0
        two = machines.make("two", peers=[one.address])
        two.start()
        two.wait_until_it_knows(one)
        assert two.do("model", "add", "-r", str(TINY))["bytes_by_kind"].keys() == {"peer"}


def test_a_cache_that_the_daemon_only_reads_is_named_and_repaired_by_its_name(tmp_path: Path) -> None:
    bodies = {"config.json": b"{}", "README.md": b"# tiny"}
    share = tmp_path / "share"
    with Machines(tmp_path) as machines, HubSimulator() as hub:
        commit = hub.put_repo("model", str(TINY), dict(bodies))
        snapshot = download(share, bodies, Commit(commit), tree=True)
        folders = f"{share},{tmp_path}/none"
        machine = machines.make("one", upstreams=f"origin={hub.endpoint}", HFPEER_READ_CACHES=folders)
        download(machine.cache, {"other.json": b"other"}, repo=OTHER, tree=True)
        machine.start()
        (snapshot / "config.json").resolve().unlink()
        before = picture(share)
        command = f"hfpeer verify --repair --cache {share}"
        ran = plain(machine, "verify")
        assert f"{machine.cache}:" in ran.out.splitlines() and f"{share}:" in ran.out.splitlines()
        assert f"    repair: {command} {TINY}" in ran.out.splitlines()
        assert f"Looked at {machine.cache}, {share}." in ran.err and f"To repair: {command}\n" in ran.err
        assert f"Passed over {tmp_path}/none: it is not there; plug its disk in." in ran.err
        for words, folders in ([], f"{machine.cache}, {share}"), ([str(TINY)], f"{share}"):
            ran = plain(machine, "verify", "--repair", *words)
            assert f"{share}: 1 fault, and only read. To repair: {command}" in ran.out.splitlines()
            assert f"Looked at {folders}." in ran.err
            assert (ran.code, picture(share)) == (8, before)
        ran = plain(machine, *command.split()[1:])
        assert "got the missing bytes  no_bytes  config.json" in ran.out and ran.code == 0
        assert machine.hfpeer("verify").code == 0
