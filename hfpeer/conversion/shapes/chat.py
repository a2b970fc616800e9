"""Rows as conversations: of `messages`, of `conversations`, or of a question with its answer. Pure."""

from __future__ import annotations

import ast
import json
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
SYSTEM, USER, ASSISTANT, CALL, TOOL = "system", "user", "assistant", "call", "tool"
"""The roles: a call is what the model asks of a tool, and a tool says the result."""
_NAMES = {
    SYSTEM: ("developer",),
    USER: ("human",),
    ASSISTANT: ("gpt", "bot", "model", "chatbot"),
    CALL: ("function_call", "tool_call"),
    TOOL: ("function", "observation", "tool_response"),
}
"""Other names of roles."""
_ROLES = {name: role for role, names in _NAMES.items() for name in names}


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
        turns = [*_system(row), Turn(USER, question_of(row)), Turn(ASSISTANT, answer_of(row))]
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
    lines.append(_plain(row[name], name))
    if name == "instruction" and row.get("input"):
        lines.append(_plain(row["input"], "input"))
    lines += [f"{letter}. {text}" for letter, text in choices_of(row).items()]
    return "\n".join(lines)


def answer_of(row: Mapping[str, Any]) -> str:
    """The answer of a row; of several the most frequent, of a number the letter of the choice."""
    name = first_of(row, ANSWERS)
    value = None if name is None else row[name]
    if isinstance(value, dict) and "text" in value:  # as in SQuAD
        value = value["text"]
    if isinstance(value, list):
        values = [_plain(one, str(name)) for one in value if one is not None]
        return Counter(values).most_common(1)[0][0] if values else ""
    if type(value) is int and choices_of(row):
        return LETTERS[value] if 0 <= value < len(LETTERS) else str(value)
    return _plain(value, str(name))


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


def _plain(value: Any, name: str) -> str:
    """The text of a column. Raises ConversionFailed for one that has more in it than a text."""
    if isinstance(value, (list, dict)):
        raise ConversionFailed(
            f"The column {name!r} has lists or objects, where a text is needed.",
            hint=f"If it is a conversation: --rename {name}=messages. Else choose another column with --rename.",
        )
    return "" if value is None else str(value)


def _system(row: Mapping[str, Any]) -> list[Turn]:
    name = first_of(row, ("system", "system_prompt"))
    return [Turn(SYSTEM, row[name])] if name is not None and row[name] and isinstance(row[name], str) else []


def _turns(row: Mapping[str, Any]) -> list[Turn] | None:
    for name in ("messages", "conversations", "conversation"):
        value = row.get(name)
        if isinstance(value, str):  # some datasets have it as the text of a list
            value = _of_json(value)
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
            turns = [_turn(one) for one in value]
            return turns if turns[0].role == SYSTEM else [*_system(row), *turns]
    return None


def _of_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _turn(turn: Mapping[str, Any]) -> Turn:
    """A turn. Raises ConversionFailed without a role, and for calls that are no texts."""
    role = turn.get("role") or turn.get("from")
    if not isinstance(role, str):
        raise ConversionFailed(
            f"A turn of a conversation has no role: it has {', '.join(turn)}.",
            hint="A turn has `role` and `content`, or `from` and `value`.",
        )
    if turn.get("tool_calls") or turn.get("function_call"):
        raise ConversionFailed(
            "A turn of a conversation has calls of tools as objects, which no shape of chats has.",
            hint="Keep the rows as they are: --shape rows.",
        )
    content = turn.get("content")
    return Turn(_ROLES.get(role, role), _text(turn.get("value") if content is None else content))


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
        if turn.role != USER:
            made.append(Turn(turn.role, _TOKENS.sub("", turn.text)))
            continue
        parts = _TOKENS.split(turn.text)
        kept = min(left, len(parts) - 1)
        made.append(Turn(USER, TOKEN.join(parts[: kept + 1]) + "".join(parts[kept + 1 :])))
        left -= kept
    place = next((index for index, turn in enumerate(made) if turn.role == USER), None)
    if left and place is not None:
        made[place] = Turn(USER, f"{TOKEN * left}\n{made[place].text}")
    return made
