"""A crash, and a power cut, at every call of a scenario."""

from typing import NamedTuple

from tests.disk import vfs
from tests.disk.disk import power_cuts
from tests.disk.files import new_folder
from tests.disk.judging import Judge, play, store_on
from tests.disk.recorder import Point, Recorder
from tests.disk.scenarios import Scenario


class Found(NamedTuple):
    """*tried* disks were judged; *problems* are what was wrong."""

    tried: int
    problems: list[str]


def record(scenario: Scenario, durability: str = "full") -> list[Point]:
    """Run it once; return each moment at which its process can die."""
    image = scenario.prepared()
    recorder = Recorder(image)
    vfs.forget_dice()
    with new_folder(image) as folder:
        store = store_on(folder, durability)
        try:
            for _ in play(scenario, store, recorder):
                pass
        finally:
            store.close()
    vfs.raise_what_broke()
    return recorder.points


def crashes(judge: Judge, points: list[Point]) -> Found:
    """Kill the process at each of *points*."""
    problems = []
    for point in points:
        index, problem = judge(point.disk.killed())
        if problem is None and index not in {point.acked, point.acked + 1}:
            problem = f"{point.acked} steps were answered, and the state is that after {index}"
        if problem is not None:
            problems.append(f"killed {point}: {problem}")
    return Found(len(points), problems)


def cuts(
    judge: Judge, scenario: Scenario, points: list[Point], durability: str, *, long: bool
) -> Found:
    """Cut the power at each of *points*, with each disk that this can leave."""
    tried, problems = 0, []
    before = None
    for seed, point in enumerate(points):
        if (point.disk, point.acked) == before:
            continue  # as at the point before
        before = point.disk, point.acked
        # Where nothing more is written before a sync, the most can be lost.
        at_sync = point.when == "before" and point.call.kind in {"sync", "delete"}
        thorough = long or at_sync
        for cut in power_cuts(
            point.disk,
            all_subsets=thorough,
            dice=(8 if long else 2) if thorough else 0,
            seed=seed,
        ):
            tried += 1
            index, problem = judge(cut.image)
            least = scenario.least(point.acked) if durability == "full" else 0
            if problem is None and not least <= (index or 0) <= point.acked + 1:
                problem = f"{point.acked} steps were answered, and the state is that after {index}"
            if problem is not None:
                problems.append(f"power cut {point} with {cut.how}: {problem}")
    return Found(tried, problems)
