"""The page at `/`: what it tells, what it never tells, and how it looks in a real Chromium."""

from __future__ import annotations

import os
import re
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


def page(org: Mounted, path: str = "/") -> str:
    reply = org.client.get(path)
    assert reply.status_code == 200
    return reply.text


def test_the_page_tells_counts_jobs_failures_calls_and_faults(org: Mounted) -> None:
    empty = page(org)
    assert "No jobs yet" in empty
    assert "None yet" in empty
    assert "None: each call is answered" in empty
    assert "No records: Account, Case" in empty
    org.job("Account", ROWS)
    gone = org.create("Account", {"Name": "gone"})
    org.api("DELETE", f"/sobjects/Account/{gone}")
    org.control("POST", "/faults", {"kind": "slow", "call": "query*", "seconds": 2, "times": 3})
    org.get("/query?q=SELECT+Id+FROM+Account")
    told = " ".join(page(org).split())
    assert '<td class="id" title="Account">Account</td> <td class="n">1</td> <td class="n none">1</td>' in told
    assert "2 × REQUIRED_FIELD_MISSING Name" in told
    assert "1 × INVALID_FIELD" in told
    assert '<td class="state busy">JobComplete</td> <td class="n">4</td> <td class="n bad">3</td>' in told
    assert '<code>slow</code> <span class="soft id">seconds=2.0</span>' in told
    assert '<td class="id nowrap">query*</td> <td class="n">1</td><td class="n">1</td> <td class="n">2</td>' in told
    assert "GET v62.0/query?q=" in told
    assert "slow (1)" in told


def words(text: str) -> str:
    """What a reader sees of the page, in one line."""
    return " ".join(re.sub(r"<[^>]*>", " ", text.partition("<body>")[2]).split())


def test_it_tells_the_versions_the_clock_the_sessions_and_the_limits_in_use(mount: Callable[..., Mounted]) -> None:
    org = mount(session_s=3600)
    login = {"grant_type": "client_credentials", "client_id": org.app.identity.client_id}
    org.client.post("/services/oauth2/token", data={**login, "client_secret": org.app.identity.client_secret})
    org.control("POST", "/limits", {"DailyApiRequests": 3})
    org.job("Account", names(5))
    told = words(page(org))
    assert org.app.identity.organization_id in told
    assert "API v31.0 to v68.0 Clock, stopped 2026-03-01 12:00:00 UTC Sessions 2" in told
    assert "API calls 3 3 Bulk batches" in told
    assert '<td>API calls</td><td class="n bad">3</td>' in page(org)
    org.clock.advance(3600)
    assert "Sessions 1" in words(page(org))


def test_a_job_is_opened_with_every_reason_and_no_value(org: Mounted) -> None:
    rows = [
        "A,a@b.example,Gold,1", "B,hidden: hidden -- x,Gold,1", "C,hidden,Gold,1", "C,hidden,Nope,hidden",
        "D,a@b.example,hidden,1", "E,a@b.example,Gold,hidden",
    ]  # fmt: skip
    job = org.job("Customer__c", "Name,Email__c,Tier__c,Amount__c\n" + "\n".join(rows))
    told = words(page(org, path=f"/?job={job}"))
    assert f"insert Customer__c {job} State JobComplete Rows 6 Failed 5 API v62.0" in told
    assert told.partition("with the fields named ")[2].partition(" In full")[0] == (
        "2 INVALID_EMAIL_ADDRESS Email__c 1 INVALID_EMAIL_ADDRESS "
        "1 INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST Tier__c 1 INVALID_FIELD"
    )
    assert f"GET /services/data/v62.0/jobs/ingest/{job}/failedResults" in told
    assert "hidden" not in told


def test_a_file_without_a_header_is_not_reported_by_its_first_row(org: Mounted) -> None:
    job = org.job("Account", "hidden@b.example,hidden\nA,B\n")
    assert org.info(job)["errorMessage"].endswith("hidden@b")
    for path in ("/", f"/?job={job}"):
        told = page(org, path=path)
        assert "InvalidBatch : Unable to find relationship" in told
        assert "hidden" not in told


def test_a_query_job_is_opened_without_its_query(org: Mounted) -> None:
    query = {"operation": "query", "query": "SELECT Id FROM Account WHERE Name = 'hidden'"}
    job = org.api("POST", "/jobs/query", query).json["id"]  # type: ignore[index]
    told = words(page(org, path=f"/?job={job}"))
    assert f"query Account {job} State" in told
    assert "hidden" not in told


def test_a_job_that_is_not_there_is_said_to_be_gone_in_text(org: Mounted) -> None:
    for asked in ("750000000000001AAA", "<b>x", "0"):
        reply = org.client.get("/", query_string={"job": asked})
        assert reply.status_code == 404
        assert "No such job" in reply.text
        assert "<b>x" not in reply.text


def test_many_failed_rows_are_counted_only_when_the_job_is_opened(
    org: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dinmo_dbt.emulator.web.page._REASONS_OF_ROWS_MAX", 3)
    jobs = [org.job("Account", "Name,Phone\n" + ",1\n" * rows) for rows in (1, 3, 2)]
    told = words(page(org))
    assert told.count("REQUIRED_FIELD_MISSING") == 2
    assert told.count("count why") == 1
    assert "3 REQUIRED_FIELD_MISSING Name" in words(page(org, path=f"/?job={jobs[1]}"))


def test_calls_that_repeat_are_one_line_with_how_often_and_by_whom(org: Mounted) -> None:
    for _ in range(3):
        org.api("GET", "/limits", headers={"User-Agent": "poller/1"})
    org.api("GET", "/limits", headers={"User-Agent": "other/2"})
    listed = words(page(org))
    assert "12:00:00 GET v62.0/limits 200 0 1 · 4 other/2 12:00:00 GET v62.0/limits 3 200 0 1 · 3 poller/1" in listed


def test_clients_that_ask_for_json_still_get_the_page_and_the_api_its_own_answers(org: Mounted) -> None:
    for agent in ("simple-salesforce/1.12", "jsforce"):
        reply = org.client.get("/", headers={"Accept": "application/json", "User-Agent": agent})
        assert (reply.status_code, reply.mimetype) == (200, "text/html")
    assert org.client.get("/services/data").json[0]["version"] == "31.0"  # type: ignore[index]
    assert org.client.get("/services/data?job=1").mimetype == "application/json"


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
    org.app.change_schema({"objects": {"Account": {"label": SCRIPT}}})
    org.create("Account", {"Name": "a"})
    org.control("POST", "/faults", {"kind": "rows", "object": "Account", "preset": "trigger", "message": SCRIPT})
    org.api("GET", "/limits", headers={"User-Agent": SCRIPT})
    reply = org.client.get("/")
    assert "<script" not in reply.text
    assert reply.text.count("&lt;script&gt;") == 3
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


def test_another_host_gets_nothing_and_other_methods_are_salesforces(org: Mounted) -> None:
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
    running.get("/limits", headers={"User-Agent": "agent" * 100})
    token = {"Authorization": f"Bearer {running.line['access_token']}"}
    fault = {"kind": "rows", "object": "Account", "preset": "trigger", "message": SCRIPT + "w" * 500}
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


@pytest.mark.slow
def test_in_a_browser_it_shows_what_happened_and_runs_nothing(served: Org, browser: webdriver.Chrome) -> None:
    browser.get(served.url)
    assert browser.title.startswith("Salesforce emulator 00D")
    listed = [row.text.split() for row in browser.find_elements(By.CSS_SELECTOR, "#objects tbody tr")]
    assert ["Account", "1", "–"] in listed
    jobs = browser.find_element(By.ID, "jobs")
    assert "2 × REQUIRED_FIELD_MISSING Name" in jobs.text
    assert SCRIPT in browser.find_element(By.ID, "faults").text
    colour = jobs.find_element(By.CLASS_NAME, "bad").value_of_css_property("color")
    assert colour != browser.find_element(By.TAG_NAME, "body").value_of_css_property("color")  # the style is applied
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_a_job_is_opened_and_closed_by_links(served: Org, browser: webdriver.Chrome) -> None:
    browser.get(served.url)
    browser.find_element(By.PARTIAL_LINK_TEXT, "insert").click()
    job = browser.find_element(By.ID, "job")
    listed = [row.text.split() for row in job.find_elements(By.CSS_SELECTOR, "tbody tr")]
    assert listed == [["2", "REQUIRED_FIELD_MISSING", "Name"], ["1", "INVALID_FIELD"]]
    browser.find_element(By.PARTIAL_LINK_TEXT, "every 5 s").click()
    assert browser.find_elements(By.CSS_SELECTOR, "meta[http-equiv=refresh]")  # and the job stays open
    browser.find_element(By.ID, "job").find_element(By.LINK_TEXT, "Close").click()
    assert not browser.find_elements(By.ID, "job")


@pytest.mark.slow
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
