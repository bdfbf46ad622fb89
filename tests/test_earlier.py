"""What one target folder says over several dbt commands: a failure stands until it is answered, whoever looked when."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinmo_dbt.artifacts import earlier
from dinmo_dbt.artifacts.gate import Gate, gate, load_run_results
from dinmo_dbt.artifacts.manifest import Manifest, parse_manifest
from dinmo_dbt.errors import Refused

NOON = 1_800_000_000.0


def document(schema: str = "main") -> dict[str, Any]:
    nodes: dict[str, Any] = {}
    for name in "ab":
        nodes[f"model.shop.{name}"] = {
            "package_name": "shop",
            "name": name,
            "original_file_path": f"models/{name}.sql",
            "path": f"{name}.sql",
            "relation_name": f'"db"."{schema}"."{name}"',
            "config": {"meta": {"dinmo": {}}},
        }
        nodes[f"test.shop.of_{name}"] = {
            "package_name": "shop",
            "name": f"of_{name}",
            "attached_node": f"model.shop.{name}",
            "original_file_path": "models/all.yml",
            "path": f"of_{name}.sql",
        }
    metadata = {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json", "project_name": "shop"}
    return {"metadata": metadata, "nodes": nodes}


@dataclass
class Folder:
    """A target folder, as dbt leaves it: each command ten seconds after the one before it."""

    path: Path
    at: float = NOON
    schema: str = "main"
    commands: int = 0
    siblings: tuple[Path, ...] = field(default_factory=tuple)

    @property
    def manifest(self) -> Manifest:
        return parse_manifest(json.loads((self.path / "manifest.json").read_text()), "manifest.json")

    def ran(self, which: str, *flags: str, ends: bool = True, **statuses: str) -> None:
        self.at += 10
        self.commands += 1
        self.path.mkdir(exist_ok=True)
        invocation = f"i{self.commands}-{self.path.name}"
        content = document(self.schema)
        content["metadata"]["invocation_id"] = invocation
        (self.path / "manifest.json").write_text(json.dumps(content))
        results = []
        for number, (name, status) in enumerate(sorted(statuses.items(), key=lambda one: one[0].startswith("of_"))):
            kind = "test" if name.startswith("of_") else "model"
            began, ended = self.at - 8 + number, self.at - 7.5 + number
            place = "models/all.yml/" if kind == "test" else "models/"
            if status != "skipped":
                self._touch(self.path / "run" / "shop" / f"{place}{name}.sql", began + 0.2)
            moments = {"started_at": iso(began), "completed_at": iso(ended)}
            relation = f'"db"."{self.schema}"."{name}"' if kind == "model" else None
            results.append(
                {"unique_id": f"{kind}.shop.{name}", "status": status, "timing": [moments], "relation_name": relation}
            )
        if ends:
            metadata = {
                "dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json",
                "invocation_id": invocation,
                "generated_at": iso(self.at),
                "invocation_started_at": iso(self.at - 9),
            }
            written = self.path / "run_results.json"
            plain = {"indirect_selection": "eager", "exclude": [], "resource_types": [], "exclude_resource_types": []}
            args = {"which": which, **(plain if "stopped" in flags else dict.fromkeys(flags, True))}
            written.write_text(json.dumps({"metadata": metadata, "args": args, "results": results}))
            os.utime(written, (self.at, self.at))

    @staticmethod
    def _touch(path: Path, at: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("select 1")
        os.utime(path, (at, at))

    def gate(self) -> Gate:
        results = load_run_results(self.path / "run_results.json")
        found = earlier.verdicts(self.path, self.siblings, self.manifest, results)
        return gate(self.manifest, results, found)

    def look(self) -> dict[str, str]:
        found = self.gate()
        return {name: f"{(v := found.verdict(f'model.shop.{name}')).standing} {v.reason}".rstrip() for name in "ab"}

    def remember(self) -> None:
        earlier.remember(self.path, self.manifest, load_run_results(self.path / "run_results.json"))


def iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "target")


def test_a_failure_that_was_seen_stands_when_the_next_command_is_about_another_model(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="fail", b="success", of_b="pass")
    folder.remember()
    folder.ran("test", of_b="pass")
    assert folder.look()["a"] == "blocked test failed, in an earlier dbt command: of_a"
    folder.remember()
    folder.ran("build", b="success", of_b="pass")
    assert folder.look()["a"].startswith("blocked test failed, in an earlier dbt command")
    folder.ran("test", of_a="pass")
    assert folder.look()["a"].startswith("unbuilt")


def test_a_failure_that_nobody_saw_is_an_answer_that_is_not_known(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="fail")
    folder.ran("test", of_b="pass")
    told = "blocked what its test of_a found is not known: a later dbt command wrote over the answer"
    assert folder.look()["a"] == told
    folder.ran("build", a="success", of_a="pass")
    assert folder.look()["a"] == "ok"


def test_a_model_that_dbt_was_stopped_in_is_unfit_though_the_results_were_written(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    folder.remember()
    folder.ran("run", a="success")
    folder._touch(folder.path / "run" / "shop" / "models/b.sql", folder.at - 1)
    assert folder.look()["b"] == "blocked dbt was stopped while it built it: run `dbt build -s b`"
    folder.ran("run", b="success")
    assert folder.look() == {"a": "unbuilt not in the last `dbt run`", "b": "ok"}


def test_what_was_built_before_dbt_was_stopped_stays_unfit_until_its_tests_have_run(folder: Folder) -> None:
    folder.ran("build", "stopped", a="success")
    assert folder.look()["a"] == "blocked test did not run, since dbt was stopped before: of_a"
    folder.remember()
    folder.ran("retry", b="success", of_b="pass")
    assert folder.look()["a"] == "blocked test did not run, in an earlier dbt command: of_a"
    folder.remember()
    folder.ran("test", of_a="pass")
    assert folder.look()["a"].startswith("unbuilt")


def test_an_answer_that_was_seen_is_known_afterwards(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    folder.remember()
    folder.ran("build", b="success", of_b="pass")
    assert folder.look() == {"a": "unbuilt not in the last `dbt build`", "b": "ok"}


@pytest.mark.parametrize("flag", ["empty", "sample"])
def test_a_part_of_the_rows_stays_one_until_they_are_built_again(folder: Folder, tmp_path: Path, flag: str) -> None:
    folder.ran("build", flag, a="success", of_a="pass")
    with pytest.raises(Refused):
        folder.look()
    folder.remember()
    told = f"blocked built with --{flag}, in an earlier dbt command"
    for which, words in (("run", {"b": "success"}), ("test", {"of_a": "pass"}), ("generate", {"a": "success"})):
        folder.ran(which, **words)
        assert folder.look()["a"] == told
        folder.remember()
    other = Folder(tmp_path / "other", at=folder.at, siblings=(folder.path,))
    other.ran("build", a="success", b="success")
    folder.at = other.at
    folder.ran("build", flag, b="success")
    assert other.look() == {"a": "ok", "b": told}
    folder.ran("run", a="success")
    assert folder.look()["a"] == "ok"


def test_commands_that_answer_nothing_take_nothing_back(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="fail", b="error", of_b="skipped")
    folder.remember()
    folder.ran("generate", a="success", b="success")
    folder.remember()
    assert folder.look() == {
        "a": "blocked test failed, in an earlier dbt command: of_a",
        "b": "blocked build failed, in an earlier dbt command",
    }


def test_models_without_tests_and_builds_without_them_go_on(folder: Folder) -> None:
    folder.ran("run", a="success", b="success")
    folder.ran("run", b="success")
    assert folder.look() == {"a": "unbuilt not in the last `dbt run`", "b": "ok"}


def test_what_dbt_builds_right_now_waits(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    folder.ran("build", ends=False, a="success")
    assert folder.look() == {"a": "under way dbt builds it right now, or was stopped before its end", "b": "ok"}
    folder.ran("build", a="success", of_a="pass")
    assert folder.look()["a"] == "ok"


def test_times_of_a_folder_that_was_copied_say_nothing(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    for path in folder.path.rglob("*.*"):
        os.utime(path, (folder.at + 900, folder.at + 900))
    os.utime(folder.path / "run_results.json", (folder.at + 899, folder.at + 899))
    assert folder.look() == {"a": "ok", "b": "ok"}


def test_another_table_of_the_same_name_has_its_own_answers(folder: Folder) -> None:
    folder.ran("build", a="success", of_a="fail", b="success", of_b="pass")
    folder.remember()
    folder.schema = "prod"
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    assert folder.look() == {"a": "ok", "b": "ok"}
    folder.remember()
    folder.schema = "main"
    folder.ran("run", a="success", b="success")
    assert folder.look()["a"] == "blocked test failed, in an earlier dbt command: of_a"


def test_another_folder_has_its_word_on_the_same_tables(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other", at=NOON + 100)
    other.ran("build", a="success", of_a="fail", b="success", of_b="pass")
    folder.siblings = (other.path, tmp_path / "none")
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    assert folder.look() == {"a": "blocked test failed, in an earlier dbt command: of_a", "b": "ok"}
    folder.at = NOON + 300
    folder.ran("build", a="success", of_a="pass", b="success", of_b="pass")
    assert folder.look()["a"] == "ok"
    (other.path / "run_results.json").write_text("{")
    assert folder.look()["a"] == "ok"


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"results": 3}'])
def test_what_was_kept_is_expendable(folder: Folder, content: str) -> None:
    folder.ran("build", a="success", of_a="pass")
    (folder.path / earlier.KEPT).write_text(content)
    assert folder.look()["a"] == "ok"
    folder.remember()
    folder.ran("build", b="success", of_b="pass")
    assert folder.look()["a"].startswith("unbuilt")


COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(["build", "build", "run", "test", "compile", "generate"]),
        st.fixed_dictionaries(
            {},
            optional={
                **{name: st.sampled_from(["success", "success", "error", "skipped"]) for name in "ab"},
                **{f"of_{name}": st.sampled_from(["pass", "pass", "fail", "warn", "skipped"]) for name in "ab"},
            },
        ),
        st.booleans(),  # whether anybody looks after it
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(COMMANDS)
def test_rows_whose_last_test_failed_are_never_let_through(drawn: list[tuple[str, dict[str, str], bool]]) -> None:
    """Whoever looked after which command; and all goes through where every command was fine and was looked at."""
    with TemporaryDirectory() as name:
        folder = Folder(Path(name) / "target")
        tested: dict[str, str] = {}
        fine = True
        for which, word, looks in drawn:
            own = {key: status for key, status in word.items() if which != "test" or key.startswith("of_")}
            if which not in ("build", "test"):
                own = {key: status for key, status in own.items() if not key.startswith("of_")}
            if which in ("compile", "generate"):
                own = dict.fromkeys(own, "success")
            folder.ran(which, **own)
            if which in ("build", "test"):
                tested |= {key[-1]: each for key, each in own.items() if key.startswith("of_") and each != "skipped"}
            if which in ("build", "run", "test"):
                fine = fine and not set(own.values()) & {"fail", "error", "skipped"}
            fine = fine and looks
            if looks:
                folder.remember()
            found = folder.gate()
            for model in "ab":
                blocked = found.verdict(f"model.shop.{model}").is_blocked
                if tested.get(model) == "fail":
                    assert blocked, (drawn, model)
                if fine:
                    assert not blocked, (drawn, model)
