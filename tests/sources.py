"""Where the kernels of the execution tests come from: one entry for each source, and what is not for it.

A module marked `sources` runs each of its tests with every source of `NAMES`; others run with cold kernels.
To add a source: a class here, in `SOURCES` and in `NAMES`, and what is not for it in `EXCLUDED`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.gateway.managers import GatewayKernelSpecManager, GatewayMappingKernelManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from jupyter_nbexec.app import NbExec
from jupyter_nbexec.kernels import forkserver, managed, pool

if TYPE_CHECKING:
    from jupyter_nbexec import opening
    from tests.gateways import Gateway

#: In the order in which tests run.
ALL = ["cold", "warm", "forked", "remote"]
#: All of them take half an hour: `make test-sources`.
NAMES = ALL if os.environ.get("NBEXEC_SOURCES") == "all" else ["cold"]
#: Environment variables that tests send to kernels, and a gateway has to be told of.
ENVIRONMENT = "PASSWORD,OTHER,PYTHONWARNINGS,NBEXECUTE_TEST_PARALLEL_TMPDIR"
#: Run everything on every source, also what has nothing to do with where the kernel is.
IS_LONG = bool(os.environ.get("NBEXEC_LONG"))


class CountingKernelManager(AsyncMappingKernelManager):
    """The server's usual kernel manager; it remembers what was started."""

    async def start_kernel(  # type: ignore[override]  # as in AsyncMappingKernelManager
        self, *args: Any, **kwargs: Any
    ) -> str:
        """As inherited."""
        kernel_id: str = await super().start_kernel(*args, **kwargs)
        self.__dict__.setdefault("started", []).append(kernel_id)
        return kernel_id


class CountingGatewayManager(GatewayMappingKernelManager):
    """The server's usual manager of a gateway's kernels; it remembers what was started."""

    async def start_kernel(  # type: ignore[override]  # as in GatewayMappingKernelManager
        self, *args: Any, **kwargs: Any
    ) -> str:
        """As inherited."""
        kernel_id: str = await super().start_kernel(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.__dict__.setdefault("started", []).append(kernel_id)
        return kernel_id


class Source:
    """Kernels that are started for each run."""

    name = "cold"

    def __init__(self) -> None:
        # It stays until then, since servers end after all that their tests ask for.
        GatewayClient.clear_instance()

    def traits(self) -> dict[str, dict[str, Any]]:
        """How a server is configured to have it."""
        return {
            "ServerApp": {"kernel_manager_class": CountingKernelManager},
            "NbExec": {"fork_kernels": False},
        }

    def kernel_manager(self, root: Path) -> Any:
        """Make the kernel manager of an engine without a server."""
        return AsyncMappingKernelManager(
            root_dir=str(root), connection_dir=str(root), kernel_spec_manager=KernelSpecManager()
        )

    def fresh(self, starter: managed.Starter, opener: opening.Opener) -> pool.FreshSource:
        """Make the source of an engine without a server."""
        return pool.FreshSource(starter)

    def fork_servers(self) -> forkserver.ForkServers | None:
        """Who forks the kernels of an engine without a server."""
        return None

    async def make_ready(self, starter: managed.Starter, fresh: pool.FreshSource) -> None:
        """Wait until runs would come by such kernels."""

    def death(self, message: str) -> str:
        """What is said of a kernel of which, here, this would be said."""
        return message

    def close(self) -> None:
        """Put back what was changed for it."""


class Warm(Source):
    """Kernels that are kept ready."""

    name = "warm"

    def traits(self) -> dict[str, dict[str, Any]]:
        """As inherited."""
        return {
            "ServerApp": {"kernel_manager_class": CountingKernelManager},
            "NbExec": {"fork_kernels": False, "warm_kernels": {"python3": 1}},
        }

    def fresh(self, starter: managed.Starter, opener: opening.Opener) -> pool.FreshSource:
        """As inherited."""
        return pool.FreshSource(starter, opener=opener, sizes={"python3": 1})

    async def make_ready(self, starter: managed.Starter, fresh: pool.FreshSource) -> None:
        """As inherited."""
        await fresh.start()
        shelves = fresh._pool
        assert shelves is not None
        with anyio.fail_after(60):
            while not shelves.ready:
                await anyio.sleep(0.01)


class Forked(Source):
    """Kernels that are forked, when they are needed."""

    name = "forked"

    def traits(self) -> dict[str, dict[str, Any]]:
        """As inherited."""
        # What pytest says there is another for each part of a test: kernels would not be of one recipe.
        usual: Any = NbExec.class_traits()["scrubbed_env"].default()
        scrubbed = [*usual, "PYTEST_CURRENT_TEST"]
        return {
            "ServerApp": {"kernel_manager_class": CountingKernelManager},
            "NbExec": {"fork_kernels": True, "scrubbed_env": scrubbed},
        }

    def fork_servers(self) -> forkserver.ForkServers | None:
        """As inherited."""
        log = logging.getLogger("test")
        arguments = managed.IPYKERNEL_ARGUMENTS
        return forkserver.ForkServers(preload={}, niceness=10, log=log, extra_arguments=arguments)

    async def make_ready(self, starter: managed.Starter, fresh: pool.FreshSource) -> None:
        """As inherited."""
        await starter.start_fork_servers(["python3"])


class Remote(Source):
    """Kernels of a gateway."""

    name = "remote"

    def __init__(self, gateway: Gateway, **traits: Any) -> None:
        """`traits`: of the server's client of the gateway, in place of the usual ones."""
        super().__init__()
        self.gateway = gateway
        self._traits = traits

    def traits(self) -> dict[str, dict[str, Any]]:
        """As inherited."""
        return {
            "ServerApp": {"kernel_manager_class": CountingGatewayManager},
            "GatewayClient": {
                "url": self.gateway.url,
                "auth_token": self.gateway.token,
                "allowed_envs": ENVIRONMENT,
                **self._traits,
            },
        }

    def kernel_manager(self, root: Path) -> Any:
        """As inherited."""
        GatewayClient.instance(**self.traits()["GatewayClient"])
        return GatewayMappingKernelManager(root_dir=str(root), kernel_spec_manager=GatewayKernelSpecManager())

    def death(self, message: str) -> str:
        """As inherited: what is known of the kernel's process stays with the gateway."""
        return "The kernel died, and the gateway started it again."


SOURCES: dict[str, Callable[[], Source]] = {"cold": Source, "warm": Warm, "forked": Forked}

_NO_KERNEL = "it is about requests, and starts no kernel; with NBEXEC_LONG=1 it runs"
_ANSWERS = "it is about answers, which are made from the same outputs; with NBEXEC_LONG=1 it runs"
#: Tests that are not for a source, and why: by file and name, or file and beginning of the name.
EXCLUDED: dict[str, dict[str, str]] = {
    "warm": {
        "test_errors.py::test_run_internal_error": "no kernel gets ready where none can be started",
        "test_runs.py::test_scrubbed_env": "its kernel has the environment from before the test",
    },
    "remote": {
        "test_execute.py::test_children_are_gone": "what kernels leave behind is the gateway's to end",
        "test_execute.py::test_flood_that_is_kept_back": "a websocket cannot leave out what will be dropped",
        "test_execute.py::test_no_print_is_lost": "takes a minute; see test_remote.py",
        "test_errors.py::test_kernel_start_failed": "it writes kernelspecs here; see test_remote.py",
        "test_errors.py::test_broken_kernelspec": "it writes kernelspecs here",
        "test_errors.py::test_no_such_kernel": "it names kernelspecs that are here",
        "test_errors.py::test_out_of_resources": "it breaks the manager of local kernelspecs",
        "test_errors.py::test_run_internal_error": "it breaks the manager of local kernels",
        "test_errors.py::test_kernel_starts_the_second_time": "it writes a kernelspec here",
        "test_runs.py::test_round_trips": "it writes a kernelspec here",
        "test_runs.py::test_scrubbed_env": "no environment of the server's travels; see test_remote.py",
        "test_runs.py::test_not_culled": "the gateway culls its kernels",
    },
}
#: As above, for all sources but the first; they are left out to save time.
SPARED = {
    "test_bad_requests.py::test_refused[B1": _NO_KERNEL,
    "test_bad_requests.py::test_refused[B2": _NO_KERNEL,
    "test_bad_requests.py::test_refused[B3": _NO_KERNEL,
    "test_bad_requests.py::test_refused[B59": _NO_KERNEL,
    "test_bad_requests.py::test_refused[B7": _NO_KERNEL,
    "test_bad_requests.py::test_refused[B8": _NO_KERNEL,
    "test_bad_requests.py::test_refused[B9": _NO_KERNEL,
    "test_bad_requests.py::test_malformed_http": _NO_KERNEL,
    "test_bad_requests.py::test_large": _NO_KERNEL,
    "test_bad_requests.py::test_unreadable": _NO_KERNEL,
    "test_bad_requests.py::test_unknown": _NO_KERNEL,
    "test_errors.py::test_invalid": _NO_KERNEL,
    "test_errors.py::test_forbidden": _NO_KERNEL,
    "test_errors.py::test_notebook_not_found": _NO_KERNEL,
    "test_errors.py::test_method_not_allowed": _NO_KERNEL,
    "test_errors.py::test_not_acceptable": _ANSWERS,
    "test_errors.py::test_run_not_found": _NO_KERNEL,
    "test_errors.py::test_idempotency": _NO_KERNEL,
    "test_errors.py::test_storage": _NO_KERNEL,
    "test_errors.py::test_body": _NO_KERNEL,
    "test_errors.py::test_unsupported": _NO_KERNEL,
    "test_errors.py::test_not_a_notebook": _NO_KERNEL,
    "test_errors.py::test_internal_error": _NO_KERNEL,
    "test_runs.py::test_shape": _ANSWERS,
    "test_runs.py::test_save_as": _ANSWERS,
    "test_runs.py::test_no_nan": _ANSWERS,
    "test_runs.py::test_result[": _ANSWERS,
    "test_runs.py::test_timing_headers": _ANSWERS,
    "test_fixtures.py::test_names_that_are_code": _NO_KERNEL,
    "test_fixtures.py::test_broken_parameters": _NO_KERNEL,
    "test_fixtures.py::test_quoted_parameters": _ANSWERS,
    "test_fixtures.py::test_as_saved": "test_as_nbclient runs the same notebooks; with NBEXEC_LONG=1 it runs",
}


_SLOW = "it takes long here, and what it is about is in test_remote.py or not about kernels; see NBEXEC_LONG"
#: As above, for one source.
SLOW: dict[str, dict[str, str]] = {
    "remote": {
        "test_bad_requests.py::test_refused": _SLOW,
        "test_execute.py::test_nothing_is_left": _SLOW,
        "test_fixtures.py::test_kernel_kills_itself": _SLOW,
        "test_fixtures.py::test_output_widget": _SLOW,
        "test_fixtures.py::test_other_kernel": _SLOW,
        "test_fixtures.py::test_as_nbclient[papermill": _SLOW,
        "test_runs.py::test_allow_errors": _SLOW,
        "test_runs.py::test_run_timeout": _SLOW,
        "test_runs.py::test_truncated": _SLOW,
    }
}


def is_excluded(name: str, test: str) -> bool:
    """Whether a test, `file::test[id]`, is not to run with a source."""
    reasons = {**EXCLUDED.get(name, {}), **(SPARED if name != NAMES[0] and not IS_LONG else {})}
    if not IS_LONG:
        reasons |= SLOW.get(name, {})
    return any(test.startswith(each) for each in reasons)
