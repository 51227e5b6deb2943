"""Rounds of faults on Postgres; a verdict that comes three leases too late; and a bug that is found."""

import signal

import pytest

from sitq import SyncTaskQueue
from sitq.testing.simulation.history import Kind
from tests.private_postgres import running_server
from torture import outages, recovery
from torture.crew import Crew
from torture.network import Host
from torture.postgres_witness import TABLES, kept_in_database
from torture.reasons import CUT_OFF, Outage
from torture.run_worker import GRACE
from torture.verdict import judge
from torture.waiting import wait_until
from torture.where import open_backend
from torture.witness import read

pytestmark = pytest.mark.slow

SEED = 20261126
LEASE = 6.0
RUNS_FOR = 2.0
"""Seconds: so short that it ends before its worker has to stop it, since its lease runs out."""


@pytest.fixture(scope="module")
def postgres_server():
    """One of its own: it is stopped and killed, and others keep connections to theirs."""
    with running_server() as server:
        yield server


def test_nothing_is_lost_or_done_twice_whatever_happens_to_server_and_networks(
    postgres_server,
) -> None:
    played, verdict = outages.play(SEED, 8, postgres_server)
    print(f"{played.faults}, {verdict}")
    assert verdict.violations == []
    assert (verdict.lost, verdict.completed_twice) == (0, 0)
    assert verdict.tasks > 20


def test_workers_are_at_work_again_soon_after_the_server_has_returned(postgres_server) -> None:
    times = list(recovery.recovery_times(postgres_server, outages=3, away=1.0, seed=1))
    assert min(took.all for took in times) < recovery.PROMISED  # others may keep the machine busy
    assert max(took.first for took in times) < recovery.GIVE_UP


def heard_too_late(server, folder, mutant=None):
    """Have a worker end its task behind a cut cable, and be heard while another one runs it."""
    database = server.create_database()
    with SyncTaskQueue(open_backend(server.dsn(database))) as queue:
        assert queue.get_results(["nobody"]) == {}
    server.sql(TABLES, database)
    crew = Crew(folder, mutant)
    far, near = (Host(server, database, 0.0, None) for _ in range(2))
    try:
        first = crew.start("worker", "asyncio", 1, LEASE, where=far.where)
        wait_until(lambda: of(crew, first, Kind.HELD))
        crew.start("caller", "in_thread", RUNS_FOR, where=near.where)
        wait_until(lambda: of(crew, first, Kind.START))
        first.note(Kind.FAULT, Outage(CUT_OFF, 0.0))
        far.proxy.freeze()
        second = crew.start("worker", "asyncio", 1, LEASE, where=near.where)
        wait_until(lambda: of(crew, first, Kind.END))
        wait_until(lambda: of(crew, second, Kind.START))
        far.proxy.thaw()
        wait_until(lambda: of(crew, first, Kind.TOLD))
        wait_until(lambda: of(crew, second, Kind.TOLD))
        for worker in (first, second):
            worker.ask_to_stop(signal.SIGTERM, GRACE)
        for process in crew.all:
            process.bury()
        return judge(crew, kept_in_database(server, database), [])
    finally:
        crew.close()
        for host in (far, near):
            host.proxy.close()
        server.drop_database(database)


def of(crew, process, kind):
    return [record for record in read(crew.witness_of(process.name)) if record.kind is kind]


def test_what_a_worker_says_that_was_cut_off_and_lost_its_lease_does_not_count(
    postgres_server, tmp_path
) -> None:
    verdict = heard_too_late(postgres_server, tmp_path)
    assert verdict.violations == []
    assert (verdict.tasks, verdict.lost, verdict.completed_twice) == (1, 0, 0)
    assert verdict.refused == 1
    assert verdict.started_again == {CUT_OFF: 1}


def test_a_store_that_does_not_look_at_the_token_is_found_out(postgres_server, tmp_path) -> None:
    verdict = heard_too_late(postgres_server, tmp_path, mutant="unfenced")
    assert any(text.startswith("S9") for text in verdict.violations)
