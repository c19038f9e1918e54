"""HTTP, and nothing else: the route table.

The order counts: fixed paths come before notebooks of the same name.
"""

from __future__ import annotations

from typing import Any

from jupyter_nbexec.handlers import docs, endpoints, history, notebooks, openapi, runs

_RUN = r"/api/nbexec/runs/(?P<run_id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})"

ROUTES: list[tuple[str, type[Any]]] = [
    (r"/api/nbexec", runs.RunHandler),
    (r"/api/nbexec/openapi\.json", openapi.OpenApiHandler),
    (r"/api/nbexec/docs", docs.DocsHandler),
    (r"/api/nbexec/runs", history.RunsHandler),
    (r"/api/nbexec/runs/prune", history.PruneHandler),
    (_RUN, history.RunResourceHandler),
    (rf"{_RUN}/cancel", history.CancelHandler),
    (rf"{_RUN}/events", history.EventsHandler),
    (rf"{_RUN}/notebook", history.ExecutedNotebookHandler),
    (r"/api/nbexec/(?P<path>.+?\.ipynb)/(?P<endpoint>.*)", endpoints.EndpointHandler),
    (r"/api/nbexec/(?P<path>.*)", notebooks.NotebookHandler),
]
