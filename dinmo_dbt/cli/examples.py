"""What --show-values prints of rows that can't be distinguished: some of their values, and a query that finds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dinmo_dbt.activation import Activation
    from dinmo_dbt.cli.session import Session
    from dinmo_dbt.rows.examples import Examples
    from dinmo_dbt.rows.key_problems import KeyProblem
    from dinmo_dbt.rows.mapping import Mapping


def found(
    session: Session, activation: Activation, mapping: Mapping, problems: Sequence[KeyProblem]
) -> list[tuple[Examples, str]]:
    """Some rows of each problem, and the query; none where --show-values was not given. The model is read once more."""
    from dinmo_dbt.rows.examples import examples, sources

    if not problems or not session.flags.show_values:
        return []
    relation, where = activation.model.relation_name, activation.where
    rows = session.source.read(relation, sources(problems), where)
    warehouse = session.warehouse
    return [
        (each, warehouse.query_for(relation, where, each.problem.columns, list(each.rows)))
        for each in examples(rows, mapping, problems)
        if each.rows
    ]


def lines(shown: Sequence[tuple[Examples, str]]) -> list[str]:
    """Each to be printed whole: a query is copied."""
    from dinmo_dbt.cli.printed import count

    lines = []
    for each, query in shown:
        what = f"value of {each.problem.columns[0]}" if each.problem.is_match else "key"
        for value, number in each.values.items():
            lines.append(
                f"{count(number, 'row')} without a {what}"
                if value is None
                else f"{what} {value}: {count(number, 'row')}"
            )
        lines.append(query)
    return lines


def documents(shown: Sequence[tuple[Examples, str]]) -> list[dict[str, Any]]:
    return [
        {
            "columns": list(each.problem.columns),
            "values": [{"key": value, "rows": number} for value, number in each.values.items()],
            "query": query,
        }
        for each, query in shown
    ]


@contextmanager
def shown_with(session: Session, activation: Activation) -> Iterator[None]:
    """Where nothing is sent because rows are not told apart, the error has some of them, for the terminal alone."""
    from dinmo_dbt.rows.key_problems import KeysRefused

    try:
        yield
    except KeysRefused as error:
        shown = found(session, activation, error.mapping, error.key_problems)
        error.whole = "\n".join(lines(shown))
        raise
