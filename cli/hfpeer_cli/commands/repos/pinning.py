"""`hfpeer model pin` and `unpin`: revisions that no cleaning removes by itself."""

from __future__ import annotations

import click

from hfpeer.errors import NotFound
from hfpeer.names import RepoType
from hfpeer_cli.grammar import Noun, pass_invocation
from hfpeer_cli.invocation import Invocation


def define_pin(noun: Noun, type: RepoType, prefix: str, example: str) -> None:
    """Adds the verbs `pin` and `unpin`."""
    organization = example.partition("/")[0]

    @noun.command(
        "pin",
        help=f"Keep {type.value}s whatever the budget of the cache says.\n\n"
        f"REPO is ORG/NAME or a pattern such as '{organization}/*', and may end with @REV. A pin also holds for what "
        "comes later. `rm` and `prune` take a pinned revision only with --force. Without REPO it lists the pins.",
        examples=[f"{prefix} pin {example}", f"{prefix} pin '{organization}/*@main'", f"{prefix} pin"],
    )
    @click.argument("repos", nargs=-1, metavar="[REPO]...")
    @pass_invocation
    def pin(invocation: Invocation, repos: tuple[str, ...]) -> None:
        from hfpeer.cache.owner.pins import Pin, Pins

        pins = Pins(invocation.settings.home)
        wanted = [Pin.parse(repo, type) for repo in repos]
        if wanted:
            pins.add(wanted)
        shown = list(map(str, wanted or pins.all()))
        invocation.output.result([f"Pinned: {one}" for one in shown] or "Nothing is pinned.", shown)

    @noun.command(
        "unpin",
        help="Let the budget of the cache decide again. REPO is what was pinned, as `pin` lists it.",
        examples=[f"{prefix} unpin {example}"],
    )
    @click.argument("repos", nargs=-1, required=True, metavar="REPO...")
    @pass_invocation
    def unpin(invocation: Invocation, repos: tuple[str, ...]) -> None:
        from hfpeer.cache.owner.pins import Pin, Pins

        wanted = [Pin.parse(repo, type) for repo in repos]
        gone = Pins(invocation.settings.home).remove(wanted)
        absent = [str(one) for one in wanted if one not in gone]
        if absent:
            raise NotFound(
                f"Not pinned: {', '.join(absent)}.", hint=f"`{prefix} pin` lists what is pinned.", pins=absent
            )
        shown = list(map(str, gone))
        invocation.output.result([f"Not pinned any more: {one}" for one in shown], shown)
