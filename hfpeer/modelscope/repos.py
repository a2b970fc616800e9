"""Repos at ModelScope as such: whether one exists, who may see it, and how to create one.

A repo is created only on purpose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hfpeer.errors import HfpeerError, NameTaken, PushRefused, RepoNotFound
from hfpeer.modelscope.api import SiteApi, SiteRequest
from hfpeer.modelscope.names import SiteRepo, SiteVisibility
from hfpeer.names import RepoType

_PRIVATE, _PUBLIC = 1, 5
_VISIBILITIES: dict[int, SiteVisibility] = {_PRIVATE: "private", 3: "internal", _PUBLIC: "public"}
OTHER_LICENSE = "other"
_LICENSE = re.compile(r"[A-Za-z0-9_.+-]{1,64}")


@dataclass(frozen=True)
class SiteUser:
    """The account of a token."""

    name: str
    email: str = ""


async def whoami(api: SiteApi) -> SiteUser:
    """The account of the token. Raises AccessDenied for a token that the site does not accept, and HubUnreachable."""
    data = await api.ask(SiteRequest("GET", "/openapi/v1/users/me"))
    fields = data if isinstance(data, dict) else {}
    names = [fields.get(key) for key in ("username", "name", "preferred_username", "nickname")]
    name = next((name for name in names if isinstance(name, str) and name), "unknown")
    email = fields.get("email")
    return SiteUser(name, email if isinstance(email, str) else "")


async def find_visibility(api: SiteApi, repo: SiteRepo) -> SiteVisibility | None:
    """Who may see a repo; None if there is no such repo that this token may see."""
    try:
        data = await api.ask(SiteRequest("GET", f"/api/v1/{repo.api_path}", repo=str(repo)))
    except RepoNotFound:
        return None
    visibility = data.get("Visibility") if isinstance(data, dict) else None
    return _VISIBILITIES.get(visibility, "unknown") if isinstance(visibility, int) else "unknown"


async def create_repo(api: SiteApi, repo: SiteRepo, *, is_private: bool, license: str) -> bool:
    """Creates a repo. `license` is an id of the Hub; a site that refuses it gets `other`.

    Returns false if another program has created it meanwhile: its visibility is then another's choice.

    Raises NameTaken if the name belongs to a repo that this token may not see, AccessDenied, PushRefused.
    Source: modelscope_hub `create_repo`: JSON for a model, a form for a dataset.
    """
    chosen = license if _LICENSE.fullmatch(license) else OTHER_LICENSE
    try:
        await api.ask(_creation(repo, is_private, chosen))
    except PushRefused as error:
        if chosen == OTHER_LICENSE or "licen" not in error.message.lower():
            raise
        await api.ask(_creation(repo, is_private, OTHER_LICENSE))
    except NameTaken as error:
        if not await _appeared(api, repo):
            raise NameTaken(
                f"{api.site} has a repo named {repo} already, and this token may not see it.",
                hint="Choose another name with --to, or use a token of its owner.",
                **error.facts,
            ) from error
        return False
    return True


async def _appeared(api: SiteApi, repo: SiteRepo) -> bool:
    try:
        return await find_visibility(api, repo) is not None
    except HfpeerError:
        return False


def _creation(repo: SiteRepo, is_private: bool, license: str) -> SiteRequest:
    visibility = _PRIVATE if is_private else _PUBLIC
    fields: dict[str, Any] = {"Name": repo.name, "Visibility": visibility, "License": license}
    path = f"/api/v1/{repo.type.plural}"
    if repo.type is RepoType.DATASET:
        form = {"Owner": repo.owner, **{name: str(value) for name, value in fields.items()}}
        return SiteRequest("POST", path, form=form, repo=str(repo), aim="create")
    return SiteRequest("POST", path, document={"Path": repo.owner, **fields}, repo=str(repo), aim="create")
