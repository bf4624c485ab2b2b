"""The sample dashboard in a real browser: every chart arrives, and by way of the queue."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from runtime.superset.sample import DASHBOARD_SLUG
from tests.local.conftest import BROWSER, RunningPlatform

pytestmark = [pytest.mark.local, BROWSER]


def forget_chart_data(platform: RunningPlatform) -> None:
    topology = platform.topology
    database = topology.database("data_cache")
    server = topology.instance(database.instance)
    password = platform.secrets["REDIS_OPERATOR_PASSWORD"]
    with Redis(server.host, server.port, database.number, username="operator", password=password) as client:
        client.flushdb()


def log_in(browser: webdriver.Chrome, platform: RunningPlatform) -> None:
    browser.get(f"{platform.url}/login/")
    wait = WebDriverWait(browser, 60)
    wait.until(lambda it: it.find_elements(By.CSS_SELECTOR, "input[type=password]"))
    # A second after it is there the page tells Superset's event log so. That answer sets the session's cookie too, and would
    # undo a log-in that it overtakes.
    wait.until(lambda it: any("/superset/log/" in url for url, _ in answers(it)))
    browser.find_element(By.CSS_SELECTOR, "input#username").send_keys(platform.username)
    browser.find_element(By.CSS_SELECTOR, "input[type=password]").send_keys(platform.password_file.read_text().strip())
    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    wait.until(lambda it: "/login" not in it.current_url)


def answers(browser: webdriver.Chrome) -> Iterator[tuple[str, int]]:
    """What the browser was answered since the last call: URLs and status codes, from its network log."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.responseReceived":
            response = message["params"]["response"]
            yield response["url"], response["status"]


def test_every_chart_of_the_dashboard_arrives_through_the_queue(
    platform: RunningPlatform, browser: webdriver.Chrome
) -> None:
    forget_chart_data(platform)
    log_in(browser, platform)
    browser.get(f"{platform.url}/superset/dashboard/{DASHBOARD_SLUG}/")
    wait = WebDriverWait(browser, 90)
    wait.until(lambda it: len(it.find_elements(By.CSS_SELECTOR, "[data-test='chart-container'], .slice_container")) >= 4)
    wait.until(lambda it: not it.find_elements(By.CSS_SELECTOR, "[data-test='loading-indicator'], .loading"))
    time.sleep(2)
    if target := os.environ.get("SUPERSET_ASYNC_SCREENSHOT"):
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(target)
    told = [status for url, status in answers(browser) if url.partition("?")[0].endswith("/api/v1/chart/data")]
    assert told.count(202) == 4, told
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "Revenue by week" in text
    assert "kitchen" in text or browser.find_elements(By.CSS_SELECTOR, "canvas")
    alerts = [alert.text for alert in browser.find_elements(By.CSS_SELECTOR, "[data-test='alert'], .ant-alert-error")]
    assert not alerts, alerts
