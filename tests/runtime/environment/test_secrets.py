"""Keys that anybody could guess end a process at its start."""

from __future__ import annotations

import secrets

import pytest

from runtime.environment.secrets import ConfigurationError, read, weak
from tests.runtime.stacks import environment, topology


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("x", "1 bytes"),
        ("k" * 64, "1 different characters"),
        ("abcd" * 16, "4 different characters"),
        ("CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET", "placeholder"),
        ("thisISaSECRET_1234", "placeholder"),
        ("TEST_NON_DEV_SECRET" + "0123456789abcdef", "placeholder"),
    ],
)
def test_a_key_that_can_be_guessed_is_refused(key: str, why: str) -> None:
    assert why in str(weak(key))
    plan = topology("minimal")
    with pytest.raises(ConfigurationError, match=why) as refused:
        read(plan, environment(plan) | {"SUPERSET_SECRET_KEY": key})
    assert key == "x" or key not in str(refused.value)


def test_a_generated_key_is_taken() -> None:
    for made in (secrets.token_urlsafe(32), secrets.token_hex(32), secrets.token_hex(16), secrets.token_urlsafe(48)):
        assert weak(made) is None
