"""A model, two datasets and a prepared set move from a cluster with Internet to one without, which has another home: by
an archive on a stick, by a push, and by the rsync that guides show, with a repair of what it damaged.

The first cluster's caches are what the Hub client, transformers and `datasets` made of them. On the other cluster the
same program loads the same things offline, while the first cluster's caches are away.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from array import array
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import pytest

from fakes import exfat
from fakes.exfat import exfat_volume
from fakes.hub import Content, HubSimulator, Lfs
from fakes.hub.zoo import noise
from fakes.machine import Machine, Machines, Ran
from fakes.sshd import FarHost, far_host

MISSING = [name for name in ("datasets", "PIL") if importlib.util.find_spec(name) is None]
HAS_MODELS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=f"needs the extras `datasets` and `test`: no {', '.join(MISSING)}"),
]

MODEL, TRAIN, TEST = "Qwen/Qwen3-VL-4B-Instruct", "TIGER-Lab/MMEB-train", "ziyjiang/MMEB_Test_Instruct"
NAMED = (MODEL, f"datasets/{TRAIN}", f"datasets/{TEST}")
FOLDERS = (
    "models--Qwen--Qwen3-VL-4B-Instruct",
    "datasets--TIGER-Lab--MMEB-train",
    "datasets--ziyjiang--MMEB_Test_Instruct",
)
CONFIGS = ("MSCOCO_i2t", "MSCOCO_t2i")
EMBEDDINGS = {"word": 6000, "position": 512, "token_type": 2}
LAYER = "encoder.layer.0"
SQUARE = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
NORMS = ("embeddings.LayerNorm", f"{LAYER}.attention.output.LayerNorm", f"{LAYER}.output.LayerNorm")
CARD = b"""---
configs:
- config_name: MSCOCO_i2t
  data_dir: MSCOCO_i2t
- config_name: MSCOCO_t2i
  data_dir: MSCOCO_t2i
---
# MMEB_Test_Instruct
"""

LOAD = """
import hashlib, json, sys
from pathlib import Path
from datasets import Image, load_dataset
from huggingface_hub import snapshot_download

model, train, test, has_models = sys.argv[1:]
found = {}
folder = Path(snapshot_download(model))
found["files"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
if has_models:
    import torch
    from transformers import AutoModel

    with torch.no_grad():
        found["output"] = AutoModel.from_pretrained(model).eval()(torch.tensor([[1, 2, 3]])).pooler_output[0].tolist()
files = Path(snapshot_download(train, repo_type="dataset"))
found["train"] = {str(path.relative_to(files)): path.read_text() for path in sorted(files.rglob("*.jsonl"))}
for config in ("MSCOCO_i2t", "MSCOCO_t2i"):
    rows = load_dataset(test, config, split="train").cast_column("image", Image(decode=False))
    found[config] = [[row["qry"], hashlib.sha256(Path(row["image"]["path"]).read_bytes()).hexdigest()] for row in rows]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    with Machines(tmp_path_factory.mktemp("clusters")) as machines:
        yield machines


@dataclass(frozen=True)
class Loaded:
    """The cluster with Internet, and what the program loaded there."""

    machine: Machine
    found: Any


@pytest.fixture(scope="module")
def loaded(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Its caches are full, and hfpeer there knows what proves them."""
    first = machines.make("first", HOME=str(tmp_path_factory.mktemp("home")))
    with HubSimulator() as hub:
        hub.put_repo("model", MODEL, model())
        hub.put_repo("dataset", TRAIN, {f"{name}/train.jsonl": f'{{"qry": "{name}"}}\n'.encode() for name in CONFIGS})
        hub.put_repo("dataset", TEST, {"README.md": CARD, **pictures("MSCOCO_i2t"), **pictures("MSCOCO_t2i")})
        found = load(first, HF_ENDPOINT=hub.endpoint)
        first.environ["HFPEER_UPSTREAMS"] = f"origin={hub.endpoint}"
        for kind, repo in (("model", MODEL), ("dataset", TRAIN), ("dataset", TEST)):
            assert first.do(kind, "add", "-r", repo)["bytes_by_kind"] == {}
    first.environ["HFPEER_UPSTREAMS"] = ""
    return Loaded(first, found)


@pytest.fixture
def first(loaded: Loaded) -> Machine:
    return loaded.machine


def model() -> dict[str, Content]:
    """The files of a small BERT."""
    shapes: dict[str, tuple[int, ...]] = {
        **{f"embeddings.{name}_embeddings.weight": (rows, 64) for name, rows in EMBEDDINGS.items()},
        **{f"{LAYER}.{name}.weight": (64, 64) for name in SQUARE},
        f"{LAYER}.intermediate.dense.weight": (128, 64),
        f"{LAYER}.intermediate.dense.bias": (128,),
        f"{LAYER}.output.dense.weight": (64, 128),
        "pooler.dense.weight": (64, 64),
        **{f"{LAYER}.{name}.bias": (64,) for name in (*SQUARE, "output.dense")},
        "pooler.dense.bias": (64,),
        **{f"{name}.{kind}": (64,) for name in NORMS for kind in ("weight", "bias")},
    }
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
    config = {**sizes, "vocab_size": EMBEDDINGS["word"], "model_type": "bert", "architectures": ["BertModel"]}
    return {"config.json": json.dumps(config).encode(), "model.safetensors": Lfs(safetensors(shapes))}


def safetensors(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """A file of 32-bit numbers between -0.1 and 0.1. Source: the format of safetensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, shape in shapes.items():
        numbers = array("f", (((n * 37 + len(name)) % 101 - 50) / 500 for n in range(prod(shape))))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + 4 * len(numbers)]}
        body += numbers.tobytes()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def pictures(config: str) -> dict[str, Content]:
    """The files of a config: pictures, and a text for each."""
    named: dict[str, Content] = {f"{config}/{n}.png": b"\x89PNG" + noise(2000, f"{config} {n}") for n in range(3)}
    texts = "".join(f'{{"file_name": "{n}.png", "qry": "{config} {n}"}}\n' for n in range(3))
    return {**named, f"{config}/metadata.jsonl": texts.encode()}


def load(machine: Machine, **environ: str) -> Any:
    return machine.python(LOAD, MODEL, TRAIN, TEST, "yes" if HAS_MODELS else "", **environ)


def check_loads_offline(second: Machine, loaded: Loaded) -> None:
    """The same program finds the same on the other cluster, while the caches of the first are away."""
    caches = loaded.machine.cache.parent
    caches.rename(caches.with_name("away"))
    try:
        found = load(second, HF_HUB_OFFLINE="1")
    finally:
        caches.with_name("away").rename(caches)
    assert found == loaded.found


def check_verified(second: Machine) -> None:
    """Neither the Hub cache nor the prepared sets have a fault."""
    assert second.do("verify", "--again")["findings"] == []
    sets = second.do("dataset", "ls", "--prepared")["sets"]
    problems = {one["config_name"]: {problem["kind"] for problem in one["problems"]} for one in sets}
    assert problems == {config: {"several_configs"} for config in CONFIGS}, "load_dataset needs the name of one"


# By an archive


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """An exFAT volume; a folder where this machine mounts none."""
    with ExitStack() as left:
        place = tmp_path / "folder"
        if exfat.why_not() is None:
            with suppress(pytest.skip.Exception):
                place = left.enter_context(exfat_volume(tmp_path))
        place.mkdir(exist_ok=True)
        yield place


def test_by_an_archive_on_a_stick(
    machines: Machines, first: Machine, loaded: Loaded, stick: Path, tmp_path: Path
) -> None:
    made = first.do("export", *NAMED, "--prepared", "-o", str(stick))
    assert len(made["sets"]) == len(CONFIGS)
    second = machines.make("second", HOME=str(tmp_path / "elsewhere"))
    (report,) = second.do("import", *map(str, stick.glob("*.tar")))
    assert [one["how"] for one in report["sets"]] == ["taken"] * len(CONFIGS)
    check_verified(second)
    check_loads_offline(second, loaded)


# Over ssh


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarHost]:
    with far_host(tmp_path / "far") as far:
        yield far


def at(far: FarHost, machines: Machines) -> Machine:
    """The machine whose user logs in over ssh: his home says where all is."""
    second = machines.make(far.folder.parent.name, HOME=str(far.home))
    for name in ("HFPEER_HOME", "HF_HOME", "HF_HUB_CACHE"):
        second.environ.pop(name)
    return second


def test_by_a_push(machines: Machines, first: Machine, loaded: Loaded, far: FarHost) -> None:
    far.set_programs(hfpeer=True)
    second = at(far, machines)
    ran = first.hfpeer("push", *NAMED, "far", "--prepared", "--ssh", far.ssh)
    assert ran.code == 0, ran.err
    assert (ran.document["way"], ran.document["cache"]) == ("hfpeer", str(far.cache))
    check_verified(second)
    check_loads_offline(second, loaded)


def test_by_rsync_and_a_repair(machines: Machines, first: Machine, loaded: Loaded, far: FarHost) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("needs rsync")
    far.set_programs("rsync", hfpeer=True)
    second = at(far, machines)
    hf = far.cache.parent
    ssh(first, far, f"mkdir -p {shlex.quote(str(far.cache))} {shlex.quote(str(hf / 'datasets'))}")
    for folder in (*(f"hub/{name}" for name in FOLDERS), "datasets/ziyjiang___mmeb_test_instruct", "datasets"):
        command = ("rsync", "-az", "-e", far.ssh, f"{first.cache.parent}/{folder}/", f"far:{hf}/{folder}/")
        ran = first.run(*command)
        assert ran.code == 0, ran.err
    weights, link = damage(hf / "hub")
    found = second.hfpeer("verify")
    assert found.code == 7
    faults = {one["kind"] for one in found.document["findings"] if one["severity"] != "noted"}
    assert faults == {"wrong_size", "no_link"}
    alone = second.hfpeer("verify", "--repair")
    assert alone.code == 6 and link.read_bytes(), "the link needs no source"
    first.start()
    repaired = second.do("verify", "--repair", "--no-wan", HFPEER_PEERS=first.address)
    first.stop()
    size_bytes = weights.stat().st_size
    assert repaired["bytes_by_kind"] == {"peer": size_bytes - size_bytes // 2}, "the half that is right is not fetched"
    second.do("dataset", "prepare", "-r", TEST, *(word for config in CONFIGS for word in ("--config", config)))
    assert second.hfpeer("dataset", "verify", "--prepared").code == 0
    check_verified(second)
    check_loads_offline(second, loaded)


def ssh(machine: Machine, far: FarHost, command: str) -> Ran:
    ran = machine.run(*shlex.split(far.ssh), "far", command)
    assert ran.code == 0, ran.err
    return ran


def damage(hub: Path) -> tuple[Path, Path]:
    """Cuts the blob of the weights in half, and removes a link of another repo. Both paths."""
    (weights,) = hub.glob(f"{FOLDERS[0]}/snapshots/*/model.safetensors")
    blob = weights.resolve()
    os.truncate(blob, blob.stat().st_size // 2)
    (link,) = hub.glob(f"{FOLDERS[2]}/snapshots/*/MSCOCO_t2i/metadata.jsonl")
    link.unlink()
    return blob, link
