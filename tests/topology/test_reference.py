"""The configuration reference is what the settings say."""

from __future__ import annotations

from pathlib import Path

from topology.reference import document

PAGE = Path(__file__).resolve().parents[2] / "docs/configuration.md"


def test_the_reference_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "run `make docs`"


def test_it_names_the_keys_of_every_section() -> None:
    page = document()
    for key in (
        "topology",
        "redis.broker.maxmemory",
        "redis.cache.maxmemory",
        "pools.<name>.queues",
        "tenants.<name>.users",
    ):
        assert f"| `{key}` |" in page
