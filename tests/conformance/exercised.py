"""Which calls of the API a client made, as the org itself lists them, and as the page tells them."""

from __future__ import annotations

import re
import threading
from typing import Any

import requests
from emulator.conftest import Org
from emulator.pages import text_of

PAGE = "emulator-conformance.md"
_LOOK_S = 0.1  # the org keeps its last 200 calls


class Watch:
    """Reads an org's list of calls while a client is at work. The call by which it reads is not in it."""

    def __init__(self, org: Org) -> None:
        self._url = f"{org.url}/emulator/calls"
        self._http = requests.Session()
        self._last = self._listed()
        self._answered: dict[str, bool] = {}
        self._missed = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> dict[str, str]:
        """Each call's name: `x`, or `refused` where no call of that name got a good answer."""
        self._done.set()
        self._thread.join(timeout=30)
        self._note()
        self._http.close()
        assert not self._missed, "more calls between two looks than the org keeps"
        return {name: "x" if good else "refused" for name, good in sorted(self._answered.items())}

    def _look(self) -> None:
        while not self._done.wait(_LOOK_S):
            self._note()

    def _note(self) -> None:
        listed = self._listed()
        news = next(at for at in range(len(listed) + 1) if listed[at:] == self._last[: len(listed) - at])
        self._missed |= bool(self._last) and news == len(listed)
        for call in listed[:news]:
            if call["name"]:
                self._answered[call["name"]] = call["status"] < 400 or self._answered.get(call["name"], False)
        self._last = listed

    def _listed(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = self._http.get(self._url, timeout=30).json()["calls"]
        return listed


def told(client: str) -> dict[str, str]:
    """The client's column of the page's table of calls, without empty cells."""
    table = re.search(r"<!-- calls -->\n(.*?)<!-- end -->", text_of(PAGE), re.DOTALL)
    assert table
    head, _, *lines = ([c.strip() for c in line.strip("|").split("|")] for line in table[1].splitlines())
    column = head.index(client)
    return {line[0].strip("`"): line[column] for line in lines if line[column]}
