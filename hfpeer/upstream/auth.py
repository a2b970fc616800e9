"""The user's Hugging Face token: login and logout through huggingface_hub, which stores it.

hfpeer stores no token. A token is sent only to the endpoint in the call, whatever HF_ENDPOINT says. `environment_token`
alone does not import huggingface_hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfpeer.config.keys import is_switched_on
from hfpeer.errors import AccessDenied, HubUnreachable, StorageError


@dataclass(frozen=True)
class Account:
    """The account of a token. `role` is what the token permits (`read`, `write`, `fineGrained`), if the hub tells
    it."""

    user: str
    organizations: tuple[str, ...] = ()
    token_name: str = ""
    role: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def environment_token(environ: Mapping[str, str]) -> str | None:
    """The token in the environment, as huggingface_hub reads it; None if there is none.

    Empty, for anonymous requests, if the environment forbids implicit tokens.
    """
    if is_switched_on(environ, "HF_HUB_DISABLE_IMPLICIT_TOKEN"):
        return ""
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    return "".join(token.split()) or None


def login(token: str, endpoint: str) -> Account:
    """Asks `endpoint` for the account of a token and has huggingface_hub store it.

    Raises AccessDenied if the hub refuses it, and then the stored token stays as it was; HubUnreachable.
    """
    import huggingface_hub

    with _asking(endpoint) as api:
        account = _account(api.whoami(token))
        huggingface_hub.login(token=token, add_to_git_credential=False)
    return account


def keep_unchecked(token: str) -> None:
    """Keeps a token where huggingface_hub finds it, although no hub has checked it. The stored tokens that have names
    stay. Raises AccessDenied for a text that can be no token, and StorageError."""
    import tempfile

    from huggingface_hub import constants

    if not re.fullmatch(r"[!-~]+", token):
        raise AccessDenied("This is no token: it has characters that none has.", hint="`hfpeer auth login`")
    path = Path(constants.HF_TOKEN_PATH)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")  # only its owner may read it
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        Path(made).replace(path)
    except OSError as error:
        raise StorageError(
            f"The token could not be kept in {path}: {error.strerror or error}.", hint="Check the folder."
        ) from error


def logout() -> bool:
    """Has huggingface_hub forget every token it stores. Returns whether there was one.

    Raises AccessDenied if a token remains in the environment, which only the user can remove.
    """
    import huggingface_hub

    was_logged_in = huggingface_hub.get_token() is not None
    try:
        huggingface_hub.logout()
    except OSError as error:
        raise AccessDenied(
            "The stored tokens are removed, but the environment still has one.",
            hint="Unset HF_TOKEN and HUGGING_FACE_HUB_TOKEN in your shell.",
        ) from error
    return was_logged_in


def whoami(endpoint: str) -> Account:
    """Asks `endpoint` for the account of the stored token. Raises AccessDenied and HubUnreachable."""
    with _asking(endpoint) as api:
        return _account(api.whoami())


def _account(document: Mapping[str, Any]) -> Account:
    token = (document.get("auth") or {}).get("accessToken") or {}
    return Account(
        user=str(document["name"]),
        organizations=tuple(str(organization["name"]) for organization in document.get("orgs") or ()),
        token_name=str(token.get("displayName") or ""),
        role=str(token.get("role") or ""),
    )


@contextmanager
def _asking(endpoint: str) -> Iterator[Any]:
    """huggingface_hub's client, directed to `endpoint`; its failures become hfpeer's errors."""
    from hfpeer.upstream.access import readable_endpoint  # with httpx, which a command does not need for its daemon

    with readable_endpoint():
        from huggingface_hub import errors, hf_api

    # `huggingface_hub.login` uses this object, whose endpoint is HF_ENDPOINT at the time of the import.
    api = hf_api.api
    usual, api.endpoint = api.endpoint, endpoint
    try:
        yield api
    except errors.LocalTokenNotFoundError as error:
        raise AccessDenied("You are not logged in.", hint="`hfpeer auth login` asks for a token.") from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnreachable(
            f"{endpoint} was not asked: HF_HUB_OFFLINE is set.", hint="Unset it for this command."
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refusal(endpoint, error.response.status_code) from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined] # of httpx or httpx2, by version
        raise HubUnreachable(
            f"{endpoint} does not answer: {error}.", hint="Is the network up, and is this the right origin?"
        ) from error
    except ValueError as error:
        raise AccessDenied(str(error), hint=f"{endpoint}/settings/tokens makes tokens.") from error
    finally:
        api.endpoint = usual


def _refusal(endpoint: str, status: int) -> AccessDenied | HubUnreachable:
    if status in (401, 403):
        return AccessDenied(
            f"{endpoint} does not accept this token (status {status}).",
            hint=f"{endpoint}/settings/tokens makes a new one; `hfpeer auth login` stores it. "
            "HF_TOKEN in the environment outweighs the stored one.",
            endpoint=endpoint,
        )
    return HubUnreachable(f"{endpoint} answered with status {status}.", hint="Try again later.", endpoint=endpoint)
