"""The user's Hugging Face token: logging in and out through huggingface_hub, which keeps it.

hfpeer stores no token of its own. A token is shown to the endpoint that is handed in and to nobody else, whatever
HF_ENDPOINT says. Only the environment is read without importing huggingface_hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from hfpeer.errors import AccessDenied, HubUnreachable


@dataclass(frozen=True)
class Account:
    """Whose token it is. `role` is what the token may do (`read`, `write`, `fineGrained`), if the hub says so."""

    user: str
    organizations: tuple[str, ...] = ()
    token_name: str = ""
    role: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def environment_token(environ: Mapping[str, str]) -> str | None:
    """The token that the environment names, as huggingface_hub reads it; None when it names none.

    Empty, which is nobody's, when the environment forbids to send a token that was not asked for.
    """
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in ("1", "ON", "YES", "TRUE"):
        return ""
    token = environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    return "".join(token.split()) or None


def login(token: str, endpoint: str) -> Account:
    """Asks `endpoint` whose token it is and has huggingface_hub keep it.

    Raises AccessDenied when the hub refuses it, which leaves the kept token as it was, and HubUnreachable.
    """
    import huggingface_hub

    with _asking(endpoint) as api:
        account = _account(api.whoami(token))
        huggingface_hub.login(token=token, add_to_git_credential=False)
    return account


def logout() -> bool:
    """Has huggingface_hub forget every token it keeps; whether there was one.

    Raises AccessDenied when a token remains in the environment, which nobody but the user can take away.
    """
    import huggingface_hub

    was_logged_in = huggingface_hub.get_token() is not None
    try:
        huggingface_hub.logout()
    except OSError as error:
        raise AccessDenied(
            "The kept tokens are removed, but the environment still holds one.",
            hint="Unset HF_TOKEN and HUGGING_FACE_HUB_TOKEN in your shell.",
        ) from error
    return was_logged_in


def whoami(endpoint: str) -> Account:
    """Asks `endpoint` whose token the kept one is. Raises AccessDenied and HubUnreachable."""
    with _asking(endpoint) as api:
        return _account(api.whoami())


def _account(answer: Mapping[str, Any]) -> Account:
    token = (answer.get("auth") or {}).get("accessToken") or {}
    return Account(
        user=str(answer["name"]),
        organizations=tuple(str(organization["name"]) for organization in answer.get("orgs") or ()),
        token_name=str(token.get("displayName") or ""),
        role=str(token.get("role") or ""),
    )


@contextmanager
def _asking(endpoint: str) -> Iterator[Any]:
    """huggingface_hub's own client, turned to `endpoint`; its failures leave as hfpeer's errors."""
    from huggingface_hub import errors, hf_api

    # `huggingface_hub.login` asks through this object, whose endpoint was HF_ENDPOINT when it was imported.
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
            hint=f"{endpoint}/settings/tokens makes a new one; `hfpeer auth login` keeps it. "
            "HF_TOKEN in the environment goes before the kept one.",
            endpoint=endpoint,
        )
    return HubUnreachable(f"{endpoint} answered with status {status}.", hint="Try again later.", endpoint=endpoint)
