"""The table of peers: what each is compared with, where it stores, and what survives what.

A row says what Python needs to know before it can import the library; the rest is in the peer's own
file, in this folder.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from benchmarks.loop import Loop
from benchmarks.peers.base import Peer

Durability: TypeAlias = Literal["power cut", "process death"]
"""What a task survives from the moment on in which `enqueue` has returned.

- `"power cut"`: it was synced to the disk before.
- `"process death"`: the death of every process, but a power cut may undo the last of it, up to
  a second or so.
"""
Store: TypeAlias = Literal["SQLite", "Redis", "Postgres"]


class Row(NamedTuple):
    file: str
    """in this folder, and the class in it"""
    kind: str
    store: Store
    how: str
    """the store is set up"""
    durability: Durability
    imports: str
    """what a program imports that enqueues and works"""
    needs: tuple[str, ...] = ()
    """what pip installs"""
    lacks: Mapping[str, str] = {}
    """what workloads may need and it has not, and why: see `Workload.needs`"""
    most: int = 1_000_000
    """tasks that can be enqueued in a bearable time"""
    settings: Mapping[str, Any] = {}
    loop: Loop = "asyncio"
    python: tuple[int, int] = (3, 11)

    def make(self, place: str) -> Peer:
        module = import_module(f"{__name__}.{self.file}")
        return getattr(module, self.kind)(place, **self.settings)

    @property
    def module(self) -> str:
        """The library."""
        return re.split(r"[ .,;]+", self.imports)[1]

    @property
    def is_importable_here(self) -> bool:
        loop = find_spec(self.loop) is not None
        return loop and find_spec(self.module) is not None


NO_BULK: Final = {"bulk": "no call that enqueues many tasks"}
NO_RESULT: Final = {"result": "no way to wait for a result"}
NO_HISTORY: Final = {"history": "not looked into"}
ONLY_ENQUEUES: Final = {
    "many callers": "one caller at a time",
    "worker": "no worker",
}

FULL: Final = "WAL, synchronous=FULL"
NORMAL: Final = "WAL, synchronous=NORMAL"
ON: Final = "fsync=on, synchronous_commit=on"
EVERY_SECOND: Final = "append-only file, fsync every second"

# The environment is that of all rows of sitq: `Row.file` names it.
ITSELF: Final = ("--editable", f"{Path(__file__).parents[2]}[trio,postgres]", "psycopg[binary]")
# All of it: what is loaded lazily is loaded at the first task.
SITQ: Final = "import sitq.adapters.on_asyncio; from sitq import SQLiteBackend, TaskQueue, Worker"
SITQ_POSTGRES: Final = SITQ.replace("SQLiteBackend", "PostgresBackend")
SITQ_TRIO: Final = SITQ.replace("asyncio", "trio")

PEERS: Final[Mapping[str, Row]] = {
    "sitq": Row(
        "sitq",
        "OnSqlite",
        "SQLite",
        FULL,
        "power cut",
        SITQ,
        settings={"durability": "full"},
    ),
    "sitq-trio": Row(
        "sitq",
        "OnSqlite",
        "SQLite",
        FULL,
        "power cut",
        SITQ_TRIO,
        settings={"durability": "full"},
        loop="trio",
    ),
    "by-hand": Row(
        "by_hand",
        "ByHand",
        "SQLite",
        FULL,
        "power cut",
        "import aiosqlite",
        settings={"synchronous": "FULL"},
    ),
    "sqlite3": Row(
        "raw_sqlite",
        "Raw",
        "SQLite",
        FULL,
        "power cut",
        "import sqlite3",
        settings={"synchronous": "FULL"},
        lacks=ONLY_ENQUEUES | NO_RESULT | NO_HISTORY,
    ),
    "huey": Row(
        "huey",
        "OnSqlite",
        "SQLite",
        FULL,
        "power cut",
        "from huey import SqliteHuey",
        needs=("huey",),
        lacks=NO_BULK
        | NO_HISTORY
        | {
            "beside": "its worker blocks the event loop",
            "many waits": "each takes a thread",
        },
    ),
    "sitq-postgres": Row(
        "sitq",
        "OnPostgres",
        "Postgres",
        ON,
        "power cut",
        SITQ_POSTGRES,
        needs=ITSELF,
        lacks=NO_HISTORY,
    ),
    "procrastinate": Row(
        "procrastinate",
        "OnPostgres",
        "Postgres",
        ON,
        "power cut",
        "import procrastinate",
        needs=("procrastinate",),
        lacks=NO_RESULT | NO_HISTORY,
    ),
    "pgqueuer": Row(
        "pgqueuer",
        "OnPostgres",
        "Postgres",
        ON,
        "power cut",
        "import pgqueuer, asyncpg",
        needs=("pgqueuer", "asyncpg"),
        lacks=NO_HISTORY,
    ),
    "chancy": Row(
        "chancy",
        "OnPostgres",
        "Postgres",
        ON,
        "power cut",
        "import chancy",
        needs=("chancy",),
        lacks=NO_HISTORY,
    ),
    "oban": Row(
        "oban",
        "OnPostgres",
        "Postgres",
        ON,
        "power cut",
        "import oban",
        needs=("oban",),
        python=(3, 12),
        lacks=NO_RESULT | NO_HISTORY,
    ),
    "sitq-normal": Row(
        "sitq",
        "OnSqlite",
        "SQLite",
        NORMAL,
        "process death",
        SITQ,
        settings={"durability": "normal"},
    ),
    "sitq-trio-normal": Row(
        "sitq",
        "OnSqlite",
        "SQLite",
        NORMAL,
        "process death",
        SITQ_TRIO,
        settings={"durability": "normal"},
        loop="trio",
    ),
    "by-hand-normal": Row(
        "by_hand",
        "ByHand",
        "SQLite",
        NORMAL,
        "process death",
        "import aiosqlite",
        settings={"synchronous": "NORMAL"},
    ),
    "sqlite3-normal": Row(
        "raw_sqlite",
        "Raw",
        "SQLite",
        NORMAL,
        "process death",
        "import sqlite3",
        settings={"synchronous": "NORMAL"},
        lacks=ONLY_ENQUEUES | NO_RESULT | NO_HISTORY,
    ),
    "saq": Row(
        "saq",
        "OnRedis",
        "Redis",
        EVERY_SECOND,
        "process death",
        "import saq, redis",
        needs=("saq[redis,hiredis]", "typing_extensions"),
        lacks=NO_BULK | NO_HISTORY,
        most=10_000,
    ),
    "taskiq": Row(
        "taskiq",
        "OnRedis",
        "Redis",
        EVERY_SECOND,
        "process death",
        "import taskiq, taskiq_redis",
        needs=("taskiq", "taskiq-redis"),
        lacks=NO_BULK | NO_HISTORY,
        most=10_000,
    ),
}

BASELINE: Final[Mapping[Durability, str]] = {
    "power cut": "by-hand",
    "process death": "by-hand-normal",
}
"""What each is compared with: like with like."""
