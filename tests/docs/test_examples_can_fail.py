"""The runner of the examples: what is wrong on a page makes a test fail."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

RIGHT = """
```{code-block} python
:caption: shared.py

def three():
    return 3
```

```python
from sitq import MemoryBackend, TaskQueue, Worker
from shared import three

queue = TaskQueue(MemoryBackend())
task_id = await queue.enqueue(three)
await Worker(queue.backend).drain()
print("it is", await queue.result(task_id))
```

```text
it is 3
```

```console
$ python -c "import shared; print(shared.three())"
3
$ echo one and two
one ... two
```
"""

WRONG = {
    "an exception": '```python\nraise ValueError("wrong")\n```\n',
    "an exception after an await": (
        '```python\nimport anyio\n\nawait anyio.sleep(0)\nraise ValueError("wrong")\n```\n'
    ),
    "what is printed": "```python\nprint(1)\n```\n\n```text\n2\n```\n",
    "what a command prints": "```console\n$ echo 1\n2\n```\n",
    "a warning": '```python\nimport warnings\n\nwarnings.warn("old")\n```\n',
    "hidden code": "% invisible-code-block: python\n%\n% assert False\n",
}


def run(folder: Path, text: str, path: str = "docs/page.md") -> tuple[int, int, str]:
    """Run a page as the project's pages are run; return how much failed and passed."""
    (folder / path).parent.mkdir(exist_ok=True)
    (folder / path).write_text(text)
    shutil.copy(ROOT / "conftest.py", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    # Where the folder has a sitq of its own, pytest would look there for sitq's plugin.
    off = ["-p", "no:cacheprovider", "-p", "no:sitq"]
    command = [sys.executable, "-m", "pytest", "-q", *off, path]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    failed, passed = (re.search(rf"(\d+) {word}", done.stdout) for word in ("failed", "passed"))
    return int(failed[1]) if failed else 0, int(passed[1]) if passed else 0, done.stdout


def test_a_page_that_is_right_passes(tmp_path) -> None:
    failed, passed, output = run(tmp_path, RIGHT)

    assert (failed, passed) == (0, 4), output


def test_every_kind_of_mistake_fails(tmp_path) -> None:
    failed, passed, output = run(tmp_path, "\n".join(WRONG.values()))

    assert (failed, passed) == (len(WRONG), 1), output  # what passes is the print(1) itself


def test_a_difference_is_shown_as_it_is(tmp_path) -> None:
    _, _, output = run(tmp_path, WRONG["what is printed"])

    assert "the page shows:\n2" in output
    assert "but this was printed:\n1" in output


def test_the_examples_of_docstrings_run_too(tmp_path) -> None:
    (tmp_path / "sitq").mkdir()
    (tmp_path / "sitq" / "__init__.py").touch()
    module = '"""Sums.\n\n>>> 1 + 1\n2\n>>> 1 + 2\n4\n"""\n'

    failed, passed, output = run(tmp_path, module, "sitq/sums.py")

    assert (failed, passed) == (1, 1), output
