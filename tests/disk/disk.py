"""What lies on the disk, what only in the operating system's cache, and what a power cut leaves.

The files are kept here as the calls of SQLite change them, so that every moment of a run can be
looked at later. What a killed process leaves is the cache. What a power cut leaves is what was
synced, and of the rest any part:

- Of the writes to a file since its last sync any may be lost, and any of their sectors; a size
  may have reached the disk before the data have.
- A file that was made, or deleted, may be back as it was, until its folder is synced. This is
  what SQLite's "unix" VFS does, and what is assumed here: a journal or a WAL that is opened to be
  created has its folder synced with its own first sync; a deletion syncs the folder if SQLite asks
  for it (it does for a journal, and does not for a WAL).
- A write does not touch the bytes beside it ("powersafe overwrite", SQLite's own default).
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from tests.disk.vfs import Call

SECTOR: Final = 512

Image: TypeAlias = tuple[tuple[str, bytes], ...]
"""Files by name, sorted."""


class Write(NamedTuple):
    offset: int
    data: bytes

    def __str__(self) -> str:
        return f"@{self.offset}+{len(self.data)}"


class Truncate(NamedTuple):
    size: int

    def __str__(self) -> str:
        return f"cut to {self.size}"


Change: TypeAlias = Write | Truncate


class Inode(NamedTuple):
    durable: bytes = b""
    pending: tuple[Change, ...] = ()
    cached: bytes = b""

    def changed(self, change: Change) -> "Inode":
        return Inode(self.durable, (*self.pending, change), played(self.cached, [change]))

    def synced(self) -> "Inode":
        return self._replace(durable=played(self.durable, self.pending), pending=())

    def lost(self) -> "Inode":
        """Return it after a sync that failed: Linux takes its pages for written ever after."""
        return self._replace(pending=())


def played(content: bytes, changes: Sequence[Change]) -> bytes:
    """Return *content* after *changes*."""
    new = bytearray(content)
    for change in changes:
        match change:
            case Write(offset, data):
                if offset > len(new):
                    new.extend(bytes(offset - len(new)))
                new[offset : offset + len(data)] = data
            case Truncate(size):
                del new[size:]
                new.extend(bytes(size - len(new)))
    return bytes(new)


class Moment(NamedTuple):
    """The whole disk at one moment."""

    inodes: Mapping[int, Inode]
    names: Mapping[str, int]
    past: Mapping[str, tuple[int | None, ...]]
    """What a name may stand for after a power cut, if not for what it stands for now."""

    def synced(self) -> Image:
        """Return the files that are left if the power fails, and nothing was synced by chance."""
        return _image({name: self.inodes[inode].durable for name, inode in self.names.items()})

    def killed(self) -> Image:
        """Return the files that are left if the process dies now."""
        return _image({name: self.inodes[inode].cached for name, inode in self.names.items()})


def _image(files: Mapping[str, bytes]) -> Image:
    return tuple(sorted(files.items()))


class Disk:
    """Changes with the calls it is told of."""

    def __init__(self, files: Image) -> None:
        self._inodes = {n: Inode(data, (), data) for n, (_, data) in enumerate(files)}
        self._names = {name: n for n, (name, _) in enumerate(files)}
        self._past: dict[str, tuple[int | None, ...]] = {}
        self._numbers = itertools.count(len(files))

    def now(self) -> Moment:
        return Moment(dict(self._inodes), dict(self._names), dict(self._past))

    def change(self, call: Call) -> None:
        """Take in a call that was done."""
        match call.kind:
            case "open" if call.file not in self._names:
                self._name(call.file, next(self._numbers))
                self._inodes[self._names[call.file]] = Inode()
            case "write":
                self._write(call.file, Write(call.offset, call.data))
            case "truncate":
                self._write(call.file, Truncate(call.size))
            case "sync":
                number = self._names[call.file]
                self._inodes[number] = self._inodes[number].synced()
            case "delete" if call.file in self._names:
                self._name(call.file, None)
        if call.dirsync:
            self._past.clear()

    def fail_to_sync(self, file: str) -> None:
        number = self._names[file]
        self._inodes[number] = self._inodes[number].lost()

    def _name(self, file: str, number: int | None) -> None:
        self._past[file] = (*self._past.get(file, ()), self._names.get(file))
        if number is None:
            del self._names[file]
        else:
            self._names[file] = number

    def _write(self, file: str, change: Change) -> None:
        number = self._names[file]
        self._inodes[number] = self._inodes[number].changed(change)


# -- power cuts ------------------------------------------------------------------------------


class Cut(NamedTuple):
    """One of the disks that a power cut can leave, and how it came about."""

    how: str
    image: Image


def power_cuts(moment: Moment, *, all_subsets: bool, dice: int, seed: int) -> Iterator[Cut]:
    """Yield the disks that a power cut can leave now.

    Always: nothing that was not synced, or all of it, for each file on its own; sizes without
    data; the last write torn at each sector. With *all_subsets* each single change lost, and each
    single one kept; then *dice* times any of the sectors.
    """
    for how, names in _foldings(moment):
        numbers = sorted({n for n in names.values() if moment.inodes[n].pending})
        for kept in itertools.product((True, False), repeat=len(numbers)):
            contents = {
                n: moment.inodes[n].cached if all_ else moment.inodes[n].durable
                for n, all_ in zip(numbers, kept, strict=True)
            }
            which = [
                f"{_name_of(names, n)} {'kept' if all_ else 'lost'}"
                for n, all_ in zip(numbers, kept, strict=True)
            ]
            yield Cut(", ".join([*how, *which]) or "all was synced", _with(moment, names, contents))
    names = moment.names
    for number in sorted(names.values()):
        inode = moment.inodes[number]
        name = _name_of(names, number)
        for how_, content in _of_one_file(inode, all_subsets=all_subsets):
            yield Cut(f"{name}: {how_}", _with(moment, names, {number: content}))
    pending = [n for n in sorted(names.values()) if moment.inodes[n].pending]
    for throw in range(dice if pending else 0):
        rng = random.Random(f"{seed}/{throw}")
        contents = {n: _any_sectors(moment.inodes[n], rng) for n in pending}
        yield Cut(f"any sectors, throw {throw} of seed {seed}", _with(moment, names, contents))


def _name_of(names: Mapping[str, int], number: int) -> str:
    return next(name for name, n in names.items() if n == number)


def _with(moment: Moment, names: Mapping[str, int], contents: Mapping[int, bytes]) -> Image:
    """Return the files under *names*; those not in *contents* as the cache has them."""
    cached = {n: contents.get(n, moment.inodes[n].cached) for n in names.values()}
    return _image({name: cached[n] for name, n in names.items()})


def _foldings(moment: Moment) -> Iterator[tuple[list[str], Mapping[str, int]]]:
    """Yield what names may stand for: now first, then each mix of now and what they once were."""
    changed = sorted(moment.past)
    choices = [
        [(None, moment.names.get(name)), *((n, old) for n, old in enumerate(moment.past[name]))]
        for name in changed
    ]
    for chosen in itertools.product(*choices):
        names = dict(moment.names)
        how = []
        for name, (when, number) in zip(changed, chosen, strict=True):
            names.pop(name, None)
            if number is not None:
                names[name] = number
            if when is not None:
                how.append(f"{name} {'gone' if number is None else 'back'} in the folder")
        yield how, names


def _of_one_file(inode: Inode, *, all_subsets: bool) -> Iterator[tuple[str, bytes]]:
    durable, pending = inode.durable, inode.pending
    if not pending:
        return
    if len(inode.cached) > len(durable):
        yield "its size without its data", durable + bytes(len(inode.cached) - len(durable))
    last = pending[-1]
    if isinstance(last, Write):
        for start, _ in itertools.islice(_sectors(last), 1, None):
            torn = Write(last.offset, last.data[: start - last.offset])
            yield f"{last} torn at {start}", played(durable, [*pending[:-1], torn])
            yield f"only {last}, torn at {start}", played(durable, [torn])
    if not all_subsets or len(pending) < 2:
        return
    for n, change in enumerate(pending):
        yield f"only change {n} ({change}) kept", played(durable, [change])
        others = [*pending[:n], *pending[n + 1 :]]
        yield f"only change {n} ({change}) lost", played(durable, others)


def _any_sectors(inode: Inode, rng: random.Random) -> bytes:
    changes: list[Change] = []
    for change in inode.pending:
        match change:
            case Truncate():
                parts: list[Change] = [change]
            case Write(offset, data):
                parts = [
                    Write(start, data[start - offset : end - offset])
                    for start, end in _sectors(change)
                ]
        changes += [part for part in parts if rng.random() < 0.5]
    return played(inode.durable, changes)


def _sectors(write: Write) -> Iterator[tuple[int, int]]:
    """Yield where *write* begins and ends in each sector of the disk."""
    offset, end = write.offset, write.offset + len(write.data)
    return itertools.pairwise([offset, *range((offset // SECTOR + 1) * SECTOR, end, SECTOR), end])
