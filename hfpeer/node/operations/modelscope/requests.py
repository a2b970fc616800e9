"""The request of a push, and the list of many. Pure.

A list has a repo of the Hub and a repo at ModelScope on each line, as its users keep them, and may have a revision
third. Every line is read before anything is asked or sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from hfpeer.errors import AccessDenied, HfpeerError, InvalidName
from hfpeer.modelscope.names import DEFAULT_BRANCH, SiteRepo, SiteVisibility
from hfpeer.names import MAIN, FilePath, RepoId, RepoType, Revision
from hfpeer.repo_words import parse_repo_word

Wish: TypeAlias = Literal["private", "public"]
PERMISSION = "--with-permission"
"""The word by which a user says that a repo which is not public may be passed on."""
_PASSED_ON = f"If you may pass it on, say {PERMISSION}"


@dataclass(frozen=True)
class PushRequest:
    """Push files of a repo at a revision to a repo at ModelScope.

    `files`, `include` and `exclude` select as in an add. `wish` is the visibility that the user named. `token` is the
    Hugging Face token for the reads, as in an add. The text `message` is the message of the commit there. `uploads` are
    the blobs sent at once, whatever their size; None is the choice of `Uploader`.
    """

    repo: RepoId
    target: SiteRepo
    revision: Revision = MAIN
    files: tuple[FilePath, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    message: str = ""
    wish: Wish | None = None
    branch: str = DEFAULT_BRANCH
    creates: bool = True
    prunes: bool = False
    is_dry_run: bool = False
    has_permission: bool = False
    token: str | None = None
    uploads: int | None = None


@dataclass(frozen=True)
class PushLimits:
    """Which repos of a list are pushed: by the bytes of their selected files, and whether one that is there is left
    alone. After a failure `keeps_going` begins with further repos."""

    min_bytes: int | None = None
    max_bytes: int | None = None
    skips_existing: bool = False
    keeps_going: bool = False
    jobs: int = 1


def read_list(lines: Iterable[str], type: RepoType) -> list[tuple[RepoId, Revision, SiteRepo]]:
    """The lines of a list: `HUB-REPO MODELSCOPE-REPO [REVISION]`, with `#` before a comment.

    `datasets/` before the repo of the Hub makes both datasets. Raises InvalidName that names the line.
    """
    found: list[tuple[RepoId, Revision, SiteRepo]] = []
    seen: dict[SiteRepo, int] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            if len(words) not in (2, 3):
                raise InvalidName(f"It has {len(words)} words.", hint="Write HUB-REPO MODELSCOPE-REPO [REVISION].")
            named = parse_repo_word(words[0], type)
            repo = named.repo
            target = SiteRepo.parse(words[1].removeprefix(f"{repo.type.plural}/"), repo.type)
            revision = Revision.parse(words[2]) if len(words) == 3 else named.revision or MAIN
        except InvalidName as error:
            raise InvalidName(f"Line {number} of the list: {error.message}", hint=error.hint, line=number) from error
        if target in seen:
            raise InvalidName(
                f"Lines {seen[target]} and {number} of the list push to the same repo, {target}.",
                hint="Give each line a repo of its own at ModelScope.",
                line=number,
            )
        seen[target] = number
        found.append((repo, revision, target))
    if not found:
        raise InvalidName("The list has no repo.", hint="Write HUB-REPO MODELSCOPE-REPO on each line.")
    return found


def is_private_there(request: PushRequest, visibility: str) -> bool:
    """Whether the repo becomes private at ModelScope; `visibility` is that at the Hub, as in `CachedRevision`.

    Only what a hub shows to everyone becomes public without the user's word. Raises AccessDenied for a repo that is not
    public at the Hub, unless the user has said that it may be passed on.
    """
    if visibility in ("gated", "private") and not request.has_permission:
        raise AccessDenied(
            f"{request.repo} is {visibility} at the Hub, so it is not pushed without your word.",
            hint=f"{_PASSED_ON}: it becomes private at ModelScope, unless you also say --public.",
            repo=str(request.repo),
            visibility=visibility,
        )
    if visibility in ("unknown", "given") and request.wish == "public" and not request.has_permission:
        raise AccessDenied(
            f"No hub tells now whether {request.repo} is public, so it does not become public at ModelScope.",
            hint=f"Leave out --public, and it becomes private there. {_PASSED_ON}.",
            repo=str(request.repo),
            visibility=visibility,
        )
    if request.wish is not None:
        return request.wish == "private"
    return visibility != "public"


def check_target(
    request: PushRequest, site: str, there: SiteVisibility | None, visibility: str, *, is_private: bool
) -> HfpeerError | None:
    """The error for a repo at ModelScope that shows to everyone what is to be private; None if all is well.

    `there` is the visibility of the repo at ModelScope, None if it does not exist yet.
    """
    if there in (None, "private") or not is_private:
        return None
    why = "--private was said" if request.wish == "private" else f"{request.repo} is {visibility} at the Hub"
    shown = "public" if there == "unknown" else there
    return AccessDenied(
        f"{request.target} at {site} is {shown}, and {why}: a push would show the files to others.",
        hint="Choose another repo with --to, make it private on the site, or say --public if this is what you want.",
        repo=str(request.target),
    )
