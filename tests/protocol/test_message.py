"""Messages equal only their own kind."""

import pytest

from sitq.protocol import commit, lease, worker
from sitq.protocol.ops import Renewed, Settled


def test_messages_of_two_kinds_differ_although_their_fields_are_alike() -> None:
    assert worker.Started() == worker.Started()
    assert worker.Started() != worker.Woken()
    assert worker.Started() != lease.Started()
    assert commit.Close() != ()
    assert Settled(True) != (True,)
    assert not (Settled(True) != Settled(True))  # noqa: SIM202


def test_messages_are_values() -> None:
    assert len({Settled(True), Settled(True), Settled(False), Renewed()}) == 3
    with pytest.raises(AttributeError):
        Settled(True).applied = False
    assert repr(Settled(applied=True)) == "Settled(applied=True)"
