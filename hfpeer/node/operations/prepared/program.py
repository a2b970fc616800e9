"""The program that the user's own Python runs to read, or to build, a set by its `datasets`. Never imported by a node.

It is started as a file, with nothing of hfpeer on its path, and asks the Hub at HF_ENDPOINT, which `hub` serves for one
commit alone. Its arguments are the numbers of two file descriptors and a JSON object: repo, commit, config, cache. It
writes a line of JSON to the first descriptor, the plan, and another after the build, or what `datasets` raised. The
other is a pipe whose only writer is hfpeer: a byte in it begins the build. When hfpeer ends, however it does, this
program ends with all that it started, so that no build goes on in a folder that the next command fills anew.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any, TextIO

CSV_OPTIONS = [
    "sep",
    "delimiter",
    "header",
    "names",
    "column_names",
    "index_col",
    "usecols",
    "skipinitialspace",
    "skiprows",
    "nrows",
    "na_values",
    "keep_default_na",
    "na_filter",
    "skip_blank_lines",
    "thousands",
    "decimal",
    "quotechar",
    "escapechar",
    "comment",
    "encoding",
]
ENCODING = ["encoding", "encoding_errors"]
READING = {
    "parquet": ["filters"],
    "json": ["field", *ENCODING],
    "csv": CSV_OPTIONS,
    "text": ["sample_by", "keep_linebreaks", *ENCODING],
}


def main() -> None:
    if sys.path and sys.path[0] == os.path.dirname(os.path.abspath(__file__)):  # noqa: PTH100, PTH120
        del sys.path[0]
    is_wanted = threading.Event()
    threading.Thread(target=end_with, args=(int(sys.argv[2]), is_wanted), daemon=True).start()
    with os.fdopen(int(sys.argv[1]), "w") as answers:
        try:
            run(json.loads(sys.argv[3]), answers, is_wanted)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the node has to say it
            trace = traceback.format_exc()[-4000:]
            tell(answers, {"error": type(error).__name__, "message": causes(error), "trace": trace})


def tell(answers: TextIO, answer: dict[str, object]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def end_with(pipe: int, is_wanted: threading.Event) -> None:
    """Passes on the order to build. When the process at the other end is gone, it ends this program's own process
    group."""
    while os.read(pipe, 1):
        is_wanted.set()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def causes(error: BaseException) -> str:
    """What an error says, and what those say that caused it: `datasets` hides the reason in them."""
    texts: list[str] = []
    while error is not None and len(texts) < 5:
        texts.append(str(error).strip().partition("\n")[0][:300])
        error = error.__cause__  # type: ignore[assignment]
    return " <- ".join(dict.fromkeys(texts))


def run(order: dict[str, str], answers: TextIO, is_wanted: threading.Event) -> None:
    import datasets
    import pyarrow

    versions = {"datasets": datasets.__version__, "pyarrow": pyarrow.__version__}
    options = {"revision": order["commit"], "cache_dir": order["cache"]}
    try:
        builder = datasets.load_dataset_builder(order["repo"], order["config"] or None, **options)
    except ValueError as error:
        names = datasets.get_dataset_config_names(order["repo"], revision=order["commit"])
        tell(answers, {"error": "ValueError", "message": str(error), "configs": names, **versions})
        return
    tell(answers, {**versions, **plan_of(builder)})
    is_wanted.wait()
    builder.download_and_prepare()
    tell(answers, {**versions, **plan_of(builder)})


def plan_of(builder: Any) -> dict[str, object]:
    from datasets.data_files import DataFilesDict

    files = getattr(builder.config, "data_files", None)
    named = files if isinstance(files, DataFilesDict) else {}
    options = {key: getattr(builder.config, key, None) for key in READING.get(builder.name, [])}
    return {
        "builder": builder.name,
        "config_name": builder.config.name,
        "config_id": builder.config_id,
        "version": str(builder.config.version),
        "hash": builder.hash,
        "folder": builder.cache_dir,
        "splits": {str(split): [str(file) for file in of_split] for split, of_split in named.items()},
        "reading": {key: value for key, value in options.items() if isinstance(value, (str, int, bool, list))},
    }


if __name__ == "__main__":
    main()
