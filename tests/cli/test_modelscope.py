"""`hfpeer modelscope` as a user types it: what is printed, the exit codes, and each fault of ModelScope once."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.commit_node import CommitNode
from fakes.hub import Content, Fault, Lfs
from fakes.hub import faults as hub_faults
from fakes.hub.zoo import noise
from fakes.modelscope import ModelScopeSimulator, faults
from fakes.modelscope.storage import PRIVATE
from hfpeer.config.settings import Settings
from hfpeer.control.operations import Operations
from hfpeer.modelscope import api as api_module
from hfpeer.modelscope import commits as commits_module
from hfpeer.modelscope import listing as listing_module
from hfpeer.names import RepoId

Run = Callable[..., Any]
WEIGHTS = noise(400_000, "weights")
FILES: dict[str, Content] = {"README.md": b"# Tiny\n", "config.json": b"{}", "model.safetensors": Lfs(WEIGHTS)}
REPO = RepoId.parse("acme/tiny")
PUSH = ("modelscope", "push", "-r", "acme/tiny", "--to", "team/tiny")
VERIFY = ("modelscope", "verify", "-r", "acme/tiny", "--to", "team/tiny")
LOGIN, CREATE, LIST, BATCH = "/openapi/*", "/api/v1/models", "*/repo/files", "*/objects/batch"
PUT, COMMIT = "*/blobs/*", "*/commit/*"


class SessionNode(CommitNode):
    """Any session of a command line has this node."""

    @asynccontextmanager
    async def session(self, settings: Settings) -> AsyncIterator[Operations]:
        yield self


@pytest.fixture
def node(tmp_path: Path) -> SessionNode:
    node = SessionNode(tmp_path / "cache")
    node.put_repo(REPO, FILES)
    return node


@pytest.fixture
def site() -> Iterator[ModelScopeSimulator]:
    with ModelScopeSimulator() as site:
        yield site


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each rest between two tries; none is waited for."""
    waits: list[float] = []

    async def rest(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(api_module, "rest", rest)
    monkeypatch.setattr(commits_module, "PAUSE_SECONDS", 0)
    return waits


@pytest.fixture
def environ(environ: dict[str, str], site: ModelScopeSimulator, tmp_path: Path, waits: list[float]) -> dict[str, str]:
    own = {"MODELSCOPE_ENDPOINT": site.endpoint, "MODELSCOPE_HOME": str(tmp_path / "modelscope")}
    return {**environ, **own, "MODELSCOPE_API_TOKEN": site.token}


def right(site: ModelScopeSimulator, repo: str = "team/tiny") -> bool:
    """Whether a repo there has exactly the files of the commit."""
    bodies = {path: each.data if isinstance(each, Lfs) else each for path, each in FILES.items()}
    sha256s = {path: hashlib.sha256(data).hexdigest() for path, data in bodies.items() if isinstance(data, bytes)}
    return site.files(repo) == sha256s


# --- The login --------------------------------------------------------------------------------------------------


def test_a_login_is_checked_kept_for_its_owner_alone_and_forgotten(
    hfpeer: Run, environ: dict[str, str], site: ModelScopeSimulator, tmp_path: Path
) -> None:
    del environ["MODELSCOPE_API_TOKEN"]
    ran = hfpeer("modelscope", "whoami")
    assert ran.code == 5 and "You are not logged in" in ran.err and "hfpeer modelscope login" in ran.err
    ran = hfpeer("modelscope", "login", "--token", site.bad_token)
    assert ran.code == 5 and "does not accept the token" in ran.err and site.bad_token not in ran.out + ran.err
    ran = hfpeer("modelscope", "login", "--token", site.read_token)
    assert (ran.code, ran.out) == (0, f"Logged in to {site.endpoint} as alice.\n")
    assert "Whether the token may write shows at the first push" in ran.err
    kept = tmp_path / "modelscope" / "credentials" / "cookies"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600 and stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    own = Path(environ["HFPEER_HOME"])
    assert not [path for path in own.rglob("*") if path.is_file() and site.read_token.encode() in path.read_bytes()]
    assert hfpeer("modelscope", "whoami").out == "alice\n"
    told = hfpeer("--json", "modelscope", "whoami").document
    assert told == {"user": "alice", "email": "alice@example.com", "endpoint": site.endpoint}
    assert hfpeer("--json", "modelscope", "logout").document == {"was_logged_in": True}
    assert hfpeer("modelscope", "logout").out == "You were not logged in.\n" and not kept.exists()


def test_a_token_of_the_environment_outweighs_the_login_and_is_named(hfpeer: Run, environ: dict[str, str]) -> None:
    ran = hfpeer("modelscope", "login", "--token", environ["MODELSCOPE_API_TOKEN"])
    assert ran.code == 0 and "MODELSCOPE_API_TOKEN in the environment outweighs" in ran.err
    ran = hfpeer("modelscope", "logout")
    assert ran.code == 5 and "the environment still has one" in ran.err and "Unset MODELSCOPE_API_TOKEN" in ran.err


# --- A push, a comparison and a list ----------------------------------------------------------------------------


def test_a_push_prints_what_was_sent_and_a_second_one_that_nothing_was(hfpeer: Run, site: ModelScopeSimulator) -> None:
    dry = hfpeer(*PUSH, "--dry-run")
    assert dry.code == 0 and "would be sent: 1 blob, 400.0 kB" in dry.out and "would be in the commit" in dry.out
    assert not site.storage.repos and "which blobs are stored there shows at the push" in dry.out
    ran = hfpeer(*PUSH, "--message", "Hello")
    assert ran.code == 0 and ran.err == ""
    assert ran.out.startswith("acme/tiny at abababababab -> team/tiny at ") and "; new, public" in ran.out
    assert "  sent: 1 blob, 400.0 kB\n  in the commit: 2 small files" in ran.out
    assert "  commit on master: " in ran.out and site.commits("team/tiny") == ["Hello"] and right(site)
    again = hfpeer(*PUSH)
    assert again.code == 0 and "there already: 3 files" in again.out and "nothing to send, no commit" in again.out
    told = hfpeer("--json", *PUSH).document
    wanted = {"state": "up to date", "files": 3, "same_files": 3, "sent_bytes": 0, "commits": [], "commit": "ab" * 20}
    assert {name: told[name] for name in wanted} == wanted


def test_a_comparison_names_what_differs_and_its_exit_code_says_so(hfpeer: Run, site: ModelScopeSimulator) -> None:
    site.put_repo("model", "team/tiny", {"README.md": b"# Tiny\n", "own.txt": b""})
    ran = hfpeer(*VERIFY)
    assert ran.code == 4 and "NOT WHOLE; 1 of 3 files the same" in ran.out
    assert "  not there: config.json, model.safetensors\n  only there, --prune removes it: own.txt" in ran.out
    site.put_repo("model", "team/tiny", {"config.json": b"[]"})
    ran = hfpeer("--json", *VERIFY)
    assert (ran.code, ran.document["exit_code"], ran.document["different"]) == (7, 7, ["config.json"])
    assert "replaced, other bytes were there: config.json" in hfpeer(*PUSH).out
    ran = hfpeer(*VERIFY)
    assert ran.code == 0 and "the same; 3 of 3 files" in ran.out
    assert "removed there: own.txt" in hfpeer(*PUSH, "--prune").out and right(site)


def test_a_list_has_a_row_for_each_repo_and_the_exit_code_of_the_first_failure(
    hfpeer: Run, site: ModelScopeSimulator, tmp_path: Path
) -> None:
    names = tmp_path / "models.txt"
    names.write_text("# models\n\nacme/none team/none\nacme/tiny team/tiny  # small\n")
    ran = hfpeer("modelscope", "push", "--list", str(names))
    assert ran.code == 4 and "1 failed; 1 not begun." in ran.err and "No hub has acme/none" in ran.out
    ran = hfpeer("modelscope", "push", "--list", str(names), "--keep-going", "--jobs", "2")
    assert ran.code == 4 and ran.out.splitlines()[0].split() == ["REPO", "AT", "MODELSCOPE", "STATE", "FILES", "SENT"]
    assert ran.out.splitlines()[2].split()[:4] == ["acme/tiny", "team/tiny", "pushed", "3"] and right(site)
    names.write_text("acme/tiny team/tiny\n")
    told = hfpeer("--json", "modelscope", "push", "--list", str(names), "--min-size", "100MB").document
    assert [(one["state"], one["exit_code"]) for one in told] == [("skipped", 0)] and "--min-size" in told[0]["reason"]
    ran = hfpeer("modelscope", "push", "--list", str(names), "--skip-existing")
    assert ran.code == 0 and "skipped" in ran.out and "already" in ran.out
    told = hfpeer("--json", "modelscope", "push", "--list", str(names)).document
    assert told[0]["state"] == "up to date" and told[0]["report"]["sent_bytes"] == 0


@pytest.mark.parametrize("visibility", ["gated", "private"])
def test_a_repo_that_is_not_public_needs_a_word_and_becomes_private(
    hfpeer: Run, node: SessionNode, site: ModelScopeSimulator, visibility: str
) -> None:
    node.visibility = visibility
    ran = hfpeer(*PUSH)
    assert ran.code == 5 and f"acme/tiny is {visibility} at the Hub" in ran.err and "--with-permission" in ran.err
    assert not site.storage.repos
    ran = hfpeer(*PUSH, "--with-permission")
    assert ran.code == 0 and "; new, private" in ran.out
    assert site.storage.repos["model", "team/tiny"].visibility == PRIVATE


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("push",), "Name the repo of the Hub, REPO"),
        (("push", "-r", "acme/tiny"), "Name the repo of the Hub, REPO"),
        (("push", "-r", "acme/tiny", "--to", "tiny"), "is not the name of a repo at ModelScope"),
        (("push", "-r", "acme/tiny", "--to", "a/b", "--branch", "../x"), "is not a branch"),
        (("push", "-r", "acme/tiny", "--to", "a/b", "--jobs", "2"), "--jobs is for --list"),
        (("push", "-r", "acme/tiny", "--to", "a/b", "--uploads", "0"), "1<=x<=16"),
        (("push", "--list", "no-such-file"), "cannot be read"),
        (("push", "--list", "-", "--to", "a/b"), "--list names many"),
        (("push", "-r", "acme/tiny", "--to", "a/b", "--min-size", "lots"), "lots"),
        (("push", "-r", "acme/tiny", "--to", "a/b", "--type", "space"), "space"),
        (("verify", "-r", "acme/tiny"), "Name the repo of the Hub, REPO"),
    ],
)
def test_a_mistake_is_a_sentence_and_nothing_is_asked(
    hfpeer: Run, site: ModelScopeSimulator, words: tuple[str, ...], said: str
) -> None:
    ran = hfpeer("modelscope", *words)
    assert ran.code == 2 and said in ran.err, ran.err
    assert not site.requests


# --- What ModelScope does wrong ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A fault of one route, the exit code of a push that meets it, and what the user reads."""

    path: str
    fault: Callable[[ModelScopeSimulator], Fault]
    code: int
    said: str
    times: int | None = None


def case(path: str, fault: Fault, code: int, said: str = "", times: int | None = None) -> Case:
    return Case(path, lambda site: fault, code, said, times)


def revoked(site: ModelScopeSimulator) -> Fault:
    """The token ends before the request is answered."""
    return faults.before(lambda: site.storage.users.pop(site.token, None))


def refused_commit(status: int, message: str) -> Fault:
    return faults.refused(status, message, 10030000001)


TAKEN = faults.refused(400, "该名称已被注册使用，请重新命名", 10010101001)
BUSY = "Error 1461: Can't create more than max_prepared_stmt_count statements"
WRONG = "still lists other bytes of 1 file of team/tiny: config.json"
CASES = {
    # Who asks
    "token not accepted": case(LOGIN, faults.refused(401, "expired"), 5, "does not accept the token"),
    "token revoked meanwhile": Case(PUT, revoked, 5, "does not accept the token", 1),
    "site silent about the user": case(LOGIN, hub_faults.status(500), 6, "answers status 500"),
    # Creating a repo
    "name taken, and hidden": case(CREATE, TAKEN, 5, "already, and this token may not see it"),
    "name taken, 409": case(CREATE, faults.refused(409, "exists"), 5, "already, and this token may not see it"),
    "may not create": case(CREATE, faults.refused(403, "no permission"), 5, "does not let this token write"),
    "create fails": case(CREATE, hub_faults.status(500), 6, "answers status 500"),
    "repo appears meanwhile": Case(
        CREATE, lambda site: faults.before(lambda: site.storage.create("model", "team/tiny")), 0, "public", 1
    ),
    # Listings
    "list fails": case(LIST, hub_faults.status(500), 6, "answers status 500"),
    "list is limited": case(LIST, faults.refused(429, "too many requests"), 6, "limits the rate of requests"),
    "list says that the site is busy": case(LIST, faults.refused(404, BUSY, 10010205001), 6, "max_prepared_stmt_count"),
    "list is denied": case(LIST, faults.refused(403, "access denied"), 5, "refuses access to team/tiny"),
    "list is null": case(LIST, faults.no_files(), 1, "still lists other bytes of 3 files"),
    "branch is missing for a moment": case(LIST, faults.refused(404, "no tree", 10990101004), 0, "commit on", 1),
    "sha256 null": case(LIST, faults.entry_with("config.json", Sha256=None), 0, "tells no sha256 of 1 file"),
    "sha256 empty": case(LIST, faults.entry_with("config.json", Sha256=""), 0, "tells no sha256 of 1 file"),
    "sha256 of git": case(LIST, faults.entry_with("config.json", Sha256="ab" * 20), 0, "tells no sha256 of 1 file"),
    "sha256 wrong": case(LIST, faults.entry_with("config.json", Sha256="ab" * 32), 1, WRONG),
    "size wrong": case(LIST, faults.entry_with("config.json", Size=3), 1, WRONG),
    "LFS mark wrong": case(LIST, faults.entry_with("config.json", IsLFS=True), 0, "commit on"),
    "write route for reads": case(LIST, faults.refused(421, "self-forwarded loop"), 6, "self-forwarded loop"),
    # Which blobs are wanted
    "batch fails": case(BATCH, hub_faults.status(500), 6, "answers status 500"),
    "batch with an error": case(BATCH, faults.object_error(), 1, "refuses the blob"),
    "batch with a foreign blob": case(BATCH, faults.foreign_object(), 6, "names a blob that was not asked for"),
    "batch to a foreign host": case(
        BATCH, faults.hrefs(lambda href: href.replace("localhost", "evil.example")), 6, "not the blob's address there"
    ),
    "batch to another blob": case(
        BATCH, faults.hrefs(lambda href: href[:-71] + "ab" * 32 + "/7"), 6, "not the blob's address there"
    ),
    "batch forgets": case(
        BATCH, faults.altered(lambda document: document["Data"].update(objects=[])), 1, "is not stored"
    ),
    "batch wants what is stored": Case(
        BATCH,
        lambda site: faults.wants_stored(
            lambda oid, size: f"{site.site.lfs_endpoint}/api/v1/repos/models/team/tiny/blobs/{oid}/{size}"
        ),
        0,
        "sent: 1 blob",
    ),
    # Sending a blob
    "PUT reset": case(PUT, hub_faults.cut_before_headers(reset=True), 0, "sent again after failures: 400.0 kB", 1),
    "PUT too large": case(PUT, faults.html(413), 1, "model.safetensors (400,000 bytes)"),
    "PUT fails": case(PUT, hub_faults.status(500), 6, "answers status 500"),
    "PUT without success": case(PUT, faults.unsuccessful("disk full"), 1, "disk full"),
    "PUT with an empty answer": case(PUT, faults.empty_success(), 0, "commit on"),
    "PUT whose answer is lost": case(PUT, faults.lost_reply(), 0, "commit on", 1),
    # The commit
    "commit races": case(COMMIT, refused_commit(409, "branch changed, please retry"), 6, "branch changed"),
    "commit races once": case(COMMIT, refused_commit(400, "could not update refs"), 0, "commit on", 1),
    "commit against a policy": case(
        COMMIT, refused_commit(400, "commit rejected by repository policy"), 6, "repository policy"
    ),
    "commit limited": case(COMMIT, faults.refused(429, "Commit frequency limit exceeded"), 6, "limits the rate"),
    "commit limited, with a time": case(
        COMMIT, faults.refused(429, "slow down", retry_after="30"), 0, "(slow down); going on in 30 s.", 1
    ),
    "commit fails": case(COMMIT, hub_faults.status(500), 6, "answers status 500"),
    "commit behind a proxy": case(COMMIT, faults.html(504, "Gateway Time-out"), 6, "Gateway Time-out"),
    "commit too large": case(COMMIT, faults.html(413), 1, "takes no message of this size"),
    "commit without success": case(COMMIT, faults.unsuccessful("could not commit"), 1, "could not commit"),
    "commit whose answer is lost": case(COMMIT, faults.lost_reply(), 0, "public", 1),
    "commit on no branch": case(COMMIT, refused_commit(400, "when you are on a branch"), 1, "leave out --branch"),
    "commit with too many changes": case(COMMIT, faults.refused(422, "exceeds actions limit"), 1, "actions limit"),
    "commit with a bad path": case(COMMIT, faults.refused(400, "invalid commit action: ./x"), 1, "action: ./x"),
    "commit of what exists": case(COMMIT, faults.refused(400, "A file with this name already exists"), 0, "", 1),
    "commit without the right": case(
        COMMIT, faults.refused(403, "no write permission"), 5, "may only read cannot push"
    ),
    "commit logged out": case(COMMIT, refused_commit(400, "user not logged in"), 5, "does not accept the token"),
    "foreign commit meanwhile": Case(
        COMMIT,
        lambda site: hub_faults.afterwards(
            lambda: site.storage.put_files(site.storage.repos["model", "team/tiny"], {"config.json": b"x"})
        ),
        1,
        WRONG,
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_ends_well_or_in_a_sentence_and_the_same_command_goes_on(
    hfpeer: Run, site: ModelScopeSimulator, waits: list[float], name: str
) -> None:
    case = CASES[name]
    users = dict(site.storage.users)
    with site.inject(case.fault(site), path=case.path, times=case.times) as injected:
        ran = hfpeer(*PUSH)
    assert injected.hits and ran.code == case.code, (ran.code, ran.err)
    assert case.said in ran.out + ran.err and "Traceback" not in ran.err
    if ran.code:
        assert ran.out == "" and ran.err.splitlines()[-2].startswith("Error: ")
        assert ran.err.splitlines()[-1].startswith("Hint: ")
    assert sum(waits) <= 900
    site.storage.users.update(users)
    assert hfpeer(*PUSH).code == 0 and right(site)


def test_a_listing_that_is_cut_is_asked_for_by_folder_and_one_that_cannot_be_is_refused(
    hfpeer: Run, node: SessionNode, site: ModelScopeSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.behaviour.listing_cap = 20
    monkeypatch.setattr(listing_module, "LISTING_CAP", 20)
    node.put_repo(REPO, {f"{n % 3}/{n:03}.txt": b"" for n in range(48)})
    assert hfpeer(*PUSH).code == 0
    site.inject(faults.refused(403, "access denied"), path=LIST, times=1).remaining = 0
    node.put_repo(REPO, {f"all/{n:03}.txt": b"" for n in range(30)})
    ran = hfpeer(*PUSH)
    assert ran.code == 1 and "the folder 'all' has 20 entries or more" in ran.err and "more folders" in ran.err


def test_waits_and_progress_are_events_with_json_lines(hfpeer: Run, site: ModelScopeSimulator) -> None:
    site.inject(faults.refused(429, "slow down", retry_after="30"), path=COMMIT, times=1)
    ran = hfpeer("--json-lines", *PUSH)
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert next(line["reason"] for line in lines if line.get("event") == "wait_began").endswith("going on in 30 s.")
    progress = [line for line in lines if line.get("event") == "progressed"][-1]
    assert progress["present_bytes"] == progress["size_bytes"] == 400_000
    assert lines[-1]["result"]["state"] == "pushed"


def test_a_problem_is_json_when_json_is_asked_for(hfpeer: Run, site: ModelScopeSimulator) -> None:
    site.inject(faults.html(413), path=PUT)
    ran = hfpeer("--json", *PUSH)
    assert (ran.code, ran.out) == (1, "")
    assert ran.problem["code"] == "push_refused" and ran.problem["facts"]["path"] == "model.safetensors"
    assert json.loads(ran.err) == ran.problem
