"""Rows as conversations: of `messages`, of `conversations`, or of a question with its answer. Pure."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfpeer.errors import ConversionFailed

TOKEN = "<image>"
"""The place of a picture in a text."""
QUESTIONS = ("question", "prompt", "instruction", "query", "problem", "input", "text")
ANSWERS = ("answer", "answers", "response", "output", "completion", "solution", "target", "label", "caption")
CHOICES = ("choices", "options")
LETTERS = "ABCDEFGHIJ"
_TOKENS = re.compile(r"<image(?:[ _]?\d+)?>")
_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatbot": "assistant"}


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """The turns of a row, with as many tokens of pictures in the user's turns as there are pictures."""

    turns: tuple[Turn, ...]
    pictures: tuple[str, ...]


def conversation_of(row: Mapping[str, Any], media: Mapping[str, bool]) -> Conversation:
    """The conversation of a row. Raises ConversionFailed if there is none in it."""
    pictures = tuple(pictures_of(row, media))
    turns = _turns(row)
    if turns is None:
        turns = [Turn("user", question_of(row)), Turn("assistant", answer_of(row))]
    return Conversation(tuple(_with_tokens(turns, len(pictures))), pictures)


def pictures_of(row: Mapping[str, Any], media: Mapping[str, bool]) -> list[str]:
    """The pictures of a row, in the order of its columns."""
    names = [name for name in row if name in media] or [name for name in ("image", "images") if name in row]
    found: list[str] = []
    for name in names:
        values = row[name] if isinstance(row[name], list) else [row[name]]
        found += [value for value in values if isinstance(value, str) and value]
    return found


def question_of(row: Mapping[str, Any]) -> str:
    """The hint, the question and the choices of a row. Raises ConversionFailed without a question."""
    name = first_of(row, QUESTIONS)
    if name is None:
        raise ConversionFailed(
            f"A row has no conversation and no question: its columns are {', '.join(row)}.",
            hint="Name the columns: --rename COLUMN=question --rename COLUMN=answer, or COLUMN=messages.",
        )
    hint = row.get("hint")
    lines = [str(hint)] if isinstance(hint, str) and hint.strip() else []
    lines.append("" if row[name] is None else str(row[name]))
    lines += [f"{letter}. {text}" for letter, text in choices_of(row).items()]
    return "\n".join(lines)


def answer_of(row: Mapping[str, Any]) -> str:
    """The answer of a row; of several the most frequent, of a number the letter of the choice."""
    name = first_of(row, ANSWERS)
    value = None if name is None else row[name]
    if isinstance(value, list):
        values = [str(one) for one in value if one is not None]
        return Counter(values).most_common(1)[0][0] if values else ""
    if type(value) is int and choices_of(row):
        return LETTERS[value] if 0 <= value < len(LETTERS) else str(value)
    return "" if value is None else str(value)


def choices_of(row: Mapping[str, Any]) -> dict[str, str]:
    """The choices of a row by letter: of the columns A, B, …, or of a list."""
    lettered = {letter: str(row[letter]) for letter in LETTERS if row.get(letter) not in (None, "")}
    if lettered:
        return lettered
    name = first_of(row, CHOICES)
    texts = _list_of(row[name]) if name is not None else []
    if len(texts) > len(LETTERS):
        raise ConversionFailed(f"A row has {len(texts)} choices, and at most {len(LETTERS)} can be written.")
    return dict(zip(LETTERS, map(str, texts), strict=False))


def first_of(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of these columns that a row has."""
    return next((name for name in names if name in row), None)


def _list_of(value: Any) -> list[Any]:
    """A list; some datasets have it as the text of a list of Python."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    return list(value) if isinstance(value, (list, tuple)) else []


def _turns(row: Mapping[str, Any]) -> list[Turn] | None:
    for name in ("messages", "conversations", "conversation"):
        value = row.get(name)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            return [Turn(_role(one), _text(one.get("content", one.get("value")))) for one in value]
    return None


def _role(turn: Mapping[str, Any]) -> str:
    role = str(turn.get("role", turn.get("from", "user")))
    return _ROLES.get(role, role)


def _text(content: Any) -> str:
    """The text of a turn, also of one in parts; a picture is a token."""
    if isinstance(content, list):
        parts = [part if isinstance(part, dict) else {"type": "text", "text": part} for part in content]
        return "".join(
            TOKEN if part.get("type") in ("image", "image_url") else str(part.get("text") or "") for part in parts
        )
    return "" if content is None else str(content)


def _with_tokens(turns: Sequence[Turn], pictures: int) -> list[Turn]:
    """The turns with one token for each picture, in what the user says; the first turn gets those that are missing."""
    made: list[Turn] = []
    left = pictures
    for turn in turns:
        if turn.role != "user":
            made.append(Turn(turn.role, _TOKENS.sub("", turn.text)))
            continue
        parts = _TOKENS.split(turn.text)
        kept = min(left, len(parts) - 1)
        made.append(Turn("user", TOKEN.join(parts[: kept + 1]) + "".join(parts[kept + 1 :])))
        left -= kept
    place = next((index for index, turn in enumerate(made) if turn.role == "user"), None)
    if left and place is not None:
        made[place] = Turn("user", f"{TOKEN * left}\n{made[place].text}")
    return made
