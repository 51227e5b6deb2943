"""A file that bears our tables and no version of ours."""

import pytest

from sitq.exceptions import ForeignFileError
from sitq.storage.sqlite_schema import open_database
from tests.storage.runs import run


@pytest.mark.parametrize(
    "statement", ["DELETE FROM sitq_schema", "UPDATE sitq_schema SET version = 0"]
)
def test_a_file_that_does_not_say_its_version_is_refused(sql, statement) -> None:
    sql.db.execute(statement)

    with pytest.raises(ForeignFileError, match="does not say which version of sitq made it"):
        run(sql.db, open_database("x.db"))
