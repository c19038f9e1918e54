"""Notebooks whose cells answer HTTP requests: their kernels, and who waits for one.

`line` talks to one kernel, `crew` has the kernels of one notebook, `services` has all notebooks.
"""

from __future__ import annotations
