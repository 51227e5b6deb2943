"""Programs that run one event loop after another, as scripts and tests do."""

from typing import Any

import anyio
import pytest

from sitq.protocol.ops import Count, Enqueue
from sitq.testing.conformance.asked import new_task
from sitq.testing.conformance.loops import params


class OneLoopAfterAnother:
    @pytest.mark.parametrize("second", params("asyncio", "trio"))
    @pytest.mark.parametrize("first", params("asyncio", "trio"))
    def test_a_backend_connects_anew_when_its_loop_has_ended(
        self, make_backend: Any, first: Any, second: Any
    ) -> None:
        backend = make_backend()

        async def enqueue(id_: str) -> int:
            session = await backend.session()
            await session.writer.submit(Enqueue((new_task(id_),)))
            (counted,) = await session.reader.submit(Count())
            return sum(n for _, _, n in counted.rows)

        assert anyio.run(enqueue, "a", backend=first[0]) == 1
        assert anyio.run(enqueue, "b", backend=second[0]) == 2
        anyio.run(backend.close, backend=second[0])
