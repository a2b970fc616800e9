"""The first way of a push: an hfpeer at the far end adds the revisions from this machine, and no other source.

A private door of this push, on a Unix socket, is led there by ssh. Where ssh may not lead a socket there, an archive
goes through a pipe into `hfpeer import`. Either way an archive at the end brings refs and visibility.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from shlex import quote
from typing import Any

from hfpeer.archive.export import Plan, write_archive
from hfpeer.archive.have import Have
from hfpeer.errors import BadArchive
from hfpeer.names import Digest
from hfpeer.push.answers import Answers
from hfpeer.push.job import Job, Outcome, check_space, missing_bytes, of_import, planned, when_unlocked
from hfpeer.push.probe import Host, as_lines, have_of
from hfpeer.push.ssh import Session, Ssh
from hfpeer.transfer.events import OnEvent

NO_FORWARDING = "ssh may not lead a socket there, so the files went through a pipe."


class ThroughHfpeer:
    """One push to a host with hfpeer. For one thread."""

    def __init__(self, ssh: Ssh, host: Host, job: Job) -> None:
        self._ssh = ssh
        self._host = host
        self._job = job
        self._notes: list[str] = []

    def bring(self, *, is_dry_run: bool) -> Outcome:
        """Raises SshFailed, NoSpace, CorruptData, and the errors of the hfpeer there."""
        try:
            return self._bring(self._host.have, is_dry_run=is_dry_run)
        except BadArchive as error:
            if "digests" not in error.facts:
                raise
        # A file there had another content than its name says. Now the hfpeer there knows.
        return self._bring(None, is_dry_run=is_dry_run)

    def _bring(self, have: Have | None, *, is_dry_run: bool) -> Outcome:
        wanted = self._job.wanted()
        plan = self._job.plan(have or self._have(wanted))
        check_space(self._host, missing_bytes(plan))
        sent_blobs, sent_bytes = len(plan.index.blobs), missing_bytes(plan)
        if is_dry_run:
            return Outcome(planned(plan), sent_blobs, sent_bytes, True, True)
        of_revisions = self._job.wanted_of_revisions()
        is_needed = any(blob.digest in of_revisions for blob in plan.index.blobs)  # sets come with the archive
        if is_needed and self._is_complete(of_revisions) and self._add(plan):
            plan = self._job.plan(self._job.have_all())
        report = self._import(plan)
        for problem in report.get("failed_sets", ()):
            self._notes.append(f"{self._host.name} did not take a prepared set: {problem['message']}")
        return Outcome(of_import(report), sent_blobs, sent_bytes, True, True, tuple(self._notes))

    def _have(self, wanted: dict[Digest, int]) -> Have:
        return have_of(self._call(["have", "--only", "-"], lambda session: session.write(as_lines(wanted))))

    # By an add there

    def _is_complete(self, wanted: dict[Digest, int]) -> bool:
        """Whether all selected files are here: an add there would look for the others in vain."""
        manifests = [self._job.store.manifests.load(repo, commit) for repo, commit in self._job.revisions]
        return all(file.digest in wanted for manifest in manifests if manifest for file in self._job.select(manifest))

    def _add(self, plan: Plan) -> bool:
        """Adds the revisions there from the private door. Returns False where ssh may not lead a socket there."""
        folder = f"{self._host.temporary}/hfpeer-{secrets.token_hex(6)}"
        code, _ = self._ssh.run(f"umask 077; mkdir {quote(folder)}")
        if code:
            return False
        try:
            with self._job.open_door() as door:
                if not self._ssh.forward(f"{folder}/door", door):
                    self._notes.append(NO_FORWARDING)
                    return False
                for revision in plan.index.revisions:
                    if revision.repo.is_of_sets:
                        continue
                    words = [revision.repo.type.value, "add", "-r", revision.repo.full_name, "-v", revision.commit]
                    words += ["--from", f"{folder}/door", "--only-from", "--trust-peers"]
                    words += [word for glob in self._job.include for word in ("--include", glob)]
                    words += [word for glob in self._job.exclude for word in ("--exclude", glob)]
                    # When this end is killed, the add there fails, and its shell removes the folder.
                    cleaning = f"{{ c=$?; rm -rf {quote(folder)}; exit $c; }}"
                    self._call(words, on_event=self._job.on_event, otherwise=cleaning)
        finally:
            self._ssh.run(f"rm -rf {quote(folder)}")
        return True

    # By an archive

    def _import(self, plan: Plan) -> Any:
        """Sends an archive into `hfpeer import`. Returns its report."""
        words = ["import", "-", "--trust-archive"]

        def send(session: Session) -> None:
            write_archive(plan, session, send=session.send)

        (report,) = when_unlocked(lambda: self._call(words, send, self._job.on_event))
        return report

    def _call(
        self,
        words: Sequence[str],
        send: Callable[[Session], object] = lambda session: None,
        on_event: OnEvent = lambda event: None,
        otherwise: str = "",
    ) -> Any:
        """Runs a command of the hfpeer there, and returns its result. Raises its error."""
        answers = Answers(self._host.name, on_event)
        command = f"{self._host.hfpeer_command()} --json-lines {' '.join(map(quote, words))}"
        script = f"{command} || {otherwise}" if otherwise else f"exec {command}"
        with self._ssh.start(script, answers.hear) as session:
            send(session)
            return answers.result(session, "hfpeer")
