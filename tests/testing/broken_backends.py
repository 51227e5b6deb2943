"""Backends that each break one promise, and a sound one: what the suite is tested by.

Nothing here is collected with the tests of this repository: `test_backend_suite.py` runs it.
"""

import threading

from sitq import Backend
from sitq.adapters import clocks
from sitq.adapters.presence import NoPresence
from sitq.protocol.ops import Enqueue, Reserve, Reserved, Settle, Settled
from sitq.storage.model import Model
from sitq.testing.conformance import BackendSuite


class Store:
    def __init__(self, model, lock) -> None:
        self.model = model
        self.lock = lock

    def apply(self, ops):
        with self.lock:
            return self.applied(list(ops))

    def applied(self, ops):
        return self.model.apply(ops, clocks.moment())

    def tidy(self) -> None: ...

    def close(self) -> None: ...


class Memory(Backend):
    store = Store

    def __init__(self) -> None:
        super().__init__()
        self._model, self._lock = Model(), threading.Lock()

    def open_store(self):
        return self.store(self._model, self._lock)

    def presence(self):
        return NoPresence()


class LosesVerdicts(Store):
    def applied(self, ops):
        kept = [op for op in ops if not isinstance(op, Settle) or op.key.seq % 7]
        answers = iter(super().applied(kept))
        return tuple(next(answers) if op in kept else Settled(True) for op in ops)


class ForgetsWhatWasLost(Store):
    def applied(self, ops):
        return super().applied(
            [op._replace(known=None) if isinstance(op, Reserve) else op for op in ops]
        )


class LetsOthersSettle(Store):
    def applied(self, ops):
        tasks = self.model._tasks
        return super().applied(
            [
                op._replace(worker_id=tasks[op.key.seq].worker_id or op.worker_id)
                if isinstance(op, Settle) and op.key.seq in tasks
                else op
                for op in ops
            ]
        )


class KnowsNoPriority(Store):
    def applied(self, ops):
        return super().applied(
            [
                Enqueue(tuple(task._replace(priority=0) for task in op.tasks), op.may_exist)
                if isinstance(op, Enqueue)
                else op
                for op in ops
            ]
        )


class CutsBytesShort(Store):
    def applied(self, ops):
        return tuple(
            Reserved(
                tuple(task._replace(payload=task.payload[: 2**16]) for task in answer.tasks),
                answer.next_due_in,
            )
            if isinstance(answer, Reserved)
            else answer
            for answer in super().applied(ops)
        )


class StoresHalfOfAGroup(Store):
    def apply(self, ops):
        answers = []
        for op in ops:
            parts = (
                [Enqueue((task,), op.may_exist) for task in op.tasks]
                if isinstance(op, Enqueue)
                else [op]
            )
            answers.append([super(StoresHalfOfAGroup, self).apply([part])[0] for part in parts][-1])
        return tuple(answers)


class TestSound(BackendSuite):
    outlives_its_process = False

    def new_backend(self, folder):
        backend = Memory()
        backend.store = getattr(self, "store", Store)
        return backend


class TestLosesVerdicts(TestSound):
    store = LosesVerdicts


class TestForgetsWhatWasLost(TestSound):
    store = ForgetsWhatWasLost


class TestLetsOthersSettle(TestSound):
    store = LetsOthersSettle


class TestKnowsNoPriority(TestSound):
    store = KnowsNoPriority


class TestCutsBytesShort(TestSound):
    store = CutsBytesShort


class TestStoresHalfOfAGroup(TestSound):
    store = StoresHalfOfAGroup
