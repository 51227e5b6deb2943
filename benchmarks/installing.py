"""A virtual environment for each peer: their requirements do not all go together."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import PEERS


def install(folder: Path, peers: list[str]) -> Iterator[str]:
    """Make what is missing; yield what became of each."""
    for name in peers:
        peer = PEERS[name]
        place = folder / peer.file
        if not peer.needs or place.exists():
            continue
        python = _python(peer.python)
        if python is None:
            wanted = ".".join(map(str, peer.python))
            yield f"{name}: it needs Python {wanted}, and python{wanted} is not on PATH"
            continue
        try:
            subprocess.run([python, "-m", "venv", place], check=True)
            pip = [place / "bin" / "python", "-m", "pip", "install", "--quiet", *peer.needs]
            subprocess.run(pip, check=True)
        except subprocess.CalledProcessError as error:
            yield f"{name}: {error}"
        else:
            yield f"{name}: installed in {place}"


def _python(least: tuple[int, int]) -> str | None:
    """Return a Python that is new enough, this one if it is."""
    if sys.version_info >= least:
        return sys.executable
    import shutil

    return shutil.which(f"python{least[0]}.{least[1]}")
