"""Real processes that die at each call: what the recorder says is left is what is left.

And a process that had the file open all the time goes on, with the locks and the index of the WAL
as the dead one has left them.
"""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform with fork"),
]


def run(kind: str, *names: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.disk.dying", kind, *names],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["tried"], found["problems"]


def test_what_is_recorded_is_what_a_real_death_leaves_byte_for_byte(tried, long) -> None:
    names = ["checkpoints between commits", "two lives"] if long else []
    deaths, problems = run("alone", "a new file", "settle and refill", *names)
    tried("deaths alone", deaths, least=200)
    assert problems == []


def test_another_process_goes_on_wherever_one_dies(tried, long) -> None:
    names = ["enqueue many", "retire", "two lives"] if long else []
    deaths, problems = run("beside", "settle and refill", "checkpoints between commits", *names)
    tried("deaths beside another", deaths, least=300)
    assert problems == []
