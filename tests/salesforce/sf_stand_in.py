"""A stand-in for the Salesforce CLI, of the name `sf`: it answers as the command reference has it, and no real org's
output went into it. `write(folder)` puts it there; how it answers stands in `<folder>/sf.json`, and each call in
`<folder>/calls`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SCRIPT = """#!{python}
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).parent
told = json.loads((here / "sf.json").read_text())
words = sys.argv[1:]
with open(here / "calls", "a") as file:
    file.write(json.dumps(words) + chr(10))
name = words[words.index("--target-org") + 1] if "--target-org" in words else None
command = " ".join(word for word in words if not word.startswith("-") and word != name)
def answer(code, **document):
    print(told.get("before", "") + json.dumps({{"status": code, "warnings": [], **document}}))
    sys.exit(code)
if told.get("raw") is not None:
    sys.stdout.write(told["raw"])
    sys.exit(told.get("code", 0))
if told.get("hangs") and told["hangs"] in command:
    time.sleep(600)
if command == "org list auth":
    answer(0, result=[{{"alias": each, "username": org["username"], "instanceUrl": org["instanceUrl"]}}
                      for each, org in told["orgs"].items()])
org = told["orgs"].get(name) or next((o for o in told["orgs"].values() if o["username"] == name), None)
if org is None:
    answer(1, name="NamedOrgNotFoundError", message="No authorization information found for " + str(name) + ".",
           exitCode=1, stack="NamedOrgNotFoundError: CANARY_STACK")
if command == "org display":
    hidden = "[REDACTED] Use 'sf org auth show-access-token' to view"
    answer(0, result={{"id": org["id"], "username": org["username"], "instanceUrl": org["instanceUrl"],
                      "accessToken": hidden, "connectedStatus": "Connected", "alias": name}})
if command == "org auth show-access-token" and not told.get("old"):
    tokens = org["tokens"]
    token = tokens.pop(0) if len(tokens) > 1 else tokens[0]
    (here / "sf.json").write_text(json.dumps(told))
    answer(0, result={{"accessToken": token}})
answer(127, name="CommandNotFoundError" if told.get("old") else "Error", message=command + " is not a sf command.")
"""


def write(folder: Path, **told: Any) -> Path:
    """The program, answering as `told` has it: `orgs` (alias: username, instanceUrl, id, tokens in their order), `raw`
    (what is written instead, with exit `code`), `before`, `hangs` (a part of the command), `old` (it does not know
    show-access-token)."""
    folder.mkdir(exist_ok=True)
    program = folder / "sf"
    program.write_text(SCRIPT.format(python=sys.executable))
    program.chmod(0o755)
    (folder / "sf.json").write_text(json.dumps({"orgs": {}, **told}))
    return program


def calls(folder: Path) -> list[list[str]]:
    path = folder / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
