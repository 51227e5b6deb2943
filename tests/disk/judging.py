"""Runs a scenario, and judges the files that it may leave.

The promises that are judged: SQLite finds the file whole; the store is as it was before a step or
after it, never between; production code opens the file, and what is asked again leads to where the
scenario ends.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sitq.adapters.sqlite import SqliteSettings, SqliteStore
from tests.disk import vfs
from tests.disk.disk import Image
from tests.disk.files import new_folder
from tests.disk.recorder import Recorder
from tests.disk.scenarios import NAME, Scenario

State = tuple[tuple[Any, ...], ...]


def state_of(db: sqlite3.Connection) -> State:
    """Return all that is in a file: its schema, and all rows."""
    schema = db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    tables = [name for kind, name, _ in schema if kind == "table"]
    rows = [(name, *db.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()) for name in tables]
    return (*schema, *rows)


def store_on(folder: Path, durability: str = "full") -> SqliteStore:
    return SqliteStore(SqliteSettings(str(folder / NAME), durability, busy_timeout=0.002))


def play(
    scenario: Scenario, store: SqliteStore, recorder: Recorder, *, start: int = 0
) -> Iterator[State]:
    """Do the steps one by one; yield after each that changes the state.

    Whatever a step raises goes on to the caller; `recorder.acked` then tells how far it came.
    """
    for number, step in enumerate(scenario.steps[start:], start):
        recorder.counts = number >= scenario.first
        with vfs.watched_by(recorder):
            step.do(store)
        if step.changes:
            recorder.answered(step.what)
            yield state_of(store._db)
    recorder.counts = False


def states(scenario: Scenario) -> list[State]:
    """Return the state before the first step that changes it, and after each."""
    image = scenario.prepared()
    with new_folder(image) as folder, contextlib.closing(sqlite3.connect(folder / NAME)) as db:
        before = state_of(db)
    with new_folder(image) as folder, contextlib.closing(store_on(folder)) as store:
        found = [before, *play(scenario, store, Recorder(image, keep=False))]
    assert len(set(found)) == len(found), "each step that changes the state does so"
    return found


class Verdict(NamedTuple):
    index: int | None
    """Which state it is in."""
    problem: str | None = None


class Judge:
    """Judges files, each that differs from all before once."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._states = states(scenario)
        self._verdicts: dict[Image, Verdict] = {}

    @property
    def judged(self) -> int:
        """How many different sets of files there were."""
        return len(self._verdicts)

    def __call__(self, image: Image) -> Verdict:
        verdict = self._verdicts.get(image)
        if verdict is None:
            verdict = self._verdicts[image] = self._judge(image)
        return verdict

    def index(self, db: sqlite3.Connection) -> int | None:
        """Return in which state an open file is, None if in none of the scenario's."""
        state = state_of(db)
        return self._states.index(state) if state in self._states else None

    def _judge(self, image: Image) -> Verdict:
        try:
            if not any(step.migrates for step in self._scenario.steps):
                return self._opened(image)
            # Opening it as production does will change the state.
            with (
                new_folder(image) as folder,
                contextlib.closing(sqlite3.connect(folder / NAME)) as db,
            ):
                found = self._looked_at(db)
            return found if found.problem else found._replace(problem=self._opened(image).problem)
        except Exception as error:
            return Verdict(None, f"production code could not go on: {error!r}")

    def _opened(self, image: Image) -> Verdict:
        with new_folder(image) as folder, contextlib.closing(store_on(folder)) as store:
            index, problem = self._looked_at(store.open())
            return Verdict(index, problem or self.asked_again(store, index or 0))

    def _looked_at(self, db: sqlite3.Connection) -> Verdict:
        if problem := broken(db):
            return Verdict(None, problem)
        index = self.index(db)
        if index is None:
            return Verdict(None, f"it is between two states: {state_of(db)}")
        return Verdict(index)

    def asked_again(self, store: SqliteStore, index: int) -> str | None:
        """Ask for what may have been lost, the last that was stored included."""
        changing = [step for step in self._scenario.steps if step.changes]
        for step in changing[max(0, index - 1) :]:
            if step.what == "apply":
                step.again().do(store)
        if self.index(store._db) != len(self._states) - 1:
            return f"asked again, it did not get to its end: {state_of(store._db)}"
        return broken(store._db)


def broken(db: sqlite3.Connection) -> str | None:
    found = db.execute("PRAGMA integrity_check").fetchall()
    return None if found == [("ok",)] else f"integrity_check: {found}"
