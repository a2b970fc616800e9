"""Says how to get the libraries of a conversion where they are missing. They are imported inside of functions."""

from __future__ import annotations

import importlib.util
import sys

from hfpeer.errors import MissingExtra

LIBRARIES = ("pyarrow", "orjson")


def need_libraries(names: tuple[str, ...] = LIBRARIES) -> None:
    """Raises MissingExtra if one of these libraries is not installed beside hfpeer."""
    missing = [name for name in names if not has(name)]
    if missing:
        raise MissingExtra(
            f"A conversion needs {' and '.join(missing)}, which hfpeer's own Python does not have.",
            hint=f"{sys.executable} -m pip install 'hfpeer[datasets]'",
        )


def spare_memory() -> None:
    """Lets Arrow give memory back at once, which takes a third less. It changes the whole process, so only programs of
    hfpeer call it. Raises MissingExtra."""
    need_libraries()
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())


def has(name: str) -> bool:
    """Whether a library is installed beside hfpeer."""
    return importlib.util.find_spec(name) is not None
