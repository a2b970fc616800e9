"""Work on several repos, one after the other. A repo that fails does not stop the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hfpeer.errors import HfpeerError
from hfpeer.repo_words import NamedRepo
from hfpeer_cli.invocation import Invocation
from hfpeer_cli.output import counted


def run_each(
    invocation: Invocation, repos: Sequence[NamedRepo], work: Callable[[NamedRepo], None], *, done: str
) -> int:
    """Does `work` with each repo and returns the exit code: that of the first failure. `done` is the word for it in the
    sentence at the end, such as `added`. With `--json` the documents of several repos are one array.

    With one repo an error is raised as it is.
    """
    if len(repos) == 1:
        work(repos[0])
        return 0
    failed: list[tuple[NamedRepo, HfpeerError]] = []
    with invocation.output_of_several():
        for named in repos:
            try:
                work(named)
            except HfpeerError as error:
                failed.append((named, error))
                invocation.complain(error, **_named(named))
    right = len(repos) - len(failed)
    names = ", ".join(f"{named.repo} (exit code {error.exit_code})" for named, error in failed)
    invocation.output.note(
        f"{right:,} of {counted(len(repos), 'repo')} {done}; failed: {names}."
        if failed
        else f"{counted(len(repos), 'repo')} {done}."
    )
    return failed[0][1].exit_code if failed else 0


def _named(named: NamedRepo) -> dict[str, str]:
    return {"repo": str(named.repo)} | ({"revision": str(named.revision)} if named.revision else {})
