"""Programs that run one event loop after another, as scripts and tests do."""

import anyio
import pytest

from sitq.protocol.ops import Count, Enqueue, NewTask


@pytest.mark.parametrize("second", ["asyncio", "trio"])
@pytest.mark.parametrize("first", ["asyncio", "trio"])
def test_a_backend_connects_anew_when_its_loop_has_ended(make_backend, first, second) -> None:
    backend = make_backend()

    async def enqueue(id_: str) -> int:
        session = await backend.session()
        await session.writer.submit(Enqueue((NewTask(id=id_, payload=b"p", name="f"),)))
        (counted,) = await session.reader.submit(Count())
        return sum(n for _, _, n in counted.rows)

    assert anyio.run(enqueue, "a", backend=first) == 1
    assert anyio.run(enqueue, "b", backend=second) == 2
    anyio.run(backend.close, backend=second)
