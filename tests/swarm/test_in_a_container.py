"""A node in a container: any user id, no home, no name, a read-only root file system, SIGTERM during a transfer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.container import UID, Container, wait_for_part, why_not
from fakes.hub import HubSimulator, faults

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(why_not()), reason=f"there can be no container here: {why_not()}"),
]
GRACE_SECONDS = 10.0
"""Seconds that container engines wait after SIGTERM before they kill. Source: `docker stop`; Kubernetes gives 30."""
SIZE_BYTES = 32_000_000


@pytest.fixture
def container(hub: HubSimulator) -> Iterator[Container]:
    # Not pytest's own folder: only its owner may enter that.
    with tempfile.TemporaryDirectory(prefix="hfpeer-container-") as folder:
        Path(folder).chmod(0o755)
        yield Container(Path(folder) / "volume", HFPEER_UPSTREAMS=f"origin={hub.endpoint}")


def test_it_works_for_any_user_over_a_read_only_root_and_ends_at_sigterm_with_its_transfers_journalled(
    container: Container, hub: HubSimulator, put: Callable[..., str]
) -> None:
    commit = put("acme/contained", SIZE_BYTES)
    cache = container.volume / "huggingface" / "hub"
    with container:
        container.start()
        with hub.inject(faults.throttle(4_000_000, is_shared=True), method="GET", listener="cdn"):
            adding = container.begin("model", "add", "-r", "acme/contained")
            wait_for_part(cache, SIZE_BYTES // 4)
            code, said = container.terminate(GRACE_SECONDS)
        assert (code, "Traceback" in said) == (0, False), said
        out, err = adding.communicate(timeout=GRACE_SECONDS)
        assert adding.returncode == 9, (out, err)

        hub.clear()
        container.start()
        ran = container.hfpeer("model", "add", "-r", "acme/contained")
        assert ran.code == 0, ran.err
        assert hub.body_bytes_sent("/repos/*") <= SIZE_BYTES * 3 // 4 + 1_000_000
        listed = container.hfpeer("model", "ls", "-r", "acme/contained").document
        assert [(one["commit"], one["is_complete"]) for one in listed] == [(commit, True)]
        checked = container.hfpeer("verify", "--quick")
        assert checked.code == 0, checked.out
        assert {path.stat().st_uid for path in container.volume.rglob("*")} == {UID}
        assert container.terminate(GRACE_SECONDS)[0] == 0


@pytest.mark.parametrize(("missing", "use"), [("HFPEER_HOME", "hfpeer's own data"), ("HF_HOME", "Hugging Face cache")])
def test_without_a_home_the_variable_that_is_missing_is_named(container: Container, missing: str, use: str) -> None:
    del container.environ[missing]
    ran = container.hfpeer("status")
    assert ran.code == 2 and "Traceback" not in ran.err
    assert missing in ran.problem["hint"] and use in ran.problem["hint"]


def test_a_cache_is_enough_for_a_user_without_a_home(container: Container) -> None:
    container.environ["HF_HUB_CACHE"] = str(Path(container.environ.pop("HF_HOME")) / "hub")
    for words in (("status",), ("cache", "ls"), ("conf", "ls"), ("adopt", "--list"), ("model", "ls")):
        ran = container.hfpeer(*words)
        assert ran.code == 0, (words, ran.err)


def test_a_volume_that_may_not_be_written_is_said(container: Container) -> None:
    container.volume.chmod(0o700)
    with pytest.raises(AssertionError) as failed, container:
        container.start()
    assert "Traceback" not in str(failed.value) and str(container.volume) in str(failed.value)


def test_the_image_of_a_bare_python_has_no_home_either(container: Container) -> None:
    """`HOME=/`, as container engines set it for a user without an entry."""
    del container.environ["HFPEER_HOME"]
    container.environ["HOME"] = "/"
    ran = container.hfpeer("status")
    assert ran.code == 8 and "HFPEER_HOME" in ran.problem["hint"]
