"""Reads the answers of ModelScope: the two envelopes, and what a refusal means. Pure.

An answer can be a failure with the status 200, and a page of a proxy in place of JSON. The same code stands for several
faults, so that the message decides.
Source: modelscope_hub `errors` and `_legacy_api`, and reports of its users.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from hfpeer.budgets import LARGE_MESSAGE_BYTES, MAX_RETRY_AFTER_SECONDS
from hfpeer.errors import (
    AccessDenied,
    HfpeerError,
    HubUnreachable,
    NameTaken,
    PushRefused,
    RepoNotFound,
    RevisionNotFound,
)
from hfpeer.net.http1 import has_too_many_items
from hfpeer.system.printable import printable
from hfpeer.upstream.responses.refusals import asked_rest, is_transient

Aim: TypeAlias = Literal["read", "create", "write"]
"""What a request tries: to read, to create a repo, or to change one."""
MAX_MESSAGE_CHARACTERS = 300
_LOGIN = "`hfpeer modelscope login` stores a token; the site makes it under My Account, Access Tokens."
_NO_ACCESS, _NO_REVISION, _BAD_TOKEN = 10010200001, 10990101004, 10010103009
_TAKEN = frozenset((10010101001, 10020101001, 10010202004))
_TAKEN_WORDS = ("已被注册", "已存在", "名称不可用", "already exist", "already in use", "can not be used")
_LOGGED_OUT_WORDS = ("not logged in", "用户未登录", "invalid or expired", "invalid authentication")
_COMMIT_RACE_WORDS = ("branch changed", "could not update refs", "repository policy", "frequency limit")
"""Messages of refused commits after which the same commit may pass a moment later."""


class Transient(Exception):
    """A fault that may be gone a moment later. `reason` ends a sentence that starts with the name of the site."""

    def __init__(self, reason: str, retry_after_seconds: float | None = None, *, is_rate_limit: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.is_rate_limit = is_rate_limit


@dataclass(frozen=True)
class Answer:
    """One answer: its status, its headers with names in lower case, and its body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @cached_property
    def document(self) -> Mapping[str, Any] | None:
        """The JSON object of the answer; None if it is something else."""
        try:
            if len(self.body) > LARGE_MESSAGE_BYTES and has_too_many_items(self.body):
                return None
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) else None

    @property
    def is_success(self) -> bool:
        """Whether the site did what was asked: by the status and by the envelope."""
        if not 200 <= self.status < 300:
            return False
        if self.document is None:
            return False
        says_no = self.document.get("Success") is False or self.document.get("success") is False
        return not says_no and self.document.get("Code", 200) in (200, "200", None)

    @property
    def data(self) -> Any:
        """The payload of a success."""
        document = self.document or {}
        return document.get("Data", document.get("data"))

    @property
    def code(self) -> int | str | None:
        """The code of a failure: a number, or a word of the newer API."""
        document = self.document or {}
        code = document.get("Code", document.get("code"))
        if isinstance(code, str):
            return int(code) if re.fullmatch("[0-9]{1,15}", code) else code
        return code if type(code) is int else None

    @property
    def message(self) -> str:
        """The message of a failure, for people; of a page its title."""
        document = self.document or {}
        for name in ("Message", "message", "msg", "error", "detail"):
            if isinstance(document.get(name), str) and document[name].strip():
                return printable(document[name].strip()[:MAX_MESSAGE_CHARACTERS])
        title = re.search(rb"<title>\s*(.{1,100}?)\s*</title>", self.body[:4096], re.DOTALL | re.IGNORECASE)
        return printable(title.group(1).decode("utf-8", "replace")) if title else ""

    @property
    def said(self) -> str:
        """Status and message, to end a sentence."""
        status = f"status {self.status}" if self.status != 200 else "a failure with status 200"
        return f"{status}: {self.message}" if self.message else status


def refusal(site: str, answer: Answer, repo: str = "", aim: Aim = "read") -> HfpeerError | Transient:
    """What an answer that is no success means; `repo` is the repo that was asked for, `aim` what was tried.

    A Transient may be gone at the next try.
    """
    is_write = aim != "read"
    message, code = answer.message.lower(), answer.code
    facts: dict[str, Any] = {"site": site, "status": answer.status}
    if repo:
        facts["repo"] = repo
    if answer.status == 429 or code == "RateLimitExceed" or "frequency limit" in message:
        return Transient(_limited(answer), _rest_seconds(answer), is_rate_limit=True)
    is_race = is_write and (_has(message, _COMMIT_RACE_WORDS) or (aim == "write" and answer.status == 409))
    if is_transient(answer.status) or "error 1461" in message or is_race:
        return Transient(f"answers {answer.said}", _rest_seconds(answer))
    if answer.status == 401 or code in (_BAD_TOKEN, "InvalidAuthentication") or _has(message, _LOGGED_OUT_WORDS):
        return AccessDenied(f"{site} does not accept the token.", hint=f"It may have expired. {_LOGIN}", **facts)
    if answer.status == 413:
        return PushRefused(
            f"{site} takes no message of this size (status 413).",
            hint="The site or a proxy in between limits the size of a file or of a commit.",
            **facts,
        )
    if code in _TAKEN or (aim == "create" and (answer.status == 409 or _has(message, _TAKEN_WORDS))):
        return NameTaken(f"{site} has a repo named {repo} already.", hint="Choose another name with --to.", **facts)
    if code == _NO_REVISION:
        return RevisionNotFound(f"{site} has no such branch of {repo}.", hint="The default branch is master.", **facts)
    if answer.status == 404 or code == _NO_ACCESS:
        return RepoNotFound(
            f"{site} has no repo {repo} that this token may see.",
            hint=f"Check the name, upper and lower case; a private one needs a token that may see it. {_LOGIN}",
            **facts,
        )
    if answer.status == 403 and is_write:
        return AccessDenied(
            f"{site} does not let this token write to {repo}: {answer.message or 'status 403'}.",
            hint="A token that may only read cannot push, and the account must own the repo or belong to its "
            f"organisation. {_LOGIN}",
            **facts,
        )
    if answer.status == 403:
        return AccessDenied(f"{site} refuses access to {repo or 'this'}: {answer.said}.", hint=_LOGIN, **facts)
    if answer.document is None:
        return HubUnreachable(
            f"{site} does not answer like a ModelScope: no JSON, {answer.said}.",
            hint="Is there a proxy in between? `hfpeer conf get modelscope.endpoint` shows the address.",
            **facts,
        )
    if is_write:
        return PushRefused(f"{site} refuses it ({answer.said}).", hint=_write_hint(message), **facts)
    return HubUnreachable(f"{site} gives {answer.said}.", hint="Try again later; nothing was lost.", **facts)


def malformed(site: str, what: str) -> HubUnreachable:
    """The error for an answer that no ModelScope would send. `what` ends a sentence on the answer."""
    return HubUnreachable(
        f"{site} does not answer like a ModelScope: {what}.", hint="Is the address right? Try again later.", site=site
    )


def outage(site: str, reason: str, hint: str = "Run the same command again later: it goes on.") -> HubUnreachable:
    """The site cannot help now. `reason` ends a sentence that starts with its name."""
    return HubUnreachable(f"{site} {reason}.", hint=hint, site=site, reason=reason)


def is_branch_missing(error: HfpeerError) -> bool:
    """Whether a listing failed because the repo has no commit yet, or not this branch."""
    return isinstance(error, RevisionNotFound)


def _rest_seconds(answer: Answer) -> float | None:
    """The rest that an answer asks for, at most MAX_RETRY_AFTER_SECONDS; None if it does not say how long."""
    seconds = asked_rest(answer.headers).seconds
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER_SECONDS)


def _limited(answer: Answer) -> str:
    return f"limits the rate of requests ({answer.message or 'status 429'})"


def _has(message: str, words: tuple[str, ...]) -> bool:
    return any(word in message for word in words)


def _write_hint(message: str) -> str:
    if "on a branch" in message:
        return "A commit needs a branch that exists there: leave out --branch, or name one that the repo has."
    if "limit" in message:
        return "Push fewer files at once, with --include or -f."
    return "Nothing of this commit was made; the blobs that were sent are kept there."
