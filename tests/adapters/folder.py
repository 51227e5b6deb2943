"""What lies in a folder: names, kinds and the bytes of every file."""

import hashlib
import stat
from pathlib import Path


def contents(folder: Path) -> dict[str, str]:
    """Return for each path below *folder* its SHA-256, or what kind of thing it is."""
    return {str(path.relative_to(folder)): _what(path) for path in sorted(folder.rglob("*"))}


def _what(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        return f"kind {stat.S_IFMT(mode):o}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def permissions(path: Path | str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)
