"""The command line: `sitq demo`, `sitq worker`, `sitq stats`, `sitq doctor`.

It needs the extra `cli` (click and rich), which `import sitq` never loads. None of the commands
unpickles anything but `worker`, and `demo` on the file that it made itself.
"""

import sys


def main() -> None:
    """Run the command line, or say how to install what it needs."""
    try:
        from sitq.cli.commands import sitq
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit(
            f"sitq: the command line needs {error.name}, which is not installed; from a clone of"
            " the repository: pip install '.[cli]'"
        )
    sitq()
