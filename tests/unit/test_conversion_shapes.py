"""Rows in the shapes of trainers: nothing of a conversation is lost, and what a shape cannot have is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hfpeer.conversion.request.options import ConversionOptions
from hfpeer.conversion.shapes.shape import shape_of
from hfpeer.errors import ConversionFailed

USER, ASSISTANT = {"role": "user", "content": "U"}, {"role": "assistant", "content": "A"}
CALLS = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
CHATS = ("llamafactory", "swift", "qwen-vl")


def turns(shape: str, row: dict[str, Any]) -> list[tuple[str, str]]:
    """The roles and texts that a shape makes of a row."""
    made = shape_of(ConversionOptions("rows", shape=shape), "train", {})
    assert made is not None
    found = made([row], 0)[0]
    if shape == "swift":
        return [(one["role"], one["content"]) for one in found["messages"]]
    return [(one["from"], one["value"]) for one in found["conversations"]]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "developer", "content": "S"}, USER, ASSISTANT]}, ["S", "U", "A"]),
        ({"messages": json.dumps([USER, ASSISTANT])}, ["U", "A"]),
        ({"messages": [USER, ASSISTANT], "system": "S"}, ["S", "U", "A"]),
        ({"messages": [{"role": "system", "content": "S"}, USER, ASSISTANT], "system": "T"}, ["S", "U", "A"]),
        ({"messages": [{"role": None, "from": "human", "content": None, "value": "U"}, ASSISTANT]}, ["U", "A"]),
        ({"system": "S", "question": "U", "answer": "A"}, ["S", "U", "A"]),
        ({"instruction": "U", "input": "X", "output": "A"}, ["U\nX", "A"]),
        ({"instruction": "U", "input": "", "output": "A"}, ["U", "A"]),
        ({"question": "U", "answers": {"text": ["A", "B", "A"], "answer_start": [1, 2, 3]}}, ["U", "A"]),
        ({"question": "U", "answers": {"text": [], "answer_start": []}}, ["U", ""]),
    ],
)
def test_every_part_of_a_conversation_is_written(row: dict[str, Any], expected: list[str]) -> None:
    roles = ["system", "user", "assistant"][-len(expected) :]
    assert turns("swift", row) == list(zip(roles, expected, strict=True))
    for shape in ("llamafactory", "qwen-vl"):
        assert [text for _, text in turns(shape, row)] == expected


@pytest.mark.parametrize("shape", CHATS)
@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"content": "U"}, ASSISTANT]}, "has no role: it has content"),
        ({"messages": [{"role": None, "content": "U"}]}, "has no role"),
        ({"messages": [{"role": "narrator", "content": "U"}]}, "the role 'narrator', which the shape"),
        ({"messages": [USER, CALLS, {"role": "tool", "content": "42"}]}, "calls of tools as objects"),
        ({"prompt": [USER], "completion": [ASSISTANT]}, "'prompt' has lists or objects"),
        ({"question": "U", "answer": {"value": 1}}, "'answer' has lists or objects"),
        ({"question": "U", "answer": [{"a": 1}]}, "'answer' has lists or objects"),
    ],
)
def test_what_makes_no_conversation_is_a_sentence(shape: str, row: dict[str, Any], said: str) -> None:
    with pytest.raises(ConversionFailed, match=said):
        turns(shape, row)


def test_calls_and_answers_of_tools_have_the_names_of_each_shape() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "U"},
            {"from": "function_call", "value": "{}"},
            {"from": "tool", "value": "42"},
        ]
    }
    assert [role for role, _ in turns("llamafactory", row)] == ["human", "function_call", "observation"]
    assert [role for role, _ in turns("swift", row)] == ["user", "tool_call", "tool_response"]
    with pytest.raises(ConversionFailed, match="the role 'call', which the shape qwen-vl does not have"):
        turns("qwen-vl", row)
