"""Loads a team's own module, and lays what it sets over the platform's settings."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from runtime.config import own
from runtime.environment.secrets import ConfigurationError
from runtime.superset import sign_on
from topology.commands import OWN_MODULE_ENV
from topology.model import Topology
from topology.own_module import in_image
from topology.superset_ownership import assigned


def merged(topology: Topology, settings: dict[str, object], env: Mapping[str, str]) -> dict[str, object]:
    """`settings` with what the module sets that the environment or the stack names; as they are where there is none.

    ConfigurationError where it cannot be loaded, or sets what the platform decides.
    """
    path = env.get(OWN_MODULE_ENV) or in_image(topology)
    if path:
        settings = own.with_module(topology, settings, load(Path(path)), path)
    return sign_on.with_manager(topology, settings)


def load(path: Path) -> dict[str, object]:
    """What the module at `path` sets, by upper-case name; its neighbours can be imported from it."""
    entry = path / "__init__.py" if path.is_dir() else path
    folder = entry.parent.parent if entry.name == "__init__.py" else entry.parent
    name = entry.parent.name if entry.name == "__init__.py" else entry.stem
    if not entry.is_file():
        raise ConfigurationError(f"superset.config_module: there is no file {entry} in this image or on this machine")
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise ConfigurationError(
            f"superset.config_module: {entry} is named like the installed module {name!r}, which would be hidden. Rename it"
        )
    spec = importlib.util.spec_from_file_location(name, entry)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"superset.config_module: {entry} is no Python module")
    sys.path.append(str(folder))
    module = importlib.util.module_from_spec(spec)
    # As an import does it: what it defines can be found by its name, which pickles and tracebacks go by.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        sys.path.remove(str(folder))
        line = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{line.filename}:{line.lineno}"
        raise ConfigurationError(f"superset.config_module: {entry}: {type(error).__name__}: {error} ({where})") from error
    itself = {setting for setting, _ in assigned(entry.read_text(encoding="utf-8"))}
    # Superset's configuration, half loaded: a module that imports all of it sets none of what it has from there.
    shipped = vars(sys.modules["superset.config"]) if "superset.config" in sys.modules else {}
    return {
        setting: value
        for setting, value in vars(module).items()
        if setting.isupper() and (setting in itself or setting not in shipped or shipped[setting] is not value)
    }
