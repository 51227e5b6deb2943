"""The commands and their options; each command's work is in a file of its own.

Such a file is imported by its command alone: a worker process is not to wait for what draws
tables.
"""

import errno
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import click

import sitq as package
from sitq import validation
from sitq.exceptions import SitqError, ValidationError

OUTPUT_FAILS: Final = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
"""How a write to the standard output fails, beside that nobody reads it."""


class Commands(click.Group):
    """Shows an error of sitq as its message: it says what to do, and a traceback does not."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except SitqError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno not in OUTPUT_FAILS or error.filename is not None:
                raise
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # Python would try it again
            raise click.ClickException(
                f"the standard output cannot be written: {error.strerror}"
            ) from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package.__version__, prog_name="sitq")
def sitq() -> None:
    """A durable task queue that lives inside an asyncio or trio program."""


_trio = click.option("--trio", is_flag=True, help="Run on trio instead of asyncio.")
_file = click.argument("file", type=click.Path(path_type=Path))
_schema = click.option(
    "--schema", default="sitq", show_default=True, help="The schema, on Postgres."
)
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _grace(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """Refuse what `stop()` would refuse, before a signal comes."""
    try:
        return None if value is None else validation.seconds("it", value)
    except ValidationError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@sitq.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False), required=False)
@click.option("--file", default="sitq-demo.db", show_default=True, help="The queue file.")
@click.option(
    "--workers", default=2, show_default=True, type=click.IntRange(1, 32), help="Processes."
)
@click.option(
    "--concurrency",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Tasks at a time in each.",
)
@click.option("--fresh", is_flag=True, help="Forget what an earlier demo has done.")
@_trio
def demo(
    directory: str | None, file: str, workers: int, concurrency: int, fresh: bool, trio: bool
) -> None:
    """Examine every file below DIRECTORY, one durable task for each.

    Without DIRECTORY it takes this Python's own standard library. Kill it at any point, and the
    same command goes on where it was. It ends by comparing every result with a direct
    computation. Exit codes: 0 proved, 1 not, 2 wrong usage, 128 + n stopped by signal n.
    """
    from sitq.cli import demo as demo_

    raise SystemExit(
        demo_.run(directory, file, workers=workers, slots=concurrency, fresh=fresh, trio=trio)
    )


@sitq.command("demo-worker", hidden=True)
@_file
@click.option("--concurrency", type=int, required=True)
@_trio
def demo_worker(file: Path, concurrency: int, trio: bool) -> None:
    """Work on a demo's file until the standard input is closed."""
    from sitq.cli import demo_crew

    demo_crew.work(str(file), slots=concurrency, trio=trio)


@sitq.command()
@click.argument("target", metavar="MODULE:OBJECT")
@click.option("--app-dir", type=click.Path(exists=True, file_okay=False), help="Import from here.")
@click.option("--concurrency", type=int, help="Tasks at a time (default: 1).")
@click.option("--queues", help="The queues to serve, separated by commas (default: default).")
@click.option("--poll-interval", type=float, help="Seconds between looks (default: 1).")
@click.option("--lease", type=float, help="Seconds that a lease lasts (default: 30).")
@click.option(
    "--grace",
    type=float,
    callback=_grace,
    help="Seconds that running tasks have after the first signal (default: the Worker's, or 30).",
)
@click.option("--drain", is_flag=True, help="End as soon as nothing is due.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record what the worker hears and decides, for `sitq replay`.",
)
@click.option(
    "--log-level",
    default="INFO",
    show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
)
@click.option(
    "--processes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Workers, each a process; from 2 on with a supervisor that starts again what dies.",
)
@click.option("--supervised", is_flag=True, hidden=True)
@_trio
@click.pass_context
def worker(
    ctx: click.Context,
    target: str,
    app_dir: str | None,
    concurrency: int | None,
    queues: str | None,
    poll_interval: float | None,
    lease: float | None,
    grace: float | None,
    drain: bool,
    record: Path | None,
    log_level: str,
    processes: int,
    supervised: bool,
    trio: bool,
) -> None:
    """Run the tasks of MODULE:OBJECT, a TaskQueue, a SyncTaskQueue or a Worker.

    The first SIGTERM, SIGINT or SIGHUP lets running tasks end within --grace, the second hands them back
    at once, the third kills. Exit codes: 0 stopped, 1 error, 2 wrong usage or nothing to load,
    128 + n killed by signal n. The current directory is not imported from, unless --app-dir says
    so.
    """
    from sitq.cli import leash as leash_, worker as worker_

    worker_.require_loop(trio=trio)
    if processes > 1 and not supervised:
        from sitq.cli import supervisor

        if record is not None:
            raise click.UsageError("--record is for one worker; each needs a file of its own")
        raise SystemExit(supervisor.run(_typed(ctx), processes, drain=drain, say=worker_.say))
    leash = leash_.Leash(worker_.GRACE) if supervised else None
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    options: dict[str, Any] = {
        "max_concurrency": concurrency,
        "queues": None if queues is None else [name.strip() for name in queues.split(",")],
        "poll_interval": poll_interval,
        "lease_for": lease,
    }
    given = {name: value for name, value in options.items() if value is not None}
    chosen = worker_.load(target, app_dir, given)
    if record is not None:
        chosen.record = os.path.abspath(record)  # noqa: PTH100  # as the Worker itself says it
    if grace is None:
        grace = worker_.GRACE if chosen.grace is None else chosen.grace
    if leash is not None:
        leash.grace = grace
    ready = None if leash is None else leash.say_ready
    worker_.run(chosen, grace=grace, drain=drain, trio=trio, ready=ready)


def _typed(ctx: click.Context) -> list[str]:
    """Return the options and arguments of a command as they would be typed for one process."""
    options: list[str] = []
    arguments: list[str] = []
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        if value is None or value is False or param.name == "processes":
            continue
        if isinstance(param, click.Argument):
            arguments.append(str(value))
        else:
            options += [param.opts[0]] if value is True else [param.opts[0], str(value)]
    return [*options, "--", *arguments]


@sitq.command()
@click.argument("queue")
@_schema
@_json
def stats(queue: str, schema: str, as_json: bool) -> None:
    """Count the tasks of QUEUE by queue and state, and list its workers.

    QUEUE is a queue file, or a database's URL (postgresql://...).
    """
    from sitq.cli import stats as stats_

    stats_.show(queue, schema, as_json=as_json)


@sitq.command()
@click.argument("queue", required=False)
@_schema
@_json
def doctor(queue: str | None, schema: str, as_json: bool) -> None:
    """Examine the environment and the health of QUEUE; exit with 1 if something is wrong.

    QUEUE is a queue file, or a database's URL (postgresql://...).
    """
    from sitq.cli import doctor as doctor_

    raise SystemExit(doctor_.run(queue, schema, as_json=as_json))


@sitq.command()
@click.argument("file")
@click.argument("dest")
@click.option("--force", is_flag=True, help="Replace DEST if it is there.")
def backup(file: str, dest: str, force: bool) -> None:
    """Copy FILE to DEST while workers go on; DEST holds all or is not there.

    A worker on the copy runs what had not ended, whether or not the original does, too. A database
    is not copied by sitq: take pg_dump.
    """
    from sitq.cli import backup as backup_

    backup_.run(file, dest, force=force)


@sitq.command()
@click.argument("source", metavar="SRC")
@click.argument("target", metavar="DST")
@_schema
@click.option("--follow", is_flag=True, help="Go on until stopped: move what comes in, too.")
def copy(source: str, target: str, schema: str, follow: bool) -> None:
    """Move the tasks of SRC to DST, while workers and producers go on.

    Each is a queue file, or a database's URL (postgresql://...). What runs is left until it has
    ended. Killed at any point and started again, nothing is lost or runs twice for it. Exit codes:
    0 all is moved, 1 something is left, 2 wrong usage.
    """
    from sitq.cli import copying as copying_

    raise SystemExit(copying_.run(source, target, schema=schema, follow=follow))


@sitq.command()
@_file
@click.option("--all", "everything", is_flag=True, help="Tell of every step.")
@click.option("--until", type=click.IntRange(1), metavar="N", help="End with this step.")
@click.option("--task", metavar="ID", help="Tell only of the steps about this task.")
def replay(file: Path, everything: bool, until: int | None, task: str | None) -> None:
    """Replay what `sitq worker --record FILE` has recorded, in the machines of this version.

    Exit codes: 0 they decide alike, 1 this version decides otherwise at the step that is told, 2
    wrong usage, no recording, or one of a newer version.
    """
    from sitq.cli import replay as replay_

    raise SystemExit(replay_.show(file, until=until, task=task, everything=everything))


@sitq.command()
@click.option("--seeds", type=click.IntRange(1), metavar="N", help="Runs (default: 1000).")
@click.option(
    "--from", "start", type=click.IntRange(0), metavar="K", help="The first seed (default: 0)."
)
@click.option("--fresh", is_flag=True, help="Draw the first seed, and print it.")
@click.option(
    "--hours",
    type=click.FloatRange(0, min_open=True),
    metavar="H",
    help="Go on for so long, from a fresh seed.",
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes (default: cores).")
@click.option(
    "--hosts",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Hosts in each run, each with a worker and three tasks (default: drawn, 1 to 3).",
)
@click.option("--stop", is_flag=True, help="End with the first violation.")
@click.option("--digest", is_flag=True, help="Print a name for all that happened in all runs.")
@click.option("--canary", is_flag=True, help="Also play a broken build, which has to be noticed.")
@click.option("--seed", type=click.IntRange(0), metavar="K", help="Play this one, and tell of it.")
@click.option("--whole", is_flag=True, help="Do not make a run small that fails.")
@click.option("--all", "everything", is_flag=True, help="Tell of every event.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.svg",
    help="Draw the run.",
)
@click.option("--mutant", metavar="NAME", help="Plant this bug: hunt it, or play --seed with it.")
@click.option("--mutants", is_flag=True, help="Plant each bug of the list, and hunt it.")
def sim(**options: Any) -> None:
    """Simulate fleets of workers in virtual time, with all that can go wrong, and judge them.

    Each seed is one run, the same on every machine. Exit codes: 0 all that must hold has held, 1 a
    violation, a mark that was never reached, or a planted bug that nobody noticed, 2 wrong usage,
    130 ended by Ctrl-C.
    """
    from sitq.cli import sim as sim_

    raise SystemExit(sim_.run(sim_.Options(**options)))
