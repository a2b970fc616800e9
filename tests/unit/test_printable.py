"""Foreign text on a terminal and in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from hfpeer.system.printable import printable, printable_lines
from hfpeer_daemon.logs import MAX_LINE_LENGTH, start_logging


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("模型 – modèle 🤗.bin", "模型 – modèle 🤗.bin"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("\x9b31m\x07\x7f", r"\x9b31m\x07\x7f"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("a\u2028b\u0085c", r"a\u2028b\x85c"),
        ("\udcff", r"\udcff"),
        ("a\u3000b", "a\u3000b"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_lines() -> None:
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


def test_foreign_text_makes_one_line_of_the_log(tmp_path: Path) -> None:
    before = logging.getLogger().handlers[:]
    file = tmp_path / "logs" / "log"
    try:
        start_logging("info", file)
        log = logging.getLogger("hfpeer.test")
        log.warning("GET %s failed", "/x\n2030-01-01 00:00:00,000 ERROR   hfpeer: forged\x1b[2J")
        log.warning("%s", "a" * 100_000)
        try:
            raise ValueError("b\n2030-01-01 00:00:00,000 ERROR   hfpeer: forged\x1b[2J")
        except ValueError:
            log.exception("It failed")
    finally:
        for handler in logging.getLogger().handlers[:]:
            handler.close()
        logging.getLogger().handlers[:] = before
    text = file.read_text()
    lines = text.splitlines()
    assert "\x1b" not in text
    assert r"/x\n2030" in lines[0]
    assert len(lines[1]) <= MAX_LINE_LENGTH + 100
    assert "It failed" in lines[2]
    assert all(line.startswith("    ") for line in lines[3:])
