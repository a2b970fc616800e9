"""hfpeer: all the Hugging Face caches of a LAN as one.

Importing this does nothing and is instant; the functions are loaded when they are first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hfpeer.version import __version__

if TYPE_CHECKING:
    from hfpeer.node.conversion import convert_dataset, convert_part, plan_conversion
    from hfpeer.node.download import hf_hub_download, snapshot_download

__all__ = [
    "__version__",
    "convert_dataset",
    "convert_part",
    "hf_hub_download",
    "plan_conversion",
    "snapshot_download",
]

_MODULES = {
    "convert_dataset": "conversion",
    "convert_part": "conversion",
    "hf_hub_download": "download",
    "plan_conversion": "conversion",
    "snapshot_download": "download",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f"hfpeer.node.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'hfpeer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
