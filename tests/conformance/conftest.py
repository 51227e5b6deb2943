"""One op at a time, asked of the backend of the test."""

import pytest


@pytest.fixture
async def session(backend):
    return await backend.session()


@pytest.fixture
async def ask(session):
    """Have one op committed; return its outcome."""

    async def ask(op):
        (outcome,) = await session.writer.submit(op)
        return outcome

    return ask
