"""The second way of a push: a Python at the far end runs the receiver, which is sent to it, and takes an archive.

Nothing is installed there.
"""

from __future__ import annotations

import json
import zlib
from shlex import quote

from hfpeer.archive.export import write_archive
from hfpeer.push.answers import Answers
from hfpeer.push.job import Job, Outcome, check_space, missing_bytes, of_import, planned, when_unlocked
from hfpeer.push.probe import Host, have_of
from hfpeer.push.receiver.source import receiver_file
from hfpeer.push.ssh import Ssh

LOADER = (
    "import sys, zlib; size = int(sys.stdin.buffer.readline()); "
    'exec(compile(zlib.decompress(sys.stdin.buffer.read(size)), "<hfpeer-receiver>", "exec"))'
)
"""What Python runs: it reads the receiver from its stdin, and runs it."""


class ThroughPython:
    """One push to a host with Python. For one thread."""

    def __init__(self, ssh: Ssh, host: Host, job: Job) -> None:
        self._ssh = ssh
        self._host = host
        self._job = job

    def bring(self, *, is_dry_run: bool) -> Outcome:
        """Raises SshFailed, NoSpace, CorruptData, and the errors of the receiver."""
        return when_unlocked(lambda: self._bring(is_dry_run=is_dry_run))

    def _bring(self, *, is_dry_run: bool) -> Outcome:
        sizes = {str(digest): size_bytes for digest, size_bytes in self._job.wanted().items()}
        request = {"cache": self._host.cache, "sizes": sizes, "checks_present": self._job.checks_present}
        answers = Answers(self._host.name, self._job.on_event)
        with self._ssh.start(f"exec {quote(self._host.python)} -c {quote(LOADER)}", answers.hear) as session:
            receiver = zlib.compress(receiver_file().encode(), 9)
            session.write(b"%d\n" % len(receiver) + receiver + json.dumps(request).encode() + b"\n")
            plan = self._job.plan(have_of(answers.wait_for("have", session, "The receiver")))
            check_space(self._host, missing_bytes(plan))
            sent_blobs, sent_bytes = len(plan.index.blobs), missing_bytes(plan)
            if is_dry_run:
                session.finish()
                return Outcome(planned(plan), sent_blobs, sent_bytes, True, self._job.checks_present)
            write_archive(plan, session, send=session.send)
            report = answers.result(session, "The receiver")
        return Outcome(of_import(report), sent_blobs, sent_bytes, True, self._job.checks_present)
