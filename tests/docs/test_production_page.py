"""The unit and the container of the page on production, held against the command line."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sitq.cli.commands import sitq
from sitq.cli.supervision import USAGE
from sitq.cli.worker import LEAVE_AFTER

PAGE = (Path(__file__).parents[2] / "docs/how-to/production.md").read_text()
UNIT, DOCKERFILE = re.findall(r"^```none\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(DOCKER_RUN,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def service() -> dict[str, str]:
    parser = configparser.RawConfigParser()
    parser.optionxform = str
    parser.read_string(UNIT)
    return dict(parser["Service"])


def parsed(arguments: list[str]) -> dict[str, object]:
    """Have the command line read these words; return what it makes of them."""
    name, *rest = arguments
    return sitq.commands[name].make_context(name, rest).params


def test_the_command_of_the_unit_is_accepted(service) -> None:
    program, *arguments = shlex.split(service["ExecStart"])
    options = parsed(arguments)

    assert Path(program).name == "sitq"
    assert options["target"] == "shop.tasks:queue"
    assert options["processes"] == 4
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


def test_an_option_that_is_not_there_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(["worker", "shop:queue", "--proceses", "4"])


def test_the_unit_gives_the_workers_the_time_they_need(service) -> None:
    grace = parsed(shlex.split(service["ExecStart"])[1:])["grace"]

    assert float(service["TimeoutStopSec"]) > grace + LEAVE_AFTER
    # The supervisor passes it on; who got it twice would not have its grace.
    assert service["KillMode"] == "mixed"
    assert service["KillSignal"] == "SIGTERM"
    assert int(service["RestartPreventExitStatus"]) == USAGE


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path) -> None:
    program = Path(sys.executable)  # it has to exist
    unit = tmp_path / "shop-worker.service"
    unit.write_text(UNIT.replace("/srv/shop/.venv/bin/sitq", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert [line for line in said.splitlines() if "shop-worker" in line] == []


def test_the_command_of_the_container_is_accepted_and_has_its_time() -> None:
    steps = dict(line.split(" ", 1) for line in DOCKERFILE.splitlines())
    program, *arguments = json.loads(steps["CMD"])
    run = DOCKER_RUN.split()

    assert program == "sitq"
    assert steps["STOPSIGNAL"] == "SIGTERM"
    assert float(run[run.index("--stop-timeout") + 1]) > parsed(arguments)["grace"] + LEAVE_AFTER
