"""`hfpeer verify`: the grade of each revision, what is wrong, its repair, and the exit code."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.hub_cache import REPO as TINY
from fakes.hub_cache import download
from fakes.machine import HFPEER, Machines
from fakes.stub_node import COMMIT, StubNode
from hfpeer.cache.verify.findings import Finding, VerifiedRevision, VerifyReport
from hfpeer.control.operations import VerifyRequest
from hfpeer.errors import NotFound
from hfpeer.names import RepoId

Run = Callable[..., Any]
REVISION = VerifiedRevision("acme/tiny", "model", COMMIT, ("main",), "proved", 5, 5, 23_000_000)
TRUNCATED = Finding(
    "acme/tiny",
    COMMIT,
    "model.safetensors",
    "wrong_size",
    "sha256:00",
    12_000_000,
    "proved",
    "hfpeer model add -r acme/tiny",
    "it has 6 bytes instead of 12,000,000",
)
NEWLINE = replace(TRUNCATED, path="refs/main", kind="ref_text", size_bytes=0, detail="", repair="printf")
ORPHAN = replace(TRUNCATED, commit="", path="blobs/00", kind="orphan", detail="")
RIGHT = VerifyReport("/cache", False, (REVISION,), (), 5, 23_000_000, 0, 0, 1.0)


@pytest.mark.parametrize(
    ("findings", "code", "state"),
    [
        ((), 0, "right"),
        ((ORPHAN,), 0, "right"),
        ((NEWLINE, ORPHAN), 8, "BROKEN"),
        ((NEWLINE, TRUNCATED), 7, "WRONG BYTES"),
    ],
    ids=["right", "an orphan", "structure", "bytes"],
)
def test_the_exit_code_and_the_state_say_how_bad_it_is(
    hfpeer: Run, node: StubNode, findings: tuple[Finding, ...], code: int, state: str
) -> None:
    node.report = replace(RIGHT, findings=findings)
    ran = hfpeer("verify")
    assert ran.code == code
    assert ran.out.splitlines()[0] == f"acme/tiny at {COMMIT[:12]}: proved, 5 of 5 files, 23.0 MB (main): {state}"
    assert "proved: the list of files folds to the commit." in ran.err


def test_a_finding_says_what_is_wrong_and_what_mends_it(hfpeer: Run, node: StubNode) -> None:
    node.report = replace(RIGHT, findings=(TRUNCATED,))
    out = hfpeer("verify").out.splitlines()
    assert out[1:] == [
        "  wrong_size  model.safetensors (12.0 MB): it has 6 bytes instead of 12,000,000.",
        "    repair: hfpeer model add -r acme/tiny",
    ]


def test_many_findings_of_one_kind_are_cut_short_but_not_in_json(hfpeer: Run, node: StubNode) -> None:
    node.report = replace(RIGHT, findings=tuple(replace(TRUNCATED, path=f"{number}.bin") for number in range(20)))
    assert "  wrong_size  and 15 more (180.0 MB)." in hfpeer("verify").out
    assert len(hfpeer("verify", "--json").document["findings"]) == 20


def test_json_has_an_object_for_each_finding(hfpeer: Run, node: StubNode) -> None:
    node.report = replace(RIGHT, findings=(TRUNCATED,))
    ran = hfpeer("verify", "--json")
    (finding,) = ran.document["findings"]
    assert ran.code == ran.document["exit_code"] == 7
    assert finding == {
        "cache": "",
        "repo": "acme/tiny",
        "commit": COMMIT,
        "path": "model.safetensors",
        "kind": "wrong_size",
        "digest": "sha256:00",
        "size": 12_000_000,
        "grade": "proved",
        "repair": "hfpeer model add -r acme/tiny",
        "severity": "wrong",
        "meaning": "it has 6 bytes instead of 12,000,000",
    }
    assert ran.document["revisions"][0]["grade"] == "proved"


def test_the_words_become_a_request(hfpeer: Run, node: StubNode) -> None:
    assert hfpeer("verify", "acme/tiny", "datasets/acme/data", "gpt2", "--quick", "--again").code == 0
    repos = (RepoId.parse("acme/tiny"), RepoId.parse("acme/data", "dataset"), RepoId.parse("gpt2"))
    assert node.calls[-1] == ("verify", {"request": VerifyRequest(repos, True, True)})
    hfpeer("verify", "--type", "space", "acme/app")
    assert node.calls[-1] == ("verify", {"request": VerifyRequest((RepoId.parse("acme/app", "space"),))})


def test_a_repo_that_is_not_here_is_exit_code_4(hfpeer: Run, node: StubNode) -> None:
    node.failure = NotFound("acme/other is not in the cache.")
    assert hfpeer("verify", "acme/other").code == 4


def test_another_cache_is_verified_without_the_node(hfpeer: Run, node: StubNode, tmp_path: Path) -> None:
    download(tmp_path / "stick", {"config.json": b"{}"}, tree=True)
    ran = hfpeer("verify", "--cache", str(tmp_path / "stick"), "--json")
    assert (ran.code, ran.document["findings"], node.calls) == (0, [], [])
    assert ran.document["revisions"][0]["grade"] == "listed"
    assert hfpeer("verify", "--cache", str(tmp_path / "none")).code == 4
    assert not (tmp_path / "home").exists()


def test_this_nodes_cache_by_its_path_is_asked_of_the_node(hfpeer: Run, node: StubNode, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    assert hfpeer("verify", "--cache", str(tmp_path / "hub")).code == 0
    assert node.calls[-1][0] == "verify"


@pytest.mark.slow
def test_the_repairs_mend_what_they_are_for(tmp_path: Path) -> None:
    """Everything is broken at once; each finding's command is run, and then all is right."""
    files = {f"{name}.bin": Lfs(noise(200_000, name)) for name in ("whole", "short", "flipped", "gone", "wrong", "out")}
    with HubSimulator() as hub, Machines(tmp_path) as machines:
        commit = hub.put_repo(
            "model", str(TINY), {**files, "config.json": b"{}", "README.md": b"# tiny", "a b.txt": b"c"}
        )
        machine = machines.make("one", upstreams=f"origin={hub.endpoint}")
        machine.do("model", "add", "-r", str(TINY))
        assert machine.hfpeer("verify").document["revisions"][0]["grade"] == "proved"
        folder = machine.cache / TINY.folder
        snapshot = folder / "snapshots" / commit
        os.truncate(snapshot / "short.bin", 1000)
        (snapshot / "flipped.bin").resolve().write_bytes(bytes(200_000))
        (snapshot / "gone.bin").resolve().unlink()
        for name, target in (
            ("wrong.bin", "../../blobs/" + (snapshot / "whole.bin").readlink().name),
            ("out.bin", "/etc"),
        ):
            (snapshot / name).unlink()
            (snapshot / name).symlink_to(target)
        (snapshot / "config.json").unlink()
        (snapshot / "README.md").unlink()
        (snapshot / "README.md").write_bytes(b"# tiny")
        (snapshot / "a b.txt").unlink()
        (folder / "refs" / "main").write_text(f"{commit}\n")
        (folder / "trees" / f"{commit}.json").write_text("{")
        (folder / ".hfpeer" / f"{commit}.json").write_text("{")
        ran = machine.hfpeer("verify")
        assert ran.code == 7
        assert sorted(finding["kind"] for finding in ran.document["findings"]) == [
            *("absolute_link", "bad_listing", "bad_proof", "copy", "no_bytes", "no_link", "no_link"),
            *("ref_text", "wrong_bytes", "wrong_link", "wrong_size"),
        ]
        for repair in {finding["repair"] for finding in ran.document["findings"]}:
            ran = machine.run("sh", "-c", f'hfpeer() {{ {shlex.join(HFPEER)} "$@"; }}; {repair}')
            assert ran.code == 0, (repair, ran.err)
        assert machine.hfpeer("verify", "--again").document["findings"] == []
        machine.do("model", "add", "-r", str(TINY))
        assert (folder / ".hfpeer" / f"{commit}.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("has_daemon", [True, False], ids=["with a daemon", "without one"])
def test_it_works_with_a_daemon_and_without_one(tmp_path: Path, has_daemon: bool) -> None:
    with Machines(tmp_path) as machines:
        machine = machines.make("one")
        snapshot = download(machine.cache, {"config.json": b"{}", "w.bin": b"weights"}, tree=True)
        if has_daemon:
            machine.start()
        assert machine.hfpeer("verify").code == 0
        (snapshot / "w.bin").resolve().write_bytes(b"WEIGHTS")
        ran = machine.hfpeer("verify", str(TINY))
        assert ran.code == 7
        assert [finding["kind"] for finding in ran.document["findings"]] == ["wrong_bytes"]
