"""Medians, spreads and ratios: what is divided by what."""

import pytest

from benchmarks.figures import Results, Spread, merged, quantile
from benchmarks.peers import BASELINE, PEERS
from benchmarks.rounds import lack
from benchmarks.workloads import WORKLOADS


def run(peer: str, turn: int, rate: float) -> dict:
    return {"peer": peer, "workload": "drain", "round": turn, "figures": {"rate": rate}}


def test_a_spread_is_the_median_between_the_least_and_the_greatest() -> None:
    assert Spread.of([5.0, 1.0, 3.0]) == (3.0, 1.0, 5.0, 3)
    assert Spread.of([]) is None


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_a_quantile_is_one_of_the_values(share: float, value: int) -> None:
    assert quantile(list(range(100, 0, -1)), share) == value


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_ratio_is_taken_within_a_round_and_then_the_median_of_the_ratios() -> None:
    # The machine was ten times slower in the second round, for both.
    results = Results(
        [run("sitq", 0, 300), run("by-hand", 0, 100), run("sitq", 1, 40), run("by-hand", 1, 10)]
    )

    assert results.ratio("sitq", "drain", "rate") == (3.5, 3.0, 4.0, 2)


def test_a_round_that_one_of_them_missed_is_in_no_ratio() -> None:
    results = Results([run("sitq", 0, 300), run("by-hand", 0, 100), run("sitq", 1, 1)])

    assert results.ratio("sitq", "drain", "rate") == (3.0, 3.0, 3.0, 1)


def test_what_survives_less_is_divided_by_what_survives_less() -> None:
    results = Results(
        [run("sitq-normal", 0, 300), run("by-hand", 0, 100), run("by-hand-normal", 0, 200)]
    )

    assert results.ratio("sitq-normal", "drain", "rate") == (1.5, 1.5, 1.5, 1)


def test_a_figure_of_nothing_is_divided_by_nothing() -> None:
    results = Results([run("sitq", 0, 300), run("by-hand", 0, 0)])

    assert results.ratio("sitq", "drain", "rate") is None


def test_a_run_that_failed_is_said_to_have_failed() -> None:
    failed = {"peer": "sitq", "workload": "drain", "round": 0, "error": "no"}

    assert Results([failed]).why_not("sitq", "drain") == "failed"
    assert Results([run("sitq", 0, 1)]).why_not("sitq", "enqueue") == "not measured"


def test_a_baseline_lacks_nothing_and_survives_what_it_is_the_baseline_of() -> None:
    for durability, name in BASELINE.items():
        assert PEERS[name].durability == durability
        assert [lack(name, workload, "full") for workload in WORKLOADS] == [None] * len(WORKLOADS)


def test_a_peer_lacks_only_what_some_workload_needs() -> None:
    needs = {need for workload in WORKLOADS.values() for need in workload.needs}

    for name, peer in PEERS.items():
        assert peer.lacks.keys() <= needs, name


def test_what_a_peer_lacks_is_told_in_its_words() -> None:
    assert lack("oban", "callers", "full") == "no way to wait for a result"
    assert lack("saq", "backlog", "full") == "1,000,000 tasks take too long to enqueue"
    assert lack("saq", "backlog", "smoke") is None


def report(*runs: dict, size: str = "full", rounds: int = 1, **machine) -> dict:
    about = {"date": "today", "servers": [], "versions": {}} | machine
    return {
        "machine": about, "size": size, "rounds": rounds, "minutes": 1.5, "missing": {}, "runs": [*runs]
    }  # fmt: skip


def test_of_several_files_the_rounds_of_all_count() -> None:
    def measured(workload: str, turn: int, rate: float) -> dict:
        return run("sitq", turn, rate) | {"workload": workload}

    first = report(
        measured("drain", 0, 1), measured("drain", 1, 2), measured("enqueue", 0, 7), rounds=2,
        servers=["Redis 7"],
    )  # fmt: skip
    second = report(measured("drain", 0, 9), servers=["Postgres 15"], versions={"sitq": {}})
    whole = merged([first, second])

    results = Results(whole["runs"])
    assert results.spread("sitq", "drain", "rate") == (2, 1, 9, 3)
    assert results.spread("sitq", "enqueue", "rate") == (7, 7, 7, 1)
    assert (whole["rounds"], whole["minutes"]) == (3, 3.0)
    assert whole["machine"]["servers"] == ["Postgres 15", "Redis 7"]


def test_what_was_measured_small_is_not_mixed_with_what_was_measured_in_full() -> None:
    with pytest.raises(ValueError, match="of the sizes full, quick"):
        merged([report(size="quick"), report(size="full")])
