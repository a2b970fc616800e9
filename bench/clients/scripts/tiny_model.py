"""transformers: a tiny model. `make FOLDER` saves one with random weights there, `load PLACE` loads config, tokenizer
and model from a repo or a folder. Both print the same facts of it."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizerFast

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "sat", "on", "the", "mat", "##s"]


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    torch.manual_seed(7)
    BertModel(BertConfig(vocab_size=len(WORDS), **shape)).save_pretrained(folder)


def facts(place: str) -> dict[str, Any]:
    config, tokenizer, model = (kind.from_pretrained(place) for kind in (AutoConfig, AutoTokenizer, AutoModel))
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return {
        "config": [config.model_type, config.hidden_size, config.num_hidden_layers],
        "tokens": tokenizer("A cat sat on the mats")["input_ids"],
        "tensors": digest.hexdigest(),
    }


verb, place = sys.argv[1:]
if verb == "make":
    make(Path(place))
print(json.dumps(facts(place)))
