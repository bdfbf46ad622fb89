"""The page at `/`: what it tells, what it never tells, and how it looks in a real Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By

from .conftest import Org
from .mounted import Mounted, names

SCRIPT = "<script>document.title='run'</script>"
ROWS = "Name,NumberOfEmployees\nAlpha,1\n,2\n,3\nBeta,secret-value\n"


@pytest.fixture
def org(mount: Callable[..., Mounted]) -> Mounted:
    return mount()


def page(org: Mounted, **more: str) -> str:
    reply = org.client.get("/", **more)
    assert reply.status_code == 200
    return reply.text


def test_the_page_tells_counts_jobs_failures_calls_and_faults(org: Mounted) -> None:
    empty = page(org)
    assert "No jobs yet" in empty
    assert "None yet" in empty
    assert "None: every call is answered" in empty
    org.job("Account", ROWS)
    gone = org.create("Account", {"Name": "gone"})
    org.api("DELETE", f"/sobjects/Account/{gone}")
    org.control("POST", "/faults", {"kind": "slow", "call": "query*", "seconds": 2})
    org.get("/query?q=SELECT+Id+FROM+Account")
    org.clock.advance(1)
    told = " ".join(page(org).split())
    assert '<td class="id" title="Account">Account</td> <td class="n">1</td> <td class="n none">1</td>' in told
    assert "2 × REQUIRED_FIELD_MISSING Name" in told
    assert "1 × INVALID_FIELD" in told
    assert '<td class="state busy">JobComplete</td> <td class="n">4</td> <td class="n bad">3</td>' in told
    assert "<code>slow</code>" in told
    assert "seconds 2" in told
    assert "GET v62.0/query?q=" in told
    assert "slow (1)" in told


def test_no_token_secret_query_or_value_of_a_record_is_on_it(org: Mounted) -> None:
    org.job("Account", ROWS)
    org.api("GET", "/query?q=SELECT+Id+FROM+Account+WHERE+Name='hidden-value'")
    org.api("PATCH", "/sobjects/Account/Name/hidden-value", {"Phone": "hidden-value"})
    told = page(org)
    who = org.app.identity
    secrets = (who.access_token, who.client_secret, who.password, who.security_token, who.refresh_token)
    for hidden in (*secrets, "Alpha", "secret-value", "hidden-value"):
        assert hidden not in told


def test_what_others_named_stays_text_and_nothing_is_loaded(org: Mounted) -> None:
    org.control("POST", "/faults", {"kind": "rows", "object": "Account", "preset": "trigger", "message": SCRIPT})
    reply = org.client.get("/")
    assert SCRIPT not in reply.text
    assert "&lt;script&gt;" in reply.text
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_another_host_is_told_nothing_and_other_methods_are_salesforces(org: Mounted) -> None:
    foreign = org.client.get("/", headers={"Host": "evil.example"})
    assert (foreign.status_code, foreign.json[0]["errorCode"]) == (404, "NOT_FOUND")  # type: ignore[index]
    assert org.client.post("/").status_code == 404
    head = org.client.head("/")
    assert (head.status_code, head.get_data()) == (200, b"")


def test_looking_counts_as_no_call_and_meets_no_fault(org: Mounted) -> None:
    org.control("POST", "/faults", {"kind": "status", "call": "*", "status": 503})
    before = org.app.site.usage.requests
    assert "<title>" in page(org)
    assert org.app.site.usage.requests == before
    assert org.app.calls.latest() == []


def test_only_the_latest_jobs_and_calls_are_listed(org: Mounted) -> None:
    jobs = [org.job("Account", names(1, i)) for i in range(25)]
    told = page(org)
    assert [job in told for job in jobs] == [False] * 5 + [True] * 20
    assert "the last 20" in told
    assert told.count('<td class="nowrap soft">') == 50


@pytest.fixture(scope="module")
def served(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Org]:
    from .conftest import start

    running = start(schema=schema, data=tmp_path_factory.mktemp("data"))
    running.bulk("insert", "Account", ROWS)
    token = {"Authorization": f"Bearer {running.line['access_token']}"}
    fault = {"kind": "rows", "object": "Account", "preset": "trigger", "message": SCRIPT}
    requests.post(f"{running.url}/emulator/faults", json=fault, headers=token, timeout=30).raise_for_status()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Debian's Chromium without a window. Skipped where there is none, but not in CI: there that would go unseen."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the browser's tests need chromium and chromedriver on the PATH")
        pytest.skip("the browser's tests need chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


def test_in_a_browser_it_shows_what_happened_and_runs_nothing(served: Org, browser: webdriver.Chrome) -> None:
    browser.get(served.url)
    assert browser.title.startswith("Salesforce emulator 00D")
    listed = [row.text.split() for row in browser.find_elements(By.CSS_SELECTOR, "#objects tbody tr")]
    assert ["Account", "1", "–"] in listed
    jobs = browser.find_element(By.ID, "jobs")
    assert "2 × REQUIRED_FIELD_MISSING Name" in jobs.text
    assert SCRIPT in browser.find_element(By.ID, "faults").text
    colour = jobs.find_element(By.CLASS_NAME, "why").value_of_css_property("color")
    assert colour != browser.find_element(By.TAG_NAME, "body").value_of_css_property("color")  # the style is applied
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_a_desk_in_light_and_in_dark(
    served: Org, browser: webdriver.Chrome, width: int, scheme: str
) -> None:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(served.url)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    background = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    light = int(background.partition("(")[2].partition(",")[0]) > 128
    assert light == (scheme == "light")


def test_it_loads_again_when_asked_to(served: Org, browser: webdriver.Chrome) -> None:
    browser.get(served.url)
    assert not browser.find_elements(By.CSS_SELECTOR, "meta[http-equiv=refresh]")
    browser.find_element(By.PARTIAL_LINK_TEXT, "every 5 s").click()
    assert browser.find_element(By.CSS_SELECTOR, "meta[http-equiv=refresh]").get_attribute("content") == "5"
    browser.find_element(By.LINK_TEXT, "stop").click()
    assert not browser.find_elements(By.CSS_SELECTOR, "meta[http-equiv=refresh]")
