"""What a program of ours prints at the far end: JSON, an object a line."""

from __future__ import annotations

import json
import threading
from typing import Any

from hfpeer.errors import SshFailed, from_problem
from hfpeer.push.ssh import POLL_SECONDS, Session
from hfpeer.system.cancellation import check_stop
from hfpeer.transfer.events import OnEvent, from_json


class Answers:
    """Hears the lines of one program: passes its events on, and keeps its answers by name. Thread-safe."""

    def __init__(self, host: str, on_event: OnEvent = lambda event: None) -> None:
        self._host = host
        self._on_event = on_event
        self._answers: dict[str, Any] = {}
        self._has_news = threading.Event()

    def hear(self, line: str) -> None:
        """A line. What is no JSON, such as a warning of the system, is passed over."""
        try:
            said = json.loads(line)
            if "event" in said:
                self._on_event(from_json(said))
            else:
                self._answers.update(said)
                self._has_news.set()
        except (ValueError, KeyError, TypeError):
            return

    def wait_for(self, name: str, session: Session, program: str) -> Any:
        """The answer of this name, while the program goes on. Raises what `result` raises if it ends before."""
        while name not in self._answers:
            check_stop()
            if "problem" in self._answers or session.has_ended:
                self.result(session, program)
            self._has_news.wait(POLL_SECONDS)
            self._has_news.clear()
        return self._answers[name]

    def result(self, session: Session, program: str) -> Any:
        """Ends the input of the program, waits for its end, and gives its result. Raises its error, and SshFailed if it
        gave none. `program` is its name in messages."""
        code = session.finish()
        problem = self._answers.get("problem")
        if problem is not None:
            error = from_problem(problem)
            raise type(error)(f"{self._host}: {error.message}", hint=error.hint, **error.facts)
        if "result" not in self._answers:
            last = session.errors[-1] if session.errors else "it said nothing"
            raise SshFailed(
                f"{program} on {self._host} ended with code {code}: {last}",
                hint="The same command goes on from what has arrived. `--way` chooses another program there.",
                host=self._host,
            )
        return self._answers["result"]
