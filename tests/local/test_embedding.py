"""A dashboard in a page of another site, in a real browser: by the public SDK, over TLS, with third-party cookies blocked too."""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from runtime.superset.sample import DASHBOARD_SLUG
from tests.local import portal
from tests.local.conftest import BROWSER, PORTAL, RunningPlatform, headless
from tests.local.test_browser import CHARTS, client_of, picture
from tests.local.test_dashboard import forget_chart_data
from tests.runtime.web import nginx
from tests.tls import Authority
from tests.waiting import free_port, until

pytestmark = [
    pytest.mark.local,
    BROWSER,
    nginx.NEEDED,
    pytest.mark.skipif(not portal.SDK.exists(), reason="needs Superset's embedding SDK: make sdk"),
]
SUPERSET = "https://superset.example.com"
#: A site that the stack does not name, with the same page.
STRANGER = "https://portal.other.example"
#: A cookie that a browser keeps in a frame of another site where third-party cookies are let in.
THIRD = "third"
REQUESTS = "requests.log"


@dataclass(frozen=True)
class Sites:
    """Where each site answers, by host, the digest of the one key that their certificates have, and what Superset was asked."""

    ports: dict[str, int]
    key: str
    requests: Path

    def told(self) -> list[int]:
        """What requests for chart data were answered, since the file was emptied: another site's frame is in no page's log."""
        lines = self.requests.read_text().splitlines()
        return [int(line.split('" ')[1].split()[0]) for line in lines if '"POST /api/v1/chart/data' in line]


@pytest.fixture(scope="module")
def sites(platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    folder = tmp_path_factory.mktemp("sites")
    hosts = {url: url.removeprefix("https://") for url in (SUPERSET, PORTAL, STRANGER)}
    Authority(folder / "authority").sign(folder / "tls", hosts.values())
    with client_of(platform) as client:
        portal.account(client, "portal")
        back_end = portal.BackEnd(platform.url, "portal", portal.embedded(client, DASHBOARD_SLUG))
    web = platform.topology.web.port
    with ExitStack() as stack:
        page = stack.enter_context(portal.serving(back_end, SUPERSET))
        ports = {
            hosts[SUPERSET]: stack.enter_context(
                over_tls(
                    folder,
                    "superset",
                    web,
                    f'add_header Set-Cookie "{THIRD}=1; Secure; SameSite=None; Path=/"',
                    f"access_log {folder}/{REQUESTS}",
                )
            ),
            hosts[PORTAL]: stack.enter_context(over_tls(folder, "portal", page)),
        }
        ports[hosts[STRANGER]] = ports[hosts[PORTAL]]
        yield Sites(ports, spki(folder / "tls/tls.crt"), folder / REQUESTS)


@contextmanager
def over_tls(folder: Path, name: str, upstream: int, *directives: str) -> Generator[int]:
    """The port on which nginx answers over TLS for what answers without on the port `upstream`."""
    port = free_port()
    tls = (
        f"listen 127.0.0.1:{port} ssl",
        f"ssl_certificate {folder}/tls/tls.crt",
        f"ssl_certificate_key {folder}/tls/tls.key",
    )
    with nginx.nginx(folder / name, upstream, *tls, *directives):
        yield port


def spki(certificate: Path) -> str:
    """The digest of a certificate's key, by which a browser knows it."""
    key = ["openssl", "x509", "-in", str(certificate), "-noout", "-pubkey"]
    text = subprocess.run(key, capture_output=True, check=True, text=True).stdout
    der = base64.b64decode("".join(line for line in text.splitlines() if not line.startswith("-")))
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


@contextmanager
def browsing(sites: Sites, *, blocked: bool) -> Generator[webdriver.Chrome]:
    """A browser that finds the sites, and blocks cookies of third parties or does not."""
    rules = ", ".join(f"MAP {host} 127.0.0.1:{port}" for host, port in sites.ports.items())
    modes = {"profile.cookie_controls_mode": 1 if blocked else 0, "profile.block_third_party_cookies": blocked}
    driver = headless(f"--host-resolver-rules={rules}", f"--ignore-certificate-errors-spki-list={sites.key}", prefs=modes)
    try:
        driver.set_window_size(1200, 1180)
        yield driver
    finally:
        driver.quit()


def cookies(browser: webdriver.Chrome) -> set[str]:
    """Names of all cookies that the browser keeps, of whatever site."""
    found: dict[str, Any] = browser.execute_cdp_cmd("Network.getAllCookies", {})
    return {cookie["name"] for cookie in found["cookies"]}


def open_portal(browser: webdriver.Chrome, url: str) -> None:
    """Open the portal's page there, and go into its frame."""
    browser.get(f"{url}/")
    frame = WebDriverWait(browser, 60).until(lambda it: it.find_elements(By.TAG_NAME, "iframe"))[0]
    browser.switch_to.frame(frame)


def text_of(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def is_the_browsers(browser: webdriver.Chrome) -> bool:
    """Whether the frame has the page that the browser shows where it refuses one."""
    return browser.execute_script("return location.protocol") == "chrome-error:"


def is_complete(browser: webdriver.Chrome) -> bool:
    """Whether all charts are there, and none is on its way."""
    charts = browser.find_elements(By.CSS_SELECTOR, "[data-test='chart-container'], .slice_container")
    loading = browser.find_elements(By.CSS_SELECTOR, "[data-test='loading-indicator'], .loading")
    return len(charts) >= CHARTS and not loading and "Revenue by week" in text_of(browser)


@pytest.mark.parametrize("blocked", [True, pytest.param(False, marks=pytest.mark.further)])
def test_a_dashboard_in_another_site_shows_its_charts_through_the_queue_and_in_a_third_site_nothing(
    blocked: bool, sites: Sites, platform: RunningPlatform
) -> None:
    with browsing(sites, blocked=blocked) as browser:
        forget_chart_data(platform)
        sites.requests.write_text("")
        open_portal(browser, PORTAL)
        try:
            until(lambda: is_complete(browser), 120, "the dashboard's charts are there", pause=0.5)
        finally:
            browser.switch_to.default_content()
            picture(browser, f"embedding-{'blocked' if blocked else 'cookies'}")
        browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
        assert sites.told() == [202] * CHARTS
        # A number that is made of all rows.
        assert "M" in text_of(browser)
        assert browser.find_elements(By.CSS_SELECTOR, "canvas")
        assert browser.find_elements(By.CSS_SELECTOR, "[data-test='alert'], .ant-alert-error") == []
        # Superset gave no cookie; what the proxy added shows whether the browser would have kept one.
        assert cookies(browser) == (set() if blocked else {THIRD})

        open_portal(browser, STRANGER)
        until(lambda: is_the_browsers(browser), 60, "the browser shows its own page in the frame", pause=0.2)
        assert sites.told() == [202] * CHARTS
        assert browser.find_elements(By.CSS_SELECTOR, "[data-test='chart-container'], .slice_container") == []
        browser.switch_to.default_content()
        picture(browser, "embedding-refused")
