"""How the command ends."""

from __future__ import annotations

SUCCEEDED = 0
RUN_FAILED = 1  #: or was cancelled
REFUSED = 2  #: or misused
NO_SERVER = 3
NOT_ENDED = 4  #: the run that was waited for, in time
INTERRUPTED = 130
READER_GONE = 141  #: who read stdout has closed it; as a shell says of SIGPIPE


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


class NoServerError(Exception):
    """No running local server has the notebook."""
