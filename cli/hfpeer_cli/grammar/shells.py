"""The scripts of bash and fish, which cut words where click's scripts do not expect it: bash at `@` and `:`, fish's at
commas. zsh has click's own."""

from __future__ import annotations

import os
import re
from typing import Any

from click.shell_completion import (
    BashComplete,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

from hfpeer_cli.invocation import Invocation

LINE_VARIABLE = "_HFPEER_LINE"
"""The command line up to the cursor."""

BASH = r"""
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" type value breaks="" mark
    local word="${line##*[[:space:]]}" rest
    # Readline replaces only what stands behind the last of its word breaks.
    for mark in @ : =; do [[ $COMP_WORDBREAKS == *"$mark"* ]] && breaks+=$mark; done
    rest="$word"
    [[ -n $breaks ]] && rest="${word##*[$breaks]}"
    local before="${word%%"$rest"}"
    COMPREPLY=()
    while IFS=',' read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$before"}") ;;
        esac
    done < <(_HFPEER_LINE="$line" %(complete_var)s=bash_complete "$1")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
FISH = r"""
function %(complete_func)s
    for completion in (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp | string collect) \
            COMP_CWORD=(commandline -t | string collect) %(prog_name)s)
        set -l parts (string split -m 2 \t -- $completion)
        switch $parts[1]
            case dir
                __fish_complete_directories $parts[2]
            case file
                __fish_complete_path $parts[2]
            case plain
                printf '%%s\t%%s\n' $parts[2] $parts[3]
        end
    end
end
complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class Remembering(ShellComplete):
    """Lets completions of values see all words before the cursor."""

    def get_completions(self, args: list[str], incomplete: str) -> list[Any]:
        self.ctx_args = {**self.ctx_args, "obj": Invocation(words=tuple(args))}
        return super().get_completions(args, incomplete)


class Bash(Remembering, BashComplete):
    """Completion for bash 4.4 and later."""

    source_template = BASH.lstrip()

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get(LINE_VARIABLE)
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = "" if not line or line[-1].isspace() else words.pop()
        return words[1:], incomplete


class Zsh(Remembering, ZshComplete):
    """Completion for zsh."""


class Fish(Remembering, FishComplete):
    """Completion for fish 3."""

    source_template = FISH.lstrip()

    def format_completion(self, item: Any) -> str:
        meaning = re.sub(r"\s+", " ", item.help or "")
        return f"{item.type}\t{item.value}\t{meaning}"


def register() -> None:
    """Makes click use these."""
    add_completion_class(Bash, "bash")
    add_completion_class(Zsh, "zsh")
    add_completion_class(Fish, "fish")
