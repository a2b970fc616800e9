"""ModelScope as a source of real nodes: the origin is dead, the mirror throttled, and the bytes are right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from fakes.hub import Content, HubSimulator, Lfs, faults
from fakes.hub.zoo import noise
from fakes.machine import HFPEER, Machine, Machines
from fakes.modelscope import ModelScopeSimulator
from fakes.waiting import wait_until

SIZE = 1_500_000
BODIES = {f"{number}.safetensors": noise(SIZE, f"shard {number}") for number in range(10)}
FILES: dict[str, Content] = {"README.md": b"# Big\n", **{path: Lfs(data) for path, data in BODIES.items()}}
ADD = ("model", "add", "-r", "acme/big")


@pytest.fixture
def site() -> Iterator[ModelScopeSimulator]:
    """Lists 9 of the 10 files with their sha256, gives wrong bytes of one of those, and has another file 8."""
    with ModelScopeSimulator() as site:
        site.put_repo("model", "acme/big", BODIES, lfs=BODIES)
        repo = site.storage.repos["model", "acme/big"]
        site.storage.put_files(repo, {"8.safetensors": noise(SIZE, "another")}, lfs=["8.safetensors"])
        lied = hashlib.sha256(BODIES["9.safetensors"]).hexdigest()
        site.inject(faults.corrupted(700_000), path=f"*/{lied[4:]}")
        yield site


def right(machine: Machine) -> None:
    """Every file in the cache has its bytes."""
    snapshot = next(machine.cache.glob("models--acme--big/snapshots/*"))
    for path, data in BODIES.items():
        assert hashlib.sha256((snapshot / path).read_bytes()).digest() == hashlib.sha256(data).digest()


def test_origin_dead_mirror_slow_and_modelscope_with_nine_files_of_ten_one_of_them_wrong(
    machines: Machines, hub: HubSimulator, mirror: HubSimulator, upstreams: str, site: ModelScopeSimulator
) -> None:
    hub.put_repo("model", "acme/big", FILES)
    machine = machines.make(
        "third-road",
        upstreams=upstreams,
        HFPEER_MODELSCOPE_ENDPOINT=site.endpoint,
        HFPEER_MODELSCOPE_SOURCE="on",
        MODELSCOPE_API_TOKEN=site.token,
        HF_TOKEN=hub.valid_token,
    )
    machine.start()
    machine.do(*ADD, "-f", "README.md", HF_TOKEN="")  # the origin says that the repo is public
    hub.clear()
    mirror.clear()
    throttled = mirror.inject(faults.throttle(20_000, is_shared=True), listener="cdn")
    with hub.down():
        adding = machine.begin_hfpeer(*ADD)
        site.log.wait_until(lambda: site.body_bytes_sent(listener="cdn") > 7 * SIZE, 60)
        # ModelScope has given nearly all that it has; now the mirror may.
        throttled.remove()
        slow = mirror.requests_for(listener="cdn")

        def are_over() -> bool:
            mirror.cut_connections()
            return all(record.is_finished for record in slow)

        wait_until(are_over, "the slow requests have ended")
        ran = machine.finish(adding)
    assert ran.code == 0, ran.err
    right(machine)
    given = ran.document["bytes_by_kind"]
    assert given["modelscope"] > 7 * SIZE and given["mirror"] > SIZE, given

    shares: dict[str, int] = {}
    for file in machine.do("why", "acme/big"):
        for part in file["fetch"]["contributions"] if file["fetch"] else ():
            shares[part["kind"]] = shares.get(part["kind"], 0) + part["size_bytes"]
            if part["kind"] == "modelscope":
                assert part["address"] == f"{site.endpoint}/models/acme/big"
        if file["path"] == "9.safetensors":
            liars = {failure["source"] for failure in file["fetch"]["failures"] if failure["was_lying"]}
            assert liars == {site.endpoint.removeprefix("http://")}
    assert shares["modelscope"] > 7 * SIZE and shares["mirror"] > SIZE, shares
    shown = machine.run(*HFPEER, "why", "acme/big")
    assert shown.code == 0 and "modelscope" in shown.out, shown.out

    assert not site.requests_with_token(hub.valid_token)
    assert not hub.requests_with_token(site.token) and not mirror.requests_with_token(site.token)
    assert site.requests_with_token(site.token)
    assert not [record for record in site.requests_for(listener="cdn") if site.token in str(record.request.headers)]
