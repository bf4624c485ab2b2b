"""Where a process of a test answers: on the stdout that it began with, to which nobody else then writes."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def alone() -> TextIO:
    """The stdout that this process began with; what others print, and records of the audit trail, go to stderr from now on."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return answers
