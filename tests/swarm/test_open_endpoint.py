"""The endpoint opened to the LAN: what a machine without hfpeer gets with `HF_ENDPOINT` alone, and what it does not.

The hub is on the node's own loopback, where the guest cannot reach it: every address that the guest is sent to has to
be the node's.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes.endpoint import Said
from fakes.machine import OWN_VARIABLES, Machine, Machines
from fakes.network.host import Host
from fakes.network.lan import Lan, why_not

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=f"no LAN can be built here: {why_not()}"),
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
TESTS = Path(__file__).parent.parent
PORT = 9438
OWN_TOKEN = "hf_" + "TheNodesOwnerHasThisToken00000000"
HUB = """
import json, sys
from fakes.hub import HubSimulator, Lfs
from fakes.hub.zoo import noise

files = {"config.json": b"{}", "weights.bin": Lfs(noise(3_000_000, "weights"))}
with HubSimulator() as hub:
    hub.storage.add_user("owner", sys.argv[1])
    commits = {}
    for visibility in ("public", "gated", "private"):
        commits[visibility] = hub.put_repo("model", f"acme/{visibility}", files, visibility=visibility)
    commits["withheld"] = hub.put_repo("model", "acme/withheld", files)
    print(json.dumps({"endpoint": hub.endpoint, "token": hub.valid_token, "commits": commits}), flush=True)
    sys.stdin.read()
    print(json.dumps([f"{record.method} {record.path}" for record in hub.requests_with_token()]), flush=True)
"""
WEIGHTS = ("weights", 3_000_000)


@dataclass(frozen=True)
class Office:
    """A node with its endpoint open, and a guest on the LAN that has nothing of hfpeer's."""

    node: Machine
    guest: Host
    url: str
    token: str
    commits: dict[str, str]
    folder: Path

    def curl(self, target: str, *options: str, url: str = "") -> Said:
        """What the guest gets, redirects not followed."""
        argv = ["curl", "-sS", "--globoff", "--max-time", "30", "-D", "-", "-o", str(self.folder / "body"), *options]
        head = self.guest.run([*argv, (url or self.url) + target]).stdout
        lines = head.strip().splitlines()
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        body = self.folder / "body"
        return Said(int(lines[0].split()[1]), headers, body.read_bytes() if body.exists() else b"")

    def client(self, *argv: str, url: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        """A Hugging Face tool on the guest."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        home = str(self.folder / "hf")
        environ = {**inherited, "HF_ENDPOINT": url or self.url, "HF_HOME": home, "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
        return self.guest.run(argv, env={**environ, **more})


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    with Lan(2) as lan, Machines(folder) as machines:
        first, guest = lan.hosts
        pipe = subprocess.PIPE
        environ = {**os.environ, "PYTHONPATH": str(TESTS)}
        hub = first.popen([sys.executable, "-c", HUB, OWN_TOKEN], env=environ, stdin=pipe, stdout=pipe, text=True)
        assert hub.stdout is not None
        said = json.loads(hub.stdout.readline())
        names: dict[str, Any] = {"HFPEER_ENDPOINT_LISTEN": f"0.0.0.0:{PORT}", "HFPEER_ENDPOINT_NAMES": "models.example"}
        node = machines.make("open", upstreams=f"origin={said['endpoint']}", host=first, HF_TOKEN=OWN_TOKEN, **names)
        node.start()
        node.do("model", "add", "-r", "acme/withheld")
        node.do("model", "unshare", "-r", "acme/withheld")
        yield Office(node, guest, f"http://{first.ip}:{PORT}", said["token"], said["commits"], folder)
        told, _ = hub.communicate(input="", timeout=30)
        with_token = [line for line in json.loads(told) if "withheld" not in line]
        assert with_token == [], "no token went to the hub for a guest: not the guest's, not the owner's"


def weights() -> bytes:
    from fakes.hub.zoo import noise

    return noise(WEIGHTS[1], WEIGHTS[0])


@pytest.mark.parametrize("family", [4, 6])
def test_a_machine_without_hfpeer_downloads_a_public_repo(office: Office, family: int) -> None:
    url = office.url if family == 4 else f"http://[fd77::1]:{PORT}"
    hf = str(Path(sys.executable).with_name("hf"))
    ran = office.client(
        hf, "download", "acme/public", "--quiet", url=url, HF_HUB_CACHE=str(office.folder / str(family))
    )
    snapshot = Path(ran.stdout.strip().removeprefix("path=").splitlines()[-1])
    assert (snapshot / "weights.bin").read_bytes() == weights()
    assert snapshot.name == office.commits["public"]


def test_every_address_in_an_answer_is_one_that_the_other_machine_reaches(office: Office) -> None:
    commit = office.commits["public"]
    said = office.curl("/acme/public/resolve/main/weights.bin", "-I")
    assert (said.status, said.headers["location"]) == (307, f"/acme/public/resolve/{commit}/weights.bin")
    assert office.curl("/acme/public/resolve/main/weights.bin", "-L", "-r", "-1000").body == weights()[-1000:]
    page = office.curl(f"/api/models/acme/public/tree/{commit}?limit=1")
    assert f"<{office.url}/api/models/acme/public/tree/{commit}?" in page.headers["link"]
    ticket = office.curl(f"/api/models/acme/public/xet-read-token/{commit}").document
    assert ticket["casUrl"] == office.url
    lfs = office.curl("/acme/public.git/info/lfs/objects/batch", *json_post(lfs_request(commit)))
    href = lfs.document["objects"][0]["actions"]["download"]["href"]
    assert office.curl("", "-L", url=href).body == weights()


def lfs_request(ref: str, operation: str = "download") -> Any:
    import hashlib

    wanted = {"oid": hashlib.sha256(weights()).hexdigest(), "size": WEIGHTS[1]}
    return {"operation": operation, "transfers": ["basic"], "objects": [wanted], "ref": {"name": "refs/heads/main"}}


def json_post(document: Any) -> list[str]:
    return ["-X", "POST", "-H", "Content-Type: application/json", "--data", json.dumps(document)]


def test_it_clones_what_is_public_and_nothing_else(office: Office) -> None:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    clone = ["git", "clone", "--quiet"]
    office.client(*clone, f"{office.url}/acme/public", str(office.folder / "cloned"), **quiet)
    assert (office.folder / "cloned" / "config.json").read_bytes() == b"{}"
    for repo in ("gated", "private", "withheld"):
        with pytest.raises(subprocess.CalledProcessError):
            url = office.url.replace("//", f"//guest:{office.token}@")
            office.client(*clone, f"{url}/acme/{repo}", str(office.folder / repo), **quiet)
        assert not (office.folder / repo / "config.json").exists()


@pytest.mark.parametrize("brings_token", [False, True], ids=["nobody", "with a good token"])
@pytest.mark.parametrize(
    ("repo", "status", "code"),
    [("gated", 401, "gatedrepo"), ("private", 401, "reponotfound"), ("withheld", 401, "reponotfound")],
)
def test_what_is_not_public_is_refused_as_the_hub_refuses_nobody(
    office: Office, repo: str, status: int, code: str, brings_token: bool
) -> None:
    token = ["-H", f"Authorization: Bearer {office.token}"] if brings_token else []
    for target in (f"/acme/{repo}/resolve/main/weights.bin", f"/acme/{repo}/raw/{office.commits[repo]}/config.json"):
        said = office.curl(target, *token)
        assert (said.status, said.headers["x-error-code"]) == (status, code)
    said = office.curl(f"/api/models/acme/{repo}", *token)
    assert said.status == (200 if repo == "gated" else 401), "what is said of a gated repo is public"


def test_the_real_client_says_gated(office: Office) -> None:
    hf = str(Path(sys.executable).with_name("hf"))
    with pytest.raises(subprocess.CalledProcessError) as refused:
        office.client(hf, "download", "acme/gated", "config.json", HF_TOKEN=office.token)
    assert "gated" in (refused.value.stderr + refused.value.stdout).lower()


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("PUT", "/api/models/acme/public/settings"),
        ("POST", "/api/models/acme/public/commit/main"),
        ("POST", "/api/models/acme/public/discussions"),
        ("POST", "/acme/public.git/git-receive-pack"),
        ("POST", "/acme/public.git/info/lfs/objects/batch"),
    ],
)
def test_another_machine_changes_nothing(office: Office, method: str, target: str) -> None:
    document = lfs_request("main", "upload")
    token = ["-H", f"Authorization: Bearer {office.token}"]
    said = office.curl(target, *json_post(document), "-X", method, *token)
    assert said.status == 403
    assert b"its own machine only" in said.body


def test_it_answers_by_the_machines_names_and_by_no_web_pages(office: Office) -> None:
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    for name in (own, f"{short}.local", "models.example", "10.77.0.1", "localhost"):
        assert office.curl("/healthz", "-H", f"Host: {name}:{PORT}").status == 200, name
    for name in ("evil.example", "other.local", "models.example.evil"):
        said = office.curl("/acme/public/resolve/main/config.json", "-H", f"Host: {name}:{PORT}")
        assert said.status == 403, name
        assert b"endpoint.names" in said.body


def test_the_node_says_what_to_type_on_other_machines(office: Office) -> None:
    assert office.node.do("env", "--lan") == {"HF_ENDPOINT": office.url}
    assert office.node.do("env")["HF_ENDPOINT"] == f"http://127.0.0.1:{PORT}"
    from fakes.machine import HFPEER

    assert office.url in office.node.run(*HFPEER, "daemon", "status").out
