"""Reads and writes JSON: by orjson, and by the standard library what orjson does not take."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

from hfpeer.conversion.rows.plain import BAD_TEXT, NOT_FINITE

TOO_DEEP = "its values are nested too deeply"
_MAY_BE_LARGE = re.compile(rb"[0-9]{19}")


class JsonText:
    """Parses and writes rows, and counts what was replaced on the way."""

    def __init__(self, replaced: Counter[str]) -> None:
        import orjson

        self._orjson = orjson
        self._replaced = replaced

    def parse(self, text: bytes) -> Any:
        """The value of a text. NaN and infinity, which Python writes, are null; large integers stay exact. Raises
        ValueError."""
        if not _MAY_BE_LARGE.search(text):
            try:
                return self._orjson.loads(text)
            except ValueError:
                pass
        try:
            return self.usable(json.loads(text, parse_constant=self.constant))
        except RecursionError as error:
            raise ValueError(TOO_DEEP) from error

    def line(self, row: Any) -> bytes:
        """A row as a line."""
        try:
            line: bytes = self._orjson.dumps(row, option=self._orjson.OPT_APPEND_NEWLINE)
        except TypeError:  # integers of more than 64 bits
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
            line = text.encode() + b"\n"
        return line

    def text(self, value: Any) -> str:
        """A value as text on one line."""
        return self.line(value)[:-1].decode()

    def constant(self, name: str) -> None:
        """Null in the place of NaN or infinity."""
        self._replaced[NOT_FINITE] += 1

    def usable(self, value: Any) -> Any:
        """A value of the standard library's parser without what strict JSON cannot have."""
        if isinstance(value, float) and not math.isfinite(value):  # 1e999
            self._replaced[NOT_FINITE] += 1
            return None
        if isinstance(value, str):
            return self._unicode(value)
        if isinstance(value, dict):
            return {self._unicode(key): self.usable(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.usable(inner) for inner in value]
        return value

    def _unicode(self, text: str) -> str:
        """The text without halves of surrogate pairs."""
        try:
            text.encode()
        except UnicodeEncodeError:
            self._replaced[BAD_TEXT] += 1
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text
