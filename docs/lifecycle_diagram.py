"""Draws the life of a task from the table in `sitq/protocol/lifecycle.py`.

    python docs/lifecycle_diagram.py           write the page and its picture
    python docs/lifecycle_diagram.py --check   say whether both are up to date

What a state means is read from the text below it in `TaskState`, and who makes a move from the
comment beside its row in `TRANSITIONS`; only where things stand in the picture is said here.
"""

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

from sitq.protocol import lifecycle
from sitq.protocol.lifecycle import FINAL, TRANSITIONS, Move, TaskState

FOLDER: Final = Path(__file__).parent / "explanation"
PAGE: Final = FOLDER / "lifecycle.md"
PICTURE: Final = FOLDER / "lifecycle.svg"

# -- the words, from the code ----------------------------------------------------------

_ROW: Final = re.compile(r"^ *\(_S\.(\w+), _M\.(\w+)\): _S\.\w+,  # (.+)$", re.MULTILINE)


def meanings() -> dict[TaskState, str]:
    """Return what each state means: the string below it."""
    (definition,) = ast.parse(inspect.getsource(TaskState)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for name, text in zip(definition.body, definition.body[1:], strict=False):
        match name, text:
            case ast.Assign([ast.Name(state)]), ast.Expr(ast.Constant(str(meaning))):
                found[TaskState[state]] = " ".join(meaning.split())
            case _:
                pass
    assert found.keys() == set(TaskState), "every state says what it means"
    return found


def sayings() -> dict[tuple[TaskState, Move], str]:
    """Return who makes each move: the comment beside its row."""
    rows = _ROW.findall(inspect.getsource(lifecycle))
    found = {(TaskState[state], Move[move]): comment for state, move, comment in rows}
    assert found.keys() == TRANSITIONS.keys(), "every row of the table has a comment"
    return found


# -- the page --------------------------------------------------------------------------

_INTRO: Final = """\
# The life of a task

<!-- Written by docs/lifecycle_diagram.py from sitq/protocol/lifecycle.py: change that. -->

A task is a row, and its state is one word in that row. Every legal move is in one table, in
`sitq/protocol/lifecycle.py`; the guards of all SQL statements are built from it, and so is this
page. A move that is not in the table is refused, and nothing leaves a final state.

![The states of a task, and the moves between them](lifecycle.svg)
"""

_CANCELLING = """\
## Cancelling what runs

Cancelling a task that is running is not a move: the wish is noted in its row, its worker is
told, and the task runs on until it has stopped. Then it is aborted; but a function that returned
first has succeeded. A task with such a wish never goes back into a queue: where it would have
been retried, released, parked or rescued, it is aborted.
"""


def page() -> str:
    says = sayings()
    states = [
        f"| `{state}` | {'final' if state in FINAL else ''} | {meaning} |"
        for state, meaning in meanings().items()
    ]
    moves = [
        f"| `{state}` | `{move}` | `{to}` | {says[state, move]} |"
        for (state, move), to in TRANSITIONS.items()
    ]
    return "\n".join(
        [
            _INTRO,
            "## The states\n",
            "| state | | what it means |",
            "|---|---|---|",
            *states,
            "\n## The moves\n",
            "| from | move | to | who says so |",
            "|---|---|---|---|",
            *moves,
            "",
            _CANCELLING,
        ]
    )


# -- the picture -----------------------------------------------------------------------


class Point(NamedTuple):
    x: float
    y: float


class Arrow(NamedTuple):
    """Moves that share a way: where it turns, and where their names stand on it.

    One without a head runs into another arrow.
    """

    moves: tuple[tuple[TaskState, Move], ...]
    way: tuple[Point, ...]
    label: Point | None = None
    head: bool = True


SIZE: Final = Point(880, 450)
BOX: Final = Point(132, 48)
TRUNK: Final = Point(30, 418)
"""Where what is cancelled before it ran goes down, and then to the right."""

CENTRES: Final = {
    TaskState.SCHEDULED: Point(140, 60),
    TaskState.QUEUED: Point(140, 205),
    TaskState.RUNNING: Point(450, 205),
    TaskState.PARKED: Point(450, 345),
    TaskState.SUCCESS: Point(780, 60),
    TaskState.FAILED: Point(780, 205),
    TaskState.CANCELLED: Point(780, 345),
}


def left(state: TaskState, down: float = 0) -> Point:
    return Point(CENTRES[state].x - BOX.x / 2, CENTRES[state].y + down)


def right(state: TaskState, down: float = 0) -> Point:
    return Point(CENTRES[state].x + BOX.x / 2, CENTRES[state].y + down)


def top(state: TaskState, across: float = 0) -> Point:
    return Point(CENTRES[state].x + across, CENTRES[state].y - BOX.y / 2)


def bottom(state: TaskState, across: float = 0) -> Point:
    return Point(CENTRES[state].x + across, CENTRES[state].y + BOX.y / 2)


def arrows() -> list[Arrow]:
    """Return the ways of all moves; none crosses another."""
    s, m = TaskState, Move
    waits, turn = CENTRES[s.SCHEDULED], 620
    return [
        Arrow(
            ((s.SCHEDULED, m.PROMOTE),),
            (bottom(s.SCHEDULED), top(s.QUEUED)),
            Point(waits.x, 132),
        ),
        Arrow(
            ((s.QUEUED, m.RESERVE),),
            (right(s.QUEUED, -13), left(s.RUNNING, -13)),
            Point(295, 192),
        ),
        Arrow(
            ((s.RUNNING, m.RELEASE), (s.RUNNING, m.RESCUE)),
            (left(s.RUNNING, 13), right(s.QUEUED, 13)),
            Point(295, 218),
        ),
        Arrow(
            ((s.RUNNING, m.RETRY),),
            (top(s.RUNNING, -30), Point(420, waits.y), right(s.SCHEDULED)),
            Point(295, waits.y),
        ),
        Arrow(
            ((s.RUNNING, m.COMPLETE),),
            (top(s.RUNNING, 30), Point(480, waits.y), left(s.SUCCESS)),
            Point(turn, waits.y),
        ),
        Arrow(
            ((s.RUNNING, m.FAIL),),
            (right(s.RUNNING, -13), left(s.FAILED, -13)),
            Point(turn, 192),
        ),
        Arrow(
            ((s.RUNNING, m.ABORT),),
            (
                right(s.RUNNING, 13),
                Point(turn, 218),
                Point(turn, 332),
                left(s.CANCELLED, -13),
            ),
            Point(turn, 275),
        ),
        Arrow(
            ((s.RUNNING, m.PARK),),
            (bottom(s.RUNNING), top(s.PARKED)),
            Point(CENTRES[s.PARKED].x, 275),
        ),
        Arrow(
            ((s.PARKED, m.UNPARK),),
            (left(s.PARKED), Point(waits.x, CENTRES[s.PARKED].y), bottom(s.QUEUED)),
            Point(295, CENTRES[s.PARKED].y),
        ),
        Arrow(
            ((s.PARKED, m.CANCEL),),
            (right(s.PARKED, 13), left(s.CANCELLED, 13)),
            Point(turn, 358),
        ),
        Arrow(
            ((s.SCHEDULED, m.CANCEL),),
            (
                left(s.SCHEDULED),
                Point(TRUNK.x, waits.y),
                TRUNK,
                Point(CENTRES[s.CANCELLED].x, TRUNK.y),
                bottom(s.CANCELLED),
            ),
            Point(295, TRUNK.y),
        ),
        Arrow(
            ((s.QUEUED, m.CANCEL),),
            (left(s.QUEUED), Point(TRUNK.x, CENTRES[s.QUEUED].y)),
            head=False,
        ),
    ]


# Every text stands on a ground of its own, so that the picture can be read on a light page and
# on a dark one; the lines are of a grey that can be told from both.
STYLE: Final = """\
  <style>
    text { font: 14px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
           text-anchor: middle; fill: #1c2530; }
    .box { stroke-width: 1.5; }
    .waits { fill: #e3ecf7; stroke: #4a7ab5; }
    .runs { fill: #fdeecb; stroke: #b9862a; }
    .good { fill: #dcf1e0; stroke: #3f8f56; }
    .bad { fill: #f9dfdc; stroke: #bd544a; }
    .over { fill: #e7e8eb; stroke: #737b86; }
    .way { fill: none; stroke: #737b86; stroke-width: 1.6; }
    .head { fill: #737b86; }
    .pill { fill: #f6f7f9; stroke: #c3c8cf; }
    .move { font-size: 12px; }
  </style>"""

KIND: Final = {
    TaskState.RUNNING: "runs",
    TaskState.SUCCESS: "good",
    TaskState.FAILED: "bad",
    TaskState.CANCELLED: "over",
}


def picture() -> str:
    """Return the picture as SVG."""
    ways = arrows()
    drawn = [move for arrow in ways for move in arrow.moves]
    assert sorted(drawn) == sorted(TRANSITIONS), "every move is drawn, and once"
    spoken = "; ".join(f"{move}: {state} to {to}" for (state, move), to in TRANSITIONS.items())
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE.x:g} {SIZE.y:g}"'
            f' width="{SIZE.x:g}" height="{SIZE.y:g}" role="img">',
            "  <title>The states of a task, and the moves between them</title>",
            f"  <desc>{spoken}</desc>",
            STYLE,
            '  <marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8"'
            ' markerHeight="8" orient="auto"><path class="head" d="M0,1 L10,5 L0,9 z"/></marker>',
            *map(_way, ways),
            *map(_label, ways),
            *map(_box, TaskState),
            "</svg>",
            "",
        ]
    ).replace("\n\n", "\n")


def _way(arrow: Arrow) -> str:
    """Draw a line with round corners."""
    first, *turns, last = arrow.way
    path = [f"M{first.x:g},{first.y:g}"]
    for before, turn, after in zip(arrow.way, turns, arrow.way[2:], strict=False):
        a, b = _towards(turn, before, 12), _towards(turn, after, 12)
        path.append(f"L{a.x:g},{a.y:g} Q{turn.x:g},{turn.y:g} {b.x:g},{b.y:g}")
    path.append(f"L{last.x:g},{last.y:g}")
    head = ' marker-end="url(#head)"' if arrow.head else ""
    return f'  <path class="way" d="{" ".join(path)}"{head}/>'


def _towards(start: Point, end: Point, distance: float) -> Point:
    """Return the point at *distance* from *start* on a level or upright line to *end*."""
    length = abs(end.x - start.x) + abs(end.y - start.y)
    share = distance / length
    return Point(start.x + (end.x - start.x) * share, start.y + (end.y - start.y) * share)


def _label(arrow: Arrow) -> str:
    if arrow.label is None:
        return ""
    x, y = arrow.label
    text = ", ".join(move for _, move in arrow.moves)
    width = 7.3 * len(text) + 14
    return (
        f'  <rect class="pill" x="{x - width / 2:g}" y="{y - 10:g}" width="{width:g}" height="20"'
        f' rx="10"/><text class="move" x="{x:g}" y="{y:g}" dy=".35em">{text}</text>'
    )


def _box(state: TaskState) -> str:
    corner, centre = Point(left(state).x, top(state).y), CENTRES[state]
    # A second line around it is the sign of a final state, as in any state diagram.
    inner = (
        f'<rect class="box {KIND[state]}" x="{corner.x + 4:g}" y="{corner.y + 4:g}"'
        f' width="{BOX.x - 8:g}" height="{BOX.y - 8:g}" rx="6"/>'
        if state in FINAL
        else ""
    )
    return (
        f'  <rect class="box {KIND.get(state, "waits")}" x="{corner.x:g}" y="{corner.y:g}"'
        f' width="{BOX.x:g}" height="{BOX.y:g}" rx="9"/>{inner}'
        f'<text x="{centre.x:g}" y="{centre.y:g}" dy=".35em">{state}</text>'
    )


def main(arguments: list[str]) -> int:
    wanted = {PAGE: page(), PICTURE: picture()}
    if arguments == ["--check"]:
        stale = [p for p, text in wanted.items() if not p.exists() or p.read_text() != text]
        for path in stale:
            print(f"{path.name} is not what {Path(__file__).name} makes of the table: run it")
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
