"""Superset's own cache objects and store of rows, on real Valkeys: signed, apart by tenant, with lifetimes and bounds."""

from __future__ import annotations

from typing import Any

import pytest

from tests.runtime.conftest import Prepared, run_script
from topology.settings.caching import Caching, Spill

pytestmark = pytest.mark.superset

#: Seconds that the results of Ann's tenant are kept.
TENANTS_TTL = 300
#: Each user's tenant has values of its own.
OF_TENANTS = ("data_cache", "cache", "filter_state", "explore_form_data")
CACHES = (*OF_TENANTS, "results")


@pytest.fixture(scope="module")
def caches(prepared: Prepared, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("spilled")
    plan = prepared.topology
    caching: Caching = plan.caching.model_copy(
        update={
            "max_result_bytes": 2 * 2**20,
            "spill": Spill(above_bytes=2**19, folder=str(folder / "results"), claim=None),
        }
    )
    tenants = tuple(
        tenant.model_copy(update={"result_ttl_seconds": TENANTS_TTL})
        if "ann" in tenant.users
        # Not bob, whom other tests use.
        else tenant.model_copy(update={"users": ("ben",)})
        for tenant in plan.tenants
    )
    changed = plan.model_copy(update={"caching": caching, "tenants": tenants})
    env = prepared.services.process_environment(changed, "web", "caches")
    return run_script("superset.cache_process", env, str(folder / "executed"))


def test_a_result_is_one_object_whatever_the_tenant_of_who_reads_it(caches: dict[str, Any]) -> None:
    """Its random key stands in its query's row, and Superset decides who may read that query."""
    assert caches["results"]["tenants"] == [True, True, True]


@pytest.mark.parametrize("cache", OF_TENANTS)
def test_tenants_share_no_entry_of_any_cache(cache: str, caches: dict[str, Any]) -> None:
    """What Ann stored is found by Ann, and neither by another tenant's user nor by one of none under the same key."""
    assert caches[cache]["set"] is True
    assert caches[cache]["tenants"] == [True, False, False]
    assert "@tenant-a:key" in caches[cache]["name"]


@pytest.mark.parametrize("cache", CACHES)
def test_forged_values_are_a_miss_and_run_no_code(cache: str, caches: dict[str, Any]) -> None:
    assert caches[cache]["forged"] is None
    assert caches[cache]["forged again"] is None
    assert caches["executed"] is False


def test_results_are_kept_as_long_as_their_tenant_says_and_what_users_did_is_not_cut(caches: dict[str, Any]) -> None:
    assert TENANTS_TTL - 5 < caches["results"]["ttl"] <= TENANTS_TTL
    # With the jitter of ±10 %, and as long again as one may still be fetched, or be served while one computes it anew.
    assert TENANTS_TTL * 0.9 + 50 < caches["data_cache"]["ttl"] <= TENANTS_TTL * 1.1 + 60
    assert 590 < caches["filter_state"]["ttl"] <= 600


@pytest.mark.parametrize("cache", CACHES)
def test_a_tenant_that_comes_while_a_process_runs_has_its_own_values_and_lifetimes(
    cache: str, caches: dict[str, Any]
) -> None:
    name, ttl, found = caches["newcomer"][cache]
    assert ("@newcomer:" in name) == (cache in OF_TENANTS)
    assert found is True
    if cache in ("results", "data_cache"):
        assert 0 < ttl <= 60 * 1.1 + 120


@pytest.mark.parametrize("cache", CACHES)
def test_every_key_has_a_lifetime_and_can_be_deleted(cache: str, caches: dict[str, Any]) -> None:
    assert caches[cache]["endless"] > 0
    assert caches[cache]["deleted"] == [True, True, None]


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_that_cannot_be_cleared_says_so(cache: str, caches: dict[str, Any]) -> None:
    """Superset may not list the keys of its Redis."""
    assert caches[cache]["cleared"] == [False, True]


def test_no_result_is_not_stored(caches: dict[str, Any]) -> None:
    assert caches["none"] == [True, False]


@pytest.mark.parametrize(("kind", "raises"), [("data", "TooLargeError"), ("rows", "SupersetErrorException")])
def test_what_is_too_large_is_refused_with_a_message_for_its_user(kind: str, raises: str, caches: dict[str, Any]) -> None:
    """By what it becomes for who reads it: a few kilobytes of zeros are as large as three megabytes of anything else."""
    becoming = {"data": "data that becomes too large", "rows": "rows that become too large"}[kind]
    for case in (f"{kind} too large", becoming):
        name, message = caches[case]
        assert name == raises
        assert "The result has more than 2.0 MiB, the most that is kept" in message
        assert "caching.max_result" in message


def test_a_large_result_goes_to_a_file_that_is_as_signed_as_what_redis_has(caches: dict[str, Any]) -> None:
    read, bytes_in_redis = caches["spilled"]
    assert read is True
    assert bytes_in_redis < 1000
    assert caches["forged file"] is None
    assert caches["lost file"] is None


def test_chart_data_is_compressed_with_the_stacks_codec(caches: dict[str, Any], prepared: Prepared) -> None:
    assert caches["codec"] == prepared.topology.caching.compression == "zstd"
