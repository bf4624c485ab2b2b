"""Which setting names nobody reads: the check that keeps invented names out of what we emit."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

from tools.superset_names import site_packages

#: Superset and the Flask extensions that read its configuration.
READERS = (
    "superset",
    "flask",
    "flask_appbuilder",
    "flask_caching",
    "flask_compress",
    "flask_cors",
    "flask_jwt_extended",
    "flask_limiter",
    "flask_login",
    "flask_migrate",
    "flask_session",
    "flask_sqlalchemy",
    "flask_talisman",
    "flask_wtf",
)
#: Defining a default is not reading it.
NOT_READERS = ("superset/config.py", "superset/migrations/versions/", "superset/examples/")
#: Celery's guide to Redis asks for these; no code of Celery 5.6 or kombu reads them, so they are neither needed nor harmful.
ONLY_DOCUMENTED = {"visibility_timeout"}


def unread_settings(names: Iterable[str]) -> set[str]:
    """The `names` that no installed reader of Superset's configuration holds as a string, which is how all of them read it."""
    return {name for name in names if not any(name in _strings(path) for path in _files_with(name))}


def _files_with(name: str) -> Iterator[Path]:
    for path, text in _sources().items():
        if f'"{name}"' in text or f"'{name}'" in text:
            yield path


@cache
def _sources() -> dict[Path, str]:
    site = site_packages()
    files = [file for package in READERS for file in (site / package).rglob("*.py")]
    assert len(files) > 1000, "Superset's environment is not where it should be"
    kept = (file for file in files if not file.relative_to(site).as_posix().startswith(NOT_READERS))
    return {file: file.read_text(encoding="utf-8") for file in kept}


@cache
def _strings(path: Path) -> frozenset[str]:
    """The string constants of a file's code: no comments."""
    nodes = ast.walk(ast.parse(_sources()[path]))
    return frozenset(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))


def unread_celery(celery: Mapping[str, Any], known: Mapping[str, list[str]]) -> set[str]:
    """The keys in a CELERY_CONFIG, transport options included, that the installed Celery and kombu do not have."""
    unread = set(celery) - set(known["celery"]) - ONLY_DOCUMENTED
    for options in ("broker_transport_options", "result_backend_transport_options"):
        given = cast("dict[str, Any]", celery[options])
        unread |= {f"{options}.{key}" for key in set(given) - set(known[options]) - ONLY_DOCUMENTED}
        unread |= {
            f"{options}.sentinel_kwargs.{key}" for key in set(given.get("sentinel_kwargs", {})) - set(known["redis_client"])
        }
    return unread


def unread_cache(settings: Mapping[str, Any], known: Mapping[str, list[str]]) -> set[str]:
    """The keys of a cache's settings that flask-caching and Superset do not read, or redis-py's client does not take."""
    options = {str(key).removeprefix("sentinel_") for key in settings["CACHE_OPTIONS"]}
    return unread_settings(settings) | {f"CACHE_OPTIONS.{key}" for key in options - set(known["redis_client"])}
