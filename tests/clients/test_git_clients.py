"""The real git and git-lfs against a node: through it, from what it keeps, from a peer, and with the hub off."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.endpoint import Endpoint, Stage, endpoint_of, staged
from fakes.hub import ZOO_FILES, Executable, Lfs, Submodule, Symlink, put_zoo
from fakes.hub.zoo import noise
from fakes.machine import Machine, Machines, Ran
from fakes.waiting import wait_until
from hfpeer.git.lfs import pointer_text

FILES = {path: content for path, content in ZOO_FILES.items() if not isinstance(content, Submodule)}
LFS = {
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.clean": "git-lfs clean -- %f",
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.required": "true",
}
needs_lfs = pytest.mark.skipif(shutil.which("git-lfs") is None, reason="there is no git-lfs")


@pytest.fixture(scope="module")
def stage(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    # Refs are asked again at once, so that nothing but the hub's absence makes an answer old.
    with staged(tmp_path_factory.mktemp("git"), machines, HFPEER_ENDPOINT_REF_TTL="0.001") as stage:
        yield stage


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "clone"


def git(machine: Machine, *words: str | Path, fails: bool = False, **environ: Any) -> Ran:
    """Runs git without any settings of the user or the system, and without git-lfs unless settings name it."""
    quiet: dict[str, Any] = {
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "LC_ALL": "C",
    }
    ran = machine.run("git", *words, **quiet, **environ)
    assert (ran.code != 0) == fails, ran.err
    return ran


def lfs(*words: str | Path) -> list[str | Path]:
    return [*(word for name, value in LFS.items() for word in ("-c", f"{name}={value}")), *words]


def clone(stage: Stage, repo: str, place: Path, *options: str, fails: bool = False) -> Ran:
    return git(stage.machine, "clone", *options, f"{stage.endpoint.url}/{repo}", place, fails=fails)


def commits(stage: Stage, place: Path, name: str = "HEAD") -> list[str]:
    return git(stage.machine, "-C", place, "rev-list", name).out.split()


def check(stage: Stage, place: Path, *, has_lfs: bool = False) -> None:
    """Every file is what the zoo has, its mode too; git finds nothing broken and nothing changed."""
    expected: dict[str, bytes] = {}
    for path, content in FILES.items():
        assert isinstance(content, bytes | Lfs | Executable | Symlink)
        data = content if isinstance(content, bytes) else b"" if isinstance(content, Symlink) else content.data
        expected[path] = _pointer(content) if isinstance(content, Lfs) and not has_lfs else data
    expected["link.txt"] = expected["README.md"]
    for path, data in expected.items():
        assert (place / path).read_bytes() == data, path
    assert (place / "run.sh").stat().st_mode & 0o100 and (place / "link.txt").is_symlink()
    assert git(stage.machine, *lfs("-C", place, "status", "--porcelain")).out == ""
    git(stage.machine, "-C", place, "fsck", "--full", "--strict")


def _pointer(content: Lfs) -> bytes:
    import hashlib

    return pointer_text(hashlib.sha256(content.data).hexdigest(), len(content.data))


def upstream_work(stage: Stage, repo: str) -> list[str]:
    """What the hub was asked about the repo but for what names mean; of another one a node may still be learning."""
    return [asked for asked in stage.requests() if repo in asked and not asked.endswith("/refs")]


def wait_until_learnt(stage: Stage, folder: str, commit: str, path: str = "run.sh") -> None:
    """After a clone that went through to the hub the node takes the plain files out of the pack that passed."""
    link = stage.machine.cache / folder / "snapshots" / commit / path
    wait_until(link.exists, "the plain files are in the cache")


def test_a_clone_has_all_history_and_a_second_one_asks_the_hub_for_no_object(stage: Stage, tmp_path: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/twice")
    clone(stage, "acme/twice", tmp_path / "first")
    wait_until_learnt(stage, "models--acme--twice", commit)
    stage.requests()
    clone(stage, "acme/twice.git", tmp_path / "second")
    assert upstream_work(stage, "acme/twice") == []
    for name in ("first", "second"):
        check(stage, tmp_path / name)
        history = commits(stage, tmp_path / name)
        assert history[0] == commit and len(history) == 2
        assert len(commits(stage, tmp_path / name, "origin/dev/exp")) == 3


@pytest.mark.parametrize("version", ["2", "0"])
def test_a_clone_with_the_hub_off_has_all_that_the_clone_before_it_had(
    stage: Stage, place: Path, tmp_path: Path, version: str
) -> None:
    put_zoo(stage.hub.storage, repo_id=f"acme/off-{version}")
    clone(stage, f"acme/off-{version}", tmp_path / "before")
    with stage.hub.down():
        clone(stage, f"acme/off-{version}", place, "-c", f"protocol.version={version}")
        check(stage, place)
        branch = git(stage.machine, "-C", place, "branch", "-r").out
        assert "origin/dev/exp" in branch and len(commits(stage, place)) == 2
        git(stage.machine, "-C", place, "fetch")


def test_the_last_commit_alone_comes_from_the_hub_once(stage: Stage, tmp_path: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/shallow")
    clone(stage, "acme/shallow", tmp_path / "cold", "--depth", "1")
    wait_until_learnt(stage, "models--acme--shallow", commit)
    stage.requests()
    clone(stage, "acme/shallow", tmp_path / "warm", "--depth", "1")
    assert upstream_work(stage, "acme/shallow") == []
    with stage.hub.down():
        clone(stage, "acme/shallow", tmp_path / "off", "--depth", "1")
        clone(stage, "acme/shallow", tmp_path / "old", "--depth", "1", "-c", "protocol.version=1")
    for name in ("cold", "warm", "off", "old"):
        check(stage, tmp_path / name)
        assert commits(stage, tmp_path / name) == [commit]


def test_without_a_hub_history_begins_at_the_known_commit_and_the_user_is_told(stage: Stage, place: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/begins")
    clone(stage, "acme/begins", place.with_name("known"), "--depth", "1")
    with stage.hub.down():
        ran = clone(stage, "acme/begins", place)
        assert "no hub can be reached" in ran.err and commit[:12] in ran.err
        check(stage, place)
        assert commits(stage, place) == [commit]
        ran = git(stage.machine, "-C", place, "fetch", "--unshallow", fails=True)
        assert "no hub can be reached" in ran.err
        ran = clone(stage, "acme/begins", place.with_name("partial"), "--filter=blob:none", fails=True)
        assert "--depth 1" in ran.err
    git(stage.machine, "-C", place, "fetch", "--unshallow")
    assert len(commits(stage, place)) == 2


@pytest.mark.parametrize("filter", ["blob:none", "blob:limit=30", "tree:0"])
@pytest.mark.parametrize("depth", ["whole", "shallow"])
def test_a_partial_clone_gets_the_rest_when_it_is_checked_out(
    stage: Stage, tmp_path: Path, filter: str, depth: str
) -> None:
    repo = f"acme/partial-{depth}-{filter.partition(':')[2].replace('=', '')}"
    put_zoo(stage.hub.storage, repo_id=repo)
    options = [f"--filter={filter}", *(["--depth=1"] if depth == "shallow" else [])]
    clone(stage, repo, tmp_path / "cold", *options)
    with stage.hub.down():
        clone(stage, repo, tmp_path / "off", "--no-checkout", *options)
        missing = git(stage.machine, "-C", tmp_path / "off", "rev-list", "--objects", "--missing=print", "HEAD").out
        assert "?" in missing
        git(stage.machine, "-C", tmp_path / "off", "checkout", "-q", "main")
        check(stage, tmp_path / "off")


def test_a_fetch_gets_what_is_new_with_its_history(stage: Stage, place: Path, tmp_path: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/moves")
    for name, options in (("whole", []), ("shallow", ["--depth=1"]), ("later", ["--depth=1"])):
        clone(stage, "acme/moves", tmp_path / name, *options)
    changes = {"new.txt": b"new\n", "config.json": None, "nested/deep/er/file.txt": b"changed\n"}
    new = stage.hub.repo("model", "acme/moves").commit(changes, "main", parent=commit, message="More")
    for name in ("whole", "shallow"):
        git(stage.machine, "-C", tmp_path / name, "pull")
    wait_until_learnt(stage, "models--acme--moves", new, "new.txt")
    with stage.hub.down():
        git(stage.machine, "-C", tmp_path / "later", "pull")
    for name, length in (("whole", 3), ("shallow", 2), ("later", 2)):
        history = commits(stage, tmp_path / name)
        assert history[:2] == [new, commit] and len(history) == length
        assert (tmp_path / name / "new.txt").read_bytes() == b"new\n"
        assert not (tmp_path / name / "config.json").exists()
        git(stage.machine, "-C", tmp_path / name, "fsck", "--full")


def test_ls_remote_names_what_can_be_had(stage: Stage, place: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/names")
    refs = stage.hub.repo("model", "acme/names").refs()
    url = f"{stage.endpoint.url}/acme/names"

    def listed() -> dict[str, str]:
        lines = git(stage.machine, "ls-remote", "--symref", url).out.splitlines()
        assert lines[0] == "ref: refs/heads/main\tHEAD"
        return {line.split("\t")[1]: line.split("\t")[0] for line in lines[1:]}

    assert listed() == {**refs, "HEAD": commit}
    clone(stage, "acme/names", place, "--depth=1")
    with stage.hub.down():
        assert listed() == {"refs/heads/main": commit, "HEAD": commit}


def test_a_branch_with_a_slash(stage: Stage, tmp_path: Path) -> None:
    put_zoo(stage.hub.storage, repo_id="acme/slash")
    clone(stage, "acme/slash", tmp_path / "cold", "--depth=1", "-b", "dev/exp")
    with stage.hub.down():
        clone(stage, "acme/slash", tmp_path / "off", "--depth=1", "-b", "dev/exp")
    assert (tmp_path / "off" / "config.json").read_bytes() == b'{"model_type": "experiment"}\n'


def test_a_dataset_and_a_space(stage: Stage, tmp_path: Path) -> None:
    for kind in ("dataset", "space"):
        put_zoo(stage.hub.storage, kind, "acme/kinds")
        clone(stage, f"{kind}s/acme/kinds", tmp_path / f"{kind}-cold", "--depth=1")
        with stage.hub.down():
            clone(stage, f"{kind}s/acme/kinds", tmp_path / kind)
            check(stage, tmp_path / kind)


@needs_lfs
def test_git_lfs_gets_its_files_with_the_hub_off(stage: Stage, place: Path, tmp_path: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/large")
    first = tmp_path / "cold"
    git(stage.machine, *lfs("clone", f"{stage.endpoint.url}/acme/large", first))
    check(stage, first, has_lfs=True)
    stage.hub.repo("model", "acme/large").commit({"model.safetensors": Lfs(b"other")}, "main", parent=commit)
    git(stage.machine, *lfs("-C", first, "pull"))
    with stage.hub.down():
        git(stage.machine, *lfs("clone", f"{stage.endpoint.url}/acme/large", place), GIT_LFS_SKIP_SMUDGE="1")
        assert (place / "model.safetensors").read_bytes() == _pointer(Lfs(b"other"))
        git(stage.machine, *lfs("-C", place, "lfs", "pull"))
        assert (place / "model.safetensors").read_bytes() == b"other"
        # Of a commit that is no branch's head any more, but known.
        git(stage.machine, *lfs("-C", place, "checkout", "-q", commit))
        check(stage, place, has_lfs=True)


@needs_lfs
def test_a_large_file_that_is_nowhere_is_named_by_git_lfs(stage: Stage, place: Path) -> None:
    put_zoo(stage.hub.storage, repo_id="acme/unknown")
    clone(stage, "acme/unknown", place, "--depth=1")
    pointer = pointer_text("ab" * 32, 5)
    (place / "gone.safetensors").write_bytes(pointer)
    git(stage.machine, "-C", place, "add", ".")
    git(stage.machine, "-C", place, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Mine")
    with stage.hub.down():
        ran = git(stage.machine, *lfs("-C", place, "lfs", "pull"), fails=True)
    assert "ab" * 32 in ran.err and "no hub can be reached" in ran.err


def test_a_clone_of_a_commit_that_only_a_peer_has(stage: Stage, machines: Machines, tmp_path: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/shared")
    clone(stage, "acme/shared", tmp_path / "first")
    wait_until_learnt(stage, "models--acme--shared", commit)
    stage.requests()
    second = machines.make("second", peers=[stage.machine.address])
    other = Stage(stage.hub, second, endpoint_of(second), tmp_path)
    with stage.hub.down():
        clone(other, "acme/shared", tmp_path / "whole")
        clone(other, "acme/shared", tmp_path / "shallow", "--depth=1")
    for name in ("whole", "shallow"):
        check(other, tmp_path / name)
        assert commits(other, tmp_path / name) == [commit]


def test_a_clone_of_a_published_commit_needs_no_hub(stage: Stage, place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    commit = stage.machine.do("model", "publish", str(folder), "--as", "our-team/ours")["commit"]
    with stage.hub.down():
        ran = clone(stage, "our-team/ours", place)
    assert commits(stage, place) == [commit] and "no hub" not in ran.err


def test_a_gated_repo_asks_git_for_a_token(stage: Stage, place: Path, tmp_path: Path) -> None:
    put_zoo(stage.hub.storage, repo_id="acme/gated", visibility="gated")
    with_token = stage.endpoint.url.replace("http://", f"http://user:{stage.hub.valid_token}@")
    git(stage.machine, "clone", "--depth=1", f"{with_token}/acme/gated", tmp_path / "cold")
    for is_down in (False, True):
        ran = (
            _off(stage, "acme/gated", tmp_path / "none")
            if is_down
            else clone(stage, "acme/gated", tmp_path / "none", fails=True)
        )
        assert "terminal prompts disabled" in ran.err
    with stage.hub.down():
        git(stage.machine, "clone", "--depth=1", f"{with_token}/acme/gated", place)
    check(stage, place)


def _off(stage: Stage, repo: str, place: Path) -> Ran:
    with stage.hub.down():
        return clone(stage, repo, place, fails=True)


def test_a_repo_that_is_nowhere_is_an_error_that_says_so(stage: Stage, place: Path) -> None:
    with stage.hub.down():
        ran = clone(stage, "acme/never", place, fails=True)
    assert "remote error" in ran.err and "No origin tells who may see" in ran.err


def test_three_thousand_small_files(stage: Stage, tmp_path: Path) -> None:
    files: dict[str, Any] = {f"d{n % 30}/f{n}.txt": f"file {n}\n".encode() for n in range(3000)}
    commit = stage.hub.put_repo("dataset", "acme/thousands", files)
    clone(stage, "datasets/acme/thousands", tmp_path / "cold", "--depth=1")
    link = stage.machine.cache / "datasets--acme--thousands" / "snapshots" / commit / "d7" / "f7.txt"
    wait_until(link.exists, "the files are in the cache")
    assert not [asked for asked in stage.requests() if "/resolve/" in asked]
    with stage.hub.down():
        clone(stage, "datasets/acme/thousands", tmp_path / "off", "--depth=1")
    assert sum(1 for path in (tmp_path / "off").glob("d*/*")) == 3000
    assert git(stage.machine, "-C", tmp_path / "off", "status", "--porcelain").out == ""


def test_plain_files_that_are_not_small_and_names_that_hfpeer_refuses(stage: Stage, tmp_path: Path) -> None:
    big = noise(3_000_000, "plain")
    repo = stage.hub.storage
    repo.put_repo("model", "acme/big", {"big.bin": big, "empty": b""}, lfs_threshold_bytes=1 << 30)
    clone(stage, "acme/big", tmp_path / "cold", "--depth=1")
    with stage.hub.down():
        clone(stage, "acme/big", tmp_path / "off", "--depth=1")
    assert (tmp_path / "off" / "big.bin").read_bytes() == big and (tmp_path / "off" / "empty").read_bytes() == b""
    stage.hub.put_repo("model", "acme/odd", {"a\\b.txt": b"odd", "c.txt": b"c"})
    clone(stage, "acme/odd", tmp_path / "odd", "--depth=1")
    assert (tmp_path / "odd" / "a\\b.txt").read_bytes() == b"odd"
    with stage.hub.down():
        clone(stage, "acme/odd", tmp_path / "off-odd", "--depth=1")
    assert (tmp_path / "off-odd" / "a\\b.txt").read_bytes() == b"odd"


def test_a_pack_that_broke_off_is_not_cached(stage: Stage, place: Path, tmp_path: Path) -> None:
    from fakes.hub import faults

    put_zoo(stage.hub.storage, repo_id="acme/broken")
    stage.hub.inject(faults.cut_body_after(300), path="*/git-upload-pack")
    clone(stage, "acme/broken", tmp_path / "broken", fails=True)
    stage.hub.faults.clear()
    assert not list((stage.machine.home / "packs" / "models--acme--broken").glob("*"))
    clone(stage, "acme/broken", place)
    check(stage, place)


DULWICH = """
import json, sys
from dulwich import porcelain
repo = porcelain.clone(sys.argv[1], sys.argv[2], depth=int(sys.argv[3]) or None, errstream=open("/dev/null", "wb"))
print(json.dumps([repo.head().decode(), len(list(repo.get_walker()))]))
repo.close()
"""


def test_a_client_that_is_not_git(stage: Stage, tmp_path: Path) -> None:
    commit = put_zoo(stage.hub.storage, repo_id="acme/dulwich")
    url = f"{stage.endpoint.url}/acme/dulwich"
    for depth, length in (("0", 2), ("1", 1)):
        assert stage.machine.python(DULWICH, url, str(tmp_path / f"cold-{depth}"), depth) == [commit, length]
        with stage.hub.down():
            off = tmp_path / f"off-{depth}"
            assert stage.machine.python(DULWICH, url, str(off), depth) == [commit, length]
        assert (off / "nested/deep/er/file.txt").read_bytes() == b"three folders down\n"


def test_the_endpoint_speaks_version_2_and_refuses_malformed_requests(stage: Stage) -> None:
    put_zoo(stage.hub.storage, repo_id="acme/speaks")
    ask: Endpoint = stage.endpoint.like(Git_Protocol="version=2")
    said = ask.get("/acme/speaks/info/refs?service=git-upload-pack")
    assert said.status == 200 and b"version 2\n" in said.body
    for body in (b"nonsense", b"0009hello", b"ffff", b"0012command=fetch\n0001000ddeepen x\n0000"):
        assert ask.ask("POST", "/acme/speaks/git-upload-pack", body).status == 400
    said = ask.ask("POST", "/acme/speaks/git-upload-pack", b"\x1f\x8bno", Content_Encoding="gzip")
    assert said.status == 400
