"""What may be printed: text from a file or a file's name is never trusted with the terminal.

The promises: no control character of theirs gets out, nothing of theirs is taken for rich's
markup, every text can be encoded, and none is cut short.
"""

from rich.console import Console
from rich.text import Text


def console() -> Console:
    """Return the standard output: coloured on a terminal, plain in a pipe."""
    return Console(highlight=False, markup=False, emoji=False)


def shown(value: object) -> str:
    """Return *value* as one line that any terminal can take."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value))


def cell(value: object, style: str = "") -> Text:
    """Return *value* for a table; a path that is longer than its column goes on in the next line."""
    return Text(shown(value), style=style, overflow="fold")
