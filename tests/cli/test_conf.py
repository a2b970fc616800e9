"""conf: values, where they come from, and when a change takes effect."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]


def test_ls_shows_value_and_where_it_comes_from(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["HFPEER_MDNS"] = "0"
    assert hfpeer("conf", "port", "set", "9500").code == 0
    facts = {fact["key"]: (fact["value"], fact["from"]) for fact in hfpeer("conf", "ls", "--json").document}
    assert facts["mdns"] == ("false", "environment HFPEER_MDNS")
    assert facts["lan.listen"] == ("0.0.0.0:9500", "file")
    assert facts["endpoint.listen"] == ("127.0.0.1:9438", "default")
    assert "lan.listen" in hfpeer("conf", "ls").out


def test_a_change_says_when_it_takes_effect(hfpeer: Run) -> None:
    ran = hfpeer("conf", "set", "mdns", "false")
    assert ran.out == "mdns = false\n"
    assert "hfpeer daemon restart" in ran.err


def test_a_change_that_the_environment_overrides_says_so(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    ran = hfpeer("conf", "cache", "set", str(tmp_path / "elsewhere"))
    assert ran.out == f"cache = {environ['HF_HUB_CACHE']}\n"
    assert "the environment overrides it" in ran.err


def test_the_cache_can_be_moved_and_moved_back(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    del environ["HF_HUB_CACHE"]
    environ["XDG_CACHE_HOME"] = str(tmp_path / "xdg")
    assert hfpeer("conf", "cache", "set", str(tmp_path / "big")).out == f"cache = {tmp_path / 'big'}\n"
    assert hfpeer("conf", "cache", "get").out == f"{tmp_path / 'big'}\n"
    assert hfpeer("conf", "cache", "reset").out == f"cache = {tmp_path / 'xdg/huggingface/hub'}\n"
    assert not (tmp_path / "big").exists()


def test_the_port_can_be_set_without_touching_the_host(hfpeer: Run) -> None:
    hfpeer("conf", "set", "lan.listen", "127.0.0.1:9000")
    hfpeer("conf", "port", "set", "9001")
    assert hfpeer("conf", "port", "get").out == "9001\n"
    assert hfpeer("conf", "get", "lan.listen").out == "127.0.0.1:9001\n"
    hfpeer("conf", "port", "reset")
    assert hfpeer("conf", "get", "lan.listen").out == "127.0.0.1:9437\n"


def test_reset_mends_a_file_that_cannot_be_read(hfpeer: Run, environ: dict[str, str]) -> None:
    home = Path(environ["HFPEER_HOME"])
    home.mkdir()
    (home / "settings.toml").write_text('# mine\nmdns = "perhaps"\n')
    assert hfpeer("conf", "ls").code == 2
    assert hfpeer("conf", "reset", "mdns").out == "mdns = true\n"
    assert (home / "settings.toml").read_text() == "# mine\n"


def test_an_empty_list_of_upstreams_can_be_set(hfpeer: Run) -> None:
    assert hfpeer("conf", "set", "upstreams", "").code == 0
    assert hfpeer("conf", "get", "upstreams").out == "\n"


def test_no_value_is_written_that_cannot_be_read_again(hfpeer: Run, environ: dict[str, str]) -> None:
    assert hfpeer("conf", "set", "mdns", "").code == 2
    assert not (Path(environ["HFPEER_HOME"]) / "settings.toml").exists()
