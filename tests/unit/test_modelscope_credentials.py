"""The ModelScope token where its own tools keep it: both sides read what the other wrote, and no pickle runs."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
import time
from http.cookiejar import Cookie
from pathlib import Path

import pytest

from fakes.modelscope_client import client_environ, needs_client
from hfpeer.budgets import MAX_COOKIE_FILE_BYTES
from hfpeer.errors import BrokenCache
from hfpeer.modelscope.credentials import KEPT_SECONDS, Credentials

SITE, INTERNATIONAL = "https://modelscope.cn", "https://www.modelscope.ai"
TOKEN = "ms-0000-the-token"


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return Credentials({"MODELSCOPE_HOME": str(tmp_path / "modelscope")})


def cookie(value: str, domain: str, expires: int | None) -> Cookie:
    return Cookie(
        0, "m_session_id", value, None, False, domain, True, False, "/", True, False, expires, False, None, None, {}
    )


def put(credentials: Credentials, raw: bytes, mode: int = 0o600) -> None:
    credentials.folder.mkdir(parents=True, exist_ok=True)
    path = credentials.folder / "cookies"
    path.write_bytes(raw)
    path.chmod(mode)


def test_a_stored_token_is_read_again_for_its_own_site_only_and_other_users_cannot_read_it(
    credentials: Credentials,
) -> None:
    assert credentials.token(SITE) is None and not credentials.remove()
    credentials.store(TOKEN, SITE, "alice", "alice@example.com")
    assert credentials.token(SITE) == credentials.token("https://www.modelscope.cn") == TOKEN
    assert credentials.token(INTERNATIONAL) is credentials.token("https://evil.example") is None
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in credentials.folder.iterdir()}
    assert modes == {"cookies": 0o600, "user": 0o600} and stat.S_IMODE(credentials.folder.stat().st_mode) == 0o700
    assert credentials.remove() and credentials.token(SITE) is None and not [*credentials.folder.iterdir()]


def test_the_token_of_the_environment_outweighs_the_stored_one_and_an_empty_one_means_none(tmp_path: Path) -> None:
    home = {"MODELSCOPE_HOME": str(tmp_path)}
    Credentials(home).store(TOKEN, SITE, "alice", "")
    assert Credentials({**home, "MODELSCOPE_API_TOKEN": " other "}).token(SITE) == "other"
    assert Credentials({**home, "MODELSCOPE_API_TOKEN": ""}).token(SITE) is None


@needs_client
def test_its_own_client_reads_what_hfpeer_wrote_and_the_other_way_round(
    credentials: Credentials, tmp_path: Path
) -> None:
    def client(lines: str) -> str:
        environ = client_environ("http://127.0.0.1:9", tmp_path, None)
        script = "from modelscope_hub import HubConfig\nconfig = HubConfig()\n" + lines
        return subprocess.run(
            [sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True
        ).stdout

    credentials.store(TOKEN, "http://127.0.0.1:9", "alice", "")
    look = "jar = config.load_cookies()\nprint(config.token, type(jar).__name__, jar.get('m_session_id'), len(jar))"
    assert client(look).split() == [TOKEN, "RequestsCookieJar", TOKEN, "1"]
    client("config.save_token('written-by-its-client')")
    assert credentials.token("http://127.0.0.1:9") == "written-by-its-client"
    client("config.clear_token()")
    assert credentials.token("http://127.0.0.1:9") is None


def test_a_login_of_a_jar_without_the_class_of_requests_is_read_too_and_an_expired_one_is_none(
    credentials: Credentials,
) -> None:
    now = int(time.time())
    for expires, found in ((now + KEPT_SECONDS, TOKEN), (None, TOKEN), (now - 1, None)):
        put(credentials, pickle.dumps([cookie(TOKEN, ".modelscope.cn", expires)]))
        assert credentials.token(SITE) == found


class Attack:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_a_program_is_no_login_and_runs_nothing(
    credentials: Credentials, tmp_path: Path, protocol: int
) -> None:
    mark = tmp_path / "ran"
    put(credentials, pickle.dumps([cookie(TOKEN, "modelscope.cn", None), Attack(mark)], protocol))
    assert credentials.token(SITE) is None and not mark.exists()


def test_damaged_and_oversized_files_are_no_login(credentials: Credentials) -> None:
    credentials.store(TOKEN, SITE, "alice", "")
    right = (credentials.folder / "cookies").read_bytes()
    for length in range(len(right)):
        put(credentials, right[:length])
        assert credentials.token(SITE) is None
    put(credentials, right + b"\0" * (MAX_COOKIE_FILE_BYTES + 1))
    assert credentials.token(SITE) is None


def test_a_file_that_others_may_write_is_not_read(credentials: Credentials) -> None:
    put(credentials, pickle.dumps([cookie(TOKEN, "modelscope.cn", None)]), 0o666)
    with pytest.raises(BrokenCache, match="may be written by other users") as refused:
        credentials.token(SITE)
    assert refused.value.hint is not None and "chmod 600" in refused.value.hint


def test_a_link_in_the_place_of_the_file_is_not_followed(credentials: Credentials, tmp_path: Path) -> None:
    credentials.folder.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (credentials.folder / "cookies").symlink_to(elsewhere)
    with pytest.raises(BrokenCache):
        credentials.token(SITE)
    credentials.store(TOKEN, SITE, "alice", "")
    assert elsewhere.read_bytes() == b"mine" and credentials.token(SITE) == TOKEN
