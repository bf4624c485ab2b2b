"""A team's own Superset on this machine: flags, settings and a module of its own, and log-in with a real identity provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from oidc_provider_mock import User, run_server_in_thread
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from client.superset_client import SupersetClient
from tests.local.conftest import BROWSER, PROJECT, RunningPlatform, up, write_stack
from tests.waiting import until

pytestmark = [pytest.mark.local, BROWSER]

STACK = "own"
SECONDS = 90
PASSWORD = "for-this-test"
#: Who logs in at the provider, and their groups there.
USERS = [
    User(
        sub="1",
        claims={"preferred_username": "ann", "email": "ann@acme.com", "given_name": "Ann", "groups": ["acme-admins"]},
    ),
    User(sub="2", claims={"preferred_username": "bob", "email": "bob@acme.com", "groups": ["acme-analysts"]}),
    User(sub="3", claims={"preferred_username": "admin", "email": "eve@acme.com", "groups": ["acme-analysts"]}),
]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    folder = tmp_path_factory.mktemp("own")
    with run_server_in_thread(user_claims=USERS) as provider:
        environment = write_stack(
            folder,
            STACK,
            topology="enterprise",
            workers={"concurrency": 2, "min_workers": 1, "max_workers": 1},
            tenants={"acme": {"groups": ["acme-analysts"], "pool": "shared"}},
            superset={
                "feature_flags": {"ENABLE_TEMPLATE_PROCESSING": True},
                "settings": {"APP_NAME": "Acme"},
                "config_module": "own/acme",
                "env": {"ACME_BILLING_TOKEN": {}},
                "sign_on": {
                    "oidc": {"issuer": f"http://localhost:{provider.server_port}", "client_id": "superset"},
                    "roles": {"acme-admins": ["Admin"], "acme-analysts": ["Alpha", "sql_lab"]},
                },
            },
        )
        (folder / "stacks" / "own").symlink_to(PROJECT / "docs" / "examples")
        with up(folder, STACK, environment | {"ACME_BILLING_TOKEN": "t0ken", "SIGN_ON_SECRET": "client-s3cret"}) as running:
            yield running


def sign_on(browser: webdriver.Chrome, platform: RunningPlatform, sub: str) -> None:
    """Follow the button of the log-in page to the provider, and be its user `sub`."""
    browser.get(f"{platform.url}/login/")
    wait = WebDriverWait(browser, SECONDS)
    wait.until(lambda it: it.find_elements(By.CSS_SELECTOR, "a[href*='/login/oidc']"))[0].click()
    wait.until(lambda it: it.find_elements(By.CSS_SELECTOR, f"button[value='{sub}']"))[0].click()
    wait.until(lambda it: it.current_url.startswith(platform.url) and "oauth-authorized" not in it.current_url)


def as_user(browser: webdriver.Chrome, platform: RunningPlatform) -> httpx.Client:
    """A client with the browser's session."""
    cookies = {cookie["name"]: cookie["value"] for cookie in browser.get_cookies()}
    return httpx.Client(base_url=platform.url, cookies=cookies, timeout=SECONDS)


def me(client: httpx.Client) -> httpx.Response:
    return client.get("/api/v1/me/")


def run_sql(client: httpx.Client, platform: RunningPlatform, sql: str) -> list[dict[str, Any]]:
    """The rows of an asynchronous query of the browser's user."""
    token = client.get("/api/v1/security/csrf_token/").json()["result"]
    body = {"database_id": platform.database_id, "sql": sql, "runAsync": True, "client_id": "own-1", "sql_editor_id": "1"}
    sent = client.post("/api/v1/sqllab/execute/", json=body, headers={"X-CSRFToken": token, "Referer": platform.url})
    assert sent.status_code == 202, sent.text
    query = sent.json()["query"]

    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(client.get(f"/api/v1/query/{query['queryId']}").json()["result"])
        return found["status"] in ("success", "failed", "timed_out")

    until(ended, SECONDS, "the query ends")
    assert found["status"] == "success", found.get("error_message")
    rows = client.get("/api/v1/sqllab/results/", params={"q": f"(key:'{found['results_key']}')"})
    assert rows.status_code == 200, rows.text
    return rows.json()["data"] + [{"executed": found["executed_sql"]}]


def test_a_user_of_the_provider_works_as_the_stack_says_and_log_out_ends_it(
    platform: RunningPlatform, browser: webdriver.Chrome
) -> None:
    sign_on(browser, platform, "2")
    with as_user(browser, platform) as client:
        known = me(client).json()["result"]
        # What the claims lack, the team's own security manager says.
        assert (known["username"], known["email"], known["last_name"]) == ("bob", "bob@acme.com", "of Acme")
        roles = set(client.get("/api/v1/me/roles/").json()["result"]["roles"])
        assert roles == {"Alpha", "sql_lab", "Public", "Tenant acme"}
        # Templates, the team's function in them, its mutators, and the tenant's queue: one query.
        *rows, last = run_sql(
            client, platform, "SELECT '{{ fiscal_year(2026) }}' AS year, '{{ current_username() }}' AS who"
        )
        assert rows == [{"year": "FY2027", "who": "bob"}]
        assert "/* acme */" in last["executed"]
        assert client.get("/acme/health").text == "acme"
    counted = httpx.get(f"http://127.0.0.1:{platform.topology.exporter.port}/metrics", timeout=SECONDS).text
    assert any(
        'tenant="acme"' in line and not line.endswith(" 0.0") for line in counted.splitlines() if "completed_total" in line
    )
    browser.get(f"{platform.url}/superset/welcome/")
    assert "Acme" in browser.title
    # A page that still asks for something is then told 401, and goes to the log-in by itself, wherever the browser was going.
    browser.get(f"{platform.url}/health")
    browser.get(f"{platform.url}/logout/")
    # The provider asks whether its session shall end too.
    wait = WebDriverWait(browser, SECONDS)
    wait.until(lambda it: "end_session" in it.current_url)
    wait.until(lambda it: it.find_elements(By.CSS_SELECTOR, "button[type=submit]"))[0].click()
    wait.until(lambda it: it.current_url.startswith(f"{platform.url}/login"))
    with as_user(browser, platform) as client:
        assert me(client).status_code == 401


def test_groups_give_roles_and_the_administrators_name_is_nobodys_at_the_provider(
    platform: RunningPlatform, browser: webdriver.Chrome
) -> None:
    sign_on(browser, platform, "1")
    with as_user(browser, platform) as client:
        assert set(client.get("/api/v1/me/roles/").json()["result"]["roles"]) == {"Admin", "Public"}
    browser.delete_all_cookies()
    sign_on(browser, platform, "3")
    with as_user(browser, platform) as client:
        assert me(client).status_code == 401
    # Who has the password still logs in by it.
    password = platform.password_file.read_text().strip()
    answer = httpx.post(
        f"{platform.url}/api/v1/security/login",
        json={"username": platform.username, "password": password, "provider": "db"},
        timeout=SECONDS,
    )
    assert answer.status_code == 200, answer.text


#: What a template may ask of who asks, of the request, and of the team's own module.
TEMPLATES = {
    "who": "{{ current_username() }}",
    "id": "{{ current_user_id() }}",
    "email": "{{ current_user_email() }}",
    "region": "{{ url_param('region') }}",
    "chosen": "{{ filter_values('who')|join(' ') }}",
    "wrapped": "{{ cache_key_wrapper(fiscal_year(2026)) }}",
}


def test_templates_of_asynchronous_charts_say_who_asks_and_what_for(platform: RunningPlatform) -> None:
    """A worker renders them, without the browser's request; what it keeps is of whom and what it was rendered for."""
    password = platform.password_file.read_text().strip()
    with SupersetClient(platform.url, username=platform.username, password=password) as admin:
        users = {name: new_user(admin, name) for name in ("nina", "sam")}
        sql = "SELECT " + ", ".join(f"'{template}' AS {name}" for name, template in TEMPLATES.items())
        body = {"database": platform.database_id, "schema": "public", "table_name": "templates", "sql": sql}
        dataset = created(admin, "/api/v1/dataset/", body)

    def chart(region: str, **more: Any) -> dict[str, Any]:
        query = {"columns": [*TEMPLATES], "metrics": [], "row_limit": 10, "url_params": {"region": region}, **more}
        source = {"id": dataset, "type": "table"}
        # As a dashboard sends it: the worker has the request's form data, and no more of it.
        return {
            "datasource": source,
            "queries": [query],
            "form_data": {"url_params": {"region": region}},
            "result_type": "full",
        }

    for name, user_id in users.items():
        with SupersetClient(platform.url, username=name, password=PASSWORD) as client:
            expected = {"who": name, "id": str(user_id), "email": f"{name}@acme.com", "chosen": "", "wrapped": "FY2027"}
            for region in ("north", "south"):
                found = client.chart_data(chart(region))
                assert found.job_id, "no worker has computed it"
                assert found.queries[0]["data"] == [expected | {"region": region}]
            for region in ("north", "south"):
                again = client.chart_data(chart(region))
                assert again.queries[0]["data"] == [expected | {"region": region}]
            filtered = chart("north", filters=[{"col": "who", "op": "IN", "val": [name]}])
            assert client.chart_data(filtered).queries[0]["data"] == [expected | {"region": "north", "chosen": name}]


def new_user(admin: SupersetClient, name: str) -> int:
    """The id of a new user who may see every dataset."""
    roles = admin._session.call("GET", "/api/v1/security/roles/", parameters={"q": "(page_size:100)"}).json()["result"]
    ids = [role["id"] for role in roles if role["name"] in ("Alpha", "sql_lab")]
    body = {"username": name, "first_name": name, "last_name": "of Acme", "email": f"{name}@acme.com", "active": True}
    return created(admin, "/api/v1/security/users/", body | {"password": PASSWORD, "roles": ids})


def created(admin: SupersetClient, path: str, body: dict[str, Any]) -> int:
    answer = admin._session.call("POST", path, body=body)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_a_refused_stack_touches_nothing_that_runs(platform: RunningPlatform) -> None:
    before = {process: known["pid"] for process, known in platform.status["processes"].items()}
    stack = platform.state_dir.parent.parent / "stacks" / f"Pulumi.{STACK}.yaml"
    text = stack.read_text()
    try:
        said = yaml.safe_load(text)
        said["config"]["superset-async:superset"]["settings"]["RESULTS_BACKEND"] = {}
        stack.write_text(yaml.safe_dump(said))
        refused = platform.run("up", "--stack", STACK, check=False)
        assert refused.returncode == 1
        assert "superset.settings.RESULTS_BACKEND = {}: is decided by the platform" in refused.stderr
    finally:
        stack.write_text(text)
    assert {process: known["pid"] for process, known in platform.status["processes"].items()} == before
    topology = json.loads((platform.state_dir / "topology.json").read_text())
    assert topology["superset"]["settings"] == {"APP_NAME": "Acme"}
    for file in platform.state_dir.glob("*.json"):
        if file.name != "secrets.json":
            assert "client-s3cret" not in file.read_text()
