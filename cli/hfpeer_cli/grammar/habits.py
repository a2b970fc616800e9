"""Words and options of other programs, and what stands for them here. Only a mistake needs them."""

from __future__ import annotations

COMMANDS: dict[str, tuple[str, ...]] = {
    "clean": ("prune", "cache prune"),
    "clone": ("add",),
    "config": ("conf",),
    "delete-cache": ("cache prune",),
    "fetch": ("add",),
    "find": ("search",),
    "get": ("add",),
    "info": ("status", "ls", "why"),
    "install": ("add",),
    "jobs": ("transfers",),
    "log": ("logs", "daemon logs"),
    "ps": ("transfers", "status"),
    "queue": ("transfers",),
    "repo": ("ls",),
    "repos": ("ls",),
    "scan": ("ls", "du"),
    "scan-cache": ("cache ls",),
    "serve": ("daemon start",),
    "settings": ("conf",),
    "show": ("ls", "why"),
    "up": ("start", "daemon start"),
    "upload": ("publish", "model publish", "modelscope push"),
}
"""By a word: the commands that it may mean, of which a noun offers those that it has."""
OPTIONS: dict[str, tuple[str, ...]] = {
    "--cache-dir": ("--cache",),
    "--debug": ("--log-level",),
    "--output": ("--local-dir",),
    "--output-dir": ("--local-dir",),
    "--verbose": ("--log-level",),
    "-n": ("--dry-run",),
    "-o": ("--local-dir",),
}
"""By an option: those that stand for it, of which a command offers those that it has."""
ADVICE: dict[str, str] = {
    "--force-download": "What is here is checked already, and is not fetched again.",
    "--local-dir-use-symlinks": "Files in --local-dir are copies; --link makes hard links of them.",
    "--max-workers": "The number of requests at a time is chosen by itself.",
    "--resume-download": "Every add goes on from what is here.",
    "--token": "`hfpeer auth login` keeps a token.",
    "--watch": "`hfpeer transfers --watch` shows what runs.",
    "-w": "`hfpeer transfers --watch` shows what runs.",
}
"""By an option that needs nothing in its place: a sentence that says why."""
