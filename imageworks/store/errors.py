"""What can be wrong with a model file, as one error type that every reader raises."""

from __future__ import annotations


class FactsError(Exception):
    """The facts of a model file cannot be read; the message is one sentence that names the file."""
