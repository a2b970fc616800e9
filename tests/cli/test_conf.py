"""conf: values, where they come from, and when a change takes effect."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.network.ports import free_ports
from hfpeer.config.paths import Places
from hfpeer.control.holder import DaemonLock

Run = Callable[..., Any]


def test_ls_shows_value_and_where_it_comes_from(hfpeer: Run, environ: dict[str, str]) -> None:
    environ["HFPEER_MDNS"] = "0"
    assert hfpeer("conf", "port", "set", "9500").code == 0
    facts = {fact["key"]: (fact["value"], fact["from"]) for fact in hfpeer("conf", "ls", "--json").document}
    assert facts["mdns"] == (False, "environment HFPEER_MDNS")
    assert facts["lan.listen"] == ("0.0.0.0:9500", "file")
    assert facts["endpoint.listen"] == ("127.0.0.1:9438", "default")
    assert "lan.listen" in hfpeer("conf", "ls").out


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("mdns", "off", False),
        ("cache.max_size", "500GB", 500_000_000_000),
        ("cache.min_free", "", None),
        ("transfers.at_once", "2", 2),
        ("patience", "1.5", 1.5),
        ("name", "bench-1", "bench-1"),
        ("lan.listen", "127.0.0.1:9500", "127.0.0.1:9500"),
        (
            "upstreams",
            "mirror=https://a.example,origin=https://b.example",
            ["mirror=https://a.example", "origin=https://b.example"],
        ),
        ("upstreams", "", []),
        ("peers", "10.0.0.2,10.0.0.3:9500", ["10.0.0.2:9437", "10.0.0.3:9500"]),
    ],
)
def test_values_have_their_types_as_json(hfpeer: Run, key: str, text: str, value: object) -> None:
    assert hfpeer("conf", "set", key, text, "--json").document["value"] == value
    assert hfpeer("conf", "get", key, "--json").document["value"] == value
    assert {one["key"]: one["value"] for one in hfpeer("conf", "ls", "--json").document}[key] == value


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("max_size", "'cache.max_size'"),
        ("cache.maxsize", "'cache.max_size'"),
        ("HFPEER_CACHE_MAX_SIZE", "'cache.max_size'"),
        ("upstream", "'upstreams'"),
        ("listen", "'endpoint.listen' or 'lan.listen'"),
    ],
)
def test_an_unknown_setting_names_those_that_may_be_meant_and_not_all(hfpeer: Run, word: str, meant: str) -> None:
    for words in (("set", word, "x"), ("get", word), ("reset", word)):
        error, hint = hfpeer("conf", *words).err.splitlines()
        assert error == f"Error: There is no setting {word!r}. Did you mean {meant}?"
        assert hint == "Hint: `hfpeer conf ls` lists all settings."
    assert hfpeer("conf", "get", "xyzzy").err.splitlines()[1] == "Hint: `hfpeer conf ls` lists all settings."


def test_a_key_with_its_value_is_answered_with_the_command(hfpeer: Run) -> None:
    assert "Hint: `hfpeer conf set offline true`" in hfpeer("conf", "set", "offline=true").err


def test_a_size_without_a_unit_is_refused_if_it_is_small(hfpeer: Run) -> None:
    """500 bytes would empty the cache of someone who means gigabytes."""
    ran = hfpeer("conf", "set", "cache.max_size", "500")
    assert (ran.code, "Write 500GB" in ran.err) == (2, True)
    assert hfpeer("conf", "set", "cache.max_size", "500B").out == "cache.max_size = 500\n"
    assert hfpeer("conf", "set", "cache.max_size", "4000000000").code == 0
    assert hfpeer("conf", "set", "cache.min_free", "0").code == 0


def test_an_unknown_setting_in_the_file_names_those_that_may_be_meant(hfpeer: Run, environ: dict[str, str]) -> None:
    home = Path(environ["HFPEER_HOME"])
    home.mkdir()
    (home / "settings.toml").write_text('[cache]\nmaxsize = "5GB"\n')
    ran = hfpeer("status")
    assert ran.code == 2
    error, hint = ran.err.splitlines()
    assert error.endswith("'cache.maxsize', which is no setting. Did you mean 'cache.max_size'?")
    assert hint == "Hint: Take that line out of the file, or mend it."


def test_a_change_says_when_it_takes_effect(hfpeer: Run, environ: dict[str, str]) -> None:
    ran = hfpeer("conf", "set", "mdns", "false")
    assert (ran.out, ran.err) == ("mdns = false\n", "")  # no daemon runs
    lock = DaemonLock(Places(Path(environ["HFPEER_HOME"]), Path()))
    lock.acquire()
    try:
        assert "hfpeer daemon restart" in hfpeer("conf", "set", "mdns", "true").err
    finally:
        lock.release()


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
    assert not list((tmp_path / "big").iterdir())


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


def test_an_address_of_a_hub_with_a_password_in_it_is_refused_and_not_repeated(hfpeer: Run) -> None:
    """Peers would see it as the name of the hub, and bytes from it would count as given openly."""
    result = hfpeer("conf", "set", "upstreams", "mirror=https://me:sesame@hub.example")
    assert result.code == 2
    assert "password" in result.err and "hub.example" in result.err
    assert "sesame" not in result.out + result.err


def test_an_empty_list_of_upstreams_can_be_set(hfpeer: Run) -> None:
    assert hfpeer("conf", "set", "upstreams", "").code == 0
    assert hfpeer("conf", "get", "upstreams").out == "\n"


def test_a_value_that_cannot_be_read_is_not_written(hfpeer: Run, environ: dict[str, str]) -> None:
    assert hfpeer("conf", "set", "mdns", "").code == 2
    assert not (Path(environ["HFPEER_HOME"]) / "settings.toml").exists()


def settings_file(environ: dict[str, str]) -> Path:
    return Path(environ["HFPEER_HOME"]) / "settings.toml"


@pytest.mark.parametrize(
    ("key", "value", "code", "said"),
    [
        ("lan.listen", "TAKEN", 9, "is taken by process"),
        ("endpoint.listen", "TAKEN", 9, "is taken by process"),
        ("lan.listen", "192.0.2.77:9999", 2, "cannot listen on"),
        ("lan.listen", "127.0.0.1:9438", 2, "where endpoint.listen is"),
        ("endpoint.listen", "0.0.0.0:9437", 2, "where lan.listen is"),
        ("endpoint.listen", "no.such.host.invalid:9999", 2, "cannot listen on"),
        ("upstreams", "origin=http://hub.example:99999", 2, "is not an upstream"),
        ("upstreams", "origin=http://[::1", 2, "is not an upstream"),
        ("upstreams", "origin=http://a b", 2, "is not an upstream"),
        ("upstreams", "origin=http://hub.example/?a=b", 2, "is not an upstream"),
        ("ca", "FOLDER/no.pem", 2, "There is no"),
        ("ca", "FOLDER/empty.pem", 2, "holds no certificate"),
        ("registry_password_file", "FOLDER/no.txt", 8, "cannot be read"),
        ("request_key_file", "FOLDER/no.key", 2, "cannot be read"),
        ("request_key_file", "FOLDER/empty.pem", 2, "is shorter than"),
        ("read_caches", "FOLDER/no", 4, "There is no folder"),
        ("read_caches", "FOLDER/empty.pem", 2, "is a file"),
        ("cache", "/proc/x", 8, "could not make the folder"),
    ],
)
def test_a_value_that_would_break_the_next_start_is_refused(
    hfpeer: Run, environ: dict[str, str], tmp_path: Path, key: str, value: str, code: int, said: str
) -> None:
    (tmp_path / "empty.pem").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        value = value.replace("FOLDER", str(tmp_path)).replace("TAKEN", f"127.0.0.1:{taken.getsockname()[1]}")
        ran = hfpeer("conf", "set", key, value)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert "Hint:" in ran.err and not settings_file(environ).exists()


def test_a_value_is_written_all_the_same_by_force(hfpeer: Run, environ: dict[str, str]) -> None:
    refused = hfpeer("conf", "set", "lan.listen", "192.0.2.77:9999")
    assert "hfpeer conf set lan.listen 192.0.2.77:9999 --force" in refused.err
    assert hfpeer("conf", "set", "lan.listen", "192.0.2.77:9999", "--force").code == 0
    assert "192.0.2.77:9999" in settings_file(environ).read_text()
    # A file that breaks the start can be mended.
    assert hfpeer("conf", "set", "lan.listen", f"127.0.0.1:{free_ports(1)[0]}").code == 0


def test_a_port_that_this_node_s_own_daemon_has_is_no_fault(hfpeer: Run, environ: dict[str, str]) -> None:
    lock = DaemonLock(Places(Path(environ["HFPEER_HOME"]), Path()))
    with socket.create_server(("127.0.0.1", 0)) as own:
        address = f"127.0.0.1:{own.getsockname()[1]}"
        assert hfpeer("conf", "set", "lan.listen", address).code == 9
        lock.acquire()
        try:
            assert hfpeer("conf", "set", "lan.listen", address).code == 0
            assert hfpeer("conf", "port", "set", str(own.getsockname()[1])).code == 0
        finally:
            lock.release()


def without_cache(environ: dict[str, str]) -> None:
    del environ["HF_HUB_CACHE"]


def test_a_cache_folder_is_made_and_its_volume_is_told(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    without_cache(environ)
    ran = hfpeer("conf", "cache", "set", str(tmp_path / "a" / "b"))
    assert ran.out == f"cache = {tmp_path / 'a/b'}\n"
    assert "a new folder, " in ran.err and " free" in ran.err
    assert "daemon" not in ran.err
    facts = hfpeer("conf", "cache", "set", str(tmp_path / "a" / "b"), "--json").document
    assert facts["folder"]["is_new"] is False
    assert facts["folder"]["volume"]["is_writable"] is True
    assert facts["daemon_caches"] is None


def test_what_lies_in_a_new_cache_folder_is_counted(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    without_cache(environ)
    (tmp_path / "big" / "models--acme--tiny" / "snapshots").mkdir(parents=True)
    (tmp_path / "big" / "notes.txt").touch()
    ran = hfpeer("conf", "set", "cache", str(tmp_path / "big"))
    assert "1 repo, " in ran.err and "1 other thing there stays as it is." in ran.err


def test_a_cache_folder_may_be_relative_or_begin_with_home_or_a_variable(
    hfpeer: Run, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_cache(environ)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISK", str(tmp_path / "disk"))
    for words, folder in (("mine", "mine"), ("~/his", "his"), ("$DISK/hub", "disk/hub")):
        assert hfpeer("conf", "cache", "set", words).out == f"cache = {tmp_path / folder}\n"
        assert (tmp_path / folder).is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("D:\\models", "a path of Windows"),
        ("C:/Users/me/models", "a path of Windows"),
        ("\\\\server\\share", "a path of Windows"),
        ("/models/\udcff", "not UTF-8"),
        ("smb://server/share", "is a URL"),
        ("$NO_SUCH_VARIABLE/hub", "has no value"),
        ("~no-such-user/hub", "home of no user"),
        ("FILE", "is a file"),
        ("CACHE/mine", "is inside the cache"),
        ("CACHE/models--acme--tiny", "is inside the cache"),
        ("CACHE/models--acme--tiny/blobs/mine", "is inside the cache"),
        ("HOME", "a Hugging Face home"),
    ],
)
def test_a_folder_that_can_be_no_cache_is_refused(
    hfpeer: Run, environ: dict[str, str], tmp_path: Path, words: str, said: str
) -> None:
    without_cache(environ)
    (tmp_path / "cache" / "models--acme--tiny" / "snapshots").mkdir(parents=True)
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    (tmp_path / "file").touch()
    for word, place in (("CACHE", "cache"), ("HOME", "hf"), ("FILE", "file")):
        words = words.replace(word, str(tmp_path / place))
    ran = hfpeer("conf", "cache", "set", words)
    assert ran.code == 2 and said in ran.err and "Hint:" in ran.err
    assert not (Path(environ["HFPEER_HOME"]) / "settings.toml").exists()


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME", "HFPEER_HOME"])
def test_a_path_that_is_not_utf8_is_refused(hfpeer: Run, environ: dict[str, str], variable: str) -> None:
    without_cache(environ)
    environ[variable] = "/models/\udcff"
    ran = hfpeer("conf", "cache", "get")
    assert ran.code == 2 and "is not UTF-8" in ran.err and "Hint:" in ran.err


def test_a_path_of_windows_in_the_environment_is_refused(hfpeer: Run, environ: dict[str, str]) -> None:
    """Else a folder of that name would appear where the command runs."""
    environ["HF_HUB_CACHE"] = "E:\\LLM_Models"
    ran = hfpeer("conf", "cache", "get")
    assert ran.code == 2 and "HF_HUB_CACHE" in ran.err and "a path of Windows" in ran.err


def test_more_folders_are_added_listed_and_removed(hfpeer: Run, environ: dict[str, str], tmp_path: Path) -> None:
    share, mine = tmp_path / "share", Path(environ["HF_HUB_CACHE"])
    (share / "models--acme--tiny" / "snapshots").mkdir(parents=True)
    ran = hfpeer("conf", "cache", "add", str(share))
    assert ran.out == f"read_caches = {share}\n" and "1 repo, " in ran.err
    first, other = hfpeer("conf", "cache", "ls", "--json").document
    assert (first["path"], first["is_first"], first["away"]) == (str(mine), True, "it is not there yet")
    assert (other["path"], other["is_first"], other["repos"], other["from"]) == (str(share), False, 1, "file")
    assert f"{share}  only read" in hfpeer("conf", "cache", "ls").out
    (share / "models--acme--tiny" / "snapshots").rmdir()
    (share / "models--acme--tiny").rmdir()
    assert "it is empty; mount its disk" in hfpeer("conf", "cache", "ls").out
    assert f"{share} is passed over" in hfpeer("model", "ls").err
    assert list(share.iterdir()) == [], "a folder that is only read is not written, not even for a trial"
    assert hfpeer("conf", "cache", "rm", str(share)).out == "read_caches = \n"
    assert hfpeer("conf", "cache", "rm", str(share)).code == 4


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("nowhere", 4, "no folder"),
        ("hub", 2, "the folder that the cache is kept in"),
        ("share", 2, "read already"),
        ("share/models--acme--tiny", 2, "is inside the cache"),
        ("file", 2, "is a file"),
        ("a,b", 2, "comma"),
    ],
)
def test_a_folder_that_cannot_be_read_from_is_refused(
    hfpeer: Run, tmp_path: Path, words: str, code: int, said: str
) -> None:
    for place in ("share/models--acme--tiny/snapshots", "hub", "a,b"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert hfpeer("conf", "cache", "add", str(tmp_path / "share")).code == 0
    ran = hfpeer("conf", "cache", "add", str(tmp_path / words))
    assert ran.code == code and said in ran.err and "Hint:" in ran.err
