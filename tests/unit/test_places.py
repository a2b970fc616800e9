"""Places of other tools, as they lie on the disk, and what is read out of them."""

from __future__ import annotations

import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes import places
from fakes.hub_cache import proved_manifest_of
from fakes.places import SINGLE, WHOLE, Shelved, put, sha256
from hfpeer import budgets
from hfpeer.adoption import walking
from hfpeer.adoption.candidates import Found, RevisionKind, Worth
from hfpeer.adoption.finding import known_places
from hfpeer.adoption.listing import ListedFile, Listing
from hfpeer.adoption.reading import read_place
from hfpeer.adoption.walking import walk
from hfpeer.names import RepoId

REPO = RepoId.parse("acme/tiny-1.5")
FILES = {"config.json": b"{}", "onnx/model.gguf": os.urandom(50_000), "tokenizer.json": b"[1, 2]"}
COMMIT = str(proved_manifest_of(FILES, REPO).commit)
BUILDERS = {name: build for name, build in {**WHOLE, **SINGLE}.items() if build is not places.git_clone}
UNNAMED = {"GPT4All", "old sentence-transformers", "LM Studio"}
"""Places that only their path tells."""


@pytest.fixture
def shelved(tmp_path: Path) -> Shelved:
    folder = tmp_path / "place"
    folder.mkdir()
    return Shelved(folder, REPO, COMMIT, FILES)


def found_in(folder: Path, tool: str = "folder") -> Found:
    return read_place(walk(folder).listing, tool)


def bodies(folder: Path, found: Found) -> set[bytes]:
    return {(folder / one.path).read_bytes() for one in found.candidates}


@pytest.mark.parametrize("name", BUILDERS)
def test_the_files_of_every_tool_are_found_and_no_part_of_one(shelved: Shelved, name: str) -> None:
    folder = BUILDERS[name](shelved)
    tool = name.partition(",")[0]
    found = found_in(folder, tool if tool in UNNAMED else "folder")
    if name.endswith("elsewhere"):
        assert any(str(folder.parent / "elsewhere") in path for path in found.elsewhere)
        return
    wanted = set(FILES.values()) if name in WHOLE else {FILES["onnx/model.gguf"]}
    own = {b"{}", b"[1, 2]", *FILES.values()}
    assert wanted <= bodies(folder, found)
    strays = bodies(folder, found) - own
    assert not any(body in (b"part", b"Apache") or not body or b"pickle" in body for body in strays), strays
    assert {one.tool for one in found.candidates if (folder / one.path).read_bytes() in wanted} == {tool}


@pytest.mark.parametrize(
    "name", ["HF cache", "HF cache, no links", "hfd", "hfdownloader", "LM Studio", "llama.cpp", "Ollama", "ModelScope"]
)
def test_a_place_that_names_the_repo_is_believed(shelved: Shelved, name: str) -> None:
    found = found_in(BUILDERS[name](shelved), name)
    assert {one.repo for one in found.candidates} == {REPO}


def test_the_old_layout_of_modelscope_writes_dots_as_underscores_and_its_pickle_stays_closed(shelved: Shelved) -> None:
    found = found_in(places.modelscope_old(shelved))
    assert {one.repo for one in found.candidates} == {REPO}
    assert not (shelved.folder.parent / "loaded").exists()
    pickle.loads(next(shelved.folder.rglob(".msc")).read_bytes())  # the mark works
    assert (shelved.folder.parent / "loaded").exists()


@pytest.mark.parametrize(
    ("name", "worth"),
    [
        ("HF cache", Worth.NAME),
        ("Ollama", Worth.NAME),
        ("llama.cpp", Worth.METADATA),
        ("A1111/Forge", Worth.METADATA),
        ("hf --local-dir", Worth.METADATA),
        ("old transformers", Worth.METADATA),
        ("torch.hub", Worth.PREFIX),
    ],
)
def test_hints_say_what_they_are_worth(shelved: Shelved, name: str, worth: Worth) -> None:
    folder = BUILDERS[name](shelved)
    body = FILES["onnx/model.gguf"]
    (found,) = [one for one in found_in(folder).candidates if (folder / one.path).read_bytes() == body]
    assert found.hint is not None and found.hint.worth is worth
    assert sha256(body).startswith(found.hint.hex)
    assert (found.hint.digest is None) == (worth is Worth.PREFIX)


def test_an_etag_counts_only_while_its_file_is_not_younger(shelved: Shelved) -> None:
    folder = places.local_dir(shelved)
    later = (folder / "config.json").stat().st_mtime + 100
    os.utime(folder / "config.json", (later, later))
    hints = {one.path: one.hint for one in found_in(folder).candidates}
    assert hints["config.json"] is None and hints["tokenizer.json"] is not None


def test_revisions_are_found_where_a_place_says_so(shelved: Shelved) -> None:
    (revision,) = found_in(places.hub_cache(shelved)).revisions
    assert (revision.kind, revision.repo, revision.commit) == (RevisionKind.HUB_CACHE, REPO, COMMIT)


def test_one_folder_may_hold_the_places_of_many_tools(shelved: Shelved, tmp_path: Path) -> None:
    top = tmp_path / "top"
    for number, build in enumerate([places.ollama, places.hub_cache, places.local_dir, places.jan, places.comfyui]):
        folder = top / f"{number} deep/er"
        folder.mkdir(parents=True)
        build(Shelved(folder, REPO, COMMIT, FILES))
    put(top / "mine.gguf", b"mine")
    tools = {one.tool for one in found_in(top).candidates}
    assert tools == {"Ollama", "HF cache", "hf --local-dir", "Jan", "ComfyUI", "folder"}


# Walking


def test_links_to_folders_are_followed_once_however_they_loop(tmp_path: Path) -> None:
    put(tmp_path / "real/model.gguf", b"x")
    put(tmp_path / "outside/more.gguf", b"y")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/loop").symlink_to(tmp_path / "top")
    (tmp_path / "top/again").symlink_to(tmp_path / "real")
    (tmp_path / "top/once").symlink_to(tmp_path / "real")
    (tmp_path / "top/out").symlink_to(tmp_path / "outside")
    (tmp_path / "top/nowhere").symlink_to(tmp_path / "none")
    walked = walk(tmp_path / "top")
    assert sorted(walked.listing) == ["again/model.gguf", "out/more.gguf"] and walked.troubles == []


def test_special_files_and_odd_names_are_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.gguf")).write_bytes(b"x")
    put(tmp_path / "a\nb.gguf", b"x")
    walked = walk(tmp_path)
    assert list(walked.listing) == ["a\nb.gguf"]
    assert [trouble.reason for trouble in walked.troubles] == ["its name is no UTF-8"]


def test_a_place_with_too_many_files_or_folders_is_read_in_part_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert walking.MAX_PLACE_FILES == budgets.MAX_PLACE_FILES  # type: ignore[attr-defined]
    assert walking.MAX_PLACE_DEPTH == budgets.MAX_PLACE_DEPTH  # type: ignore[attr-defined]
    for number in range(6):
        put(tmp_path / f"{number}" / "file", b"x")
    monkeypatch.setattr(walking, "MAX_PLACE_FILES", 3)
    walked = walk(tmp_path)
    assert len(walked.listing) == 3 and "more than 3 files" in walked.troubles[0].reason
    monkeypatch.undo()
    monkeypatch.setattr(walking, "MAX_PLACE_DEPTH", 2)
    put(tmp_path / "a/b/c/d/file", b"x")
    walked = walk(tmp_path)
    assert len(walked.listing) == 6 and "2 folders deep" in walked.troubles[0].reason


def test_notes_of_other_tools_are_read_up_to_a_size_each_and_together(
    shelved: Shelved, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert walking.MAX_PLACE_TEXT_BYTES == budgets.MAX_PLACE_TEXT_BYTES  # type: ignore[attr-defined]
    assert walking.MAX_PLACE_TEXTS_BYTES == budgets.MAX_PLACE_TEXTS_BYTES  # type: ignore[attr-defined]
    folder = places.a1111(shelved)
    size = (folder / "cache.json").stat().st_size
    for bound in ("MAX_PLACE_TEXT_BYTES", "MAX_PLACE_TEXTS_BYTES"):
        for most, is_read in ((size, True), (size - 1, False)):
            monkeypatch.setattr(walking, bound, most)
            (found,) = found_in(folder).candidates
            assert (found.hint is not None) == is_read
        monkeypatch.undo()


# Strange places

TEXTS = {
    "models--acme--tiny/trees/" + "c" * 40 + ".json": b"",
    "blobs/sha256-" + "a" * 64: b"x",
    "manifests/hf.co/acme/tiny/latest": b"",
    "cache.json": b"",
    "models/Stable-diffusion/a.safetensors": b"x",
    "extra_model_paths.yaml": b"",
    "models/checkpoints/a.safetensors": b"x",
    "llamacpp/models/a/model.yml": b"",
    ".hfd/repo_metadata.json": b"",
    ".cache/huggingface/download/a.bin.metadata": b"",
    "a.bin": b"x",
    "acme_tiny_a.gguf": b"x",
    "acme_tiny_a.gguf.etag": b"",
    "manifest=acme=tiny=latest.json": b"",
    "b" * 64 + "." + "c" * 64: b"x",
    "b" * 64 + "." + "c" * 64 + ".json": b"",
}
ODD = st.one_of(
    st.binary(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: __import__("json").dumps(value).encode()),
    st.sampled_from(
        [
            b"[" * 100_000,
            b'{"files": {"a": 1}, "hashes": {"checkpoint/a.safetensors": 7}}',
            b'{"hashes": {"checkpoint/a.safetensors": {"mtime": 1e400, "sha256": 5}}}',
            b'{"layers": [null, {"digest": 5, "mediaType": []}], "config": "x"}',
            b"a: &a [*a]\n",
            b"model_path: [1]\nsize_bytes: x\n",
            b"x:\n  base_path: /\n  checkpoints: [1]\n  loras: !!python/object:os.system x\n",
            b"\xff\xfe\0",
        ]
    ),
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(TEXTS)), ODD)
def test_no_text_in_a_place_is_more_than_a_hint(path: str, odd: bytes) -> None:
    texts = {**TEXTS, path: odd}
    files = {name: ListedFile(len(text), 5, (1, at)) for at, (name, text) in enumerate(texts.items())}
    found = read_place(Listing(files, texts.get))
    assert {one.path for one in found.candidates} <= texts.keys()


@settings(max_examples=100)
@given(st.lists(st.text("ab./-_=:\n%", min_size=1, max_size=30).filter(lambda path: not path.startswith("/"))))
def test_no_name_in_a_place_is_more_than_a_name(names: list[str]) -> None:
    files = {name: ListedFile(3, 5, (1, at)) for at, name in enumerate(names)}
    found = read_place(Listing(files, lambda path: b"{}"))
    paths = [one.path for one in found.candidates]
    assert len(paths) == len(set(paths)) and set(paths) <= files.keys()


# Finding places


def test_places_are_found_by_settings_then_environment_then_where_they_are_by_default(tmp_path: Path) -> None:
    home, root = tmp_path / "home/me", tmp_path
    put(home / ".lmstudio-home-pointer", f"{tmp_path}/lms\n")
    put(tmp_path / "lms/settings.json", f'{{"downloadsFolder": "{tmp_path}/downloads"}}')
    put(root / "etc/systemd/system/ollama.service.d/a.conf", f'[Service]\nEnvironment="OLLAMA_MODELS={tmp_path}/om"\n')
    put(home / ".local/share/Jan/settings.json", f'{{"data_folder": "{tmp_path}/jan"}}')
    put(root / "proc/7/cmdline", f"python\0-m\0vllm\0--download-dir\0{tmp_path}/vllm\0--port=1\0")
    put(root / "proc/8/cmdline", f"main.py\0--base-directory={tmp_path}/comfy\0")
    for name in ("downloads", "om", "jan", "vllm", "comfy", "torch/hub", "hf/hub", "llama", "home/other/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/other/.cache/huggingface/hub").mkdir(parents=True)
    (home / ".cache/modelscope").mkdir(parents=True)
    environ = {
        "HOME": str(home),
        "HF_HOME": str(tmp_path / "hf"),
        "TORCH_HOME": str(tmp_path / "torch"),
        "LLAMA_CACHE": str(tmp_path / "llama"),
        "MODELSCOPE_CACHE": "relative\0bad",
    }
    found = {str(place.path.relative_to(tmp_path)): place.tool for place in known_places(environ, root=root)}
    assert found == {
        "vllm": "HF cache",
        "comfy": "ComfyUI",
        "hf/hub": "HF cache",
        "om": "Ollama",
        "downloads": "LM Studio",
        "llama": "llama.cpp",
        "home/me/.cache/modelscope": "ModelScope",
        "jan": "Jan",
        "torch/hub": "torch.hub",
        "home/other/.cache/huggingface/hub": "HF cache",
    }


@pytest.mark.parametrize("text", [b"", b"[", b"[" * 100_000, b'{"downloadsFolder": 5}', b"\xff", b'"x"'])
def test_malformed_settings_find_nothing(tmp_path: Path, text: bytes) -> None:
    put(tmp_path / ".lmstudio/settings.json", text)
    put(tmp_path / ".config/Jan/settings.json", text)
    put(tmp_path / ".lmstudio-home-pointer", b"\xff\0/x")
    assert known_places({"HOME": str(tmp_path)}, root=tmp_path) == []


def test_finding_starts_no_program_and_loads_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    build: Callable[[Shelved], Path]
    for number, build in enumerate(BUILDERS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        found_in(build(Shelved(folder, REPO, COMMIT, FILES)))
