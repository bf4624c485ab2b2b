"""What a container runs."""

from __future__ import annotations

from pathlib import Path


def start_script() -> Path:
    """The script that starts a Redis server, in pods and on this machine: it converts data of another persistence first."""
    return Path(__file__).with_name("redis.sh")
