"""What an error of Postgres means: is it over, is it to be asked again, and who is to blame.

The table goes by SQLSTATE (appendix A of the manual of PostgreSQL). A connection that is lost while
a COMMIT is under way is the one case in which nobody knows.
"""

from typing import Final, NamedTuple

from sitq.adapters.postgres_connection import PgError
from sitq.exceptions import SitqError, StoreBusyError, StoreError, StoreUnreachableError
from sitq.protocol.commit import Blame


class Judgement(NamedTuple):
    """*again*: nothing was stored, and a second attempt may go well; *afresh*: by a new connection."""

    error: Exception
    blame: Blame
    again: bool = False
    afresh: bool = False


class NoAnswerError(Exception):
    """The server has not said a word for longer than the timeout."""


BUSY: Final = {
    "40001": "it could not be brought into line with what others did",
    "40P01": "it and another transaction waited for each other",
    "55P03": "another transaction kept a row or a table locked",
    "57014": "it was cancelled, or took longer than the server's statement_timeout",
    "53300": "the server has no connection left",
}
_UNKNOWN: Final = {"40003", "08007"}
# A server that is being shut down, or is a standby by now; and statements that the server has
# forgotten or that a migration has changed: a new connection knows better.
_ANOTHER_CONNECTION: Final = {
    "25006", "57P01", "57P02", "57P03", "57P05", "25P03", "26000", "0A000",
}  # fmt: skip
# What a server says that is there, and that asking again does not change.
_NOT_FOR_US: Final = (
    "authentication failed",
    "does not exist",  # a database, a role, a file of certificates
    "pg_hba.conf",
    "is not permitted to log in",
    "permission denied",
    "is not currently accepting connections",  # a database; a server says "not yet accepting"
    "certificate verify failed",
    "does not match host name",
    "does not support SSL",
)
# Data, integrity and limits: another batch need not fail.
_OF_THE_OPS: Final = {"22", "23", "54"}


def judge(error: Exception, where: str, *, committing: bool, lost: bool) -> Judgement:
    """Say what *error* means. *lost*: nothing more can be said on this connection."""
    if isinstance(error, SitqError):
        return Judgement(error, Blame.STORE)
    state = getattr(error, "sqlstate", None) or ""
    if isinstance(error, NoAnswerError):
        silent = StoreUnreachableError(f"the server of {where} has not answered in time: {error}")
        return _cut_off(silent, committing=committing)
    if not isinstance(error, PgError):
        return Judgement(error, Blame.OP)  # what the ops hold may be at fault: a text, a number
    if state in _UNKNOWN or (lost and committing):
        return _cut_off(_lost(error, where), committing=committing)
    if state in BUSY:
        told = StoreBusyError(
            f"{where} was busy for longer than the timeout ({BUSY[state]}); nothing was stored."
            " Look into pg_stat_activity for long transactions"
        )
        return Judgement(told, Blame.STORE, again=True, afresh=lost)
    if lost or state in _ANOTHER_CONNECTION or state.startswith("08"):
        return Judgement(_lost(error, where), Blame.STORE, again=True, afresh=True)
    if not state or state[:2] in _OF_THE_OPS:
        return Judgement(_refused(error, where), Blame.OP)
    return Judgement(_refused(error, where), Blame.STORE)


def cannot_connect(error: PgError, where: str) -> StoreError:
    """Return what is told of a connection that was not made.

    libpq has no codes for this, only words. In another language than English a server that refuses
    us is taken for one that cannot be reached: it is asked again, and then said in its own words.
    """
    reason = said(error)
    wants_password = error.pgconn is not None and error.pgconn.needs_password
    is_refused = wants_password or any(words in reason for words in _NOT_FOR_US)
    kind = StoreError if is_refused else StoreUnreachableError
    return kind(f"cannot connect to {where}: {reason}")


def _cut_off(told: StoreError, *, committing: bool) -> Judgement:
    if committing:
        return Judgement(told, Blame.UNKNOWN, afresh=True)
    return Judgement(told, Blame.STORE, again=True, afresh=True)


def _lost(error: Exception, where: str) -> StoreError:
    return StoreUnreachableError(f"the connection to {where} was lost: {said(error)}")


def _refused(error: PgError, where: str) -> StoreError:
    return StoreError(f"{where} refused this, and nothing was stored: {said(error)}")


def said(error: Exception) -> str:
    """Return the server's words on one line."""
    state = getattr(error, "sqlstate", None)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = "; ".join(line.strip() for line in lines)
    return f"{text} ({state})" if state else text
