"""What is found is found: each bug that is planted here makes the harness report it."""

import contextlib

import pytest

from sitq.adapters import sqlite as adapter
from sitq.adapters.base import BatchError
from sitq.adapters.sqlite import SqliteStore
from sitq.protocol.commit import Blame
from sitq.protocol.ops import Settle
from sitq.storage.program import Commit, Done, Query, resume
from tests.disk.crashing import crashes, cuts, record
from tests.disk.failing import failures
from tests.disk.judging import Judge
from tests.disk.meeting import ONE, OTHER, meetings
from tests.disk.scenarios import Scenario, Step, scenario_named

pytestmark = pytest.mark.usefixtures("same_every_time")


def test_a_store_that_never_syncs_survives_crashes_and_no_power_cut() -> None:
    scenario = scenario_named("checkpoints between commits")
    judge = Judge(scenario)
    points = record(scenario, "off")
    assert crashes(judge, points).problems == []

    problems = cuts(judge, scenario, points, "full", long=False).problems
    assert any("1 steps were answered, and the state is that after 0" in p for p in problems)
    problems = cuts(judge, scenario, points, "normal", long=False).problems
    assert any("malformed" in p or "integrity_check" in p or "between" in p for p in problems)


def test_a_store_that_syncs_less_than_it_says_loses_what_it_has_answered() -> None:
    scenario = scenario_named("enqueue")
    judge = Judge(scenario)
    points = record(scenario, "normal")
    assert cuts(judge, scenario, points, "normal", long=False).problems == []
    assert cuts(judge, scenario, points, "full", long=False).problems != []


def test_a_settle_that_is_taken_for_a_reserve_is_lost_in_a_power_cut(monkeypatch) -> None:
    monkeypatch.setattr(adapter, "LOSABLE", adapter.LOSABLE | {Settle})
    scenario = scenario_named("reserve, then complete")
    judge = Judge(scenario)
    points = record(scenario)

    problems = cuts(judge, scenario, points, "full", long=False).problems
    assert any("2 steps were answered, and the state is that after" in p for p in problems)


def test_a_batch_in_two_transactions_is_found_between_them(monkeypatch) -> None:
    scenario = scenario_named("settle and refill")
    judge = Judge(scenario)
    whole = adapter.apply_batch

    def halved(ops, now):
        outcomes = []
        for op in ops:
            outcomes += yield from whole([op], now)
        return tuple(outcomes)

    monkeypatch.setattr(adapter, "apply_batch", halved)
    problems = crashes(judge, record(scenario)).problems
    assert problems
    assert all("it is between two states" in problem for problem in problems)


def test_a_file_that_is_made_statement_by_statement_is_found_half_made(monkeypatch) -> None:
    scenario = scenario_named("a new file")
    judge = Judge(scenario)
    whole = adapter.open_database

    def open_database(path):
        program = whole(path)
        step = resume(program, None)
        while not isinstance(step, Done):
            alone = isinstance(step, Commit) or step == Query("BEGIN IMMEDIATE")
            step = resume(program, () if alone else (yield step))
        return step.value

    monkeypatch.setattr(adapter, "open_database", open_database)
    problems = crashes(judge, record(scenario)).problems
    assert any("it is between two states" in problem for problem in problems)


def test_an_enqueue_that_cannot_be_asked_again_is_found(monkeypatch) -> None:
    scenario = scenario_named("enqueue")
    monkeypatch.setattr(Step, "again", lambda self: self)
    problems = crashes(Judge(scenario), record(scenario)).problems
    assert any("UNIQUE constraint failed" in problem for problem in problems)


def all_failures(scenario: Scenario) -> list[str]:
    calls = [point.call for point in record(scenario) if point.when == "before"]
    return failures(scenario, Judge(scenario), calls).problems


def test_a_commit_in_doubt_that_is_called_undone_is_found(monkeypatch) -> None:
    monkeypatch.setattr(adapter, "_blame_commit", lambda error: Blame.STORE)
    problems = all_failures(scenario_named("enqueue"))
    assert problems
    assert all(p.startswith("sync tasks.db-wal") and "killed then: state 1" in p for p in problems)


def test_an_error_without_a_name_of_ours_is_found(monkeypatch) -> None:
    monkeypatch.setattr(adapter, "_translate", lambda error, path: error)
    problems = all_failures(scenario_named("open and close"))
    assert any("opening raised OperationalError('disk I/O error')" in p for p in problems)
    problems = all_failures(scenario_named("renew"))
    assert any("no StoreError: OperationalError('disk I/O error')" in p for p in problems)


def test_an_answer_without_a_commit_is_found_where_two_meet(monkeypatch) -> None:
    apply = SqliteStore.apply

    def hasty(self, ops):
        with contextlib.suppress(BatchError):
            apply(self, ops)

    monkeypatch.setattr(SqliteStore, "apply", hasty)
    problems = meetings(ONE["enqueues"], OTHER["commits"]).problems
    assert problems
    assert all("['a', 'b'] were answered, and ['a'] are stored" in p for p in problems)
