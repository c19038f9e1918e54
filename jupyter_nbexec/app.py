"""The extension: builds the parts, hands them to each other, starts and stops them. Knows everyone."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_data_dir
from jupyter_server.extension.application import ExtensionApp
from jupyter_server.utils import url_path_join
from tornado import ioloop
from traitlets import Bool, Dict, Enum, Float, Instance, Integer, List, TraitError, Unicode, default, validate
from traitlets.utils.bunch import Bunch

from jupyter_nbexec import (
    __version__,
    errors,
    execute,
    handlers,
    membership,
    models,
    notebooks,
    opening,
    perform,
    planning,
    prepare,
    rendering,
    runs,
    telemetry,
    webhooks,
)
from jupyter_nbexec import store as stores
from jupyter_nbexec.handlers import base, docs
from jupyter_nbexec.kernels import forkserver, managed, pool
from jupyter_nbexec.serving import services

MIB = 1 << 20
#: Seconds between two looks at whether the server is at work.
ACTIVITY_INTERVAL = 3.0


class NbExec(ExtensionApp):
    """One HTTP call that runs a notebook."""

    name = "jupyter_nbexec"
    version = __version__
    description = "Run notebooks by HTTP: POST /api/nbexec/<path>"
    load_other_extensions = True
    extension_url = "/api/nbexec/docs"
    static_paths = [str(docs.STATIC)]  # noqa: RUF012  # a trait of ExtensionApp

    default_timeout = Float(
        3600.0,
        min=0,
        help="""Seconds a run may take if neither the request nor the notebook says otherwise.
        0: no limit but max_timeout.""",
    ).tag(config=True)
    max_timeout = Float(
        86400.0,
        min=0,
        help="Seconds a request may ask for as its timeout; more is refused. 0: no maximum.",
    ).tag(config=True)
    kernel_start_timeout = Float(
        60.0,
        min=1,
        help="""Seconds a kernel may take to be started, and as many to answer then. There is no way to wait
        for ever. How long a gateway may take to start one, its client's own settings say.""",
    ).tag(config=True)
    interrupt_grace = Float(
        5.0,
        min=0,
        help="""Seconds between the interrupt of a run that is to end and the end of its kernel.
        0: the kernel is ended at once.""",
    ).tag(config=True)
    max_concurrent_runs = Integer(
        min=1,
        help="Runs that are executed at once. Default: the number of processors; at least 1.",
    ).tag(config=True)
    max_queued_runs = Integer(
        100,
        min=0,
        help="""Runs that may wait for their turn; further ones are refused with 429.
        0: nothing waits.""",
    ).tag(config=True)
    max_body_bytes = Integer(
        16 * MIB, min=0, help="Bytes a request's body may have. 0: what the server itself allows."
    ).tag(config=True)
    body_timeout = Float(
        60.0, min=0, help="Seconds a request's body may take to arrive. 0: as long as it likes."
    ).tag(config=True)
    max_output_bytes = Integer(
        32 * MIB,
        min=64 * 1024,
        help="""Bytes of outputs that are kept of one run; what comes after is left out, and the run says
        "truncated". At least 64 KiB.""",
    ).tag(config=True)
    max_outputs = Integer(
        10_000,
        min=1,
        help="""Outputs that are kept of one run; what comes after is left out, and the run says "truncated".
        Consecutive prints to one stream are one output. At least 1.""",
    ).tag(config=True)
    max_result_bytes = Integer(
        8 * MIB,
        min=0,
        help="""Bytes, as JSON, that a run's result may have; a larger one is left out, and the run says
        "truncated". 0: only results that have no JSON form are given, as text.""",
    ).tag(config=True)
    result_timeout = Float(
        5.0,
        min=0.1,
        help="Seconds the kernel may take to turn the last value into JSON; then it is given as text.",
    ).tag(config=True)
    stop_timeout = Float(
        8.0,
        min=0,
        help="Seconds a stopping server waits for its runs to end. 0: as long as it takes.",
    ).tag(config=True)
    scrubbed_env = List(
        Unicode(),
        default_value=[
            "JUPYTER*TOKEN*",
            "JUPYTER*SECRET*",
            "JUPYTER*PASSWORD*",
            "JUPYTER_GATEWAY_HTTP_PWD",
            "JPY_API_TOKEN",
            "CONFIGPROXY_AUTH_TOKEN",
            "KG_AUTH_TOKEN",
            "EG_AUTH_TOKEN",
        ],
        help="""Shell patterns of the names of environment variables of the server that its runs' kernels do
        not get. Empty: they get all.""",
    ).tag(config=True)
    kernel_niceness = Integer(
        10,
        min=0,
        max=19,
        help="""By how much the kernels of runs give way to the server and to all else, as `nice` counts
        (Linux). While processors are to spare it makes no difference; where they are not, people who edit
        notebooks are served first. 0: they give way to nobody.""",
    ).tag(config=True)
    fork_kernels = Bool(
        default_value=False,
        help="""Whether kernels of IPython are forked from a process that has imported IPython before (Linux).
        There is one for each kernelspec, from the first run on. Each run has a process of its own all the
        same. Where that cannot be, kernels are started as usual.""",
    ).tag(config=True)
    preload = Dict(
        value_trait=List(Unicode()),
        key_trait=Unicode(),
        help="""Modules that such a process imports ahead for its kernels, by kernelspec, such as
        {'python3': ['pandas']}; it starts with the server then. Modules that start threads are refused. None
        that must not be forked: whatever uses a GPU, or gRPC.""",
    ).tag(config=True)
    warm_kernels = Dict(
        value_trait=Integer(min=0),
        key_trait=Unicode(),
        help="""How many kernels of each kernelspec are kept ready for runs, such as {'python3': 2}: started,
        connected, each used by one run and replaced. Kernels of IPython serve any notebook; those of other
        languages the notebooks that were run before. Runs with an `env` do not use them. 0, or none given:
        a kernel is started when a run needs it.""",
    ).tag(config=True)
    warm_idle_timeout = Float(
        600.0,
        min=0,
        help="""Seconds after which kernels that are kept ready for a notebook that nobody runs are ended; one
        of each kernelspec stays. 0: never.""",
    ).tag(config=True)
    prepared_notebooks = List(
        Unicode(),
        help="""Shell patterns of contents paths of notebooks whose cells before the parameters are executed
        ahead of their runs, as for those with `"nbexec": {"prepare": true}` in their metadata. Those named in
        full are prepared when the server starts. Empty: only those that say so themselves.""",
    ).tag(config=True)
    max_prepared_kernels = Integer(
        4,
        min=0,
        help="""Kernels that are kept ready for such notebooks, all together. 0: none is prepared.""",
    ).tag(config=True)
    require_kernel_authorization = Bool(
        default_value=True,
        help="""Whether running also needs the rights to execute kernels and to read contents, and describing
        the latter, so that an authorizer that denies these is not bypassed. False lets an authorizer allow
        somebody `execute` on `jupyter_nbexec:runs` and nothing else.""",
    ).tag(config=True)

    served_notebooks = List(
        Unicode(),
        help="""Contents paths of notebooks with annotated cells whose kernels are started with the server.
        Others that have such cells are served as well: their kernels start with the first call.""",
    ).tag(config=True)
    endpoint_state = Enum(
        ["kernel", "request"],
        default_value="kernel",
        help="""Where the state of a served notebook is that does not say so itself, by `"nbexec": {"state":
        …}` in its metadata. `kernel`: each of its kernels keeps what calls have left there, as in Kernel
        Gateway. `request`: each call has a kernel of its own that has executed the seed cells and nothing
        else.""",
    ).tag(config=True)
    min_endpoint_kernels = Integer(
        0,
        min=0,
        help="""Kernels that a served notebook keeps while nobody calls it, once it was called or started with
        the server. 0: they are ended after warm_idle_timeout.""",
    ).tag(config=True)
    max_endpoint_kernels = Integer(
        0,
        min=0,
        help="""Kernels that a served notebook may have; more are started when calls wait. 0: one, so that
        what a call leaves in the kernel is there for the next; with state `request`, as many as there are
        processors.""",
    ).tag(config=True)
    max_queued_calls = Integer(
        100,
        min=0,
        help="""Calls of a served notebook that may wait for a kernel; further ones are refused with 429.
        0: only those wait for whom a kernel is being started.""",
    ).tag(config=True)
    call_timeout = Float(
        60.0,
        min=0,
        help="""Seconds that a call of an endpoint may take once it has a kernel, and that it may wait for one
        that others use. 0: no limit.""",
    ).tag(config=True)

    max_queued_async_runs = Integer(
        10_000,
        min=0,
        help="""Asynchronous runs that may wait in the store; further ones are refused with 429.
        0: there are no asynchronous runs.""",
    ).tag(config=True)
    drain_timeout = Float(
        0.0,
        min=0,
        help="""Seconds a stopping server lets its runs go on before it ends them. Asynchronous runs that are
        queued stay in the store. 0: runs are ended at once.""",
    ).tag(config=True)
    database_url = Unicode(
        help="""Where runs are stored: the path of a SQLite file, or any URL of SQLAlchemy, such as
        postgresql://user:password@host/name. Default: nbexec/runs.sqlite in Jupyter's data folder.""",
    ).tag(config=True)
    retention_days = Float(
        30.0, min=0, help="Days after which a run that has ended is forgotten. 0: age does not count."
    ).tag(config=True)
    max_stored_runs = Integer(
        100_000,
        min=0,
        help="Runs that are kept; the oldest that have ended are forgotten. 0: their number does not count.",
    ).tag(config=True)
    max_stored_bytes = Integer(
        4 * 1024 * MIB,
        min=0,
        help="""Bytes of notebooks and events that are kept; the oldest runs that have ended are forgotten.
        0: their size does not count.""",
    ).tag(config=True)
    private_runs = Bool(
        default_value=False,
        help="""Whether people see, cancel and delete their own runs only. For servers whose users have names
        that last (JupyterHub, an identity provider); under a plain token everybody is new each time.""",
    ).tag(config=True)
    webhook_hosts = List(
        Unicode(),
        help="""Hosts that webhooks may be sent to: names or shell patterns, with `:port` where that is not
        the usual one, such as `hooks.example.com` or `*.example.org:8443`. Empty: none.""",
    ).tag(config=True)

    @default("database_url")
    def _file_in_data_folder(self) -> str:
        return str(Path(jupyter_data_dir()) / "nbexec" / "runs.sqlite")

    @default("max_concurrent_runs")
    def _processors(self) -> int:
        return os.cpu_count() or 1

    @validate("default_timeout")
    def _at_most_the_maximum(self, proposal: Bunch) -> float:
        seconds = float(proposal["value"])
        if self.max_timeout and seconds > self.max_timeout:
            raise TraitError(
                f"NbExec.default_timeout is {seconds:g} s, but max_timeout {self.max_timeout:g} s"
            )
        return seconds

    @validate("webhook_hosts")
    def _patterns_of_hosts(self, proposal: Bunch) -> list[str]:
        patterns = list(proposal["value"])
        for pattern in patterns:
            if problem := webhooks.pattern_problem(pattern):
                raise TraitError(f"NbExec.webhook_hosts: {pattern!r} {problem}")
        return patterns

    #: How to stop what has begun, in the opposite order.
    _exits = Instance(contextlib.AsyncExitStack, args=())

    def initialize_settings(self) -> None:
        """Build the parts."""
        server: Any = self.serverapp
        self._service = url_path_join(server.base_url, "api/nbexec")
        existing = managed.ExistingSource(server.kernel_manager)
        self._planner = planner = planning.Planner(
            contents_manager=server.contents_manager,
            kernel_manager=server.kernel_manager,
            kernel_spec_manager=server.kernel_spec_manager,
            existing=existing,
        )
        self._vault = webhooks.Vault(Path(jupyter_data_dir()) / "nbexec" / "webhooks.key")
        store = stores.RunStore(self.database_url)
        telemetry_ = telemetry.Telemetry(server.event_logger, log=self.log)
        self._runs = runs.RunManager(
            settings=runs.Settings(
                max_concurrent_runs=self.max_concurrent_runs,
                max_queued_runs=self.max_queued_runs,
                max_queued_async_runs=self.max_queued_async_runs,
                drain_timeout=self.drain_timeout,
                stop_timeout=self.stop_timeout,
            ),
            retention=membership.Retention(
                days=self.retention_days, runs=self.max_stored_runs, bytes=self.max_stored_bytes
            ),
            store=store,
            performer=self._performer(existing),
            restore=planner.restore,
            obstacle=planner.obstacle,
            deliver=self._deliver,
            on_delivery_due=self._on_delivery_due,
            listener=telemetry_,
            service=self._service,
            log=self.log,
        )
        self._sender = webhooks.Sender(
            take_due=self._runs.take_due_deliveries,
            next_due=self._runs.next_delivery,
            mark=self._runs.mark_delivery,
            payload=self._runs.payload,
            vault=self._vault,
            allowed=lambda: self.webhook_hosts,
            log=self.log,
            report=telemetry_.webhook_attempted,
        )
        self._sending: asyncio.Task[None] | None = None
        self._readying: asyncio.Task[None] | None = None
        renderer = rendering.Renderer()
        # The last one first.
        for stop in (
            self._settle,
            renderer.stop,
            self._runs.stop,
            self._stop_sending,
            self._services.stop,
            self._stop_readying,
        ):
            self._exits.push_async_callback(stop)
        self.settings["jupyter_nbexec"] = base.Parts(
            planner=planner,
            runs=self._runs,
            services=self._services,
            renderer=renderer,
            max_timeout=self.max_timeout,
            max_body_bytes=self.max_body_bytes,
            body_timeout=self.body_timeout,
            require_kernel_authorization=self.require_kernel_authorization,
            private_runs=self.private_runs,
        )

    def _performer(self, existing: managed.ExistingSource) -> perform.Performer:
        server: Any = self.serverapp
        limits = execute.Limits(
            output_bytes=self.max_output_bytes,
            outputs=self.max_outputs,
            result_bytes=self.max_result_bytes,
            start_timeout=self.kernel_start_timeout,
            result_timeout=self.result_timeout,
        )
        opener = opening.Opener(limits)
        if self.preload and not self.fork_kernels:
            self.log.warning("NbExec.preload has no effect without NbExec.fork_kernels")
        fork_servers = forkserver.ForkServers(
            preload=self.preload,
            niceness=self.kernel_niceness,
            log=self.log,
            extra_arguments=managed.IPYKERNEL_ARGUMENTS,
        )
        self._starter = starter = managed.Starter(
            server.kernel_manager,
            scrubbed_env=self.scrubbed_env,
            niceness=self.kernel_niceness,
            start_timeout=self.kernel_start_timeout,
            fork_servers=fork_servers if self.fork_kernels else None,
        )
        self._fresh = pool.FreshSource(
            starter,
            opener=opener,
            sizes=self.warm_kernels,
            idle_timeout=self.warm_idle_timeout,
            at_once=os.cpu_count() or 1,
            log=self.log,
        )
        kitchen = prepare.Kitchen(self._fresh, opener, limits)
        self._services = self._make_services(kitchen, opener, limits)
        self._prepared = prepare.PreparedNotebooks(
            kitchen,
            patterns=self.prepared_notebooks,
            capacity=self.max_prepared_kernels,
            idle_timeout=self.warm_idle_timeout,
            default_timeout=self.default_timeout,
            look=partial(notebooks.look, server.contents_manager),
            log=self.log,
        )
        return perform.Performer(
            settings=perform.Settings(
                default_timeout=self.default_timeout,
                max_timeout=self.max_timeout,
                interrupt_grace=self.interrupt_grace,
                limits=limits,
            ),
            opener=opener,
            fresh=self._fresh,
            prepared=self._prepared,
            existing=existing,
            save=partial(notebooks.save, server.contents_manager),
            has_folder=partial(notebooks.has_folder, server.contents_manager),
            log=self.log,
        )

    def _make_services(
        self, kitchen: prepare.Kitchen, opener: opening.Opener, limits: execute.Limits
    ) -> services.Services:
        server: Any = self.serverapp
        return services.Services(
            settings=services.Settings(
                state=self.endpoint_state,
                min_kernels=self.min_endpoint_kernels,
                max_kernels=self.max_endpoint_kernels,
                processors=os.cpu_count() or 1,
                max_waiting=self.max_queued_calls,
                timeout=self.call_timeout,
                idle_timeout=self.warm_idle_timeout,
                interrupt_grace=self.interrupt_grace,
                seed_timeout=self.default_timeout,
                drain_timeout=self.drain_timeout,
                limits=limits,
            ),
            locate=self._locate,
            look=partial(notebooks.look, server.contents_manager),
            kitchen=kitchen,
            opener=opener,
            log=self.log,
        )

    async def _locate(self, path: str) -> planning.Plan:
        return await self._planner.locate(path)

    async def _plan(self, path: str) -> planning.Plan:
        return await self._planner.plan(models.RunRequest(path=path))

    def _deliver(self, run_id: str, webhook: models.Webhook) -> models.Delivery:
        """Check a webhook, and make its delivery. Raises InvalidRequest, StorageUnavailable."""
        webhooks.check(webhook, self.webhook_hosts)
        try:
            sealed = None if webhook.secret is None else self._vault.seal(webhook.secret)
        except webhooks.VaultError as error:
            self.log.critical("webhooks: %s", error)
            raise errors.StorageUnavailable from error
        return models.Delivery(run_id=run_id, url=webhook.url, events=webhook.events, sealed_secret=sealed)

    def _on_delivery_due(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._sender.run(), name="jupyter_nbexec webhooks")
        self._sender.wake()

    def initialize_handlers(self) -> None:
        """Register the routes."""
        self.handlers.extend(handlers.ROUTES)

    def current_activity(self) -> int | None:
        """Count the runs and calls there are: a server that has any does not stop for want of activity."""
        parts: base.Parts | None = self.settings.get("jupyter_nbexec")
        return None if parts is None else parts.runs.unfinished + parts.services.calls or None

    def _note_activity(self) -> None:
        """Have the server say that it is active as long as it is at work, even if nobody asks for anything.

        Cullers, such as JupyterHub's, go by this. Kernels that are merely kept ready are no activity.
        """
        if self.current_activity():
            self.settings["last_activity_times"]["jupyter_nbexec"] = datetime.now(tz=timezone.utc)

    async def _start_jupyter_server_extension(self, serverapp: Any) -> None:  # noqa: ARG002
        """Take up what an earlier server has left, and make kernels ready."""
        self._begin()
        try:
            await self._runs.start()
        except errors.StorageUnavailable:
            self.log.critical("runs are refused until their store can be used; see database_url")

    def _begin(self) -> None:
        self._readying = asyncio.create_task(self._make_ready(), name="jupyter_nbexec kernels")
        noting = ioloop.PeriodicCallback(self._note_activity, ACTIVITY_INTERVAL * 1000)
        noting.start()
        self._exits.callback(noting.stop)

    async def _make_ready(self) -> None:
        await self._starter.start_fork_servers(self.preload)
        await self._fresh.start()
        await self._prepared.start(self._plan)
        await self._services.start(self.served_notebooks)

    async def stop_extension(self) -> None:
        """End all runs, so that no request is left unanswered and no kernel alive."""
        try:
            await self._exits.aclose()
        except Exception:
            # If this went further, the server would never end, nor would the kernels of others.
            self.log.exception("something has failed while it was stopped")

    async def _settle(self) -> None:
        parts: base.Parts = self.settings["jupyter_nbexec"]
        await parts.settle()

    async def _stop_readying(self) -> None:
        if self._readying is not None:
            self._readying.cancel()
            await asyncio.wait({self._readying})

    async def _stop_sending(self) -> None:
        if self._sending is not None:
            await self._sender.stop()


main = launch_new_instance = NbExec.launch_instance
