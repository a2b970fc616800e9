"""hfpeer: all the Hugging Face caches of a LAN as one.

Importing this does nothing and is instant; the two functions are loaded when they are first named.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hfpeer.download import hf_hub_download, snapshot_download

__version__ = "0.1.0"
__all__ = ["__version__", "hf_hub_download", "snapshot_download"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hfpeer import download

        return getattr(download, name)
    raise AttributeError(f"module 'hfpeer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
