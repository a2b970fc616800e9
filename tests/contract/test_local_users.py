"""Another user of this machine gets no token, chooses nothing that is loaded, and has no file emptied by a link."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.other_user import NOBODY, common_folder, listening_as_nobody, run_as_nobody, running_as_nobody, why_not
from hfpeer.config.file import write_setting
from hfpeer.config.paths import Places
from hfpeer.config.settings import find_key, read_settings
from hfpeer.control.client import ControlClient
from hfpeer.control.holder import DaemonLock
from hfpeer.control.process import find_daemon, start_daemon
from hfpeer.errors import BrokenCache
from hfpeer.net.http1_blocking import run_blocking
from hfpeer.node.identity import read_node_id
from hfpeer.system.ownership import check_own_folder, make_own_folder, open_own, read_own, write_own

OTHER_USER = why_not()
needs_other_user = pytest.mark.skipif(OTHER_USER is not None, reason=OTHER_USER or "")
MAIN = "from hfpeer_cli.main import main; main()"
DOWNLOAD = "import hfpeer; print(hfpeer.snapshot_download('gpt2', token='hf_secret'))"
TOUCHING_COMMANDS = [
    ("model", "add", "-r", "gpt2"),
    ("model", "ls"),
    ("model", "rm", "-r", "gpt2"),
    ("model", "share", "-r", "gpt2"),
    ("model", "search", "-r", "gpt2"),
    ("model", "publish", "/etc/skel", "--as", "team/x"),
    ("daemon", "start"),
    ("daemon", "stop"),
    ("daemon", "status"),
    ("daemon", "restart"),
    ("daemon", "logs"),
    ("conf", "ls"),
    ("conf", "set", "mdns", "false"),
    ("peer", "ls"),
    ("peer", "add", "10.9.9.9"),
    ("env",),
    ("status",),
    ("why", "gpt2", "config.json"),
    ("uninstall", "--yes"),
]


@pytest.fixture
def common() -> Iterator[Path]:
    with common_folder() as place:
        yield place


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home.parent),
        "HFPEER_HOME": str(home),
        "HF_HUB_CACHE": str(home.parent / "hub"),
        "HFPEER_UPSTREAMS": "",
        "HFPEER_MDNS": "0",
        "HF_TOKEN": "hf_secret",
        **more,
    }


def python(code: str, *words: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


def a_long_home(below: Path) -> Path:
    """A home whose path is too long for a socket."""
    home = below / ("h" * 90)
    home.mkdir(parents=True, mode=0o700)
    return home


# The token


@needs_other_user
def test_a_command_sends_nothing_to_a_socket_folder_that_another_user_made_first(common: Path, tmp_path: Path) -> None:
    environ = environment(a_long_home(tmp_path), TMPDIR=str(common))
    heard = common / "heard"
    home = Path(environ["HFPEER_HOME"])
    socket = common / f"hfpeer-{os.geteuid()}" / _socket_name(home, environ)
    with listening_as_nobody(socket, heard):
        for ran in (python(MAIN, "model", "add", "-r", "gpt2", environ=environ), python(DOWNLOAD, environ=environ)):
            assert ran.returncode != 0 and ran.stdout == ""
            assert "nobody" in ran.stderr and str(socket.parent) in ran.stderr
        ran = python(MAIN, "model", "add", "-r", "gpt2", environ=environ)
        assert ran.returncode == 8 and "Traceback" not in ran.stderr and "Hint" in ran.stderr
        ran = python(MAIN, "daemon", "start", environ=environ)
        assert ran.returncode == 8 and "Traceback" not in ran.stderr
    assert not heard.exists()


def _socket_name(home: Path, environ: dict[str, str]) -> str:
    code = "import os, hfpeer.config.settings as s; print(s.read_settings(os.environ).places.control_socket)"
    path = Path(python(code, environ=environ).stdout.strip())
    assert str(home) not in str(path)
    return path.name


@needs_other_user
@pytest.mark.parametrize("is_blocking", [True, False])
async def test_nothing_goes_to_a_listener_of_another_user_in_a_folder_of_ones_own(
    common: Path, tmp_path: Path, is_blocking: bool
) -> None:
    """As after a moment in which others could write to the folder: the kernel tells the owner of the listener."""
    folder = common / "own"
    folder.mkdir()
    folder.chmod(0o777)
    path = folder / "control.sock"
    with listening_as_nobody(path, common / "heard"):
        os.chown(path, os.geteuid(), -1)
        client = ControlClient(path, is_blocking=is_blocking)
        with pytest.raises(BrokenCache, match="nobody"):
            run_blocking(client.status()) if is_blocking else await client.status()
    heard = common / "heard"
    assert not heard.exists() or "POST" not in heard.read_text()


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path leaves room for a socket's; that of `tmp_path` may not."""
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as folder:
        yield Path(folder)


def test_the_socket_of_a_long_home_is_in_the_runtime_folder_of_the_user(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, temporary = short / "run", short / "tmp"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    places = Places(a_long_home(tmp_path), tmp_path / "hub")
    assert places.control_socket.parent == run / "hfpeer"
    run.chmod(0o777)
    assert places.control_socket.parent == temporary / f"hfpeer-{os.geteuid()}"
    monkeypatch.setattr("tempfile.tempdir", str(temporary / ("t" * 100)))
    assert places.control_socket.parent == Path(f"/tmp/hfpeer-{os.geteuid()}")


def test_a_command_with_another_environment_finds_the_socket_of_the_daemon(
    tmp_path: Path, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = short / "run"
    run.mkdir(mode=0o700)
    places = Places(a_long_home(tmp_path), tmp_path / "hub")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    lock = DaemonLock(places)
    lock.acquire()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert places.control_socket.parent == run / "hfpeer"
    lock.release()


# A home of another user


@needs_other_user
def test_no_command_uses_a_home_of_another_user(common: Path) -> None:
    home = common / "home"
    run_as_nobody("import os, sys; os.makedirs(sys.argv[1] + '/logs')", home)
    victim = common / "victim"
    victim.write_text("precious")
    for name in ("daemon.pid", "logs/startup.log", "logs/hfpeerd.log", "settings.toml", "shares.json", "node-id"):
        run_as_nobody("import os, sys; os.symlink(*sys.argv[1:])", victim, home / name)
    before = sorted(home.rglob("*"))
    for words in TOUCHING_COMMANDS:
        ran = python(MAIN, *words, environ=environment(home))
        assert ran.returncode == 8, (words, ran)
        assert "nobody" in ran.stderr and "HFPEER_HOME" in ran.stderr and "Traceback" not in ran.stderr, words
        assert ran.stdout == "" and "elete" not in ran.stderr, words
    assert victim.read_text() == "precious" and sorted(home.rglob("*")) == before


@needs_other_user
def test_a_home_in_a_folder_of_another_user_or_behind_its_link_is_refused(common: Path, tmp_path: Path) -> None:
    theirs = common / "theirs"
    run_as_nobody("import os, sys; os.mkdir(sys.argv[1]); os.chmod(sys.argv[1], 0o777)", theirs)
    with pytest.raises(BrokenCache, match=r"folder of another user.*nobody"):
        make_own_folder(theirs / "new" / "home")
    (theirs / "home").mkdir(mode=0o700)
    with pytest.raises(BrokenCache, match="nobody"):
        check_own_folder(theirs / "home")
    own = tmp_path / "own"
    own.mkdir()
    run_as_nobody("import os, sys; os.symlink(*sys.argv[1:])", own, common / "link")
    for home in (common / "link", common / "link" / "home"):
        with pytest.raises(BrokenCache, match="link that another user made"):
            make_own_folder(home)
    assert list(own.iterdir()) == []


def test_a_link_of_ones_own_leads_to_a_home_and_a_wide_home_is_narrowed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    (home / "logs").mkdir()
    (tmp_path / "link").symlink_to(home)
    check_own_folder(tmp_path / "link")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(0o1777)
    with pytest.raises(BrokenCache, match="All users may write"):
        check_own_folder(common)


def test_a_folder_that_holds_more_than_hfpeers_own_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "home" / "hub").mkdir(parents=True)
    (tmp_path / "home").chmod(0o755)
    check_own_folder(tmp_path / "home")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o755


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_in_the_home_are_readable_for_the_owner_only(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        home = tmp_path / "home"
        write_setting(home, find_key("mdns"), "false")
        read_node_id(Places(home, tmp_path / "hub"))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


# Files of the home


@pytest.mark.parametrize("name", ["daemon.pid", "logs/startup.log"])
async def test_a_link_in_the_home_is_not_followed_by_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "home" / "logs").mkdir(parents=True)
    (tmp_path / "home" / name).symlink_to(victim)
    monkeypatch.setenv("HFPEER_HOME", str(tmp_path / "home"))
    settings = read_settings(os.environ)
    assert await find_daemon(settings) is None
    with pytest.raises(BrokenCache, match="is a link"):
        if name == "daemon.pid":
            DaemonLock(settings.places).acquire()
        else:
            await start_daemon(settings)
    assert victim.read_text() == "precious"


def test_a_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "hfpeerd.log").symlink_to(victim)
    code = (
        "import sys, pathlib; from hfpeer_daemon.logs import start_logging; "
        "start_logging('info', pathlib.Path(sys.argv[1]))"
    )
    ran = python(code, str(tmp_path / "logs" / "hfpeerd.log"), environ=environment(tmp_path / "home"))
    assert "is a link" in ran.stderr and victim.read_text() == "precious"


def test_only_a_regular_file_with_one_name_is_opened_for_writing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "hard").hardlink_to(victim)
    (tmp_path / "soft").symlink_to(victim)
    for name in ("fifo", "hard", "soft"):
        with pytest.raises(OSError):
            os.close(open_own(tmp_path / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    (tmp_path / "victim.link").symlink_to(tmp_path / "nowhere")
    write_own(tmp_path / "victim.link", b"new")
    assert victim.read_text() == "precious" and not (tmp_path / "nowhere").exists()
    assert (tmp_path / "victim.link").read_bytes() == b"new"


@needs_other_user
def test_a_file_of_another_user_is_not_read(common: Path) -> None:
    run_as_nobody("import sys; open(sys.argv[1], 'w').write('{}')", common / "shares.json")
    with pytest.raises(PermissionError, match="nobody"):
        read_own(common / "shares.json")


@pytest.mark.parametrize("found", [b"", b"\xff\xfe", b"a" * 32 + b"\nX: y", b"0" * 33, b"G" * 32, b"0" * 5_000_000])
def test_a_node_id_that_is_none_is_made_anew(tmp_path: Path, found: bytes, caplog: pytest.LogCaptureFixture) -> None:
    places = Places(tmp_path, tmp_path / "hub")
    places.node_id_file.write_bytes(found)
    fresh = read_node_id(places)
    assert len(fresh) == 32 and int(fresh, 16) >= 0 and read_node_id(places) == fresh
    assert "takes a new one" in caplog.text and len(caplog.text) < 1000


# Whose daemon answers

ENDPOINT_OF_NOBODY = """
import http.server, sys
class Sign(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hfpeer 1.0\\n")
    def log_message(self, *words):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Sign)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def port_of_nobody() -> Iterator[int]:
    with running_as_nobody(ENDPOINT_OF_NOBODY) as line:
        yield int(line)


@needs_other_user
def test_a_daemon_of_another_user_is_named_with_a_hint(common: Path, tmp_path: Path, port_of_nobody: int) -> None:
    endpoint = f"127.0.0.1:{port_of_nobody}"
    own = environment(tmp_path / "home", HFPEER_ENDPOINT_LISTEN=endpoint, HFPEER_LAN_LISTEN="127.0.0.1:0")
    (common / "home").mkdir()
    os.chown(common / "home", NOBODY, NOBODY)
    for code, environ, words in (
        (9, own, ("daemon", "start")),
        (8, environment(common / "home"), ("model", "add", "-r", "gpt2")),
        (0, own, ("env",)),
        (9, own, ("run", "--", "true")),
        (9, own, ("daemon", "status")),
        (0, own, ("status",)),
    ):
        ran = python(MAIN, *words, environ=environ)
        assert ran.returncode == code, ran
        said = ran.stdout if words == ("status",) else ran.stderr
        assert f"A daemon of user nobody answers at {endpoint}" in said, ran
        assert f"`export HF_ENDPOINT=http://{endpoint}`." in said, ran
    assert "of user nobody" in python(MAIN, "daemon", "start", environ=own).stderr
