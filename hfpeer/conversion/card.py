"""Reads the YAML at the head of a dataset's card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hfpeer.conversion.features import Feature, features_of_card

MAX_CARD_BYTES = 16 * 1024 * 1024
"""A longer card is not read."""
_HEAD = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", re.DOTALL)


def card_features(snapshot: Path, config: str) -> Feature | None:
    """The features that the card tells for a config; None if it tells none, or cannot be read."""
    return features_of_card(_head(snapshot / "README.md"), config)


def _head(card: Path) -> Any:
    import yaml

    try:
        if card.stat().st_size > MAX_CARD_BYTES:
            return None
        found = _HEAD.match(card.read_text(encoding="utf-8", errors="replace"))
        return None if found is None else yaml.safe_load(found[1])
    except (OSError, yaml.YAMLError):
        return None
