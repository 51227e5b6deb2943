"""The same seed gives the same run, whatever order Python hashes things in."""

import os
import subprocess
import sys

from sitq.testing.simulation.runs import Ask, play_all

CODE = (
    "from sitq.testing.simulation.runs import Ask, play_all\n"
    "print(play_all(range(200), Ask(digest=True)).digest)"
)


def test_two_hundred_seeds_do_the_same_under_every_hash_seed() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CODE],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    digests = {process.communicate(timeout=120)[0].strip() for process in processes}

    assert digests == {play_all(range(200), Ask(digest=True)).digest}
