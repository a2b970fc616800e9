"""Which Hugging Face packages this environment has."""

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version


def versions() -> Iterator[tuple[str, str]]:
    for name in ("huggingface_hub", "hf_xet", "transformers", "datasets"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            pass


print(json.dumps(dict(versions())))
