"""Folders and files of a run."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.disk.disk import Image

_MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A folder that costs no disk: a thousand runs are made and thrown away."""


@contextlib.contextmanager
def new_folder(image: Image = ()) -> Iterator[Path]:
    """Yield a new folder with the files of *image*; it is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="sitq-disk-", dir=_MEMORY))
    try:
        for name, data in image:
            (path / name).write_bytes(data)
        yield path
    finally:
        shutil.rmtree(path)


def files_of(folder: Path) -> Image:
    """Return the files in *folder*, but for -shm, which whoever opens the file first makes anew."""
    return tuple(
        sorted((p.name, p.read_bytes()) for p in folder.iterdir() if not p.name.endswith("-shm"))
    )
