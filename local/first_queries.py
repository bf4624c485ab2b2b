"""placeholder"""

from typing import Any


class FirstQueryError(RuntimeError):
    pass


def show(known: dict[str, Any], console: Any) -> None:
    pass
