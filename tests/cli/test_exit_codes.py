"""Each exit code that the reference names is seen in a test, and no other is named."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/command-line.md").read_text()
(TABLE,) = re.findall(r"^## Exit codes\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)
ROWS = re.findall(r"^\| (`[^|]+`|all) \| ([^|]+) \|", TABLE, re.MULTILINE)

SEEN_IN = {
    ("all", "0"): "test_queue_files.py::test_stats_counts_by_queue_and_state",
    ("all", "1"): "test_queue_files.py::test_a_file_that_is_no_queue_is_named_and_left_as_it_is",
    ("all", "2"): "test_queue_files.py::test_missing_arguments_are_wrong_usage",
    ("`demo`", "128 + n"): "test_demo.py::test_a_ctrl_c_stops_it_and_says_how_to_go_on",
    ("`worker`", "0"): "test_worker.py::test_the_first_signal_lets_running_tasks_end",
    (
        "`worker`",
        "1",
    ): "test_worker.py::test_a_file_that_is_refused_is_an_error_without_a_traceback",
    ("`worker`", "2"): "test_worker.py::test_a_mistake_is_named_and_is_wrong_usage",
    ("`worker`", "128 + n"): (
        "test_worker.py::test_the_third_signal_kills_also_a_task_that_blocks_the_loop"
    ),
    ("`worker --processes`", "0"): (
        "test_supervisor.py::test_it_runs_tasks_in_processes_of_their_own_and_nothing_is_left"
    ),
    ("`worker --processes`", "1"): (
        "test_supervisor.py::test_a_worker_that_is_killed_while_it_drains_makes_it_1"
    ),
    ("`worker --processes`", "2"): (
        "test_supervisor.py::test_a_module_that_is_not_there_is_told_of_once_and_is_2"
    ),
    ("`worker --processes`", "128 + n"): "test_supervisor.py::test_the_third_signal_kills_them_all",
}


def test_each_row_of_the_table_is_seen_in_a_test() -> None:
    assert list(SEEN_IN) == ROWS


@pytest.mark.parametrize("name", SEEN_IN.values())
def test_that_test_is_there(name) -> None:
    file, _, function = name.partition("::")
    tree = ast.parse((ROOT / "tests/cli" / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
