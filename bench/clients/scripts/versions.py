"""Which Hugging Face packages this environment has."""

import json
from importlib.metadata import PackageNotFoundError, version


def versions():
    for name in ("huggingface_hub", "hf_xet", "transformers", "datasets"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            pass


print(json.dumps(dict(versions())))
