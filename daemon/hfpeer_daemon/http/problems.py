"""Turns errors into HTTP responses: a status and problem JSON.

A response has the error's sentence, hint and facts. An unexpected error shows only that it happened; its traceback goes
to the log.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hfpeer.errors import HfpeerError, InvalidName, NotFound
from hfpeer_daemon.http.responses import App, Message, Receive, Scope, Send, json_bytes, send_whole

CONTENT_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)


_EXPECTED = (HfpeerError, HTTPException, RequestValidationError)


def problem_of(error: BaseException) -> HfpeerError:
    """The error that a caller is shown for `error`."""
    if isinstance(error, HfpeerError):
        return error
    if isinstance(error, RequestValidationError):
        return InvalidName(f"The request is malformed: {error.errors()[0].get('msg', error)}.")
    if isinstance(error, HTTPException):
        return _problem_of_status(error)
    return HfpeerError("Something went wrong inside hfpeer.", hint="The daemon's log says more: hfpeer daemon logs.")


def _problem_of_status(error: HTTPException) -> HfpeerError:
    if error.status_code == 404:
        return NotFound("There is nothing at this address.")
    if error.status_code == 405:
        return InvalidName("This address does not support this method.")
    return InvalidName(str(error.detail)) if error.status_code < 500 else HfpeerError(str(error.detail))


def _status_of(error: BaseException, problem: HfpeerError) -> int:
    return error.status_code if isinstance(error, HTTPException) else problem.http_status


def _headers_of(error: BaseException, problem: HfpeerError) -> dict[str, str]:
    """Content-Type, Retry-After if the problem has a time to retry, and headers of the framework (Allow)."""
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    retry_after_seconds = problem.facts.get("retry_after_seconds")
    if isinstance(retry_after_seconds, (int, float)):
        headers["Retry-After"] = str(math.ceil(retry_after_seconds))
    return {**headers, "Content-Type": CONTENT_TYPE}


async def send_problem(send: Send, error: BaseException) -> None:
    """Sends the response for an error."""
    problem = problem_of(error)
    body, headers = problem_bytes(problem), _headers_of(error, problem)
    await send_whole(send, _status_of(error, problem), body, headers.items())


def problem_bytes(problem: HfpeerError) -> bytes:
    """The problem as JSON; facts without a JSON form become text."""
    facts = {name: _as_json(value) for name, value in problem.facts.items()}
    return json_bytes({**problem.to_problem(), "facts": facts})


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def answer_problems(app: FastAPI) -> None:
    """Makes every error of a route a problem response."""

    async def handle(_request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        return Response(problem_bytes(problem), _status_of(error, problem), _headers_of(error, problem))

    for kind in (HfpeerError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def log_unforeseen(what: str, error: Exception) -> None:
    """Logs an unexpected error with its traceback; not one raised on purpose, nor one that says that the client has
    gone."""
    if not isinstance(error, (*_EXPECTED, ConnectionError, ClientDisconnect)):
        _log.error("%s failed", what, exc_info=error)


def with_problems(app: App) -> App:
    """`app` with its errors sent as problems, unless a response has begun; unexpected ones are logged."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  the outermost frame of a request: nothing may pass it
            log_unforeseen(f"{scope['method']} {scope['path']}", error)
            if not has_begun:
                await send_problem(send, error)

    return guarded
