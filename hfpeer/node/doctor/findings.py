"""A finding of the doctor: what was looked at, how it is, and the command that helps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How a finding is. Only a fault gives `hfpeer doctor` an exit code other than 0."""

    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. `check` is the thing that was looked at; `hint` is empty if nothing need be done."""

    check: str
    level: Level
    sentence: str
    hint: str = ""


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, Level.OK, sentence)


def warning(check: str, sentence: str, hint: str = "") -> Finding:
    return Finding(check, Level.WARNING, sentence, hint)


def fault(check: str, sentence: str, hint: str = "") -> Finding:
    return Finding(check, Level.FAULT, sentence, hint)
