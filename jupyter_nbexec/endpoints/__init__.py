"""A notebook's cells as HTTP endpoints, as far as that is text: annotations, requests, answers."""

from __future__ import annotations
