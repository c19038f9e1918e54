"""From a request to a plan: which notebook, which kernel, which parameters. Nothing is started here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from jupyter_core.utils import ensure_async
from traitlets import TraitError

from jupyter_nbexec import documents, errors, languages, models, notebooks, parameters, requests
from jupyter_nbexec.kernels import managed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is decided about a run before it is admitted."""

    request: models.RunRequest
    notebook: notebooks.Notebook
    kernel_name: str
    language: languages.Language | None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What there is to know about a notebook before it is run."""

    notebook: notebooks.Notebook
    kernel_name: str
    kernel_language: str | None
    is_available: bool
    parameters: list[models.Parameter]
    schema: dict[str, models.JsonValue]


@dataclass(frozen=True, kw_only=True)
class _Spec:
    """A kernelspec, as far as it matters here."""

    name: str
    language: str | None


class Planner:
    """Reads notebooks and kernelspecs of one server."""

    def __init__(
        self,
        *,
        contents_manager: Any,
        kernel_manager: Any,
        kernel_spec_manager: Any,
        existing: managed.ExistingSource,
    ) -> None:
        self._contents = contents_manager
        self._kernels = kernel_manager
        self._specs = kernel_spec_manager
        self._existing = existing

    async def plan(self, request: models.RunRequest) -> Plan:
        """Decide on a run. Raises what `errors.py` has for notebooks, kernels and parameters."""
        notebook = await self._notebook(request)
        if request.save_as is not None and notebook.path is not None:
            # Until it has its id, a run's name for its own file stands for one that nobody else has.
            target = requests.expand_save_as(request.save_as, run_id="{run_id}", name=notebook.name)
            if await notebooks.is_same(self._contents, target, notebook.path):
                raise errors.InvalidRequest(("save_as", "is the notebook itself, which a run never changes"))
        spec = await self._spec(request, notebook)
        language = languages.find(spec.name, spec.language or notebook.language)
        await asyncio.to_thread(_check, request, notebook, spec, language)
        return Plan(request=request, notebook=notebook, kernel_name=spec.name, language=language)

    async def restore(self, record: models.RunRecord, content: bytes) -> Plan:
        """Make the plan of a run again from what the store holds of it. Raises NoSuchKernel."""
        stored, origins = await asyncio.to_thread(documents.unpack, content)
        notebook = notebooks.Notebook(
            path=record.path,
            content=stored or nbformat.v4.new_notebook(),
            cell_ids=[origin[1] for origin in origins if origin is not None],
            warnings=list(record.warnings),
        )
        spec = await self._find(record.kernel_name)
        language = languages.find(spec.name, spec.language or notebook.language)
        return Plan(request=record.request, notebook=notebook, kernel_name=spec.name, language=language)

    async def describe(self, path: str) -> Description:
        """Describe the notebook at a contents path. Raises NotebookNotFound and its like."""
        notebook = await notebooks.read(self._contents, path)
        name = notebook.kernel_name or self._kernels.default_kernel_name
        try:
            spec = await self._find(name)
        except errors.NoSuchKernel:
            spec = None
        kernel_language = (spec and spec.language) or notebook.language
        language = languages.find(name, kernel_language)
        declared = await asyncio.to_thread(parameters.infer, notebook.content, language)
        return Description(
            notebook=notebook,
            kernel_name=name,
            kernel_language=kernel_language,
            is_available=spec is not None,
            parameters=declared or [],
            schema=parameters.schema(declared),
        )

    async def _notebook(self, request: models.RunRequest) -> notebooks.Notebook:
        if request.path is not None:
            return await notebooks.read(self._contents, request.path)
        return await asyncio.to_thread(notebooks.check, request.notebook)

    async def _spec(self, request: models.RunRequest, notebook: notebooks.Notebook) -> _Spec:
        """Find the kernelspec: that of the live kernel, of the request, of the notebook, or the default."""
        if request.kernel_id is not None:
            return await self._find(self._existing.check(request.kernel_id))
        return await self._find(
            request.kernel_name or notebook.kernel_name or self._kernels.default_kernel_name
        )

    async def _find(self, name: str) -> _Spec:
        try:
            spec = await ensure_async(self._specs.get_kernel_spec(name))
        except (NoSuchKernel, TraitError, TypeError, ValueError, KeyError, OSError) as error:
            # It is missing, or its kernel.json is broken.
            installed = await ensure_async(self._specs.find_kernel_specs())
            raise errors.NoSuchKernel(name, sorted(set(installed) - {name})) from error
        return _Spec(name=name, language=spec.language or None)


def _check(
    request: models.RunRequest,
    notebook: notebooks.Notebook,
    spec: _Spec,
    language: languages.Language | None,
) -> None:
    """Check the parameters. Raises InvalidParameter, for all at once."""
    declared = parameters.infer(notebook.content, language)
    if language is None and request.parameters:
        message = f"cannot be written in {spec.language or 'the language'} of kernel {spec.name!r}"
        raise errors.InvalidParameter(*((name, message) for name in request.parameters))
    parameters.check(request.parameters, declared, language)
