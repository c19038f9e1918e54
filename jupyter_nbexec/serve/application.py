"""The server of `jupyter nbexec serve`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_core.application import JupyterApp
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from tornado import web
from traitlets import Bool, Enum, Int, Integer, List, Unicode, default
from traitlets.config import Config, catch_config_error
from traitlets.config.loader import DeferredConfigString

from jupyter_nbexec import __version__
from jupyter_nbexec.serve import gateway, handlers, mounts
from jupyter_nbexec.serve.extension import Served

EXAMPLES = """
jupyter nbexec serve service.ipynb --port 9090     # GET /get_results?rows=10 calls its cell
jupyter nbexec serve sales.ipynb stock.ipynb       # POST /sales/…, POST /stock/…
KG_AUTH_TOKEN=secret jupyter nbexec serve --seed_uri=service.ipynb    # as Kernel Gateway is called
"""


class KernelsHere(AsyncMappingKernelManager):
    """Starts kernels where the server was started, as Kernel Gateway does."""

    def cwd_for_path(self, path: str, **kwargs: Any) -> str:  # noqa: ARG002
        """Tell in which folder."""
        return str(Path.cwd())


class TokenProvider(IdentityProvider):
    """Lets in who has the token; a cookie is for the page that tries endpoints alone."""

    @property
    def auth_enabled(self) -> bool:
        """Whether anybody has to say who they are."""
        return bool(self.token)

    @property
    def login_available(self) -> bool:
        """Whether there is a page to log in: nowhere here, so that no origin is let in for its sake."""
        return False

    def set_login_cookie(self, handler: web.RequestHandler, user: User) -> None:
        """Only where somebody looks at a page."""
        if getattr(handler, "logs_in", False):
            super().set_login_cookie(handler, user)


class ServeApp(ServerApp):
    """Serves the annotated cells of notebooks as HTTP endpoints, and nothing else."""

    name = "jupyter-nbexec-serve"
    version = __version__
    description = __doc__
    examples = EXAMPLES
    subcommands: dict[str, Any] = {}  # noqa: RUF012
    classes = [Served, TokenProvider, *ServerApp.classes]  # noqa: RUF012
    default_services = ()  # type: ignore[assignment]
    port_env = "PORT"

    flags = {  # noqa: RUF012
        "no-auth": (
            {"ServeApp": {"authenticate": False}},
            "Let everybody in who can reach the server. What they call is code that runs.",
        ),
        "source": ({"ServeApp": {"allow_source": True}}, "Give the notebooks away at /_api/source."),
        "debug": ({"Application": {"log_level": "DEBUG"}}, "Log all that happens."),
        "allow-root": ({}, "Accepted, as for other Jupyter servers; nothing has to be allowed."),
    }
    aliases = {  # noqa: RUF012
        "ip": "ServerApp.ip",
        "port": "ServerApp.port",
        "base-url": "ServerApp.base_url",
        "token": "IdentityProvider.token",
        "kernels": "ServeApp.kernels",
        "kernel": "ServeApp.kernel_name",
        "state": "NbExec.endpoint_state",
        "timeout": "NbExec.call_timeout",
        "allow-origin": "ServerApp.allow_origin",
        "static": "ServeApp.static_path",
        "certfile": "ServerApp.certfile",
        "keyfile": "ServerApp.keyfile",
        "client-ca": "ServerApp.client_ca",
        "config": "JupyterApp.config_file",
        "log-level": "Application.log_level",
        # As Kernel Gateway has them.
        "api": "ServeApp.api",
        "seed_uri": "ServeApp.seed_uri",
        "port_retries": "ServerApp.port_retries",
        "ssl_version": "ServeApp.ssl_version",
    }

    notebooks = List(
        Unicode(), help="Files of the notebooks that are served; on the command line, what is no option."
    ).tag(config=True)
    seed_uri = Unicode(
        help="""The file or URL of the notebook, as Kernel Gateway has it: its kernels are started where the
        server was started, not in the notebook's folder. Not used if there are other notebooks."""
    ).tag(config=True)
    api = Enum(
        gateway.APIS,
        default_value=gateway.APIS[0],
        help="Which of Kernel Gateway's APIs is meant. There is only this one, by two names.",
    ).tag(config=True)
    authenticate = Bool(
        default_value=True,
        help="Whether a token is asked for; if none is given, one is made up, and told at the start.",
    ).tag(config=True)
    kernels = Integer(
        0,
        min=0,
        help="""Kernels of each notebook, started with the server. 0: as many as NbExec.min_endpoint_kernels
        and NbExec.max_endpoint_kernels say, by default one.""",
    ).tag(config=True)
    max_kernels = Integer(0, min=0, help="At most so many of these. 0: no limit.").tag(config=True)
    kernel_name = Unicode(
        help="The kernelspec of all notebooks, whatever they say. Empty: each has its own."
    ).tag(config=True)
    allow_source = Bool(
        default_value=False, help="Whether a notebook itself can be had at /_api/source."
    ).tag(config=True)
    static_path = Unicode(
        help="A folder whose files everybody can have at /public/, without a token. Empty: none."
    ).tag(config=True)
    allow_headers = Unicode(
        help="Access-Control-Allow-Headers: which headers pages of other origins may send. Empty: the usual."
    ).tag(config=True)
    allow_methods = Unicode(
        help="Access-Control-Allow-Methods: which verbs pages of other origins may use. Empty: all there are."
    ).tag(config=True)
    expose_headers = Unicode(
        help="Access-Control-Expose-Headers: which headers pages of other origins may read. Empty: the usual."
    ).tag(config=True)
    max_age = Unicode(
        help="Access-Control-Max-Age: seconds for which browsers remember all that. Empty: theirs to say."
    ).tag(config=True)
    ssl_version = Int(
        None,
        allow_none=True,
        help="The version of TLS, as Python's ssl numbers it. None: what client and server agree on.",
    ).tag(config=True)

    #: Set before the server is built.
    mounts: list[mounts.Mount]
    static_folder: Path | None = None
    #: Whether hidden files are only read because a notebook may be one.
    hides_files = False
    _failure: str | None = None
    _fetched: Path | None = None

    @default("port_retries")
    def _only_this_port(self) -> int:
        return 0

    @default("open_browser")
    def _no_browser(self) -> bool:
        return False

    @default("allow_root")
    def _root_may(self) -> bool:
        return True

    @default("identity_provider_class")
    def _token_alone(self) -> type[IdentityProvider]:
        return TokenProvider

    @default("reraise_server_extension_failures")
    def _not_without(self) -> bool:
        return True

    @default("allow_remote_access")
    def _by_any_name(self) -> bool:
        # A token keeps all out; without one, a page may come by a name that its owner made to point here.
        return self.authenticate

    @default("local_hostnames")
    def _own_names(self) -> list[str]:
        return ["localhost", *([self.ip] if self.ip else [])]

    # Options

    @catch_config_error
    def initialize(
        self,
        argv: list[str] | None = None,
        find_extensions: bool = False,  # noqa: FBT001, FBT002  # as inherited
        new_httpserver: bool = True,  # noqa: FBT001, FBT002
        starter_extension: Any = None,
    ) -> None:
        """Read options, and build the server."""
        self.jpserver_extensions = {"jupyter_nbexec.serve": True}
        super().initialize(argv, find_extensions, new_httpserver, starter_extension)

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Read the command line: what is no option is a notebook."""
        JupyterApp.parse_command_line(self, argv)
        named, self.extra_args = list(self.extra_args), []
        if named:
            self.update_config(Config({"ServeApp": {"notebooks": named}}))
        self._understand(gateway.CLASSES, {})

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """Read files; what Kernel Gateway has in its own words, also in the environment, is understood."""
        super().load_config_file(*args, **kwargs)
        self._understand(gateway.CLASSES, gateway.environment(os.environ))

    def _understand(self, classes: tuple[str, ...], environment: dict[tuple[str, str], Any]) -> None:
        given = {
            (name, trait): value for name in classes for trait, value in self.config.get(name, {}).items()
        }
        try:
            meant, unknown = gateway.translate({**environment, **given})
        except gateway.NotUnderstood as error:
            self.give_up(str(error))
        for option in unknown:
            self.log.warning("%s is not an option here, and changes nothing", option)
        translated = Config()
        for (name, trait), value in meant.items():
            if trait not in self.config.get(name, {}):
                # As on the command line: what a text means is for the trait to say.
                is_text = type(value) is str
                translated[name][trait] = DeferredConfigString(value) if is_text else value
        self.update_config(translated)

    # The server

    def init_configurables(self) -> None:
        """Find the notebooks, and see to who may come in."""
        self._find_notebooks()
        if not self.authenticate:
            self.config.IdentityProvider.token = ""
            self.disable_check_xsrf = True
        for option in ("certfile", "keyfile", "client_ca"):
            file = getattr(self, option)
            if file and not Path(file).is_file():
                self.give_up(f"There is no file {file}, which {option} names.")
        if self.static_path:
            self.static_folder = Path(self.static_path).resolve()
        if self.ssl_version is not None:
            self.ssl_options = {**(self.ssl_options or {}), "ssl_version": self.ssl_version}
        self._set_up_web()
        super().init_configurables()

    def _find_notebooks(self) -> None:
        named = list(self.notebooks)
        if self.seed_uri and not named:
            named = [self.seed_uri]
            if "kernel_manager_class" not in self.config.ServerApp:
                self.kernel_manager_class = KernelsHere
        try:
            files = [self._file(name) for name in named]
            root, self.mounts = mounts.mount(files, has_files=bool(self.static_path))
        except mounts.CannotServe as error:
            self.give_up(str(error))
        self.root_dir = str(root)
        # Who names a notebook on the command line has seen it.
        self.hides_files = "allow_hidden" not in self.config.ContentsManager
        if self.hides_files:
            self.config.ContentsManager.allow_hidden = True

    def _file(self, name: str) -> Path:
        if not mounts.is_remote(name):
            return Path(name)
        if self._fetched is None:
            self._fetched = Path(tempfile.mkdtemp(prefix="nbexec-serve-"))
        return mounts.fetch(name, self._fetched)

    def _set_up_web(self) -> None:
        said = {
            "Access-Control-Allow-Headers": self.allow_headers,
            "Access-Control-Allow-Methods": self.allow_methods,
            "Access-Control-Expose-Headers": self.expose_headers,
            "Access-Control-Max-Age": self.max_age,
        }
        headers = {name: value for name, value in said.items() if value}
        own = self.tornado_settings.get("headers", {})
        self.tornado_settings = {
            "log_function": self._log_request,
            **self.tornado_settings,
            "headers": {**headers, **own},
        }

    def _log_request(self, handler: web.RequestHandler) -> None:
        """Log a request in a line: without its query and headers, which may hold what nobody is to read."""
        request = handler.request
        self.log.info(
            "%d %s %s %s %.1f ms",
            handler.get_status(),
            request.method,
            request.path,
            request.remote_ip,
            1000 * request.request_time(),
        )

    def init_signal(self) -> None:
        """Stop when asked to, without a question; who asks again does not wait."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signal_stop)

    def _signal_stop(self, sig: Any, frame: Any) -> None:
        signal.signal(sig, signal.SIG_DFL)
        super()._signal_stop(sig, frame)

    def start(self) -> None:
        """Serve until told to stop; a service that cannot answer ends with status 1."""
        self.start_app()
        self.start_ioloop()
        if self._fetched is not None:
            shutil.rmtree(self._fetched, ignore_errors=True)
        if self._failure is not None:
            sys.exit(1)

    def start_app(self) -> None:
        """Say who may come in. There is no browser to open, and no list of servers to be in."""
        JupyterApp.start(self)
        provider = self.identity_provider
        if not self.authenticate:
            self.log.critical(
                "NO AUTHENTICATION: whoever reaches this server executes the cells of its notebooks."
            )
        elif provider.token_generated:
            self.log.critical(
                "No token was given; this one was made up: %s\n"
                "    Clients send it in a header: `Authorization: token %s`",
                provider.token,
                provider.token,
            )

    def write_server_info_file(self) -> None:
        """Nobody is to find a server here that could run or show notebooks."""

    def tell_ready(self) -> None:
        """Say what is served where."""
        for mount in self.mounts:
            self.log.info("%s is served at %s", mount.path, self._address(f"{mount.prefix}/"))
        self.log.info(
            "described at %s, to try at %s", *map(self._address, (handlers.DOCUMENT, handlers.PAGE))
        )

    def _address(self, path: str) -> str:
        scheme = "https" if self.certfile else "http"
        host = f"[{self.ip}]" if ":" in self.ip else self.ip or "*"
        return f"{scheme}://{host}:{self.port}{self.base_url.rstrip('/')}{path}"

    def fail(self, why: str) -> None:
        """End, since no call could be answered."""
        self._failure = why
        self.log.critical("%s", why)
        self.stop()

    def give_up(self, why: str) -> None:
        """End before the start."""
        self.log.critical("%s", why)
        self.exit(1)
