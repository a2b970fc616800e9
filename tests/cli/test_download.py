"""hfpeer.snapshot_download and hf_hub_download: huggingface_hub's names, over a real node and a simulated hub."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest

import hfpeer
from fakes.hub import HubSimulator, Lfs
from hfpeer.errors import EntryNotFound, HubUnreachable, InvalidName, NotFound, RepoNotFound

WEIGHTS = os.urandom(3_000_000)
FILES = {"config.json": b"{}", "onnx/a.json": b"[1]", "model.safetensors": WEIGHTS}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as hub:
        hub.put_repo("model", "acme/tiny", {**FILES, "model.safetensors": Lfs(WEIGHTS)})
        yield hub


@pytest.fixture
def cache(hub: HubSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node of its own: home and cache in a temporary folder, the simulator as its only upstream."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HFPEER_", "HUGGING", "TRANSFORMERS"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HFPEER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HFPEER_UPSTREAMS", f"origin={hub.endpoint}")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    hub.clear()
    return tmp_path / "hub"


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and ".cache" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_importing_hfpeer_is_instant_and_loads_its_version_only() -> None:
    script = "import sys, hfpeer; print([m for m in sys.modules if m.startswith('hfpeer.') or m == 'httpx'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "['hfpeer.version']\n"


def test_an_unknown_attribute_is_still_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'snapshot_upload'"):
        hfpeer.snapshot_upload  # noqa: B018
    assert {"snapshot_download", "hf_hub_download"} <= set(dir(hfpeer))


@pytest.mark.parametrize("name", ["snapshot_download", "hf_hub_download"])
def test_every_argument_of_huggingface_hub_is_taken_with_its_default(name: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (hfpeer, huggingface_hub))
    assert {key: (value.default, value.kind) for key, value in theirs.items()} == {
        key: (value.default, value.kind) for key, value in ours.items()
    }


def test_a_snapshot_is_a_folder_of_the_standard_cache(cache: Path, hub: HubSimulator) -> None:
    path = hfpeer.snapshot_download("acme/tiny")
    assert contents(Path(path)) == FILES
    assert path == huggingface_hub.snapshot_download("acme/tiny", cache_dir=cache, local_files_only=True)


def test_one_file_is_a_path_in_the_snapshot(cache: Path) -> None:
    path = hfpeer.hf_hub_download("acme/tiny", "a.json", subfolder="onnx")
    assert Path(path).read_bytes() == b"[1]"
    assert path.startswith(str(cache))
    assert contents(cache / "models--acme--tiny" / "snapshots").keys() == {path.split("snapshots/")[1]}


def test_patterns_choose_as_huggingface_hub_does(cache: Path) -> None:
    path = hfpeer.snapshot_download("acme/tiny", allow_patterns=["*.json"], ignore_patterns="onnx/")
    assert contents(Path(path)).keys() == {"config.json"}


def test_it_works_inside_a_running_event_loop(cache: Path) -> None:
    async def in_a_notebook() -> str:
        return hfpeer.hf_hub_download("acme/tiny", "config.json")

    assert Path(asyncio.run(in_a_notebook())).read_bytes() == b"{}"


def test_an_error_inside_a_running_event_loop_is_raised_there(cache: Path) -> None:
    async def in_a_notebook() -> str:
        return hfpeer.hf_hub_download("acme/tiny", "nope.json")

    with pytest.raises(EntryNotFound):
        asyncio.run(in_a_notebook())


def test_local_dir_holds_real_files_that_the_hub_client_recognises(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    assert hfpeer.snapshot_download("acme/tiny", local_dir=folder) == str(folder)
    assert contents(folder) == FILES
    assert not any(path.is_symlink() for path in folder.rglob("*"))

    from huggingface_hub._local_folder import read_download_metadata

    for name, blob in FILES.items():
        known = read_download_metadata(folder, name)
        assert known is not None
        assert (cache / "models--acme--tiny" / "blobs" / known.etag).read_bytes() == blob


def test_writing_to_local_dir_never_reaches_the_cache(cache: Path, tmp_path: Path) -> None:
    path = hfpeer.hf_hub_download("acme/tiny", "config.json", local_dir=tmp_path / "work")
    assert path == str(tmp_path / "work" / "config.json")
    with open(path, "r+b") as file:
        file.write(b"XX")
    assert Path(hfpeer.hf_hub_download("acme/tiny", "config.json")).read_bytes() == b"{}"


def test_local_dir_is_not_copied_again_when_nothing_changed(cache: Path, tmp_path: Path) -> None:
    path = Path(hfpeer.hf_hub_download("acme/tiny", "config.json", local_dir=tmp_path / "work"))
    before = path.stat().st_ino
    hfpeer.hf_hub_download("acme/tiny", "config.json", local_dir=tmp_path / "work")
    assert path.stat().st_ino == before
    path.write_text("changed")
    os.utime(path, (path.stat().st_mtime + 60,) * 2)
    hfpeer.hf_hub_download("acme/tiny", "config.json", local_dir=tmp_path / "work")
    assert path.read_bytes() == b"{}"


def test_a_file_in_local_dir_that_was_changed_under_a_clock_set_back_is_copied_again(
    cache: Path, tmp_path: Path
) -> None:
    path = Path(hfpeer.hf_hub_download("acme/tiny", "config.json", local_dir=tmp_path / "work"))
    path.write_text("changed")
    os.utime(path, (1, 1))
    hfpeer.hf_hub_download("acme/tiny", "config.json", local_dir=tmp_path / "work")
    assert path.read_bytes() == b"{}"


def test_another_cache_is_filled_without_disturbing_the_first(cache: Path, tmp_path: Path) -> None:
    path = hfpeer.snapshot_download("acme/tiny", cache_dir=tmp_path / "other")
    assert path.startswith(str(tmp_path / "other"))
    assert contents(Path(path)) == FILES
    assert not cache.exists()


def test_another_endpoint_is_asked_instead(cache: Path, hub: HubSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HFPEER_UPSTREAMS", "origin=http://127.0.0.1:9")
    assert contents(Path(hfpeer.snapshot_download("acme/tiny", endpoint=hub.endpoint))) == FILES


@pytest.mark.parametrize("offline", ["argument", "HF_HUB_OFFLINE"])
def test_local_files_only_sends_no_request(
    cache: Path, hub: HubSimulator, monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    here = hfpeer.snapshot_download("acme/tiny")
    if offline != "argument":
        monkeypatch.setenv(offline, "1")
    hub.clear()
    assert hfpeer.snapshot_download("acme/tiny", local_files_only=offline == "argument") == here
    with pytest.raises(NotFound):
        hfpeer.snapshot_download("acme/other", local_files_only=offline == "argument")
    assert hub.requests == []


@pytest.mark.parametrize(("token", "sends"), [(None, False), (False, False), ("hf_given", True)])
def test_a_token_is_sent_only_if_it_was_given(
    cache: Path, hub: HubSimulator, token: bool | str | None, sends: bool
) -> None:
    hfpeer.hf_hub_download("acme/tiny", "config.json", token=hub.valid_token if sends else token)
    assert bool(hub.requests_with_token()) is sends


def test_errors_are_those_of_hfpeer(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RepoNotFound):
        hfpeer.snapshot_download("acme/nope")
    with pytest.raises(InvalidName, match="not a repo name"):
        hfpeer.snapshot_download("a/b/c")
    with pytest.raises(InvalidName, match="not a type of repo"):
        hfpeer.snapshot_download("a/b", repo_type="kernel")
    monkeypatch.setenv("HFPEER_UPSTREAMS", "origin=http://127.0.0.1:9")
    with pytest.raises(HubUnreachable):
        hfpeer.snapshot_download("acme/tiny")


@pytest.mark.parametrize(
    "refused",
    [{"force_download": True}, {"dry_run": True}, {"headers": {"X-A": "b"}}, {"allow_patterns": []}],
    ids=lambda refused: next(iter(refused)),
)
def test_an_argument_that_cannot_take_effect_is_refused_in_a_sentence(cache: Path, refused: dict[str, Any]) -> None:
    with pytest.raises(InvalidName, match=next(iter(refused))):
        hfpeer.snapshot_download("acme/tiny", **refused)
    assert not cache.exists()


class Tqdm:
    """A tqdm that remembers its bars."""

    bars: ClassVar[list[Tqdm]] = []

    def __init__(self, *, total: int, initial: int, **_: Any) -> None:
        self.total, self.n, self.is_closed = total, initial, False
        self.bars.append(self)

    def update(self, n: int) -> None:
        self.n += n

    def close(self) -> None:
        self.is_closed = True


def test_a_tqdm_class_is_moved_to_its_end(cache: Path) -> None:
    Tqdm.bars.clear()
    hfpeer.snapshot_download("acme/tiny", tqdm_class=Tqdm)
    (bar,) = Tqdm.bars
    assert (bar.n, bar.total, bar.is_closed) == (3_000_005, 3_000_005, True)
