"""Says how to get pyarrow where it is missing. Every other module of this folder imports it inside of functions."""

from __future__ import annotations

import importlib.util
import sys

from hfpeer.errors import MissingExtra


def need_arrow() -> None:
    """Raises MissingExtra if pyarrow is not installed beside hfpeer."""
    if not has_arrow():
        raise MissingExtra(
            "This needs pyarrow, which is not installed beside hfpeer.",
            hint=f"{sys.executable} -m pip install 'hfpeer[datasets]'",
        )


def has_arrow() -> bool:
    """Whether pyarrow is installed beside hfpeer."""
    return importlib.util.find_spec("pyarrow") is not None
