"""What a person sees in a real browser of a query or chart that waits, is refused, times out, is stopped, fails or is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from client.superset_client import SupersetClient
from local import binaries, postgres
from local.processes import SAMPLE_DATABASE, SAMPLE_ROLE
from runtime.config.web import TELEMETRY_HOSTS
from runtime.superset.sample import DASHBOARD_SLUG, TABLE
from tests.local.conftest import BROWSER, RunningPlatform
from tests.local.test_dashboard import answers, forget_chart_data, log_in
from tests.local.test_query_e2e import ENDLESS
from tests.waiting import until

pytestmark = [pytest.mark.local, BROWSER]
#: Of the sample dashboard.
CHARTS = 4
PICTURES = os.environ.get("SUPERSET_ASYNC_PICTURES")


@pytest.fixture
def page(platform: RunningPlatform, browser: webdriver.Chrome) -> webdriver.Chrome:
    browser.set_window_size(1100, 760)
    log_in(browser, platform)
    return browser


def picture(browser: webdriver.Chrome, name: str) -> None:
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(f"{PICTURES}/{name}.png")


def text_of(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def shows(browser: webdriver.Chrome, words: str, name: str, seconds: float = 120, times: int = 1) -> str:
    """The page's text once it has `words` so many times; a picture of it where they are wanted."""
    try:
        until(lambda: text_of(browser).count(words) >= times, seconds, f"the page shows {words!r}", pause=0.5)
    finally:
        picture(browser, name)
    return text_of(browser)


def run(browser: webdriver.Chrome, platform: RunningPlatform, sql: str) -> None:
    """Run a statement in a new tab of SQL Lab."""
    browser.get(f"{platform.url}/sqllab/?dbid={platform.database_id}&sql={quote(sql)}&autorun=true&schema=public")
    WebDriverWait(browser, 60).until(lambda it: it.find_elements(By.CSS_SELECTOR, ".SqlEditor, .ace_editor"))


def open_dashboard(browser: webdriver.Chrome, platform: RunningPlatform) -> None:
    forget_chart_data(platform)
    browser.get(f"{platform.url}/superset/dashboard/{DASHBOARD_SLUG}/")


def client_of(platform: RunningPlatform) -> SupersetClient:
    return SupersetClient(platform.url, username=platform.username, password=platform.password_file.read_text().strip())


def worker(platform: RunningPlatform) -> psutil.Process:
    return psutil.Process(platform.status["processes"]["worker-default"]["pid"])


@contextmanager
def at_the_users_bound(platform: RunningPlatform) -> Generator[None]:
    """The platform while its user may have one query, and has one that runs; the bound is read live from the topology's file."""
    file = platform.state_dir / "topology.json"
    before = file.read_text()
    changed = json.loads(before)
    changed["resilience"]["max_in_flight_per_user"] = 1
    with client_of(platform) as client:
        handle = client.submit(ENDLESS, platform.database_id)
        file.write_text(json.dumps(changed))
        try:
            until(lambda: refused(client, platform), 60, "the bound is taken from the file", pause=1)
            yield
        finally:
            file.write_text(before)
            client.stop(handle)


def refused(client: SupersetClient, platform: RunningPlatform) -> bool:
    from client.errors import SubmissionRefusedError

    try:
        client.stop(client.submit("SELECT 1", platform.database_id))
    except SubmissionRefusedError:
        return True
    except Exception:
        return False
    return False


@contextmanager
def stopped(processes: list[psutil.Process]) -> Generator[None]:
    """The processes do nothing while the block runs."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def of_the_sample(platform: RunningPlatform, script: str) -> str:
    """Run a script as the role that has the sample's tables; what it answers."""
    return postgres.run_sql(platform.topology, SAMPLE_ROLE, platform.secrets["SAMPLE_PASSWORD"], SAMPLE_DATABASE, script)


@contextmanager
def held(platform: RunningPlatform) -> Generator[None]:
    """The sample's table while a statement on it begins, and does not end: somebody else has it to himself."""
    server = platform.topology.postgres
    command = [str(binaries.postgres_program("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    command += [f"--host={server.host}", f"--port={server.port}", f"--username={SAMPLE_ROLE}", f"--dbname={SAMPLE_DATABASE}"]
    environment = os.environ | {"PGPASSWORD": platform.secrets["SAMPLE_PASSWORD"]}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(f"BEGIN;\nLOCK TABLE {TABLE};\n\\echo held\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.stdin.close()


def waiting_statements(platform: RunningPlatform) -> int:
    """How many statements on the sample's table have begun, and wait for it."""
    counted = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{TABLE}'::regclass"
    return int(of_the_sample(platform, counted))


def kill_children(platform: RunningPlatform) -> None:
    """As the kernel does where memory runs out."""
    for child in worker(platform).children():
        child.kill()


def blocked(browser: webdriver.Chrome) -> Iterator[str]:
    """What the content security policy refused, as the browser's network log has it."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.responseReceived":
            yield message["params"]["response"]["url"]


def test_a_result_has_its_row_numbers_and_no_telemetry_host_is_called(
    page: webdriver.Chrome, platform: RunningPlatform
) -> None:
    run(page, platform, "SELECT n AS number, 'row ' || n AS name FROM generate_series(1, 5) AS n")
    shows(page, "row 5", "query-success")
    cells = [cell.text for cell in page.find_elements(By.CSS_SELECTOR, ".row-number-col")]
    assert cells[-5:] == ["1", "2", "3", "4", "5"]
    # A valid statement is not marked.
    assert page.find_elements(By.CSS_SELECTOR, ".ace_gutter-cell.ace_error") == []
    called = {url for url in blocked(page) if url.startswith(TELEMETRY_HOSTS)}
    assert called == set()


def test_numbers_that_a_browser_would_round_are_shown_as_they_are(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    """In SQL Lab, and in a chart that comes through the queue."""
    wide = "12345678901234567890.5"
    # Neither number stands in the statement, which the page shows too.
    sql = "SELECT 12345678901234567890 + 0.5 AS number, 9007199254740992 + 1 AS id"
    run(page, platform, sql)
    shows(page, wide, "query-wide")
    with client_of(platform) as client:
        session = client._session  # pyright: ignore[reportPrivateUsage]
        body = {"database": platform.database_id, "schema": "public", "table_name": "wide", "sql": sql}
        dataset = session.call("POST", "/api/v1/dataset/", body=body).json()["id"]
        datasource = f"{dataset}__table"
        params = {"viz_type": "table", "query_mode": "raw", "all_columns": ["id"], "datasource": datasource}
        chart = {"slice_name": "wide", "viz_type": "table", "datasource_id": dataset, "datasource_type": "table"}
        made = session.call("POST", "/api/v1/chart/", body=chart | {"params": json.dumps(params)}).json()["id"]
    list(answers(page))
    page.get(f"{platform.url}/explore/?slice_id={made}")
    shows(page, "9007199254740993", "chart-wide")
    assert 202 in [status for url, status in answers(page) if url.partition("?")[0].endswith("/api/v1/chart/data")]


def test_a_failed_query_is_told_once_in_the_databases_words(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    run(page, platform, "SELECT * FROM nosuch")
    said = shows(page, 'relation "nosuch" does not exist', "query-failed")
    assert said.count('relation "nosuch" does not exist') == 1, said


def test_a_pending_query_says_so_and_can_be_stopped(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    found = worker(platform)
    with stopped([found, *found.children(recursive=True)]):
        run(page, platform, "SELECT 'of a stopped worker'")
        shows(page, "pending", "query-pending")
        open_dashboard(page, platform)
        shows(page, "Waiting on", "chart-pending")
    shows(page, "189M", "chart-success", 180)


def test_a_running_query_is_stopped_by_its_button(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    run(page, platform, ENDLESS)
    button = (By.XPATH, "//button[normalize-space()='Stop']")
    WebDriverWait(page, 60).until(lambda it: it.find_elements(*button))
    shows(page, "running", "query-running")
    page.find_element(*button).click()
    shows(page, "Query was stopped", "query-stopped")


def test_a_refused_query_and_a_refused_chart_have_their_words(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    words = "and a user may have 1"
    with at_the_users_bound(platform):
        run(page, platform, "SELECT 'refused'")
        said = shows(page, words, "query-refused")
        assert said.count(words) == 1, said
        assert "DB engine Error" not in said
        open_dashboard(page, platform)
        said = shows(page, words, "chart-refused")
        assert "DB engine Error" not in said


def test_a_query_beyond_its_limit_says_which(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    run(page, platform, ENDLESS)
    said = shows(page, "The database ended this statement after 15s", "query-timed-out")
    assert said.count("The database ended this statement after 15s") == 1, said


def test_a_chart_is_stopped_by_its_button(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    forget_chart_data(platform)
    with client_of(platform) as client:
        session = client._session  # pyright: ignore[reportPrivateUsage]
        charts = session.call("GET", "/api/v1/chart/").json()["result"]
    chart = next(each["id"] for each in charts if each["slice_name"] == "Revenue")
    with held(platform):
        page.get(f"{platform.url}/explore/?slice_id={chart}")
        until(lambda: waiting_statements(platform) > 0, 60, "the chart's statement begins")
        page.find_element(By.XPATH, "//button[normalize-space()='Stop']").click()
        shows(page, "This chart was stopped", "chart-stopped")
        until(lambda: waiting_statements(platform) == 0, 60, "its statement is cancelled")
        assert "The database ended this statement" not in text_of(page)


def test_a_lost_query_says_what_became_of_it(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    words = "The worker that ran this query ended before it could report"
    with held(platform):
        run(page, platform, f"SELECT count(*) FROM {TABLE}")
        until(lambda: waiting_statements(platform) > 0, 60, "the statement begins")
        kill_children(platform)
        said = shows(page, words, "query-lost")
    assert said.count(words) == 1, said


def test_lost_charts_say_what_became_of_them(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    with held(platform):
        open_dashboard(page, platform)
        until(lambda: waiting_statements(platform) > 0, 60, "a chart's statement begins")
        kill_children(platform)
        shows(page, "The worker that ran this query ended before it could report", "chart-lost")


def test_charts_beyond_their_limit_say_which(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    with held(platform):
        open_dashboard(page, platform)
        said = shows(page, "The database ended this statement after 15s", "chart-timed-out", times=CHARTS)
    assert "DB engine Error" not in said


def test_failed_charts_have_the_databases_words(page: webdriver.Chrome, platform: RunningPlatform) -> None:
    of_the_sample(platform, f"ALTER TABLE {TABLE} RENAME TO elsewhere")
    try:
        open_dashboard(page, platform)
        shows(page, f'relation "public.{TABLE}" does not exist', "chart-failed", times=CHARTS)
    finally:
        of_the_sample(platform, f"ALTER TABLE elsewhere RENAME TO {TABLE}")
