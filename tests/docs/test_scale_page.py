"""The page on scale: its queries run, its counts hold, and its figures are those that were measured."""

import asyncio
import importlib.util
import re
from pathlib import Path

import pytest

from sitq import PostgresBackend
from tests.private_postgres import running_server

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "explanation/scale.md").read_text()
QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
ROUGHLY = 0.15
"""By how much a count may differ: pages fill up differently with fewer tasks, or by another server."""


def made_by() -> object:
    spec = importlib.util.spec_from_file_location("scale_costs", DOCS / "scale_costs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


scale_costs = made_by()


def on_the_page(heading: str) -> dict[str, float]:
    (rows,) = re.findall(rf"^\| {heading} \|  \|\n\|[-:|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [line.strip("| ").split(" | ") for line in rows.splitlines()]
    return {name: float(value.replace(",", "")) for name, value in cells}


@pytest.fixture(scope="module")
def server():
    with running_server(scale_costs.SERVER) as server:
        yield server


def test_its_speed_is_what_was_measured_last() -> None:
    assert scale_costs.speed() in PAGE, "run `python docs/scale_costs.py --speed`"


def test_a_figure_that_is_out_of_date_would_be_replaced() -> None:
    made = scale_costs.speed()
    old = re.sub(r"[\d,]+ \(", "1 (", made)

    assert old != made
    assert (
        scale_costs.replaced(f"before\n\n{old}\n\nafter\n", made) == f"before\n\n{made}\n\nafter\n"
    )


def test_each_process_takes_as_many_connections_as_it_says(server) -> None:
    counted = asyncio.run(scale_costs.connections(lambda: scale_costs.Database(server)))

    assert counted == on_the_page("connections of")
    assert f"so {97 // counted['a worker']} worker processes" in " ".join(PAGE.split())


def test_a_task_costs_what_it_says(server) -> None:
    counted = asyncio.run(scale_costs.costs(scale_costs.Database(server), 4_000))
    said = on_the_page("for each task")

    assert counted.keys() == said.keys()
    for name, count in counted.items():
        assert count == pytest.approx(said[name], rel=ROUGHLY), name


def test_its_queries_are_answered(server) -> None:
    database = server.create_database()
    store = PostgresBackend(server.dsn(database)).open_store()
    assert len(QUERIES) == 5
    for query in QUERIES:
        server.sql(query, database)
    (tables,) = (query for query in QUERIES if "n_dead_tup" in query)
    assert [row[0] for row in server.sql(tables, database)] == ["tasks", "workers"]
    (connections,) = (query for query in QUERIES if "application_name" in query)
    assert ["sitq", "", "1", "100"] in server.sql(connections, database)
    store.close()


def test_the_names_of_the_tables_are_those_of_the_schema(server) -> None:
    assert {*re.findall(r"sitq\.(\w+)", " ".join(QUERIES))} == {"tasks"}
