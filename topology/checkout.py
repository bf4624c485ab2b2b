"""Where a command's files are: in the checkout that it runs from, or in the working directory where it is installed as a wheel.

The wheel carries what `render`, `policy`, `query` and `cost` need, and the Pulumi program. The local platform and the image
are made from the checkout: they need its locked requirements and `make`.
"""

from __future__ import annotations

from pathlib import Path

from topology.problems import MendableError


class NoCheckoutError(MendableError):
    """A command that needs a checkout of the project, and was started from an installed wheel."""


def checkout() -> Path | None:
    """The checkout that this package lies in; None where it is installed elsewhere."""
    folder = Path(__file__).resolve().parent.parent
    return folder if (folder / "Pulumi.yaml").is_file() else None


def project_folder() -> Path:
    """The folder of `stacks/`, `build/` and `.state/`: the checkout, or the working directory where there is none."""
    return checkout() or Path.cwd()


def require_checkout(command: str) -> Path:
    """The checkout; NoCheckoutError, naming `command`, where there is none."""
    found = checkout()
    if found is None:
        raise NoCheckoutError(
            f"{command} needs a checkout of superset-async, and this is an installed package ({Path(__file__).parent.parent}): "
            "the local platform runs on the checkout's locked requirements. Run `make up` in a checkout; "
            "render, policy, query and cost work without one"
        )
    return found
