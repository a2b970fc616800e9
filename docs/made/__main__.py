"""Writes all that follows from the code into docs/, and names what has changed. `just reference` runs it."""

from __future__ import annotations

from pathlib import Path

from docs.made.everything import made_files

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    for name, text in made_files(ROOT).items():
        file = ROOT / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
            print(name)
