"""The command line: `sitq demo`, `worker`, `stats`, `doctor`, `copy`, `replay` and `sim`.

It needs the extra `cli` (click and rich), which `import sitq` never loads. None of the commands
unpickles anything but `worker`, and `demo` on the file that it made itself.

commands     the options of each command
demo         the demo, from the first file to the proof
demo_files   which files it takes, and which queue file it may use or delete
demo_tasks   what is done to a file
demo_crew    its worker processes: how they are started, watched and ended
demo_report  what it shows at the end, and the proof
worker       a worker in a process of its own, and what signals do to it
stop_signals signals, from the program's first line to its last
supervision  what a supervisor of several workers decides
supervisor   their processes: how they are started, watched and ended
streams      standard streams that are closed
stats        what is in a queue
doctor       what could go wrong; `doctor_disk` and `doctor_queue` are parts of it
doctor_server   the same of a queue in Postgres; with `doctor_grants`, `doctor_pooler` and
                `doctor_upkeep`
server_refusals why a server cannot be connected to
places       a file or a database, by what was typed
copying      how tasks move from one store to another
replay       what a worker has recorded, once more
replay_words one step of it in words
sim          the simulator by hand
queue_file   reading a queue file from outside
queue_server reading a queue in Postgres from outside
progress     how far something is
terminal     text that is safe to print
"""

import sys
from importlib.util import find_spec

from sitq.cli import stop_signals, streams


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    streams.open_what_is_closed()
    if sys.argv[1:2] == ["worker"]:
        stop_signals.install()  # before what takes its time is imported
    for name in ("click", "rich"):
        if find_spec(name) is None:
            sys.exit(
                f"sitq: the command line needs {name}, which is not installed; from a clone of"
                " the repository: pip install '.[cli]'"
            )
    from sitq.cli.commands import sitq

    sitq()
