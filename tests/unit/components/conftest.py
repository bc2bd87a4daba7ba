"""What tests of components share: an event loop, and hashes of passwords."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache

import bcrypt
import pytest

# Slow by design; the clusters of tests have the same passwords.
bcrypt.hashpw = cache(bcrypt.hashpw)


@pytest.fixture(autouse=True)
def event_loop_of_the_thread() -> Iterator[None]:
    """Pulumi's mocks take the thread's, which other tests may have closed before."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
