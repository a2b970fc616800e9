"""The Hub client and hfpeer keep out of each other's way on one blob."""

from __future__ import annotations

import errno
import threading
from pathlib import Path
from unittest import mock

import pytest
from filelock import FileLock, Timeout
from huggingface_hub.utils._fixes import WeakFileLock

from fakes.hub_cache import REPO
from fakes.other_user import common_folder, forked_as_nobody, why_not
from hfpeer.cache.disk.layout import lock_path
from hfpeer.cache.disk.locks import etag_lock
from hfpeer.errors import BrokenCache, Locked
from hfpeer.names import Digest

DIGEST = Digest("sha256", "a" * 64)
OTHER_USER = why_not()
needs_other_user = pytest.mark.skipif(OTHER_USER is not None, reason=OTHER_USER or "")


def test_the_hub_client_waits_while_we_hold_the_lock(tmp_path: Path) -> None:
    theirs = FileLock(lock_path(tmp_path, REPO, DIGEST), mode=0o664)
    with etag_lock(tmp_path, REPO, DIGEST), pytest.raises(Timeout):
        theirs.acquire(timeout=0.1)
    with theirs.acquire(timeout=20):
        pass


def test_we_wait_while_the_hub_client_holds_it(tmp_path: Path) -> None:
    path = lock_path(tmp_path, REPO, DIGEST)
    path.parent.mkdir(parents=True)
    with WeakFileLock(path), pytest.raises(Locked) as caught, etag_lock(tmp_path, REPO, DIGEST, 0.1):
        pass
    assert caught.value.hint
    with etag_lock(tmp_path, REPO, DIGEST, 0):
        pass


def test_we_go_on_as_soon_as_the_hub_client_is_done(tmp_path: Path) -> None:
    path = lock_path(tmp_path, REPO, DIGEST)
    path.parent.mkdir(parents=True)
    entered = threading.Event()

    def enter() -> None:
        with etag_lock(tmp_path, REPO, DIGEST):
            entered.set()

    with WeakFileLock(path):
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.15)
    assert entered.wait(20.0)
    thread.join()


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        for _ in range(3):
            with etag_lock(tmp_path, REPO, DIGEST):
                with guard:
                    inside += 1
                    most = max(most, inside)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_lock_file_stays_and_is_writable_for_the_group(tmp_path: Path) -> None:
    with etag_lock(tmp_path, REPO, DIGEST):
        pass
    assert lock_path(tmp_path, REPO, DIGEST).stat().st_mode & 0o777 == 0o664


def test_a_lock_whose_file_was_deleted_meanwhile_does_not_count(tmp_path: Path) -> None:
    path = lock_path(tmp_path, REPO, DIGEST)
    with etag_lock(tmp_path, REPO, DIGEST):
        path.unlink()
        with etag_lock(tmp_path, REPO, DIGEST, 1):
            assert path.exists()


def test_without_flock_the_client_and_we_still_exclude_each_other(tmp_path: Path) -> None:
    path = lock_path(tmp_path, REPO, DIGEST)
    nothing = OSError(errno.ENOSYS, "Function not implemented")
    with mock.patch("fcntl.flock", side_effect=nothing), etag_lock(tmp_path, REPO, DIGEST):
        assert path.exists()
        with pytest.raises(Locked), etag_lock(tmp_path, REPO, DIGEST, 0.1):
            pass
    assert not path.exists()


def test_a_lock_folder_that_cannot_be_made_is_a_broken_cache(tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("a file where a folder should be")
    with pytest.raises(BrokenCache), etag_lock(tmp_path, REPO, DIGEST):
        pass


def test_a_failure_inside_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), etag_lock(tmp_path, REPO, DIGEST):
        raise RuntimeError
    with etag_lock(tmp_path, REPO, DIGEST, 0):
        pass


@needs_other_user
@pytest.mark.parametrize("mode", [0o644, 0o600], ids=["readable", "unreadable"])
def test_a_lock_file_of_another_user_is_held_if_it_can_be_read_and_done_without_if_not(mode: int) -> None:
    with common_folder() as cache:
        path = lock_path(cache, REPO, DIGEST)
        path.parent.mkdir(parents=True)
        path.touch()
        path.chmod(mode)

        def hold() -> str:
            with etag_lock(cache, REPO, DIGEST, 0.1):
                return "went on"

        assert forked_as_nobody(hold) == "went on"
        with etag_lock(cache, REPO, DIGEST):
            held = forked_as_nobody(hold)
        assert ("Locked" in held) if mode == 0o644 else held == "went on"


@needs_other_user
def test_where_no_lock_file_can_be_made_work_goes_on_without() -> None:
    with common_folder() as cache:
        lock_path(cache, REPO, DIGEST).parent.mkdir(parents=True)

        def hold() -> str:
            with etag_lock(cache, REPO, DIGEST):
                return "went on"

        assert forked_as_nobody(hold) == "went on"
