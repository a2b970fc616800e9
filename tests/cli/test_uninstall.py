"""uninstall: takes hfpeer's own away and leaves everything else, however mean the folder."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hfpeer.cache.disk import layout
from hfpeer.cache.partial.blob import open_partial
from hfpeer.config.settings import read_settings
from hfpeer.names import Digest

Run = Callable[..., Any]
OWN = (
    "settings.toml",
    "node-id",
    "catalog.sqlite",
    "catalog.sqlite-wal",
    "shares.json",
    "shares.json.0a1b2c3d.incomplete",
    "leftovers.json",
    "leftovers.json.0a1b2c3d.incomplete",
    "transfers.jsonl",
    "history.jsonl",
    "published.json",
    "published.json.0a1b2c3d.incomplete",
    "logs/hfpeerd.log",
    "logs/hfpeerd.log.1",
    "logs/startup.log",
    "manifests/models--acme--tiny/" + "5a0d" * 10 + ".json",
    "caches/0123456789abcdef/catalog.sqlite",
)


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if path.name == "settings.toml" else name)


def remaining(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


@pytest.fixture
def home(environ: dict[str, str]) -> Path:
    folder = Path(environ["HFPEER_HOME"])
    fill(folder, *OWN)
    return folder


@pytest.fixture
def cache(environ: dict[str, str]) -> Path:
    folder = Path(environ["HF_HUB_CACHE"])
    fill(folder, "models--acme--tiny/blobs/abc", ".locks/models--acme--tiny/abc.lock", "CACHEDIR.TAG")
    return folder


def test_own_files_are_removed_and_the_cache_stays(hfpeer: Run, home: Path, cache: Path) -> None:
    before = remaining(cache)
    open_partial(cache, Digest.parse("sha256:" + "1" * 64), 5000).close()
    ran = hfpeer("uninstall", "--yes")
    assert ran.code == 0
    assert not home.exists()
    assert remaining(cache) == before
    assert not layout.partials_folder(cache).exists()


def test_the_files_to_remove_are_listed_first(hfpeer: Run, home: Path, cache: Path) -> None:
    err = hfpeer("uninstall", "--yes").err
    assert f"  {home / 'settings.toml'}\n" in err
    assert f"  {home / 'logs'}\n" in err
    assert f"The cache {cache} stays as it is." in err


def test_without_a_terminal_to_ask_at_nothing_is_removed(
    hfpeer: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ran = hfpeer("uninstall")
    assert ran.code == 2
    assert "--yes" in ran.err
    assert remaining(home) == set(OWN)


def test_files_of_others_in_the_home_are_left_and_named(hfpeer: Run, home: Path) -> None:
    foreign = (
        "thesis.tex",
        "settings.toml.bak",
        "logs/nginx.log",
        "manifests/pod.json",
        "manifests/models--a--b/notes.json",
        "caches/x",
    )
    fill(home, *foreign)
    ran = hfpeer("uninstall", "--yes")
    assert remaining(home) == set(foreign)
    assert "hfpeer did not write it" in ran.out
    assert str(home / "thesis.tex") in ran.out


def test_links_are_not_followed(hfpeer: Run, home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    fill(elsewhere, "logs/hfpeerd.log", "dotfiles/settings.toml")
    for name in ("settings.toml", "logs/hfpeerd.log", "logs/hfpeerd.log.1", "logs/startup.log"):
        (home / name).unlink()
    (home / "logs").rmdir()
    (home / "logs").symlink_to(elsewhere / "logs")
    (home / "settings.toml").symlink_to(elsewhere / "dotfiles" / "settings.toml")
    hfpeer("uninstall", "--yes")
    assert remaining(elsewhere) == {"logs/hfpeerd.log", "dotfiles/settings.toml"}
    assert (home / "logs").is_symlink()
    assert not (home / "settings.toml").is_symlink()


def test_a_cache_that_lies_in_the_home_is_left(hfpeer: Run, home: Path, environ: dict[str, str]) -> None:
    environ["HF_HUB_CACHE"] = str(home / "hub")
    fill(home, "hub/models--acme--tiny/blobs/abc")
    hfpeer("uninstall", "--yes")
    assert remaining(home) == {"hub/models--acme--tiny/blobs/abc"}


def test_a_configured_folder_is_left(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    del environ["HF_HUB_CACHE"]
    fill(tmp_path / "data", "photo.jpg")
    hfpeer("conf", "cache", "set", str(tmp_path / "data"))
    assert read_settings(environ).places.cache == tmp_path / "data"
    hfpeer("uninstall", "--yes")
    assert remaining(tmp_path / "data") == {"photo.jpg"}


def test_a_second_uninstall_finds_nothing_and_is_no_failure(hfpeer: Run, home: Path) -> None:
    assert hfpeer("uninstall", "--yes", "--json").document["left"] == []
    again = hfpeer("uninstall", "--yes")
    assert again.code == 0
    assert "nothing of hfpeer's" in again.err
