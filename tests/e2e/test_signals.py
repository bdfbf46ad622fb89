"""A sync that is asked to stop, in each of its phases: how soon it ends, what it says, and that the next continues."""

import json
import signal
import time

import pytest

from .lab import EVENTS, PEOPLE, until

SOON_S = 5.0
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# The call that hangs, or the job that does not end: what a run is in the middle of when it is asked to stop.
PHASES = {
    "create": ("events", EVENTS, {"kind": "hang", "call": "ingest.create", "seconds": 7, "times": 1}),
    "upload": ("events", EVENTS, {"kind": "hang", "call": "ingest.upload", "seconds": 7, "times": 1}),
    "close": ("events", EVENTS, {"kind": "hang", "call": "ingest.close", "seconds": 7, "times": 1}),
    "poll": ("events", EVENTS, {"kind": "job_stuck", "seconds": 8, "times": 1}),
    "results": ("events", EVENTS, {"kind": "hang", "call": "ingest.results", "seconds": 7, "times": 1}),
    "collections": ("people", PEOPLE, {"kind": "hang", "call": "collections.*", "seconds": 7, "times": 1}),
    "retry pause": ("people", PEOPLE, {"kind": "rows", "preset": "lock", "share": 0.5}),
}


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_ends_a_sync_within_five_seconds_and_the_next_run_delivers_once(lab, phase, number):
    model, declared, fault = PHASES[phase]
    declared = {**declared, "fields": {k: v for k, v in declared["fields"].items() if "." not in v}}
    lab.only(model, declared)
    count = {"events": 20, "people": 30}[model]
    with lab.emulator() as (org, _):
        url = org.base.split("/services")[0]
        assert org.http.post(f"{url}/emulator/faults", json=fault).status_code == 200
        child = lab.start("sync")
        fired = lambda: org.http.get(f"{url}/emulator/faults").json()["faults"][0]["fired"]  # noqa: E731
        until(lambda: fired() or child.poll() is not None)
        time.sleep(0.3)  # it now waits for what does not come
        asked = time.monotonic()
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        took = time.monotonic() - asked
        assert child.returncode == CODES[number], out + err
        assert took < SOON_S, took
        assert "the next run continues" in out and "Traceback" not in err
        results = json.loads((lab.root / "target" / "dinmo_run_results.json").read_text())["results"]
        assert [result["status"] for result in results] == ["interrupted"]
        assert org.http.delete(f"{url}/emulator/faults").status_code < 300
        again = lab.process("sync")
        assert again.code == 0, again.all
        assert org.count(declared["object"]) == count
