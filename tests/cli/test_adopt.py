"""`hfpeer adopt` as users type it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.places import put
from fakes.stub_node import StubNode
from hfpeer.adoption.results import AdoptableFile, AdoptedPlace, AdoptReport, Trouble, WaitingRevision, WantedRevision
from hfpeer.archive.results import ImportedRevision
from hfpeer.control.operations import AdoptPlace, AdoptRequest
from hfpeer.names import RepoId, Revision

Run = Callable[..., Any]
COMMIT = "ab" * 20
REPORT = AdoptReport(
    places=(AdoptedPlace("Ollama", "/o/models", 3, 30_000_000), AdoptedPlace("HF cache", "/d/hub", 1, 5, True)),
    files=4,
    size_bytes=30_000_005,
    hashed_files=3,
    hashed_bytes=30_000_000,
    here_files=1,
    here_bytes=7_000_000,
    repo_bytes={"acme/tiny": 12_000_000, "datasets/acme/rows": 5},
    installed=(ImportedRevision("acme/tiny", COMMIT, 3, 3, 4, 12_000_000, True, ("main",), (), "unknown", False),),
    waiting=(
        WaitingRevision("acme/rows", "dataset", COMMIT, "/d/hub", "its list of files is not known here", True),
        WaitingRevision("", "", "", "/clone", "it is a clone of no hub"),
    ),
    troubles=(
        Trouble("/o/closed", "this user cannot read it (drwx------, owner ollama)", "ollama can open it: chmod"),
    ),
    pointers=1,
    twice_bytes=11_000_000,
    shared_bytes=7_000_000,
    seconds=2.0,
)


@pytest.fixture
def environ(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    (tmp_path / "me").mkdir()
    return {**environ, "HOME": str(tmp_path / "me")}


def request_of(node: StubNode) -> AdoptRequest:
    name, arguments = node.calls[-1]
    assert name == "adopt"
    request = arguments["request"]
    assert isinstance(request, AdoptRequest)
    return request


def test_a_revision_that_lay_in_several_places_has_each_ref_once(hfpeer: Run, node: StubNode) -> None:
    (one, *_) = REPORT.installed
    node.adopted = replace(REPORT, installed=(replace(one, refs=("main", "v1", "main")),))
    assert "Installed acme/tiny at abababababab (main, v1): " in hfpeer("adopt", "/o/models").out


def test_it_says_what_can_serve_what_was_installed_and_what_to_do_next(hfpeer: Run, node: StubNode) -> None:
    node.adopted = REPORT
    ran = hfpeer("adopt", "/o/models")
    assert ran.code == 0
    assert ran.out == (
        "Ollama: /o/models: 3 files, 30.0 MB\n"
        "HF cache: /d/hub: 1 file, 5 B\n"
        "Installed acme/tiny at abababababab (main): proved, 3 of 4 files, 12.0 MB\n"
        "4 files, 30.0 MB can serve (hashed 30.0 MB in 2.0 s); 7.0 MB are in the cache already.\n"
        "7.0 MB lay twice, here and in the cache, and share their blocks now.\n"
        "12.0 MB belong to repos, as their places say: acme/tiny 12.0 MB, datasets/acme/rows 5 B.\n"
    )
    assert ran.err == (
        "Not installed: acme/rows at abababababab: its list of files is not known here.\n"
        f"  hfpeer dataset add -r acme/rows -v {COMMIT}  takes what lies here\n"
        "Not installed: /clone: it is a clone of no hub.\n"
        "1 file is an LFS pointer, not the file itself.\n"
        "11.0 MB lie twice in clones: in .git/lfs and in the work tree.\n"
        "/d/hub is a cache itself: `hfpeer conf cache add /d/hub` reads it in place.\n"
        "Left out: /o/closed: this user cannot read it (drwx------, owner ollama). ollama can open it: chmod\n"
    )
    document = hfpeer("adopt", "/o/models", "--json").document
    assert document["installed"][0]["commit"] == COMMIT and document["troubles"][0]["path"] == "/o/closed"


def test_a_named_place_that_cannot_be_read_ends_with_exit_code_8(hfpeer: Run, node: StubNode) -> None:
    node.adopted = REPORT
    assert hfpeer("adopt", "/o/closed").code == 8
    assert hfpeer("adopt", "/o").code == 0


def test_a_list_is_a_table_and_reads_nothing(hfpeer: Run, node: StubNode) -> None:
    listed = (
        AdoptableFile("Ollama", "/o/models/blobs/sha256-aa", 12_000_000, "acme/tiny", "clone", "sha256:aa"),
        AdoptableFile("folder", "/m/x\x1b[2J.gguf", 5, "", "unreadable", "", "this user cannot read it (-rw-------)"),
        AdoptableFile("LM Studio", "/l/y.gguf", 5, "", "here"),
    )
    node.adopted = replace(REPORT, listed=listed, is_dry_run=True, waiting=(), troubles=(), installed=())
    ran = hfpeer("adopt", "/m", "--list")
    heading, first, second, third = ran.out.splitlines()
    assert heading.split() == ["TOOL", "FILE", "SIZE", "REPO", "HOW"]
    assert first.split() == ["Ollama", "/o/models/blobs/sha256-aa", "12.0", "MB", "acme/tiny", "shares", "blocks"]
    assert "\x1b" not in second and "unreadable: this user cannot read it (-rw-------)" in second
    assert third.endswith("in the cache") and request_of(node).is_dry_run


def test_the_words_become_a_request(hfpeer: Run, node: StubNode, tmp_path: Path) -> None:
    hfpeer("adopt", str(tmp_path / "a"), "~/b", "-r", "datasets/acme/rows", "-v", "v1", "--link")
    request = request_of(node)
    assert request.places[0].path == str(tmp_path / "a")
    assert all(place.is_named and place.tool == "folder" for place in request.places)
    assert (request.repo, request.revision) == (RepoId.parse("acme/rows", "dataset"), Revision("v1"))
    assert request.way == "link"
    hfpeer("adopt", "--move", "/x")
    assert request_of(node).way == "move"


def test_without_words_all_places_that_are_found_are_looked_at(hfpeer: Run, node: StubNode, tmp_path: Path) -> None:
    ran = hfpeer("adopt", "--list")
    put(tmp_path / "me/.ollama/models/blobs/x", b"x")
    hfpeer("adopt")
    place = AdoptPlace("Ollama", str(tmp_path / "me/.ollama/models"))
    assert place in request_of(node).places and ran.code == 0
    hfpeer("adopt", str(tmp_path / "me/.ollama/models"))
    assert request_of(node).places == (replace(place, is_named=True),)


def test_a_wanted_repo_is_counted(hfpeer: Run, node: StubNode) -> None:
    node.adopted = replace(REPORT, wanted=WantedRevision("acme/tiny", COMMIT, 3, 4, 12_000_000, 13_000_000))
    assert (
        "3 of 4 files of acme/tiny at abababababab lie on this machine: 12.0 MB of 13.0 MB."
        in hfpeer("adopt", "/m").err
    )


def test_forgetting_touches_nothing(hfpeer: Run, node: StubNode) -> None:
    assert hfpeer("adopt", "--forget", "/m").out == "Forgot 2 files, 20 B. No file was touched.\n"
    assert node.calls[-1] == ("forget_adopted", {"places": ("/m",)})
    assert hfpeer("adopt", "--forget", "--json").document == {"files": 2, "size_bytes": 20}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--link", "--move"), "exclude one another"),
        (("--forget", "--link"), "exclude one another"),
        (("--forget", "--list"), "exclude one another"),
        (("-v", "main"), "needs a repo"),
        (("--move",), "needs a place"),
        (("-r", "a/b/c/d"), "not a repo name"),
    ],
)
def test_a_mistake_is_a_sentence(hfpeer: Run, node: StubNode, words: tuple[str, ...], said: str) -> None:
    ran = hfpeer("adopt", *words)
    assert ran.code == 2 and said in ran.err and node.calls == []
