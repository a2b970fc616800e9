"""The words of the command line: repos in every form, several at once, words of other programs, and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.stub_node import COMMIT, TINY, StubNode
from hfpeer.control.operations import AddRequest
from hfpeer.errors import NotFound, RepoNotFound
from hfpeer.names import RepoId
from hfpeer.transfer.events import Finished, OnEvent

Run = Callable[..., Any]
URL = "https://huggingface.co"


class PickyNode(StubNode):
    """Adds every repo but those that are called `acme/absent…`."""

    async def add(self, request: AddRequest, on_event: OnEvent) -> Finished:
        finished = await super().add(request, on_event)
        if request.repo.name.startswith("absent"):
            raise RepoNotFound(f"No hub has {request.repo}.", hint="Check the name.")
        return replace(finished, repo=request.repo.full_name)


@pytest.fixture
def node() -> StubNode:
    return PickyNode()


def requests(node: StubNode) -> list[AddRequest]:
    return [arguments["request"] for name, arguments in node.calls if name == "add"]


@pytest.mark.parametrize(
    "words",
    [
        ("model", "add", "-r", "acme/tiny", "-v", "v1"),
        ("model", "add", "acme/tiny", "--rev", "v1"),
        ("model", "add", "acme/tiny@v1"),
        ("model", "add", "-r", "acme/tiny@v1"),
        ("model", "download", "acme/tiny", "--revision", "v1"),
        ("models", "add", "acme/tiny@v1"),
        ("add", "acme/tiny@v1"),
        ("add", "acme/tiny@v1", "-v", "v1"),
        ("add", "models/acme/tiny", "-v", "v1"),
        ("pull", "hf://acme/tiny@v1"),
        ("download", f"{URL}/acme/tiny/tree/v1"),
        ("add", "https://hf-mirror.com/acme/tiny/tree/v1"),
        ("add", "hf.co/acme/tiny", "-v", "v1"),
    ],
)
def test_a_repo_and_a_revision_may_be_said_in_any_of_these_forms(
    hfpeer: Run, node: StubNode, words: tuple[str, ...]
) -> None:
    assert hfpeer(*words).code == 0
    (request,) = requests(node)
    assert (str(request.repo), request.revision) == ("acme/tiny", "v1")


def test_a_pasted_address_of_a_file_or_a_folder_takes_only_that(hfpeer: Run, node: StubNode) -> None:
    hfpeer("add", f"{URL}/acme/tiny/blob/main/a.json", f"{URL}/datasets/acme/rows/tree/main/d[1]")
    one, other = requests(node)
    assert (str(one.repo), one.revision, one.files, one.include) == ("acme/tiny", "main", ("a.json",), ())
    assert (str(other.repo), other.files, other.include) == ("datasets/acme/rows", (), ("d[[]1]/*",))


def test_an_address_of_a_hub_of_the_settings_is_understood(
    hfpeer: Run, node: StubNode, environ: dict[str, str]
) -> None:
    environ["HFPEER_UPSTREAMS"] = "origin=https://models.corp/hf"
    assert hfpeer("add", "https://models.corp/hf/acme/tiny").code == 0
    assert str(requests(node)[0].repo) == "acme/tiny"
    assert hfpeer("add", "https://other.example/acme/tiny").code == 2


@pytest.mark.parametrize("words", [("-r", "acme/one", "-r", "acme/two"), ("acme/one", "acme/two@v2", "acme/one")])
def test_several_repos_are_all_taken_once(hfpeer: Run, node: StubNode, words: tuple[str, ...]) -> None:
    ran = hfpeer("model", "add", *words)
    assert (ran.code, [str(request.repo) for request in requests(node)]) == (0, ["acme/one", "acme/two"])
    assert "2 repos added." in ran.err


def test_one_repo_that_fails_does_not_stop_the_others(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("add", "acme/one", "acme/absent", "acme/two")
    assert (ran.code, len(requests(node)), ran.out.count("\n")) == (4, 3, 2)
    assert "Error: No hub has acme/absent.\nHint: Check the name.\n" in ran.err
    assert ran.err.endswith("2 of 3 repos added; failed: acme/absent (exit code 4).\n")


def test_several_results_are_one_array_of_json(hfpeer: Run) -> None:
    ran = hfpeer("add", "acme/one", "acme/absent@v1", "--json")
    assert [entry["repo"] for entry in ran.document] == ["acme/one", "acme/absent"]
    assert ran.document[1]["revision"] == "v1"
    assert ran.document[1]["problem"]["code"] == ran.problem["code"] == "repo_not_found"
    lines = [json.loads(line) for line in hfpeer("add", "acme/one", "acme/absent", "--json-lines").out.splitlines()]
    assert [key for line in lines for key in line] == ["result", "problem"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("model", "add", "datasets/acme/rows"), "datasets/acme/rows is a dataset, and this command is for models."),
        (("model", "add", f"{URL}/datasets/acme/rows"), "`hfpeer dataset add acme/rows`"),
        (("dataset", "rm", f"{URL}/acme/tiny"), "`hfpeer model rm acme/tiny`"),
        (("add", "acme/tiny", "config.json"), "with an option: `-f config.json`. If it is a repo: `-r config.json`."),
        (("add", "acme/tiny", "*.gguf"), "Name files with an option: `--include '*.gguf'`."),
        (("add", "acme/tiny/onnx/model.onnx"), "`acme/tiny -f onnx/model.onnx`"),
        (("why", "model.safetensors"), "'model.safetensors' looks like a file"),
        (("add", "dataset", "acme/rows"), "Hint: `hfpeer dataset add acme/rows`"),
        (("pull", "model", "acme/tiny"), "Hint: `hfpeer model add acme/tiny`"),
        (("ls", "models"), "Hint: `hfpeer model ls`"),
        (("add", "acme/tiny", "-v"), "Option '-v' requires an argument: -v REV."),
        (("add", "-v", "acme/tiny"), "-v took 'acme/tiny' as a revision, and no REPO is left."),
        (("rm", "acme/tiny", "-f"), "Usage: hfpeer rm"),
        (("add", "acme/tiny", "onnx/model.onnx"), "'onnx/model.onnx' looks like a file"),
        (("add", "acme/tiny@v1", "-v", "v2"), "acme/tiny is named at v1 and with -v v2."),
        (("add", "acme/tiny", "-v", "v1", "-v", "v2"), "-v is given twice, and takes one value."),
        (("add", "a/b", "c/d", "--local-dir", "x"), "--local-dir is of one repo"),
        (("add", "https://modelscope.cn/models/a/b"), "no address of a hub that this node knows"),
        (("model", "share", "acme/tiny@v1"), "takes no revision"),
        (("model", "share", f"{URL}/acme/tiny/blob/main/a.json"), "takes whole repos"),
        (("dataset", "convert", "a/b", "c/d", "-o", "x"), "takes one REPO, not 2"),
        (("ls", "-v", "main"), "-v took 'main' as a revision, and no REPO is left."),
        (("ls", "acme/*", "-v", "main"), "-v took 'main' as a revision, and no REPO is left."),
        (("help", "model", "add", "x"), "`hfpeer model add` has no commands of its own."),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_is_asked(
    hfpeer: Run, node: StubNode, words: tuple[str, ...], says: str
) -> None:
    ran = hfpeer(*words)
    assert (ran.code, ran.out, node.sessions) == (2, "", 0)
    assert says in ran.err


def test_a_cached_repo_may_be_called_like_a_file(hfpeer: Run, node: StubNode, environ: dict[str, str]) -> None:
    (Path(environ["HF_HUB_CACHE"]) / "models--acme--tiny.gguf").mkdir(parents=True)
    assert hfpeer("add", "acme/tiny.gguf").code == 0
    assert hfpeer("add", "-r", "acme/other.gguf").code == 0


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("ad",), "'add'"),
        (("modle",), "'model'"),
        (("start",), "'daemon start'"),
        (("login",), "'auth login'"),
        (("logs",), "'daemon logs'"),
        (("config", "ls"), "'conf'"),
        (("clone", "https://hf.co/a/b"), "'add'"),
        (("get", "a/b"), "'add' or 'conf get'"),
        (("ps",), "'transfers' or 'status'"),
        (("serve",), "'daemon start'"),
        (("resume",), "'transfers resume'"),
        (("scan-cache",), "'cache ls'"),
        (("cache", "scan"), "'ls' or 'du'"),
        (("cache", "clean"), "'prune'"),
        (("daemon", "log"), "'logs'"),
        (("offline",), "'conf set offline' or 'help offline'"),
        (("proxies",), "'help proxies'"),
        (("conf", "offline", "true"), "'get offline' or 'set offline'"),
        (("conf", "cache.max_size"), "'get cache.max_size' or 'set cache.max_size'"),
        (("add", "x", "--cache-dir", "/tmp"), "'--cache'"),
        (("add", "x", "-n"), "'--dry-run'"),
        (("add", "x", "--verbose"), "'--log-level'"),
        (("model", "publsh"), "'publish'"),
        (("add", "x", "--incldue", "y"), "'--include'"),
        (("add", "x", "--dry"), None),
        (("ls", "--sorted"), "'--sort'"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(hfpeer: Run, words: tuple[str, ...], meant: str | None) -> None:
    ran = hfpeer(*words)
    assert ran.code == 2
    assert (f"Did you mean {meant}?" in ran.err) is (meant is not None)


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("add", "x", "--token", "t"), "`hfpeer auth login` keeps a token."),
        (("add", "x", "--resume-download"), "Every add goes on from what is here."),
        (("status", "-w"), "`hfpeer transfers --watch` shows what runs."),
    ],
)
def test_an_option_of_another_program_that_needs_none_here_is_explained(
    hfpeer: Run, words: tuple[str, ...], advice: str
) -> None:
    ran = hfpeer(*words)
    assert (ran.code, f". {advice}" in ran.err) == (2, True)


@pytest.mark.parametrize("words", [("frobnicate",), ("add", "x", "--token", "t"), ("ls", "--quirky"), ("peer", "zap")])
def test_far_guesses_are_left_out(hfpeer: Run, words: tuple[str, ...]) -> None:
    ran = hfpeer(*words)
    assert ran.code == 2
    assert "No such" in ran.err and "Did you mean" not in ran.err


def test_verbs_of_other_programs_are_understood(hfpeer: Run, node: StubNode) -> None:
    assert hfpeer("list").out == hfpeer("ls").out
    assert hfpeer("models").out == hfpeer("model", "ls").out
    assert hfpeer("models", "--json").document == hfpeer("ls", "--json").document
    assert hfpeer("peers").out == hfpeer("peer", "list").out == hfpeer("peer", "ls").out
    assert "Usage: hfpeer model " in hfpeer("models", "-h").out
    assert hfpeer("transfers", "list").out == hfpeer("transfers", "ls", "-a").out == hfpeer("transfers", "-a").out
    assert hfpeer("add", "acme/rows", "--repo-type", "dataset").code == 0
    assert hfpeer("remove", "acme/tiny", "-y").code == 0
    assert node.calls[-1][0] == "clean"
    assert hfpeer("-V").out == hfpeer("version").out == hfpeer("--version").out
    assert hfpeer("help").out == hfpeer("-h").out
    assert hfpeer("help", "model", "add").out == hfpeer("model", "add", "-h").out


def test_ls_at_the_root_lists_all_types_and_says_which(hfpeer: Run, node: StubNode) -> None:
    node.cached = [TINY, replace(TINY, repo="acme/rows", type="dataset")]
    assert [line.split()[0] for line in hfpeer("ls").out.splitlines()] == ["REPO", "acme/tiny", "datasets/acme/rows"]
    assert hfpeer("ls", "datasets/acme/rows").out.split()[7] == "datasets/acme/rows"


def test_ls_takes_globs_and_sorts(hfpeer: Run, node: StubNode) -> None:
    sizes = {"acme/m-10": 5, "acme/m-2": 7, "other/x": 6}
    node.cached = [replace(TINY, repo=name, size_bytes=size, used_at=size) for name, size in sizes.items()]

    def names(*words: str) -> list[str]:
        return list(hfpeer("model", "ls", "-q", *words).out.split())

    assert names() == ["acme/m-2", "acme/m-10", "other/x"]
    assert names("ACME/*") == ["acme/m-2", "acme/m-10"]
    assert names("--sort", "size") == names("--sort", "used") == ["acme/m-2", "other/x", "acme/m-10"]
    none = hfpeer("model", "ls", "nobody/*")
    assert (none.code, none.out) == (4, "")
    assert "No model in the cache matches 'nobody/*'." in none.err


def test_what_is_named_and_absent_is_exit_code_4_and_an_empty_list_is_0(hfpeer: Run, node: StubNode) -> None:
    node.cached, node.peers = [], {}
    for empty in ("ls", "model ls", "peer ls"):
        assert hfpeer(*empty.split()).code == 0
    for absent in ("ls acme/none", "model ls acme/*", "search acme/none"):
        ran = hfpeer(*absent.split())
        assert (ran.code, ran.out) == (4, "")
        assert ran.err.startswith("Error: ")
    node.cached = [TINY]
    both = hfpeer("ls", "acme/tiny", "acme/none")
    assert (both.code, "acme/tiny" in both.out, "acme/none is not in the cache." in both.err) == (4, True, True)
    assert "Hint: `hfpeer ls 'acme/*'` lists the repos of acme." in hfpeer("ls", "acme").err


def test_ls_knows_a_repo_under_another_type(hfpeer: Run, node: StubNode) -> None:
    node.cached = [replace(TINY, repo="acme/rows", type="dataset")]
    ran = hfpeer("model", "ls", "acme/rows")
    assert "acme/rows is in the cache as a dataset, not as a model." in ran.err
    assert "Hint: `hfpeer dataset ls acme/rows`" in ran.err


def test_ls_of_an_address_lists_that_folder(hfpeer: Run, node: StubNode) -> None:
    assert hfpeer("ls", f"{URL}/acme/tiny/blob/main/w.bin", "-q").out == "w.bin\n"
    assert hfpeer("ls", f"{URL}/acme/tiny/tree/main/onnx").code == 4


def test_rm_takes_several_and_a_revision_of_each(hfpeer: Run, node: StubNode) -> None:
    assert hfpeer("rm", "acme/one@v1", "datasets/acme/two", "-y").code == 0
    (request,) = [arguments["request"] for name, arguments in node.calls if name == "clean"]
    assert [(target.repos, target.revision) for target in request.targets] == [
        ((RepoId.parse("acme/one"),), "v1"),
        ((RepoId.parse("acme/two", "dataset"),), None),
    ]


def test_quiet_leaves_the_bare_result(hfpeer: Run, node: StubNode) -> None:
    ran = hfpeer("add", "acme/tiny", "-q")
    assert (ran.out, ran.err) == (f"{TINY.snapshot}\n", "")
    assert hfpeer("-q", "ls").out == "acme/tiny\n"
    assert hfpeer("peer", "ls", "--quiet").out == "192.168.1.20:9437\n"
    node.broken = NotFound("It rained.")
    assert hfpeer("ls", "-q").err == "Error: It rained.\n"


def test_the_commit_of_an_old_form_still_lists_the_files(hfpeer: Run) -> None:
    assert hfpeer("model", "ls", "-r", "acme/tiny", "-v", "main").out == hfpeer("ls", "acme/tiny@main").out
    assert hfpeer("ls", "acme/tiny@main", "--json").document["commit"] == COMMIT


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (("ls", "acme/none"), "`hfpeer model search acme/none`"),
        (("dataset", "add", "https://hf.co/acme/tiny"), "`hfpeer model add acme/tiny`"),
        (("add", "dataset", "acme/rows"), "`hfpeer dataset add acme/rows`"),
        (("conf", "set", "upstreams", "x"), "`upstreams`"),
    ],
)
def test_commands_in_hints_are_those_to_type_in_every_language(
    hfpeer: Run, environ: dict[str, str], words: tuple[str, ...], command: str
) -> None:
    """The words model and upstreams have translations, which no command takes."""
    environ["LANG"] = "zh_CN.UTF-8"
    ran = hfpeer(*words)
    assert command in ran.err and ran.err.startswith("错误: ")
