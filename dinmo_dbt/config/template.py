"""`{{ env_var('X') }}` and `{{ var('x') }}` in a text, rendered as dbt does, and nothing else.

The expression is parsed by Jinja and its tree checked against a short list before anything is evaluated: two
functions with constant arguments. No attribute, filter, test, loop or operator gets past that, so a template can't
reach an object, run long or grow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.sandbox import SandboxedEnvironment

TEXT_MAX = 10_000

_ALLOWED = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.Call, nodes.Name, nodes.Const, nodes.Keyword)
_FUNCTIONS = ("env_var", "var")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text, or what kept it from being one: `unset` in words (`environment variable 'X'`)."""

    text: str
    unset: str = ""


class NotAllowed(Exception):
    """The expression is not one of ours; the message says which part, without its text."""


def is_template(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%", "{#"))


def check(text: str) -> None:
    """Raise NotAllowed unless the text holds only `env_var()` and `var()` with constant arguments."""
    _tree(text)


def only_from_environment(text: str) -> bool:
    """Whether the text is one `env_var()` call and nothing else, with no default that would be a literal."""
    try:
        tree = _tree(text)
    except NotAllowed:
        return False
    parts = [part for output in tree.body if isinstance(output, nodes.Output) for part in output.nodes]
    parts = [part for part in parts if not (isinstance(part, nodes.TemplateData) and not part.data.strip())]
    if len(parts) != 1 or not isinstance(parts[0], nodes.Call):
        return False
    call = parts[0]
    defaults = [*call.args[1:], *(keyword.value for keyword in call.kwargs)]
    return (
        isinstance(call.node, nodes.Name)
        and call.node.name == "env_var"
        and all(isinstance(default, nodes.Const) and default.value in ("", None) for default in defaults)
    )


def render(text: str, *, env: Mapping[str, str], vars: Mapping[str, Any]) -> Rendered:
    """The text with its expressions replaced; the result is always text, a number-like password included."""
    tree = _tree(text)
    unset: list[str] = []

    def env_var(name: str, default: object = None) -> str:
        if name in env:
            return env[name]
        return _text(default) if default is not None else missing(f"environment variable '{name}'")

    def var(name: str, default: object = None) -> str:
        if name in vars:
            return _text(vars[name])
        return _text(default) if default is not None else missing(f"dbt variable '{name}'")

    def missing(what: str) -> str:
        unset.append(what)
        return ""

    try:
        template = _jinja().from_string(tree)
        result = template.render(env_var=env_var, var=var)
    except (TemplateError, TypeError, ValueError) as error:
        raise NotAllowed(str(error) if isinstance(error, _NotScalar) else "it can't be rendered") from None
    return Rendered(text, unset[0]) if unset else Rendered(result)


class _NotScalar(ValueError):
    pass


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise _NotScalar("a variable in dinmo.yml must be text or a number")


def _jinja() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(keep_trailing_newline=True)
    environment.globals.clear()
    environment.filters.clear()
    environment.tests.clear()
    return environment


def _tree(text: str) -> nodes.Template:
    if len(text) > TEXT_MAX:
        raise NotAllowed(f"a template is at most {TEXT_MAX:,} characters long")
    try:
        tree = _jinja().parse(text)
    except (TemplateError, RecursionError, ValueError, OverflowError):
        # Jinja's own message quotes what it met, which may be part of a password.
        raise NotAllowed("not a Jinja template") from None
    called = set()
    for node in [tree, *tree.find_all(nodes.Node)]:
        if isinstance(node, nodes.Call):
            if not (isinstance(node.node, nodes.Name) and node.node.name in _FUNCTIONS):
                raise NotAllowed("only env_var() and var() may be called")
            if not node.args or len(node.args) > 2 or node.dyn_args or node.dyn_kwargs:
                raise NotAllowed("env_var() and var() take a name and a default")
            name = node.args[0]
            if not (isinstance(name, nodes.Const) and isinstance(name.value, str)):
                raise NotAllowed("env_var() and var() take the name in quotes")
            if any(keyword.key != "default" for keyword in node.kwargs) or len(node.args) + len(node.kwargs) > 2:
                raise NotAllowed("env_var() and var() take a name and a default")
            called.add(id(node.node))
        elif isinstance(node, nodes.Name):
            if id(node) not in called:
                raise NotAllowed("only env_var() and var() may be used")
        elif not isinstance(node, _ALLOWED):
            raise NotAllowed("only env_var() and var() may be used, without filters, tests or statements")
    return tree
