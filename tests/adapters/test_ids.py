"""Ids are UUIDs of version 7, and no two are the same, whoever makes them."""

import os
import uuid

import pytest

from sitq.adapters import clocks
from sitq.adapters.ids import AHEAD, new_id


def test_an_id_is_a_uuid_of_version_7_that_begins_with_the_time() -> None:
    before = clocks.wall_ms()
    texts = [new_id() for _ in range(3 * AHEAD)]
    after = clocks.wall_ms()

    assert len(set(texts)) == len(texts)
    for text in texts:
        found = uuid.UUID(text)
        assert (str(found), found.version, found.variant) == (text, 7, uuid.RFC_4122)
        assert before <= found.int >> 80 <= after


def test_every_bit_of_chance_is_drawn() -> None:
    drawn = [uuid.UUID(new_id()).int for _ in range(AHEAD)]
    fixed = 0xF << 76 | 0x3 << 62  # the version, the variant
    for bit in range(80):
        if not fixed >> bit & 1:
            assert len({value >> bit & 1 for value in drawn}) == 2, bit


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a platform with fork")
def test_a_fork_does_not_make_the_ids_of_its_parent(run_program) -> None:
    printed = run_program(
        """
import os
from sitq.adapters.ids import new_id

new_id()  # now some of those to come are known
out, into = os.pipe()
if os.fork() == 0:
    os.write(into, "\\n".join(new_id()[14:] for _ in range(20)).encode())
    os._exit(0)
os.wait()
of_child = os.read(out, 65536).decode().split()
print(len(of_child), len({*of_child, *(new_id()[14:] for _ in range(20))}))
"""
    )
    assert printed == ["20 40"]
