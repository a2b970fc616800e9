"""State that threads share has verbs: no object takes the lock of another one."""

from __future__ import annotations

from pathlib import Path

from bench.house import House


def test_no_object_takes_the_lock_of_another(root: Path) -> None:
    assert House.read(root).foreign_locks() == {}


def test_a_lock_of_another_object_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "hfpeer"
    place.mkdir()
    (place / "fetch.py").write_text("class A:\n    def f(self):\n        with self._state._lock:\n            pass\n")
    assert House.read(tmp_path).foreign_locks() == {"hfpeer.fetch": 1}
