"""One project and its org for many tests, each of which finds them as new."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from salesforce import sf_stand_in
from test_channels import Receiver

from .lab import Lab, Org, Ran
from .test_reach import free_port

Document = dict[str, Any]
See = Callable[["World", Document], Any]

SECRET, TOKEN, REFRESH, WRONG, HOOK = (
    "{{ env_var('" + name + "') }}" for name in ("SECRET", "TOKEN", "REFRESH", "WRONG", "HOOK")
)
EMULATOR = {"targets": {"dev": {"org": "emulator"}}}
OTHER_ORG = "00D000000000001EAA"
BY_REFRESH = {
    "login_url": "@URL",
    "auth": {"flow": "refresh_token", "client_id": "@CLIENT", "client_secret": SECRET, "refresh_token": REFRESH},
}
BY_CLI = {"auth": {"flow": "sf_cli", "alias": "mine"}}
BY_TOKEN = {"auth": {"flow": "access_token", "instance_url": "@URL", "access_token": TOKEN}}
PINNED = {**BY_TOKEN, "organization_id": OTHER_ORG}


class World:
    """In dinmo.yml @URL is the org's own, @DEAD nobody's, and @CLIENT and @USER those that it lets in."""

    def __init__(self, lab: Lab, org: Org, receiver: Receiver) -> None:
        self.lab, self.org, self.receiver = lab, org, receiver
        self.known: Document = json.loads((lab.data / "server.json").read_text())
        self.seen: dict[tuple[See, str], Any] = {}
        self.kept = shutil.copytree(lab.root, lab.root.parent / "kept", ignore=shutil.ignore_patterns(".dinmo"))
        self.dead = f"http://127.0.0.1:{free_port()}"
        for name, text in self.secrets().items():
            (self.kept / name).write_text(text)
            (self.kept / name).chmod(0o600)
        mine = {"username": "a@example.com", "instanceUrl": org.url, "id": self.known["organization_id"]}
        orgs = {name: {**mine, "tokens": [self.known["access_token"]]} for name in ("mine", "another")}
        sf_stand_in.write(self.kept / "tools", orgs=orgs)
        shutil.copytree(self.kept / "force-app", self.kept / "bare")
        shutil.rmtree(self.kept / "bare/main/default/objects/Account")
        (self.kept / "few").mkdir()
        (self.kept / "few/Account.csv").write_text("Name,Website\nAlpha,a.example\n")
        self.dinmo_yml({"destinations": {"crm": EMULATOR, "pinned": {"targets": {"dev": PINNED}}}})
        shutil.copy(lab.root / "dinmo.yml", self.kept)
        self.snapshot = self.control("snapshot")["snapshot"]

    def secrets(self) -> dict[str, str]:
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(serialization.Encoding.PEM, form, plain).decode()
        named = {"secret": "client_secret", "token": "access_token", "refresh": "refresh_token"}
        return {"key.pem": pem, **{f"{name}.txt": self.known[key] for name, key in named.items()}}

    def control(self, path: str, **body: Any) -> Any:
        answer = self.org.http.post(f"{self.org.url}/emulator/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def renew(self) -> None:
        self.control("restore", snapshot=self.snapshot)
        for path in self.lab.root.iterdir():
            if path.name not in (".dinmo", "target"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in (self.lab.root / ".dinmo").iterdir():
            if path != self.lab.data:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(self.kept, self.lab.root, dirs_exist_ok=True)
        self.lab.requests.clear()
        self.receiver.asked.clear()

    def see(self, see: See, document: Document) -> Any:
        """Once for each document: many proofs share what is seen without their key."""
        place = see, json.dumps(document, sort_keys=True)
        if place not in self.seen:
            self.renew()
            self.seen[place] = see(self, document)
        return self.seen[place]

    def run(self, *command: str) -> Ran:
        told = {"TOKEN": self.known["access_token"], "SECRET": self.known["client_secret"], "WRONG": "wrong"}
        told |= {"REFRESH": self.known["refresh_token"], "PATH": f"{self.lab.root / 'tools'}:{os.environ['PATH']}"}
        return self.lab.run(*command, **told, HOOK=f"http://127.0.0.1:{self.receiver.port}/x")

    def block(self, written: Document, model: str = "people") -> None:
        """`config.meta.dinmo` of this model, and of no other."""
        path = self.lab.root / "target" / "manifest.json"
        manifest = json.loads(path.read_text())
        for name in ("people", "events", "companies"):
            node = manifest["nodes"][f"model.lab.{name}"]
            node["config"]["meta"] = node["meta"] = {"dinmo": written} if name == model else {}
        path.write_text(json.dumps(manifest))

    def dinmo_yml(self, written: Document) -> None:
        text = json.dumps(written).replace("@URL", self.org.url).replace("@DEAD", self.dead)
        text = text.replace("@CLIENT", self.known["client_id"]).replace("@USER", self.known["username"])
        (self.lab.root / "dinmo.yml").write_text(text)


def code(ran: Ran) -> str:
    """`ok`, or the first error's code."""
    said = re.sub(r"^note: .*\n(?:  .*\n)*", "", ran.err + ran.out, flags=re.MULTILINE)
    found = re.search(r"DB\d{3}", said)
    return "ok" if ran.code == 0 else found[0] if found else str(ran.code)
