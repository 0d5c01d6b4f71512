"""What the tests share: one cluster for all end-to-end tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from .cluster import Cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared_cluster() -> AsyncIterator[Cluster]:
    """Two nodes, Redis, PostgreSQL and the proxy."""
    cluster = Cluster()
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(shared_cluster: Cluster) -> Cluster:
    """The cluster with two nodes that work."""
    await shared_cluster.complete()
    return shared_cluster
