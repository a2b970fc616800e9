"""Rows in the shape that the user chose, and the files that it needs beside them.

Sources: LLaMA-Factory `data/README.md`, ms-swift `Custom-dataset.md`, Qwen-VL `qwen-vl-finetune/README.md`, VLMEvalKit
`Development.md`, datasets `packaged_modules/folder_based_builder`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.conversion.shapes.chat import (
    ASSISTANT,
    CALL,
    CHOICES,
    LETTERS,
    SYSTEM,
    TOOL,
    USER,
    Turn,
    answer_of,
    choices_of,
    conversation_of,
    first_of,
    pictures_of,
)
from hfpeer.errors import ConversionFailed

Row = dict[str, Any]
Shape = Callable[[Sequence[Row], int], Sequence[Row]]
"""Called with rows and with the number of the first of them; gives the rows to write."""
IDS = ("id", "index", "question_id", "uid")
_ROLES = {
    "swift": {SYSTEM: "system", USER: "user", ASSISTANT: "assistant", CALL: "tool_call", TOOL: "tool_response"},
    "llamafactory": {SYSTEM: "system", USER: "human", ASSISTANT: "gpt", CALL: "function_call", TOOL: "observation"},
    "qwen-vl": {SYSTEM: "system", USER: "human", ASSISTANT: "gpt"},
}
"""What a shape calls the roles that it has."""
_NAMES_A_FILE = re.compile(r"(^|_)file_names?$")
_PASSED = ("hint", "category", "l2-category")


def shape_of(options: ConversionOptions, split: str, media: Mapping[str, bool]) -> Shape | None:
    """The shape of the rows of a split; None if they stay as they are. `media` are the columns with pictures, and
    whether each can have several; they are known only when the first rows have been made."""
    if options.to == "imagefolder":
        return lambda rows, first: [_in_folder(row, media) for row in rows]
    if options.shape == "swift":
        return lambda rows, first: [_messages(row, media) for row in rows]
    if options.shape in ("llamafactory", "qwen-vl"):
        return lambda rows, first: [_from_value(row, media, options.shape) for row in rows]
    if options.shape == "vlmeval":
        return lambda rows, first: [_question(row, media, split, first + place) for place, row in enumerate(rows)]
    return None


def side_files(options: ConversionOptions, files: Mapping[str, str], *, has_pictures: bool) -> dict[str, bytes]:
    """The files beside the rows, by name. `files` are the files of rows, by split."""
    if options.shape != "llamafactory":
        return {}
    columns = {"messages": "conversations", **({"images": "images"} if has_pictures else {})}
    tags = {
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "system_tag": "system",
    }
    entries = {
        f"{options.name}_{split}": {"file_name": path, "formatting": "sharegpt", "columns": columns, "tags": tags}
        for split, path in files.items()
    }
    return {"dataset_info.json": (json.dumps(entries, ensure_ascii=False, indent=2) + "\n").encode()}


def _in_folder(row: Row, media: Mapping[str, bool]) -> Row:
    """A row of `metadata.jsonl`, whose pictures `datasets` finds by `file_name`."""
    if not media:
        raise ConversionFailed(
            "The rows have no pictures, so they make no folder of pictures.",
            hint="Name the columns that have their names with --image-column, or use --format jsonl.",
        )
    misleading = next((name for name in row if name not in media and _NAMES_A_FILE.search(name)), None)
    if misleading is not None:
        raise ConversionFailed(
            f"The column {misleading!r} has no pictures, and by its name `datasets` would take it for their names.",
            hint=f"Rename it: --rename {misleading}=NAME",
        )
    return {_file_name(name, media[name]) if name in media else name: value for name, value in row.items()}


def _file_name(name: str, is_list: bool) -> str:
    end = "file_names" if is_list else "file_name"
    return end if name == ("images" if is_list else "image") else f"{name}_{end}"


def _identity(row: Row) -> Row:
    name = first_of(row, IDS)
    return {} if name is None else {"id": row[name]}


def _messages(row: Row, media: Mapping[str, bool]) -> Row:
    found = conversation_of(row, media)
    turns = [{"role": _role(turn, "swift"), "content": turn.text} for turn in found.turns]
    made: Row = {**_identity(row), "messages": turns}
    return {**made, "images": list(found.pictures)} if found.pictures or media else made


def _role(turn: Turn, shape: str) -> str:
    """What a shape calls the role of a turn. Raises ConversionFailed for a role that it does not have."""
    name = _ROLES[shape].get(turn.role)
    if name is None:
        raise ConversionFailed(
            f"A turn of a conversation has the role {turn.role!r}, which the shape {shape} does not have.",
            hint="Keep the rows as they are: --shape rows.",
        )
    return name


def _from_value(row: Row, media: Mapping[str, bool], shape: str) -> Row:
    found = conversation_of(row, media)
    turns = [{"from": _role(turn, shape), "value": turn.text} for turn in found.turns]
    if shape == "llamafactory":
        pictures: Row = {"images": list(found.pictures)} if found.pictures or media else {}
    else:
        several = list(found.pictures)
        pictures = {"image": several if len(several) > 1 else several[0]} if several else {}
    return {**_identity(row), **pictures, "conversations": turns}


def _question(row: Row, media: Mapping[str, bool], split: str, number: int) -> Row:
    """A row of a table of VLMEvalKit. Every row has the same columns."""
    name = first_of(row, ("question", "prompt", "query", "problem", "text"))
    if name is None:
        raise ConversionFailed(
            f"A row has no question: its columns are {', '.join(row)}.", hint="Say --rename COLUMN=question."
        )
    pictures = pictures_of(row, media)
    index = row.get("index", row.get("id"))
    made: Row = {"index": index if type(index) is int else number}
    if media or pictures:
        made["image"] = pictures[0] if len(pictures) == 1 else pictures or None
    made["question"] = row[name]
    if any(letter in row for letter in LETTERS) or first_of(row, CHOICES) is not None:
        choices = choices_of(row)
        made.update({letter: choices.get(letter) for letter in LETTERS})
    made["answer"] = answer_of(row)
    made.update({name: row[name] for name in _PASSED if name in row})
    made["split"] = split
    return made
