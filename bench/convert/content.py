"""The datasets that are converted: text, pictures, and one large row group."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

KINDS = ("text", "pictures", "group")
WORDS = 5000
PICTURE_BYTES = 65_000
"""Bytes of a picture, on average."""


def text_rows(count: int, first: int, dice: random.Random) -> dict[str, list[Any]]:
    words = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 10))) for _ in range(WORDS)]

    def text(length: int) -> str:
        return " ".join(dice.choices(words, k=length))

    return {
        "id": list(range(first, first + count)),
        "question": [text(20) for _ in range(count)],
        "answer": [f'{text(40)}\n"quoted" é' for _ in range(count)],
        "score": [dice.random() for _ in range(count)],
        "messages": [
            [{"role": "user", "content": text(30)}, {"role": "assistant", "content": text(40)}] for _ in range(count)
        ],
    }


def make(kind: str, folder: Path, size_mb: int) -> list[str]:
    """Writes the files of one kind, of about this size; their names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    dice = random.Random(1)
    if kind == "pictures":
        names = []
        for number in range(4):
            count = size_mb * 1_000_000 // 4 // PICTURE_BYTES
            pictures = [
                {"bytes": b"\xff\xd8\xff" + dice.randbytes(dice.randint(30_000, 100_000)), "path": "image.jpg"}
                for _ in range(count)
            ]
            names.append(f"pictures-{number}.parquet")
            table = pa.table({"id": list(range(count)), "image": pictures})
            pq.write_table(table, folder / names[-1], row_group_size=100)
        return names
    # The same thousand rows many times: to make them takes longer than to convert them.
    block = pa.table(text_rows(10_000, 0, dice))
    copies = max(1, size_mb * 1_000_000 // block.nbytes)
    if kind == "group":
        table = pa.concat_tables([block] * copies).combine_chunks()
        pq.write_table(table, folder / "group.parquet", row_group_size=1 << 30)
        return ["group.parquet"]
    names = [f"text-{number}.parquet" for number in range(4)]
    for name in names:
        table = pa.concat_tables([block] * max(1, copies // 4)).combine_chunks()
        pq.write_table(table, folder / name, row_group_size=100_000)
    return names
