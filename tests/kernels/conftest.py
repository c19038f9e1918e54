"""A kernel manager as the server has it, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager


@pytest.fixture
async def kernel_manager(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    """The server's kernel manager, rooted in an empty folder; nothing of it is left afterwards."""
    manager = AsyncMappingKernelManager(
        root_dir=str(tmp_path),
        # Else kernels have their files in the folder of the project, which other tests copy.
        connection_dir=str(tmp_path_factory.mktemp("runtime")),
        kernel_spec_manager=KernelSpecManager(),
    )
    yield manager
    await manager.shutdown_all(now=True)
    manager.context.destroy(linger=0)
