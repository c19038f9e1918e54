"""Kernel Gateway's options, as far as they concern its notebook-http mode, in our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

#: Options by class and name, as configuration has them; values as they were given.
Options: TypeAlias = "Mapping[tuple[str, str], Any]"
Target: TypeAlias = "tuple[str, str]"

APP: Final = "KernelGatewayApp"
NOTEBOOK_HTTP: Final = "NotebookHTTPPersonality"
#: The names of the one API of Kernel Gateway that is served here.
APIS: Final = ("kernel_gateway.notebook_http", "notebook-http")
CLASSES: Final = (APP, NOTEBOOK_HTTP, "JupyterWebsocketPersonality")


class NotUnderstood(Exception):
    """An option asks for what is not done here; the text says what."""


@dataclass(frozen=True, kw_only=True)
class _Option:
    """What becomes of one option."""

    #: Class and trait, here.
    targets: tuple[Target, ...] = ()
    #: What the text means; by default the trait reads it.
    read: Callable[[str], Any] | None = None
    #: The environment variable; None if it has none.
    variable: str | None = None


def _is_true(text: str) -> bool:
    return text.strip().lower() in ("true", "1", "yes", "on")


def _parser(text: str) -> None:
    """Both forms are read anyway."""
    if text not in (
        "kernel_gateway.notebook_http.cell.parser",
        "kernel_gateway.notebook_http.swagger.parser",
    ):
        raise NotUnderstood(f"The parser of cells {text!r} is not one of Kernel Gateway's own.")


def _app(trait: str, *targets: Target, read: Callable[[str], Any] | None = None) -> tuple[Target, _Option]:
    return (APP, trait), _Option(targets=targets, read=read, variable=f"KG_{trait.upper()}")


#: What concerns websockets or what is the same anyway is accepted, and has no target.
OPTIONS: Final[Mapping[Target, _Option]] = dict(
    [
        _app("api", ("ServeApp", "api")),
        _app("ip", ("ServerApp", "ip")),
        _app("port", ("ServerApp", "port")),
        _app("port_retries", ("ServerApp", "port_retries")),
        _app("base_url", ("ServerApp", "base_url")),
        _app("auth_token", ("IdentityProvider", "token")),
        _app("allow_credentials", ("ServerApp", "allow_credentials"), read=_is_true),
        _app("allow_headers", ("ServeApp", "allow_headers")),
        _app("allow_methods", ("ServeApp", "allow_methods")),
        _app("allow_origin", ("ServerApp", "allow_origin")),
        _app("expose_headers", ("ServeApp", "expose_headers")),
        _app("max_age", ("ServeApp", "max_age")),
        _app("trust_xheaders", ("ServerApp", "trust_xheaders"), read=_is_true),
        _app("max_kernels", ("ServeApp", "max_kernels")),
        _app("prespawn_count", ("ServeApp", "kernels")),
        _app("seed_uri", ("ServeApp", "seed_uri")),
        _app("default_kernel_name", ("MappingKernelManager", "default_kernel_name")),
        _app("force_kernel_name", ("ServeApp", "kernel_name")),
        _app("certfile", ("ServerApp", "certfile")),
        _app("keyfile", ("ServerApp", "keyfile")),
        _app("client_ca", ("ServerApp", "client_ca")),
        _app("ssl_version", ("ServeApp", "ssl_version")),
        _app("env_process_whitelist"),
        ((APP, "ws_ping_interval"), _Option(variable="KG_WS_PING_INTERVAL_SECS")),
        ((NOTEBOOK_HTTP, "cell_parser"), _Option(read=_parser, variable="KG_CELL_PARSER")),
        ((NOTEBOOK_HTTP, "comment_prefix"), _Option()),
        (
            (NOTEBOOK_HTTP, "allow_notebook_download"),
            _Option(
                targets=(("ServeApp", "allow_source"),), read=_is_true, variable="KG_ALLOW_NOTEBOOK_DOWNLOAD"
            ),
        ),
        (
            (NOTEBOOK_HTTP, "static_path"),
            _Option(targets=(("ServeApp", "static_path"),), variable="KG_STATIC_PATH"),
        ),
    ]
)


def environment(variables: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Read the options that environment variables give."""
    return {
        option: variables[each.variable]
        for option, each in OPTIONS.items()
        if each.variable is not None and variables.get(each.variable, "") != ""
    }


def translate(options: Options) -> tuple[dict[Target, Any], list[str]]:
    """Say what Kernel Gateway's options mean here, and which of them are not known. Raises NotUnderstood."""
    meant: dict[Target, Any] = {}
    unknown: list[str] = []
    for option, value in options.items():
        known = OPTIONS.get(option)
        if known is None:
            if option[0] != "JupyterWebsocketPersonality":
                unknown.append(".".join(option))
            continue
        if known.read is not None and isinstance(value, str):
            value = known.read(str(value))
        meant.update(dict.fromkeys(known.targets, value))
    return meant, unknown
