"""The ledger and the broker: reached, of the right shape, and keeping what they are given."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from gate.adapters import database
from gate.adapters.database import Database, ledger_url, missing_file
from gate.adapters.sentinel import Sentinel, sentinel_of
from gate.adapters.sql_ledger import SqlLedger
from gate.doctor.machine import disk
from gate.domain.errors import GateError
from gate.domain.examination import Check, Finding, ok, problem, warning
from gate.settings import Settings

REACH_S = 20.0
WAITED_LONG_S = 600.0
UNACKNOWLEDGED_S = 120.0
BEGUN = "gate:unacked_index"
"""Where Celery's transport keeps, by time, messages that a worker took and has not begun."""


def store_checks(settings: Settings, clock: Callable[[], float]) -> Iterator[Check]:
    """The checks of ledger and broker."""
    yield Check("ledger", lambda: ledger(settings, clock()))
    yield Check("broker", lambda: broker(settings.broker_url, clock(), sentinel_of(settings)))


def ledger(settings: Settings, now: float) -> Iterator[Finding]:
    """A database that answers, is of this version, has workers that take its jobs, and room for its bases."""
    url = ledger_url(settings.database_url, settings.state_dir)
    place = sa.make_url(url).render_as_string(hide_password=True)
    if (missing := missing_file(url)) is not None:
        fix = "basin-gate ledger migrate, with the GATE_STATE_DIR or GATE_DATABASE_URL of the other processes"
        yield problem("ledger", f"the ledger at {place}", f"no file {missing}", fix)
        return
    try:
        is_at, wanted = _schema(url)
    except GateError as error:
        yield problem("ledger", f"a database that answers at {place}", str(error), "start it; check GATE_DATABASE_URL")
        return
    if is_at != wanted:
        yield problem("ledger", f"its tables at {wanted}", f"at {is_at or 'nothing'}", "basin-gate ledger migrate")
        return
    yield ok("ledger", f"{place} at {is_at}")
    yield from _workers(url, settings, now)


def broker(url: str, now: float, sentinel: Sentinel | None = None) -> Iterator[Finding]:
    """A Redis or Valkey that answers, takes writes, forgets nothing on its own, and whose messages are begun."""
    try:
        with sentinel.client(url, REACH_S) if sentinel else _redis(url) as redis:
            # Not a ping: one that cannot save its data answers that with an error.
            if redis.info("replication").get("role") == "slave":
                fix = "set GATE_BROKER_URL to the primary"
                yield problem("broker", f"a primary at {_shown(url)}", "a replica, which takes no writes", fix)
                return
            yield ok("broker", f"{_shown(url)} answers")
            yield from _persistence(redis)
            yield from _eviction(redis)
            yield from _begun(redis, now)
    except RedisError as error:
        fix = "start it; check GATE_BROKER_URL. Meanwhile deliveries are kept, and nothing is measured"
        yield problem("broker", f"a Redis or Valkey at {_shown(url)}", f"{type(error).__name__}: {error}", fix)


def _schema(url: str) -> tuple[str | None, str | None]:
    """The revision that the tables are at, and the one they should be at."""
    wanted = ScriptDirectory(str(Path(database.__file__).parent / "migrations")).get_current_head()
    opened = Database(url)
    try:
        tables = opened.read(lambda c: sa.inspect(c).get_table_names())
        if "alembic_version" not in tables:
            return None, wanted
        at = opened.read(lambda c: c.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())
        return (str(at) if at else None), wanted
    finally:
        opened.close()


def _workers(url: str, settings: Settings, now: float) -> Iterator[Finding]:
    kept = SqlLedger(url)
    try:
        backlog, bases = kept.backlog(now), kept.bases()
    finally:
        kept.close()
    for queue, waited in sorted(backlog.oldest_s.items()):
        if waited > WAITED_LONG_S:
            fix = f"start a worker of that queue (basin-gate worker {queue}), or more of them"
            yield warning("workers", f"jobs taken within {WAITED_LONG_S:.0f} s", f"{queue}: {waited:.0f} s", fix)
    if not any(waited > WAITED_LONG_S for waited in backlog.oldest_s.values()):
        yield ok("workers", "no job waits long")
    if largest := max((sum(f.size for f in base.checkpoint.files) for base in bases), default=0):
        # The base stays; beside it lie a candidate of its size and the base's gradients.
        yield from (f.model_copy(update={"check": "disk for bases"}) for f in disk(settings.state_dir, 3 * largest))


def _redis(url: str) -> Redis:
    given = url.replace("redis+socket://", "unix://", 1)
    return Redis.from_url(given, socket_timeout=REACH_S, socket_connect_timeout=REACH_S)


def _shown(url: str) -> str:
    """The address without its password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _persistence(redis: Any) -> Iterator[Finding]:
    name, info = "broker's persistence", redis.info("persistence")
    failed = [k for k in ("rdb_last_bgsave_status", "aof_last_write_status") if info.get(k, "ok") != "ok"]
    if failed:
        fix = "give it disk room and a folder it may write; until then it may refuse every write"
        yield problem(name, "that it can write to its disk", ", ".join(f"{k} {info[k]}" for k in failed), fix)
        return
    settings = _config(redis, name, "appendonly", "save")
    if isinstance(settings, Finding):
        yield settings
    elif settings["appendonly"] == "yes" or settings["save"]:
        yield ok(name, "appendonly" if settings["appendonly"] == "yes" else f"save {settings['save']}")
    else:
        fix = "appendonly yes in its configuration, or leave it: after a restart the dispatcher rings every job again"
        yield warning(name, "appendonly or save", "neither: a restart forgets the jobs waiting in it", fix)


def _eviction(redis: Any) -> Iterator[Finding]:
    name = "broker's eviction"
    settings = _config(redis, name, "maxmemory", "maxmemory-policy")
    if isinstance(settings, Finding):
        yield settings
    elif settings["maxmemory-policy"] != "noeviction" and settings["maxmemory"] != "0":
        fix = "CONFIG SET maxmemory-policy noeviction, and the same in its configuration; use no shared cache as broker"
        yield problem(name, "maxmemory-policy noeviction", settings["maxmemory-policy"], fix)
    else:
        yield ok(name, settings["maxmemory-policy"])


def _begun(redis: Any, now: float) -> Iterator[Finding]:
    """Jobs are acknowledged when they begin, so the visibility timeout never gives a running one to a second worker;
    a message that stays unacknowledged was taken by a worker that does not get to it."""
    name = "broker's visibility timeout"
    oldest = redis.zrange(BEGUN, 0, 0, withscores=True)
    age = now - oldest[0][1] if oldest else 0.0
    if age > UNACKNOWLEDGED_S:
        fix = "restart the workers; another takes the message when the visibility timeout (1 h) has passed"
        yield warning(name, "messages that are begun once taken", f"one was taken {age:.0f} s ago and is not", fix)
    else:
        yield ok(name, "each message taken was begun")


def _config(redis: Any, name: str, *keys: str) -> dict[str, str] | Finding:
    try:
        return {key: _text(redis.config_get(key).get(key, "")) for key in keys}
    except ResponseError as error:
        fix = f"look up {' and '.join(keys)} at whoever runs it: this account may not ask"
        return warning(name, f"that {' and '.join(keys)} can be read", str(error), fix)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
