"""What leaves a machine, and what does not: a hub whose repos change hands, peers and mirrors that lie."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes import hub_cache
from fakes.endpoint import Endpoint
from fakes.hub import Content, HubSimulator, Lfs, faults
from fakes.machine import Machine, Machines
from fakes.peers import GoodPeer
from fakes.waiting import wait_until
from hfpeer.cache.commits.manifests import Manifests
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, RepoId

SECRET = os.urandom(300_000)
SECRET_DIGEST = f"sha256:{hashlib.sha256(SECRET).hexdigest()}"
OPEN = os.urandom(250_000)
OPEN_DIGEST = f"sha256:{hashlib.sha256(OPEN).hexdigest()}"
PRIV = RepoId.parse("acme/priv")


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        yield hub


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Machines(tmp_path) as machines:
        yield machines


def get(address: str, path: str) -> tuple[int, bytes]:
    """What a stranger on the LAN is answered."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def served(machine: Machine, repo: str, commit: str, digest: str) -> dict[str, bool]:
    """Whether peers are given a blob, and are shown the commit that it is in."""
    address = machine.address
    return {
        "blob": get(address, f"/blobs/{digest}")[0] == 200,
        "pieces": get(address, f"/blobs/{digest}/pieces")[0] == 200,
        "batch": f"{digest} -\n".encode() not in get(address, f"/batch?digests={digest}")[1],
        "manifest": get(address, f"/manifests/models/{repo}/{commit}")[0] == 200,
        "catalog": commit in get(address, "/catalog")[1].decode(),
    }


ALL = dict.fromkeys(("blob", "pieces", "batch", "manifest", "catalog"), True)
NONE = dict.fromkeys(ALL, False)
NOT_NOW = (429, 503)
"""What the endpoint answers while nobody who knows can be asked."""


def endpoint_of(machine: Machine) -> Endpoint:
    return Endpoint(f"http://{machine.do('status')['listeners']['endpoint']}")


def at_endpoint(machine: Machine, repo: str, commit: str, path: str = "weights.bin", token: str = "") -> int:
    """The status of a file for a local caller."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return endpoint_of(machine).get(f"/{repo}/resolve/{commit}/{path}", **headers).status


def put_open(hub: HubSimulator, repo: str = "acme/once") -> str:
    return hub.put_repo("model", repo, {"config.json": b"{}", "weights.bin": Lfs(OPEN)})


def shared(machine: Machine, repo: str) -> dict[str, tuple[str, bool]]:
    rows = machine.found("model", "ls", "-r", repo)
    return {row["commit"]: (row["visibility"], row["is_shared"]) for row in rows}


# What was made of a repo


def test_a_conversion_is_as_visible_as_the_dataset_that_it_was_made_of(
    hub: HubSimulator, machines: Machines, tmp_path: Path
) -> None:
    """Alone, and beside another one in the folder of a recipe. The owner's word stands above."""
    names = ("open", "gated", "private")
    source = {name: hub.put_repo("dataset", f"acme/{name}", {"a.jsonl": b"{}\n" * 3}) for name in names}
    hub.repo("dataset", "acme/gated").gated = "auto"
    hub.repo("dataset", "acme/private").is_private = True
    owner = machines.make("owner", upstreams=f"origin={hub.endpoint}", HF_TOKEN=hub.valid_token)
    owner.start()
    peer = machines.make("peer", upstreams=f"origin={hub.endpoint}", peers=[owner.address])
    peer.start()
    for name in names:
        owner.do("dataset", "add", "-r", f"acme/{name}")
    folders = {name: tmp_path / "made" / name for name in names}
    for name, folder in folders.items():
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text(f'{{"of": "{name}"}}\n')
        record = {"format": 1, "key": name, "repo": f"acme/{name}", "commit": source[name]}
        (folder / "conversion.json").write_text(json.dumps(record))
    folders["all"] = tmp_path / "made"
    published = {
        name: owner.do("dataset", "publish", str(folder), "--as", f"team/{name}") for name, folder in folders.items()
    }
    assert {name: one["is_shared"] for name, one in published.items()} == {
        "open": True,
        "gated": False,
        "private": False,
        "all": False,
    }
    (note,) = published["gated"]["notes"]
    assert "made of datasets/acme/gated at" in note and "`hfpeer dataset share -r team/gated` lets them" in note
    assert offered(owner) == {"datasets/acme/open", "datasets/team/open"}
    commits = {name: one["commit"] for name, one in published.items()}
    for name in ("gated", "private", "all"):
        assert peer.hfpeer("dataset", "add", "-r", f"team/{name}", "-v", commits[name]).code
        assert get(owner.address, f"/manifests/datasets/team/{name}/{commits[name]}")[0] == 404
        assert at_endpoint(owner, f"datasets/team/{name}", commits[name], "rows.jsonl") != 200
    assert peer.do("dataset", "add", "-r", "team/open", "-v", commits["open"])["commit"] == commits["open"]
    owner.do("dataset", "share", "-r", "team/all")
    assert peer.do("dataset", "add", "-r", "team/all", "-v", commits["all"])["commit"] == commits["all"]
    assert "datasets/team/gated" not in offered(owner)


def offered(machine: Machine) -> set[str]:
    """The repos that a stranger on the LAN finds in the catalog."""
    return {one["repo"] for one in json.loads(get(machine.address, "/catalog")[1])["revisions"]}


def test_a_conversion_that_is_not_finished_is_not_published(machines: Machines, tmp_path: Path) -> None:
    (tmp_path / "made" / "squad" / ".conversion").mkdir(parents=True)
    (tmp_path / "made" / "squad" / ".conversion" / "plan.json").write_text("{}")
    ran = machines.make("owner").hfpeer("dataset", "publish", str(tmp_path / "made"), "--as", "team/made")
    assert ran.code == 2 and "made/squad has a conversion that is not finished" in ran.problem["message"]


# A repo that is closed after it was open (C1, case 4)


@pytest.mark.parametrize("becomes", ["private", "gated"])
def test_what_came_with_a_token_is_not_shared_because_its_repo_was_open_once(
    hub: HubSimulator, machines: Machines, becomes: str
) -> None:
    old = put_open(hub)
    machine = machines.make("once", upstreams=f"origin={hub.endpoint}")
    machine.start()
    machine.do("model", "add", "-r", "acme/once")
    assert served(machine, "acme/once", old, OPEN_DIGEST) == ALL
    assert at_endpoint(machine, "acme/once", old) == 200

    repo = hub.repo("model", "acme/once")
    repo.is_private, repo.gated = becomes == "private", "auto" if becomes == "gated" else None
    new = repo.commit({"weights.bin": Lfs(SECRET)})
    machine.do("model", "add", "-r", "acme/once", HF_TOKEN=hub.valid_token)
    for _ in range(2):
        assert served(machine, "acme/once", new, SECRET_DIGEST) == NONE
        assert served(machine, "acme/once", old, OPEN_DIGEST) == NONE, "the origin says no: that ends it"
        assert [at_endpoint(machine, "acme/once", commit) for commit in (new, old)] == [401, 401]
        assert at_endpoint(machine, "acme/once", new, token=hub.valid_token) == 200
        assert shared(machine, "acme/once") == {new: (becomes, False), old: (becomes, False)}
        machine.do("daemon", "restart")


def test_a_commit_that_a_token_brought_while_the_origin_did_not_answer_nobody_is_not_shared(
    hub: HubSimulator, machines: Machines
) -> None:
    """Not even though another commit of the repo is public."""
    old = put_open(hub)
    machine = machines.make("mute", upstreams=f"origin={hub.endpoint}", HF_TOKEN=hub.valid_token)
    machine.start()
    machine.do("model", "add", "-r", "acme/once")
    new = hub.repo("model", "acme/once").commit({"weights.bin": Lfs(SECRET)})

    def mute(request: Any, answer: Any) -> Any:
        is_question = "authorization" not in request.headers and f"/revision/{new}" in request.path
        return faults.status(503)(request, answer) if is_question else answer(request)

    with hub.inject(mute):
        machine.do("model", "add", "-r", "acme/once")
        assert served(machine, "acme/once", new, SECRET_DIGEST) == NONE
        assert served(machine, "acme/once", old, OPEN_DIGEST) == ALL, "silence ends nothing"
    machine.do("model", "add", "-r", "acme/once")
    assert served(machine, "acme/once", new, SECRET_DIGEST) | {"batch": True} == ALL, "too large for a batch"


def test_a_company_hub_set_later_opens_and_closes_by_its_own_word(hub: HubSimulator, machines: Machines) -> None:
    old = put_open(hub)
    with HubSimulator() as company:
        new = company.put_repo("model", "acme/once", {"weights.bin": Lfs(SECRET)}, visibility="private")
        both = f"origin={hub.endpoint},origin={company.endpoint}"
        machine = machines.make("company", upstreams=f"origin={hub.endpoint}")
        machine.start()
        machine.do("model", "add", "-r", "acme/once")
        machine.stop()
        machine.environ["HFPEER_UPSTREAMS"] = both
        machine.start()
        machine.do("model", "add", "-r", "acme/once", "-v", new, HF_TOKEN=company.valid_token)
        assert served(machine, "acme/once", new, SECRET_DIGEST) == NONE
        assert served(machine, "acme/once", old, OPEN_DIGEST) == ALL, "the hub that it came from lists it"
        assert at_endpoint(machine, "acme/once", new) == 404, "as the hub that shows the repo says"


def test_a_refusal_makes_it_ask_and_what_opens_is_shared_by_itself(hub: HubSimulator, machines: Machines) -> None:
    commit = put_open(hub)
    machine = machines.make("asks", upstreams=f"origin={hub.endpoint}")
    machine.start()
    machine.do("model", "add", "-r", "acme/once")
    hub.repo("model", "acme/once").is_private = True
    assert machine.hfpeer("model", "add", "-r", "acme/once").code == 4
    assert served(machine, "acme/once", commit, OPEN_DIGEST) == NONE
    hub.repo("model", "acme/once").is_private = False
    assert at_endpoint(machine, "acme/once", commit) == 200
    assert served(machine, "acme/once", commit, OPEN_DIGEST) == ALL
    (row,) = machine.found("model", "ls", "-r", "acme/once")
    assert row["said_by"] == hub.endpoint and row["asked_at"] > 1e9


def mute_to_nobody(request: Any, answer: Any) -> Any:
    """A hub whose API answers only those who show a token."""
    is_asked_by_nobody = "authorization" not in request.headers and request.path.startswith("/api/")
    return faults.status(503)(request, answer) if is_asked_by_nobody else answer(request)


def test_what_a_token_listed_is_not_shown_because_the_files_here_are_no_secret(
    hub: HubSimulator, machines: Machines
) -> None:
    """An empty file is nobody's secret, nor is one that a peer gave; that this repo has it is, and what else it has."""
    hub.put_repo("model", "acme/open", {"tokens.json": b"[1, 2, 3]"})
    files: dict[str, Content] = {"tokens.json": b"[1, 2, 3]", "__init__.py": b"", "weights.bin": Lfs(SECRET)}
    commit = hub.put_repo("model", "acme/priv", files, visibility="private")
    first = machines.make("first", upstreams=f"origin={hub.endpoint}")
    first.start()
    first.do("model", "add", "-r", "acme/open")
    second = machines.make("second", upstreams=f"origin={hub.endpoint}", peers=[first.address])
    second.start()
    assert second.do("model", "add", "-r", "acme/open")["bytes_by_kind"].keys() == {"peer"}
    with hub.inject(mute_to_nobody):
        for name in ("tokens.json", "__init__.py"):
            second.do("model", "add", "-r", "acme/priv", "--include", name, HF_TOKEN=hub.valid_token)
            assert served(second, "acme/priv", commit, SECRET_DIGEST) == NONE
            assert at_endpoint(second, "acme/priv", commit, name) != 200
            assert endpoint_of(second).get(f"/api/models/acme/priv/tree/{commit}").status != 200
    assert shared(second, "acme/priv")[commit][1] is False


def test_a_repo_that_is_closed_again_a_moment_after_it_was_opened_is_closed(
    hub: HubSimulator, machines: Machines
) -> None:
    commit = put_open(hub)
    machine = machines.make("flips", upstreams=f"origin={hub.endpoint}")
    machine.start()
    repo = hub.repo("model", "acme/once")
    for _ in range(2):
        repo.is_private = False
        machine.do("model", "add", "-r", "acme/once", HF_TOKEN=hub.valid_token)
        assert served(machine, "acme/once", commit, OPEN_DIGEST) == ALL
        repo.is_private = True
        assert machine.hfpeer("model", "add", "-r", "acme/once").code == 4
        assert served(machine, "acme/once", commit, OPEN_DIGEST) == NONE


def test_a_ticket_for_xet_opens_nothing_that_was_closed_since(hub: HubSimulator, machines: Machines) -> None:
    large = os.urandom(2_000_000)
    digest = hashlib.sha256(large).hexdigest()
    commit = hub.put_repo("model", "acme/once", {"weights.bin": Lfs(large), "small.bin": Lfs(b"small")})
    machine = machines.make("ticket", upstreams=f"origin={hub.endpoint}")
    machine.start()
    machine.do("model", "add", "-r", "acme/once")
    endpoint = endpoint_of(machine)
    ticket = endpoint.get(f"/api/models/acme/once/xet-read-token/{commit}").headers["x-xet-access-token"]
    assert endpoint.get(f"/xorbs/{ticket}/{digest}/0").status == 206
    assert endpoint.get(f"/xorbs/{ticket}/{hashlib.sha256(b'small').hexdigest()}/0").status == 404
    hub.repo("model", "acme/once").is_private = True
    assert machine.hfpeer("model", "add", "-r", "acme/once").code == 4
    assert endpoint.get(f"/xorbs/{ticket}/{digest}/0").status == 401
    assert endpoint.get(f"/reconstructions/{digest}", Authorization=f"Bearer {ticket}").status == 404


# Peers that say what is not theirs (H1, H2)


def forged(repo: RepoId, *, body: bytes = SECRET) -> Manifest:
    """A manifest with a proof, of a commit of the forger's own, that names a digest of somebody else."""
    from hfpeer.node.operations.publishing import read_folder

    folder = Path(os.environ["PYTEST_TMP"]) / repo.name
    folder.mkdir(exist_ok=True)
    (folder / "weights.bin").write_bytes(body)
    (folder / ".gitattributes").write_text("*.bin filter=lfs\n")
    return read_folder(folder, repo).manifest


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))


def test_a_peers_word_opens_nothing_that_was_here_before(hub: HubSimulator, machines: Machines) -> None:
    """Another tool put a private repo here. The hub is down, and a peer has a commit of its own under that name, which
    names the same weights; and another name for them."""
    bodies = {"weights.bin": SECRET}
    manifest, other = forged(PRIV), forged(RepoId.parse("evil/priv2"))
    extra = {file.digest: b"*.bin filter=lfs\n" for file in manifest.files if file.path == ".gitattributes"}
    with GoodPeer(extra, manifests=[manifest, other]) as peer, hub.down():
        machine = machines.make("before", upstreams=f"origin={hub.endpoint}", peers=[str(peer.address)])
        commit = hub_cache.COMMIT
        hub_cache.download(machine.cache, bodies, commit, PRIV, tree=True)
        machine.start()
        for repo, evil in (("acme/priv", manifest), ("evil/priv2", other)):
            machine.hfpeer("model", "add", "-r", repo, "-v", evil.commit)
            assert at_endpoint(machine, repo, evil.commit) in NOT_NOW
        listed = machine.do("model", "ls", "-r", "acme/priv", "-v", commit)["listing"]
        wait_until(lambda: machine.status().unverified_files == 0, "it is verified")
        assert {file["digest"] for file in listed} == {SECRET_DIGEST}
        for repo, seen in (("acme/priv", commit), ("acme/priv", manifest.commit), ("evil/priv2", other.commit)):
            found = served(machine, repo, seen, SECRET_DIGEST)
            assert found == NONE | {"manifest": found["manifest"], "catalog": found["catalog"]}
        assert served(machine, "acme/priv", commit, SECRET_DIGEST) == NONE
        assert at_endpoint(machine, "acme/priv", commit) in NOT_NOW


@pytest.mark.parametrize("is_down_at_first", [False, True], ids=["hub up", "hub down at first"])
def test_a_peer_opens_no_private_repo_to_the_users_of_this_machine(
    hub: HubSimulator, machines: Machines, is_down_at_first: bool
) -> None:
    commit = hub.put_repo("model", "acme/priv", {"weights.bin": Lfs(SECRET)}, visibility="private")
    with GoodPeer(manifests=[Manifest(PRIV, Commit(commit), ())]) as peer:
        machine = machines.make("users", upstreams=f"origin={hub.endpoint}", peers=[str(peer.address)])
        machine.start()
        if is_down_at_first:
            with hub.down():
                assert at_endpoint(machine, "acme/priv", commit) in NOT_NOW
        assert at_endpoint(machine, "acme/priv", commit) != 200
        token = hub.valid_token
        wait_until(lambda: at_endpoint(machine, "acme/priv", commit, token=token) == 200, "the owner gets it")
        said = wait_until(lambda: (status := at_endpoint(machine, "acme/priv", commit)) in (200, 401) and status, "no")
        assert said == 401
        assert at_endpoint(machine, "acme/priv", commit, token=hub.foreign_token) == 404
        machine.do("daemon", "restart")
        with hub.down():
            assert at_endpoint(machine, "acme/priv", commit) == 401
            assert at_endpoint(machine, "acme/priv", commit, token=hub.valid_token) == 200


def test_what_was_said_of_a_commit_to_a_token_is_not_said_to_who_has_it_from_a_peer(
    hub: HubSimulator, machines: Machines
) -> None:
    """The catalog is lost and the hub is down; a peer names the commit and lists its files."""
    card = b"---\nlibrary_name: secret-library\n---\n"
    commit = hub.put_repo("model", "acme/priv", {"README.md": card, "weights.bin": Lfs(SECRET)}, visibility="private")
    machine = machines.make("told", upstreams=f"origin={hub.endpoint}")
    machine.start()
    said = endpoint_of(machine).get(
        f"/api/models/acme/priv/revision/{commit}", Authorization=f"Bearer {hub.valid_token}"
    )
    assert "createdAt" in said.document
    manifest = Manifests(machine.home / "manifests", machine.cache).load(PRIV, Commit(commit))
    assert manifest is not None
    machine.stop()
    for file in machine.home.glob("catalog.sqlite*"):
        file.unlink()
    with GoodPeer(manifests=[manifest]) as peer, hub.down():
        machine.environ["HFPEER_PEERS"] = str(peer.address)
        machine.start()

        def seen() -> Any:
            answer = endpoint_of(machine).get(f"/api/models/acme/priv/revision/{commit}")
            return answer.status == 200 and answer.document

        assert "createdAt" not in wait_until(seen, "the peer's listing is shown")
        history = endpoint_of(machine).get(f"/api/models/acme/priv/commits/{commit}")
        assert history.status != 200 or len(history.document) <= 1
        assert at_endpoint(machine, "acme/priv", commit) in NOT_NOW


def test_the_list_that_a_token_was_shown_is_not_shown_for_a_list_that_a_peer_made_up(
    hub: HubSimulator, machines: Machines
) -> None:
    files = {"secret-name.bin": Lfs(SECRET)}
    commit = hub.put_repo("model", "acme/priv", files, visibility="private")
    with GoodPeer(manifests=[Manifest(PRIV, Commit(commit), ())]) as peer, hub.inject(mute_to_nobody):
        machine = machines.make(
            "lists", upstreams=f"origin={hub.endpoint}", peers=[str(peer.address)], HFPEER_TRUST_ATTESTED="true"
        )
        machine.start()
        tree = f"/api/models/acme/priv/tree/{commit}"
        owner = endpoint_of(machine).like(Authorization=f"Bearer {hub.valid_token}")
        wait_until(lambda: owner.get(tree).status == 200, "it is listed")
        assert b"secret-name" in owner.get(tree).body

        def seen() -> Any:
            said = endpoint_of(machine).get(tree)
            return said.status == 200 and said

        assert b"secret-name" not in wait_until(seen, "the peer's list is shown").body
        assert b"secret-name" in owner.get(tree).body


# Mirrors (H3, case 6)


def test_a_mirrors_word_opens_nothing(hub: HubSimulator, machines: Machines) -> None:
    commit = hub.put_repo("model", "acme/priv", {"weights.bin": Lfs(SECRET)}, visibility="private")
    with HubSimulator() as mirror:
        said = json.dumps({"id": "acme/priv", "sha": commit, "private": False, "gated": False, "siblings": []})
        mirror.inject(faults.status(200, said), path="/api/models/acme/priv/revision/*")
        upstreams = f"mirror={mirror.endpoint},origin={hub.endpoint}"
        machine = machines.make("mirrored", upstreams=upstreams, HFPEER_VISIBILITY_ASK_MIRRORS="true")
        machine.start()
        machine.do("model", "add", "-r", "acme/priv", "-v", commit, HF_TOKEN=hub.valid_token)
        assert served(machine, "acme/priv", commit, SECRET_DIGEST) == NONE
        assert at_endpoint(machine, "acme/priv", commit) == 401
        machine.stop()
        (machine.home / "catalog.sqlite").unlink()
        with hub.down():
            machine.start()
            wait_until(lambda: machine.status().unverified_files == 0, "it is verified")
            assert served(machine, "acme/priv", commit, SECRET_DIGEST) == NONE
            assert at_endpoint(machine, "acme/priv", commit) != 200


def test_what_a_mirror_gives_without_a_token_is_shared_while_the_origin_cannot_be_reached(
    hub: HubSimulator, machines: Machines
) -> None:
    commit = put_open(hub)
    with HubSimulator(mirror_of=hub) as mirror:
        upstreams = f"mirror={mirror.endpoint},origin=http://127.0.0.1:9"
        machine = machines.make("mainland", upstreams=upstreams, HF_TOKEN=hub.valid_token)
        machine.start()
        machine.do("model", "add", "-r", "acme/once")
        assert served(machine, "acme/once", commit, OPEN_DIGEST) == ALL
        assert shared(machine, "acme/once") == {commit: ("given", True)}
        assert at_endpoint(machine, "acme/once", "main") in (200, 307)
        assert at_endpoint(machine, "acme/once", commit) == 200

        trusting = machines.make(
            "trusting", upstreams=upstreams, HF_TOKEN=hub.valid_token, HFPEER_MIRROR_SEND_TOKEN="true"
        )
        trusting.start()
        trusting.do("model", "add", "-r", "acme/once")
        assert served(trusting, "acme/once", commit, OPEN_DIGEST) == NONE
        assert shared(trusting, "acme/once") == {commit: ("unknown", False)}


def test_a_mirrors_no_teaches_nothing_and_its_gated_closes(hub: HubSimulator, machines: Machines) -> None:
    commit = put_open(hub)
    contribution = machines.make("giver", upstreams=f"origin={hub.endpoint}")
    contribution.start()
    contribution.do("model", "add", "-r", "acme/once")
    with HubSimulator() as mirror:
        upstreams = f"mirror={mirror.endpoint},origin=http://127.0.0.1:9"
        taker = machines.make(
            "taker", upstreams=upstreams, peers=[contribution.address], HFPEER_VISIBILITY_ASK_MIRRORS="true"
        )
        taker.start()
        mirror.inject(faults.status(401, headers={"X-Error-Code": "RepoNotFound"}), path="/api/*")
        taker.do("model", "add", "-r", "acme/once", "-v", commit)
        assert shared(taker, "acme/once") == {commit: ("given", True)}
        mirror.faults.clear()
        gated = json.dumps({"id": "acme/once", "sha": commit, "private": False, "gated": "auto"})
        mirror.inject(faults.status(200, gated), path="/api/models/acme/once/revision/*")
        taker.do("model", "add", "-r", "acme/once", "-v", commit)
        assert shared(taker, "acme/once") == {commit: ("gated", False)}
        assert served(taker, "acme/once", commit, OPEN_DIGEST) == NONE


# Publishing (M9)


def test_publishing_under_a_name_shares_that_commit_alone(
    hub: HubSimulator, machines: Machines, tmp_path: Path
) -> None:
    preview = tmp_path / "preview"
    preview.mkdir()
    (preview / "weights.bin").write_bytes(b"a preview")
    machine = machines.make("team", upstreams=f"origin={hub.endpoint}")
    machine.start()
    published = machine.do("model", "publish", str(preview), "--as", "team/model")
    preview_digest = f"git-sha1:{hashlib.sha1(b'blob 9' + bytes(1) + b'a preview').hexdigest()}"
    assert served(machine, "team/model", published["commit"], preview_digest) == ALL
    commit = hub.put_repo("model", "team/model", {"weights.bin": Lfs(SECRET)}, visibility="private")
    machine.do("model", "add", "-r", "team/model", "-v", commit, HF_TOKEN=hub.valid_token)
    assert served(machine, "team/model", commit, SECRET_DIGEST) == NONE
    assert served(machine, "team/model", published["commit"], preview_digest) == ALL
    assert at_endpoint(machine, "team/model", commit) == 401
    assert at_endpoint(machine, "team/model", published["commit"]) == 200
    refs = endpoint_of(machine).get("/api/models/team/model/refs")
    assert commit not in refs.body.decode()


# Without Internet


def test_a_lan_without_internet_passes_on_what_it_was_given(hub: HubSimulator, machines: Machines) -> None:
    """The first has it from the hub; the second from the first; the third, when the first is gone, from the second.
    What another tool puts beside it is not passed on."""
    commit = put_open(hub)
    first = machines.make("first", upstreams=f"origin={hub.endpoint}")
    first.start()
    first.do("model", "add", "-r", "acme/once")
    nowhere = "origin=http://127.0.0.1:9"
    second = machines.make("second", upstreams=nowhere, peers=[first.address])
    second.start()
    second.do("model", "add", "-r", "acme/once", "-v", commit)
    assert served(second, "acme/once", commit, OPEN_DIGEST) == ALL
    assert at_endpoint(second, "acme/once", commit) == 200
    first.stop()
    third = machines.make("third", upstreams=nowhere, peers=[second.address])
    third.start()
    finished = third.do("model", "add", "-r", "acme/once", "-v", commit)
    assert finished["bytes_by_kind"].keys() == {"peer"}
    assert served(third, "acme/once", commit, OPEN_DIGEST) == ALL

    hub_cache.download(second.cache, {"secret.bin": SECRET}, Commit(commit), RepoId.parse("acme/once"), ref=None)
    wait_until(lambda: len(second.do("model", "ls", "-r", "acme/once", "-v", commit)["listing"]) == 3, "found", 60)
    wait_until(lambda: second.status().unverified_files == 0, "it is verified")
    assert served(second, "acme/once", commit, SECRET_DIGEST) == NONE
    assert get(second.address, f"/blobs/{OPEN_DIGEST}")[0] == 200
    assert at_endpoint(second, "acme/once", commit, "secret.bin") != 200
