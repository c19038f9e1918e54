"""From a request to a plan: which notebook, which kernel, which parameters. Nothing is started here."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Any

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from traitlets import TraitError

from jupyter_nbexec import background, documents, errors, languages, models, notebooks, parameters, requests
from jupyter_nbexec.endpoints import annotated
from jupyter_nbexec.kernels import gateway, managed, specs


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that is decided about a run before it is admitted."""

    request: models.RunRequest
    notebook: notebooks.Notebook
    kernel_name: str
    language: languages.Language | None
    size: int = background.UNKNOWN_SIZE  #: of notebook and request together, in bytes


@dataclass(frozen=True, kw_only=True)
class Description:
    """What there is to know about a notebook before it is run."""

    notebook: notebooks.Notebook
    kernel_name: str
    kernel_language: str | None
    is_available: bool
    parameters: list[models.Parameter]
    schema: dict[str, models.JsonValue]
    endpoints: annotated.Table


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

    async def plan(self, request: models.RunRequest, *, size: int = 0) -> Plan:
        """Decide on a run. Raises what `errors.py` has for notebooks, kernels and parameters.

        `size` is that of the request's body, in bytes.
        """
        lost = gateway.stays_behind(self._kernels, request.env)
        if lost:
            message = "would not reach the kernel: the gateway is told of those only whose names begin with"
            raise errors.InvalidRequest(
                *(("env", f"{name} {message} KERNEL_ or are in its client's allowed_envs") for name in lost)
            )
        notebook = await self._notebook(request, size)
        if request.save_as is not None and notebook.path is not None:
            # Until it has its id, a run's name for its own file stands for one that nobody else has.
            target = requests.expand_save_as(request.save_as, run_id="{run_id}", name=notebook.name)
            if await notebooks.is_same(self._contents, target, notebook.path):
                raise errors.InvalidRequest(("save_as", "is the notebook itself, which a run never changes"))
        spec = await self._spec(request, notebook)
        language = languages.find(spec.name, spec.language or notebook.language)
        size += notebook.size
        await background.offload(size, _check, request, notebook, spec, language)
        return Plan(request=request, notebook=notebook, kernel_name=spec.name, language=language, size=size)

    async def locate(self, path: str, kernel_name: str = "") -> Plan:
        """Decide on the notebook and kernel of a service. Raises as `plan` does, but knows no parameters.

        `kernel_name`, if it says any, is used whatever the notebook has.
        """
        notebook = await notebooks.read(self._contents, path)
        default = self._kernels.default_kernel_name
        spec = await self._find_or_trust(kernel_name or notebook.kernel_name or default)
        language = languages.find(spec.name, spec.language or notebook.language)
        return Plan(
            request=models.RunRequest(path=path),
            notebook=notebook,
            kernel_name=spec.name,
            language=language,
            size=notebook.size,
        )

    async def restore(self, record: models.RunRecord, content: bytes) -> Plan:
        """Make the plan of a run again from what the store holds of it. Raises NoSuchKernel."""
        stored, origins = await background.run(documents.unpack, content)
        notebook = notebooks.Notebook(
            path=record.path,
            content=stored or nbformat.v4.new_notebook(),
            cell_ids=[origin[1] for origin in origins if origin is not None],
            warnings=list(record.warnings),
        )
        spec = await self._find_or_trust(record.kernel_name)
        language = languages.find(spec.name, spec.language or notebook.language)
        return Plan(request=record.request, notebook=notebook, kernel_name=spec.name, language=language)

    async def obstacle(self, waiting: models.Waiting) -> str | None:
        """Say why this server cannot execute a run that waits, in a sentence; None: it can."""
        try:
            await self._find_or_trust(waiting.kernel_name)
        except errors.NoSuchKernel:
            return f"It has no kernel {waiting.kernel_name!r}."
        folder = posixpath.dirname(waiting.path or "")
        if not await notebooks.has_folder(self._contents, folder):
            return f"It has no folder {folder!r}."
        return None

    async def describe(self, path: str) -> Description:
        """Describe the notebook at a contents path. Raises NotebookNotFound and its like."""
        notebook = await notebooks.read(self._contents, path)
        name = notebook.kernel_name or self._kernels.default_kernel_name
        try:
            spec = await self._find(name)
        except (errors.NoSuchKernel, specs.Unreachable):
            spec = None
        kernel_language = (spec and spec.language) or notebook.language
        language = languages.find(name, kernel_language)
        declared = await background.run(parameters.infer, notebook.content, language)
        return Description(
            notebook=notebook,
            kernel_name=name,
            kernel_language=kernel_language,
            is_available=spec is not None,
            parameters=declared or [],
            schema=await background.offload(notebook.size, parameters.schema, declared),
            endpoints=await background.offload(
                notebook.size, annotated.of_notebook, notebook.content.cells, notebook.cell_ids, language
            ),
        )

    async def _notebook(self, request: models.RunRequest, size: int) -> notebooks.Notebook:
        if request.path is not None:
            return await notebooks.read(self._contents, request.path)
        return await background.offload(size, notebooks.check, request.notebook, size=0)

    async def _spec(self, request: models.RunRequest, notebook: notebooks.Notebook) -> specs.Spec:
        """Find the kernelspec: that of the live kernel, of the request, of the notebook, or the default."""
        if request.kernel_id is not None:
            await self._existing.refresh(request.kernel_id)
            return await self._find_or_trust(self._existing.check(request.kernel_id))
        return await self._find_or_trust(
            request.kernel_name or notebook.kernel_name or self._kernels.default_kernel_name
        )

    async def _find_or_trust(self, name: str) -> specs.Spec:
        """Find a kernelspec; if that can be asked of nobody now, the start of the kernel will tell."""
        try:
            return await self._find(name)
        except specs.Unreachable:
            return specs.Spec(name=name)

    async def _find(self, name: str) -> specs.Spec:
        try:
            return await specs.find(self._specs, name)
        except (NoSuchKernel, TraitError, TypeError, ValueError, KeyError, OSError) as error:
            if (what := errors.shortage(error)) is not None:
                raise errors.OutOfResources(what) from error
            # It is missing, or its kernel.json is broken.
            installed = await specs.names(self._specs)
            raise errors.NoSuchKernel(name, [each for each in installed if each != name]) from error


def _check(
    request: models.RunRequest,
    notebook: notebooks.Notebook,
    spec: specs.Spec,
    language: languages.Language | None,
) -> None:
    """Check the parameters. Raises InvalidParameter, for all at once."""
    declared = parameters.infer(notebook.content, language)
    if language is None and request.parameters:
        message = f"cannot be written in {spec.language or 'the language'} of kernel {spec.name!r}"
        raise errors.InvalidParameter(*((name, message) for name in request.parameters))
    parameters.check(request.parameters, declared, language)
