"""The queue of transfers: what runs, in which order, and what becomes of one that fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hfpeer.control.asker import Asker
from hfpeer.control.operations import PRIORITIES, AddRequest, OtherNode
from hfpeer.control.transfers import DONE, FAILED, PAUSED, QUEUED, RUNNING, STATES, WAITING, TransferProblem
from hfpeer.errors import AccessDenied, HubUnreachable, Locked, NoSourceLeft, NoSpace, PeerUnreachable, RepoNotFound
from hfpeer.names import Commit, RepoId
from hfpeer.node.operations.transfers import queue
from hfpeer.node.operations.transfers import transfer as steps
from hfpeer.node.operations.transfers.transfer import Transfer
from hfpeer.transfer.events import Finished, Planned, Progressed, Resolved

COMMIT = Commit("ab" * 20)
PROBLEM = TransferProblem("no_source_left", "Nothing answers.", "Wait.", 6)


def transfer(id: int = 1, state: str = QUEUED, priority: str = "normal", **changes: Any) -> Transfer:
    fresh = steps.new_transfer(id, AddRequest(RepoId.parse(f"acme/m{id}")), 100.0, priority, is_detached=True)
    return replace(fresh, state=state, **changes)


def ids(transfers: list[Transfer]) -> list[int]:
    return [one.id for one in transfers]


# What runs


def test_the_queue_runs_in_order_and_no_more_at_once_than_allowed() -> None:
    waiting = [transfer(id) for id in (3, 1, 2)]
    assert ids(queue.startable(waiting, 0.0, 2)) == [1, 2]
    assert ids(queue.startable([transfer(9, RUNNING), *waiting], 0.0, 2)) == [1]
    assert queue.startable([transfer(8, RUNNING), transfer(9, RUNNING), *waiting], 0.0, 1) == []


def test_what_other_nodes_are_asked_for_takes_no_room_and_waits_for_none() -> None:
    def elsewhere(id: int, state: str = QUEUED, **changes: Any) -> Transfer:
        request = AddRequest(RepoId.parse("acme/m"), node=OtherNode(f"gpu{id}", f"{id}"))
        return replace(transfer(id, state, **changes), request=request)

    asked = [elsewhere(id) for id in range(10, 18)]
    assert ids(queue.startable([transfer(1, RUNNING), transfer(2), *asked], 0.0, 1)) == list(range(10, 18))
    assert ids(queue.startable([*asked, elsewhere(9, RUNNING), transfer(2)], 0.0, 1)) == [2, *range(10, 18)]
    away, day = PeerUnreachable("gpu is away."), steps.AWAITING_NODE_SECONDS
    first = steps.failed(elsewhere(1), steps.problem_of(away), 1000.0, is_retried=True)
    assert first.state == WAITING
    assert steps.failed(first, steps.problem_of(away), 999.0 + day, is_retried=True).state == WAITING
    assert steps.failed(first, steps.problem_of(away), 1000.0 + day, is_retried=True).state == FAILED


def test_a_high_priority_runs_first_and_a_low_one_last() -> None:
    waiting = [transfer(1, priority="low"), transfer(2), transfer(3, priority="high")]
    assert ids(queue.startable(waiting, 0.0, 3)) == [3, 2, 1]


def test_a_transfer_that_is_moved_is_the_first_or_the_last_whatever_the_priorities() -> None:
    waiting = [transfer(1, priority="high"), transfer(2), transfer(3, priority="low")]
    first = queue.moved(waiting[2], waiting, is_first=True)
    assert ids(queue.startable([*waiting[:2], first], 0.0, 3)) == [3, 1, 2]
    last = queue.moved(waiting[0], waiting, is_first=False)
    assert ids(queue.startable([last, *waiting[1:]], 0.0, 3)) == [2, 3, 1]
    assert queue.moved(waiting[0], waiting[:1], is_first=True) == waiting[0]


def test_one_that_waits_for_its_next_try_lets_others_pass_until_then() -> None:
    failed = transfer(1, WAITING, next_try_at=50.0)
    waiting = [failed, transfer(2)]
    assert ids(queue.startable(waiting, 49.0, 1)) == [2]
    assert ids(queue.startable(waiting, 50.0, 1)) == [1]
    assert queue.next_due_at(waiting, 49.0) == 50.0
    assert queue.next_due_at(waiting, 50.0) is None


def test_a_clock_that_was_wrong_does_not_keep_a_transfer_waiting() -> None:
    of_next_year = transfer(1, WAITING, next_try_at=40e6)
    assert ids(queue.startable([of_next_year], 1000.0, 1)) == [1]


def test_paused_and_failed_ones_do_not_run() -> None:
    resting = [transfer(1, PAUSED), transfer(2, FAILED), transfer(3, DONE)]
    assert queue.startable(resting, 1e9, 5) == []


def test_the_list_has_running_ones_first_and_then_those_that_will_run() -> None:
    states = (DONE, PAUSED, QUEUED, FAILED, RUNNING, WAITING)
    listed = queue.in_order([transfer(id, state) for id, state in enumerate(states, 1)])
    assert [one.state for one in listed] == [RUNNING, QUEUED, WAITING, PAUSED, FAILED, DONE]


@given(st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from(PRIORITIES))), st.integers(1, 5))
def test_never_more_run_than_allowed_and_no_one_ready_is_left_out(rows: list[tuple[str, str]], at_once: int) -> None:
    transfers = [transfer(id, state, priority) for id, (state, priority) in enumerate(rows, 1)]
    begun = queue.startable(transfers, 1e9, at_once)
    running = sum(one.state == RUNNING for one in transfers)
    ready = sum(one.state in (QUEUED, WAITING) for one in transfers)
    assert len(begun) == min(ready, max(0, at_once - running))
    assert {one.state for one in begun} <= {QUEUED, WAITING}


# What leaves the list


def test_done_ones_leave_after_a_day_and_failed_ones_after_a_week() -> None:
    over = [transfer(1, DONE, ended_at=0.0), transfer(2, FAILED, ended_at=0.0), transfer(3, PAUSED)]
    day = 24 * 3600.0
    assert ids(queue.expired(over, day - 1)) == []
    assert ids(queue.expired(over, day + 1)) == [1]
    assert ids(queue.expired(over, 7 * day + 1)) == [1, 2]


def test_of_many_that_are_over_the_last_ones_stay() -> None:
    over = [transfer(id, DONE, ended_at=float(id)) for id in range(queue.MAX_OVER + 3)]
    assert ids(queue.expired(over, 200.0)) == [0, 1, 2]


# What becomes of one


def test_failures_are_tried_again_later_and_later() -> None:
    assert [steps.retry_seconds(failures) for failures in (1, 2, 3, 6, 60)] == [15, 30, 60, 300, 300]
    one = steps.failed(transfer(), PROBLEM, 1000.0, is_retried=True)
    assert (one.state, one.next_try_at, one.problem) == (WAITING, 1015.0, PROBLEM)
    again = steps.failed(steps.started(one), PROBLEM, 1020.0, is_retried=True)
    assert (again.next_try_at, again.failing_since, again.failures) == (1050.0, 1000.0, 2)


def test_one_that_fails_for_a_week_is_tried_no_more() -> None:
    one = steps.failed(transfer(), PROBLEM, 1000.0, is_retried=True)
    late = steps.failed(steps.started(one), PROBLEM, 1000.0 + steps.RETRYING_SECONDS, is_retried=True)
    assert (late.state, late.next_try_at, late.problem) == (FAILED, None, PROBLEM)
    resumed = steps.queued(late)
    assert (resumed.state, resumed.problem, resumed.failures, resumed.failing_since) == (QUEUED, None, 0, None)


@pytest.mark.parametrize(
    ("error", "is_temporary"),
    [
        (HubUnreachable("silent"), True),
        (NoSourceLeft("none"), True),
        (Locked("busy"), True),
        (NoSpace("full"), False),
        (AccessDenied("no"), False),
        (RepoNotFound("no"), False),
        (ZeroDivisionError(), False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error: Exception, is_temporary: bool) -> None:
    assert steps.is_temporary(error) is is_temporary


def test_a_bug_is_told_without_its_details() -> None:
    assert steps.problem_of(ZeroDivisionError("inside")).message == "Something went wrong inside hfpeer."


def test_the_bytes_of_several_runs_add_up() -> None:
    first = steps.started(transfer())
    one = steps.heard(first, first, progressed(present=30, peer=20, origin=10))
    one = steps.heard(one, first, progressed(present=50, peer=40, origin=10))
    second = steps.started(steps.queued(one))
    two = steps.heard(second, second, progressed(present=60, origin=10))
    finished = Finished("acme/m1", COMMIT, "/s", 1, 100, 0, {"hub": 50}, {"origin": 50})
    done = steps.done(two, second, finished, 500.0)
    assert done.bytes_by_kind == {"peer": 40, "origin": 60}
    assert done.bytes_by_source == {"peer": 40, "origin": 10, "hub": 50}
    assert (done.state, done.present_bytes, done.came_bytes) == (DONE, 100, 100)
    entry = steps.entry_of(done, 500.0)
    assert (entry.outcome, entry.saved_bytes, entry.size_bytes, entry.ended_at) == (DONE, 40, 100, 500.0)


def progressed(present: int, **by_kind: int) -> Progressed:
    return Progressed(present, 100, 1.0, dict(by_kind), {}, (), 0, 1, dict(by_kind))


def test_the_commit_is_pinned_and_what_is_here_is_known_before_the_first_byte() -> None:
    fresh = steps.started(transfer())
    one = steps.heard(fresh, fresh, Resolved("acme/m1", "main", COMMIT, "hub"))
    one = steps.heard(one, fresh, Planned("acme/m1", COMMIT, 3, 100, 2, 80, "hub", True, kept_bytes=30))
    assert one.request.resolved is not None and one.request.resolved.commit == COMMIT
    status = steps.status_of(one)
    assert (status.commit, status.size_bytes, status.present_bytes, status.files) == (COMMIT, 100, 50, 3)


def test_a_transfer_that_was_cut_off_is_taken_up_and_others_stay_as_they_are() -> None:
    assert steps.taken_up(transfer(1, RUNNING), 0.0).state == QUEUED
    for state in (PAUSED, WAITING, FAILED, DONE):
        assert steps.taken_up(transfer(1, state), 0.0) == transfer(1, state)


def test_a_transfer_that_ends_the_daemon_again_and_again_is_given_up_unless_bytes_come() -> None:
    one = transfer(1)
    for _ in range(steps.MAX_KILLS - 1):
        one = steps.taken_up(steps.started(one), 0.0)
        assert one.state == QUEUED
    running = steps.started(one)
    moving = steps.heard(running, running, progressed(present=10))
    assert steps.taken_up(moving, 0.0).state == QUEUED
    given_up = steps.taken_up(running, 0.0)
    assert given_up.state == FAILED
    assert given_up.problem is not None and "5 times" in given_up.problem.message


def test_the_token_is_not_kept_but_whose_it_was() -> None:
    repo = RepoId.parse("acme/private")
    tokens = {None: steps.NODE_TOKEN, "": steps.ANONYMOUS, "hf_secret": steps.CALLER_TOKEN}
    for token, whose in tokens.items():
        kept = steps.new_transfer(1, AddRequest(repo, token=token), 0.0, is_detached=False)
        assert (kept.request.token, kept.token) == (None, whose)


def test_requests_are_the_same_whatever_their_token_their_pin_and_their_asker() -> None:
    one = AddRequest(RepoId.parse("acme/a"))
    pinned = replace(one, token="x", resolved=Resolved("acme/a", "main", COMMIT, "hub"), asked_by=Asker("cli", "me"))
    assert steps.is_same_add(one, pinned)
    assert not steps.is_same_add(one, replace(one, include=("*.json",)))
    assert not steps.is_same_add(one, replace(one, repo=RepoId.parse("acme/a", "dataset")))


def test_the_asker_is_the_user_of_the_shell_and_the_machine_of_its_ssh() -> None:
    environ = {"USER": "ann", "SSH_CONNECTION": "10.0.0.7 5000 10.0.0.1 22"}
    asker = Asker.of(environ, "cli")
    assert asker == Asker("cli", "ann", "10.0.0.7")
    assert str(asker) == "ann from 10.0.0.7"
    assert str(Asker.of({"SUDO_USER": "bob", "USER": "root"}, "python")) == "bob"
    assert str(Asker("endpoint", host="10.0.0.9", program="transformers/4.50")) == "transformers/4.50 from 10.0.0.9"
