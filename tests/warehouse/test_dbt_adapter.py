"""What an exception of any driver becomes, by what its engine knows of it."""

from __future__ import annotations

import pytest

from dinmo_dbt.warehouse.dbt_adapter import KnownError, driver_errors
from dinmo_dbt.warehouse.query import Cause, QueryRefused


class DriverError(Exception):
    def __init__(self, text: str, sqlstate: str = "") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def refused(
    error: Exception, known: KnownError | None = None, *, connecting: bool = False, sql: str = ""
) -> QueryRefused:
    with pytest.raises(QueryRefused) as caught, driver_errors(lambda _: known, sql, connecting=connecting):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "cause", "said"),
    [
        (DriverError("secret", "42P01"), Cause.MISSING, "no such table (42P01): ‹text›"),
        (DriverError("secret", "42501"), Cause.DENIED, "insufficient privilege (42501): ‹text›"),
        (DriverError("secret", "ZZ999"), Cause.OTHER, "DriverError: ‹text›"),
        (DriverError("secret does not exist"), Cause.MISSING, "DriverError: ‹text›"),
        (DriverError("permission denied for secret"), Cause.DENIED, "DriverError: permission denied: ‹text›"),
    ],
)
def test_what_no_engine_knows_goes_by_its_sqlstate_or_else_its_words(error: Exception, cause: Cause, said: str) -> None:
    found = refused(error)
    assert (found.cause, found.said()) == (cause, said)


def test_what_an_engine_knows_of_the_cause_behind_an_error_goes_first() -> None:
    known = KnownError(Cause.DENIED, "not yours", "007", text="division by zero", position=7)
    found = refused(DriverError("secret does not exist"), known, sql="select broken from t")
    assert found.cause is Cause.DENIED
    assert found.said() == "not yours: DriverError (007): division by zero, at `broken`"


def test_an_error_while_connecting_is_none_of_a_relation() -> None:
    found = refused(DriverError("connection refused", "42P01"), KnownError(Cause.LOST), connecting=True)
    assert found.cause is Cause.OTHER
    assert found.said() == "can't connect: no such table (42P01): Connection refused: ‹text›"
