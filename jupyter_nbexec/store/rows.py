"""Models as rows, and back; documents compressed, and back."""

from __future__ import annotations

import dataclasses
import hashlib
import zlib
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from jupyter_nbexec import models

#: Fields of a request that are never stored: secrets, and what is kept elsewhere.
NOT_STORED: Final = frozenset({"env", "notebook", "webhook"})

_T = TypeVar("_T")


def fixed_values(record: models.RunRecord) -> dict[str, Any]:
    """Write what is said of a run when it is admitted; its owner does not change it later."""
    return {
        "id": record.id,
        "status": record.status.value,
        "path": record.path,
        "path_digest": None if record.path is None else digest(record.path),
        "user_name": record.user or "",
        "idempotency_key": record.key,
        "fingerprint": record.fingerprint,
        "owner": record.owner,
        "is_detached": record.is_detached,
        "has_env": record.has_env,
        "is_cancel_requested": record.is_cancel_requested,
        "has_begun": False,
        "created": record.created,
        "ended": record.ended,
        "kernel_name": record.kernel_name,
        "request": _request_to_json(record.request),
    }


def changing_values(record: models.RunRecord) -> dict[str, Any]:
    """Write what the owner of a run says of it again and again."""
    return {
        "started": record.started,
        "kernel": None if record.kernel is None else record.kernel.to_json(),
        "progress": record.progress.to_json(),
        "timing": record.timing,
        "warnings": list(record.warnings),
        "saved_as": record.saved_as,
        "error": None if record.error is None else record.error.to_json(),
        "truncated": record.truncated,
        "result_type": record.result_type,
        "result": record.result,
    }


def delivery_values(delivery: models.Delivery | None) -> dict[str, Any]:
    """Write how far the message about a run's end has come."""
    if delivery is None:
        return {}
    return {
        "delivery_state": delivery.state.value,
        "delivery_url": delivery.url,
        "delivery_events": list(delivery.events),
        "delivery_secret": delivery.sealed_secret,
        "delivery_attempts": delivery.attempts,
        "delivery_next": delivery.next_attempt,
        "delivery_last": delivery.last_attempt,
        "delivery_last_status": delivery.last_status,
        "delivery_last_error": delivery.last_error,
    }


def to_record(row: sa.RowMapping) -> models.RunRecord:
    """Read a row of RUNS."""
    kernel, error = row["kernel"], row["error"]
    if error is not None:
        error = _build(models.RunError, {**error, "code": models.ErrorCode(error["code"])})
    return models.RunRecord(
        id=row["id"],
        created=row["created"],
        request=_request_from_json(row["request"]),
        kernel_name=row["kernel_name"],
        status=models.RunStatus(row["status"]),
        started=row["started"],
        ended=row["ended"],
        kernel=None if kernel is None else _build(models.KernelInfo, kernel),
        progress=_build(models.Progress, row["progress"]),
        result=row["result"],
        result_type=row["result_type"],
        truncated=row["truncated"],
        error=error,
        saved_as=row["saved_as"],
        warnings=tuple(row["warnings"]),
        timing=row["timing"],
        user=row["user_name"] or None,
        key=row["idempotency_key"],
        fingerprint=row["fingerprint"],
        owner=row["owner"],
        is_detached=row["is_detached"],
        has_env=row["has_env"],
        is_cancel_requested=row["is_cancel_requested"],
        number=row["number"],
        delivery=None if row["delivery_state"] is None else to_delivery(row),
    )


def to_delivery(row: sa.RowMapping) -> models.Delivery:
    """Read the message about a run's end from a row of RUNS that has one."""
    return models.Delivery(
        run_id=row["id"],
        url=row["delivery_url"],
        events=tuple(row["delivery_events"]),
        state=models.DeliveryState(row["delivery_state"]),
        sealed_secret=row["delivery_secret"],
        attempts=row["delivery_attempts"],
        next_attempt=row["delivery_next"],
        last_attempt=row["delivery_last"],
        last_status=row["delivery_last_status"],
        last_error=row["delivery_last_error"],
    )


def digest(path: str) -> str:
    """Write what a path is looked up by."""
    return hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()


def pack(document: bytes) -> bytes:
    """Compress a document, quickly rather than well."""
    return zlib.compress(document, 1)


def unpack(packed: bytes) -> bytes:
    """Read what `pack` has written."""
    return zlib.decompress(packed)


def _request_to_json(request: models.RunRequest) -> dict[str, models.JsonValue]:
    names = {field.name for field in dataclasses.fields(request)} - NOT_STORED
    stored = {name: getattr(request, name) for name in sorted(names)}
    return {**stored, "outputs": {"kind": request.outputs.kind, "tags": sorted(request.outputs.tags)}}


def _request_from_json(stored: dict[str, models.JsonValue]) -> models.RunRequest:
    outputs = stored["outputs"]
    selection = models.OutputSelection(kind=outputs["kind"], tags=frozenset(outputs["tags"]))
    return _build(models.RunRequest, {**stored, "outputs": selection})


def _build(kind: type[_T], values: dict[str, Any]) -> _T:
    """Make a dataclass of what was stored; a field that it does not have any more is left out."""
    known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})
