"""hfpeer: all the Hugging Face caches of a LAN as one.

Importing this does nothing and is instant; the two functions are loaded when they are first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfpeer.version import __version__

if TYPE_CHECKING:
    from hfpeer.node.download import hf_hub_download, snapshot_download

__all__ = ["__version__", "hf_hub_download", "snapshot_download"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hfpeer.node import download

        return getattr(download, name)
    raise AttributeError(f"module 'hfpeer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
