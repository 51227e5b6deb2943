"""The document that fixed the public face: its examples run word for word, its names are there."""

import hashlib
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sitq import CloudpickleSerializer, MemoryBackend, Worker

HERE = Path(__file__).parent
DOCUMENT = HERE / "sitq.worker.md"
TEXT = DOCUMENT.read_text("utf-8")
TITLES = ["configuration", "start", "stop", "basic usage", "concurrency control", "many workers"]
DOES_WORK = {"start", "stop", "many workers"}


def test_the_document_is_the_one_that_was_agreed_on() -> None:
    agreed = "ae571f8bcf0b4b7a443a8984a99d5ba8560c7552278734c671f348a081da31dd"
    assert hashlib.sha256(DOCUMENT.read_bytes()).hexdigest() == agreed


def test_every_python_block_is_run_below() -> None:
    assert TEXT.count("```python\n") == len(TITLES)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", range(len(TITLES)), ids=TITLES)
def test_a_block_runs_as_a_program_and_exits_by_itself(number, loop, tmp_path) -> None:
    script = [str(HERE / "run_seed_block.py"), str(DOCUMENT), str(number), loop]
    done = subprocess.run(
        [sys.executable, "-W", "error", *script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.stderr == ""
    assert done.returncode == 0
    title = TITLES[number]
    printed = "Result: my function has done arg\n" if title == "basic usage" else ""
    assert done.stdout == printed
    if title in DOES_WORK:
        numbers = [int(line) for line in (tmp_path / "done").read_text().split()]
        assert sorted(numbers) == list(range(20))


def test_the_signature_of_worker_is_the_documented_one() -> None:
    title = re.search(r"#### `__init__\((.*)\)`", TEXT)
    assert title is not None
    documented = f"({title[1]})"
    known = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(Worker).parameters.values()
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    ]

    assert str(inspect.Signature(known)) == documented


def test_what_the_document_does_not_name_is_an_option_by_keyword() -> None:
    parameters = list(inspect.signature(Worker).parameters.values())
    others = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]

    assert parameters[4:] == others
    assert all(p.default is not inspect.Parameter.empty for p in others)


def test_the_attributes_are_the_documented_ones() -> None:
    backend, serializer = MemoryBackend(), CloudpickleSerializer()
    plain = Worker(backend)
    chosen = Worker(backend, serializer, 4, 0.5)

    assert isinstance(plain.serializer, CloudpickleSerializer)
    assert (plain.max_concurrency, plain.poll_interval) == (1, 1.0)
    assert type(plain.max_concurrency) is int
    assert type(plain.poll_interval) is float
    assert chosen.backend is plain.backend is backend
    assert chosen.serializer is serializer
    assert (chosen.max_concurrency, chosen.poll_interval) == (4, 0.5)
    assert plain._running is chosen._running is False


def test_start_and_stop_give_coroutines_as_create_task_wants_them() -> None:
    worker = Worker(MemoryBackend())
    for coroutine in (worker.start(), worker.stop()):
        assert inspect.iscoroutine(coroutine)
        coroutine.close()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"\((sitq[\w.]*)\.md\)", TEXT))))
def test_the_modules_that_the_document_links_are_there(module) -> None:
    assert importlib.import_module(module).__doc__


def test_the_document_links_the_modules_of_the_reference() -> None:
    linked = {*re.findall(r"\((sitq[\w.]*)\.md\)", TEXT), *re.findall(r"automodule:: (\S+)", TEXT)}

    assert linked == {
        "sitq.backends.base",
        "sitq.core",
        "sitq.queue",
        "sitq.serialization",
        "sitq.worker",
    }
