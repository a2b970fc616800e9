"""What ModelScope does wrong beside what any hub does (`fakes.hub.faults`), as wrappers around the right answer.

Each was reported by users or is expected by ModelScope's own client. Must never choose which request to strike.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fakes.hub.faults import Answer, Fault
from fakes.hub.wire import ConnectionCut, Request, Response, body_bytes, json_response, text_response

from .site import failure

Alter = Callable[[dict[str, Any]], None]


def refused(status: int, message: str, code: int | None = None, retry_after: str | None = None) -> Fault:
    """A refusal in the usual envelope: 429, 409 "branch changed", 400 "repository policy", 403…"""

    def fault(request: Request, answer: Answer) -> Response:
        response = failure(status, message, code)
        return response if retry_after is None else response.with_header("Retry-After", retry_after)

    return fault


def unsuccessful(message: str = "internal error", code: int = 500) -> Fault:
    """200 whose envelope says that it failed."""
    document = {"Code": code, "Data": None, "Message": message, "RequestId": "simulated", "Success": False}
    return lambda request, answer: json_response(document)


def html(status: int, title: str = "Request Entity Too Large") -> Fault:
    """A page of a proxy in between: 413, 502, 504."""
    page = f"<html><head><title>{status} {title}</title></head><body><center>{title}</center></body></html>"
    return lambda request, answer: text_response(status, page, {"Content-Type": "text/html"})


def empty_success() -> Fault:
    """The right thing is done, and the answer is 200 without a body."""

    def fault(request: Request, answer: Answer) -> Response:
        answer(request)
        return Response(200)

    return fault


def lost_reply() -> Fault:
    """The right thing is done, and the connection ends without an answer."""

    def fault(request: Request, answer: Answer) -> Response:
        answer(request)
        raise ConnectionCut

    return fault


def before(action: Callable[[], object]) -> Fault:
    """Something happens before the request is answered: a repo appears, a foreign commit, a token that is revoked."""

    def fault(request: Request, answer: Answer) -> Response:
        action()
        return answer(request)

    return fault


def altered(alter: Alter) -> Fault:
    """The right JSON, changed in place: `alter` takes the document."""

    def fault(request: Request, answer: Answer) -> Response:
        response = answer(request)
        document = json.loads(body_bytes(response.body))
        alter(document)
        body = json.dumps(document).encode()
        return replace(response.without_header("content-length"), body=(body,))

    return fault


def entry_with(path: str, **fields: Any) -> Fault:
    """A listing in which the entry of a path has other values: Sha256=None, IsLFS=True…"""

    def alter(document: dict[str, Any]) -> None:
        for entry in (document["Data"] or {}).get("Files") or ():
            if entry["Path"] == path:
                entry.update(fields)

    return altered(alter)


def no_files() -> Fault:
    """A listing whose `Files` is null."""
    return altered(lambda document: (document["Data"] or {}).update(Files=None))


def object_error(message: str = "object is locked") -> Fault:
    """A batch answer with an error for each object."""

    def alter(document: dict[str, Any]) -> None:
        for each in document["Data"]["objects"]:
            each.pop("actions", None)
            each["error"] = {"code": 500, "message": message}

    return altered(alter)


def hrefs(change: Callable[[str], str]) -> Fault:
    """A batch answer whose addresses are changed: another host, another sha256."""

    def alter(document: dict[str, Any]) -> None:
        for each in document["Data"]["objects"]:
            if "actions" in each:
                each["actions"]["upload"]["href"] = change(each["actions"]["upload"]["href"])

    return altered(alter)


def foreign_object(oid: str = "ab" * 32) -> Fault:
    """A batch answer that names an object for which the client did not ask."""

    def alter(document: dict[str, Any]) -> None:
        document["Data"]["objects"].append({"oid": oid, "size": 1})

    return altered(alter)


def wants_stored(href: Callable[[str, int], str]) -> Fault:
    """A batch answer that asks for every object, also for those that are stored; `href` makes the address."""

    def fault(request: Request, answer: Answer) -> Response:
        response = answer(request)
        document = json.loads(body_bytes(response.body))
        document["Data"]["objects"] = [
            {**each, "actions": {"upload": {"href": href(each["oid"], each["size"])}}}
            for each in json.loads(request.body)["objects"]
        ]
        return json_response(document)

    return fault


def json_for_missing() -> Fault:
    """200 with an error in JSON in place of a file."""
    return unsuccessful("record not found", 10010205001)
