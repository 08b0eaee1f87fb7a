"""The file behind the history: SQLite with a row per run, a row per number, and every protocol once.

SQLite has no sudden end: a run is written in one transaction, and a program killed meanwhile leaves the file as it was. Two
programs that append at once wait for each other.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

from evaluators.measurement import Measurement
from evaluators.result_file import Results, to_document
from vaebm.errors import UserError

APPLICATION = 0x56414542  # "VAEB" in the header of the file: no other program's file is taken for a history
WAIT = 60.0  # seconds for another program to finish its writing
AWAY = "move it away: the next run starts a new one"

# What leads from each schema to the next one; PRAGMA user_version counts them. Only ever add to the end.
MIGRATIONS = (
    """
    CREATE TABLE protocol (hash TEXT PRIMARY KEY, content TEXT NOT NULL);
    CREATE TABLE run (
        id INTEGER PRIMARY KEY,
        checksum TEXT NOT NULL UNIQUE,
        created TEXT NOT NULL,
        suite TEXT NOT NULL,
        command TEXT NOT NULL,
        "commit" TEXT NOT NULL,
        packages TEXT NOT NULL,
        machine TEXT NOT NULL,
        seconds REAL NOT NULL
    );
    CREATE TABLE measurement (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES run (id),
        suite TEXT NOT NULL,
        system TEXT NOT NULL,
        dataset TEXT NOT NULL,
        in_distribution TEXT NOT NULL,
        metric TEXT NOT NULL,
        variant TEXT NOT NULL,
        role TEXT NOT NULL,
        size TEXT NOT NULL,
        seed INTEGER,
        n INTEGER,
        value REAL NOT NULL,
        low REAL,
        high REAL,
        weights TEXT NOT NULL,
        protocol TEXT NOT NULL REFERENCES protocol (hash)
    );
    CREATE INDEX measurement_of ON measurement (system, metric)
    """,
)

COLUMNS = (
    *("suite", "system", "dataset", "in_distribution", "metric", "variant", "role", "size", "seed", "n"),
    *("value", "low", "high", "weights"),
)


@dataclass(frozen=True)
class Entry:
    """A number of an earlier run; what is not explained here is as in :class:`evaluators.measurement.Measurement`.

    Attributes:
        run: number of the run in the file, from 1.
        created: when the run ended, UTC, ``2026-01-31T12:00:00Z``; empty if not known.
        commit: of the checkout, with ``-dirty`` if it had changes.
        in_distribution: of an OOD measurement, else empty.
        weights: hash of the system's weights; empty for a system that has none.
        protocol: without what is never the same twice.
    """

    run: int
    created: str
    commit: str
    suite: str
    system: str
    dataset: str
    in_distribution: str
    metric: str
    variant: str
    role: str
    size: str
    seed: int | None
    n: int | None
    value: float
    low: float | None
    high: float | None
    weights: str
    protocol: dict[str, Any]

    @property
    def set(self) -> tuple[str, ...]:
        """What the numbers of one panel of a plot share."""
        return self.suite, self.in_distribution, self.dataset

    @property
    def cell(self) -> tuple[str, ...]:
        """What is the same in two entries that can be compared over time, if their protocols agree."""
        return *self.set, self.metric, self.variant, self.role, self.size


def add(results: Results, path: Path) -> bool:
    """Append a run with every number in it; return False where the file already has this very run.

    Raises:
        UserError: the file cannot be written, is damaged, no history, or of a newer version.
    """
    with _connected(path, "rwc") as database, _transaction(database):
        _migrate(database, path)
        run = (
            *(to_document(results)["checksum"], results.created, results.suite, results.command, results.commit),
            *(json.dumps(results.packages, sort_keys=True), results.machine, results.seconds),
        )
        made = database.execute(
            'INSERT INTO run (checksum, created, suite, command, "commit", packages, machine, seconds)'
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (checksum) DO NOTHING",
            run,
        )
        if not made.rowcount:
            return False
        for row in results.rows:
            if row.value is not None:
                _insert(database, made.lastrowid, row)
        return True


def names(path: Path, system: str | None = None) -> list[str]:
    """Return the systems of the file, or the metrics of one of them, by name.

    Raises:
        UserError: there is no such file, or it is damaged, no history, or of a newer version.
    """
    what, where, bound = ("metric", "WHERE system = ?", (system,)) if system is not None else ("system", "", ())
    with _reading(path) as database:
        return [
            name for (name,) in database.execute(f"SELECT DISTINCT {what} FROM measurement {where} ORDER BY 1", bound)
        ]


def entries(path: Path, system: str, metric: str = "") -> list[Entry]:
    """Return what was measured of a system, of one metric or of all, oldest first.

    Raises:
        UserError: as in :func:`names`.
    """
    query = (
        f'SELECT run.id, run.created, run."commit", {", ".join(f"measurement.{name}" for name in COLUMNS)}, protocol.content'
        " FROM measurement JOIN run ON run.id = measurement.run JOIN protocol ON protocol.hash = measurement.protocol"
        " WHERE measurement.system = ? AND (? = '' OR measurement.metric = ?)"
        " ORDER BY run.created, run.id, measurement.id"
    )
    with _reading(path) as database:
        found = database.execute(query, (system, metric, metric))
        return [Entry(*(*numbers, json.loads(protocol))) for *numbers, protocol in found]


def _insert(database: sqlite3.Connection, run: int | None, row: Measurement) -> None:
    content = json.dumps(row.settings, sort_keys=True, separators=(",", ":"))
    protocol = sha256(content.encode()).hexdigest()
    derived = {"in_distribution": str(row.protocol.get("in_distribution") or ""), "weights": row.weights}
    values = [derived[name] if name in derived else getattr(row, name) for name in COLUMNS]
    database.execute("INSERT OR IGNORE INTO protocol (hash, content) VALUES (?, ?)", (protocol, content))
    database.execute(
        f"INSERT INTO measurement (run, protocol, {', '.join(COLUMNS)}) VALUES (?, ?, {', '.join('?' * len(COLUMNS))})",
        (run, protocol, *values),
    )


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A file of an older schema is brought to this one first; a file of this one is not written to."""
    if not path.is_file():
        raise UserError(f"{path}: found no history; runs of benchmark.py append to it (--out names its folder)")
    with _connected(path, "rw") as database:
        if _version(database, path) < len(MIGRATIONS):
            with _transaction(database):
                _migrate(database, path)
        yield database


@contextmanager
def _connected(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """Every trouble with the file becomes one line that names it."""

    def refuse(why: str) -> NoReturn:
        raise UserError(f"{path}: {why}") from None

    address = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=WAIT, isolation_level=None)) as database:
            yield database
    except sqlite3.Error as error:
        # Extended codes carry the plain one in their lowest byte.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            refuse(f"is no history of results but another kind of file; {AWAY}")
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            refuse(f"another program has kept it locked for {WAIT:g} s; try again when that is done")
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
            refuse(f"cannot be opened or written ({error}); choose another folder with --out")
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            refuse(
                f"could not be written whole ({error}) and is as it was; make room, or choose another folder with --out"
            )
        refuse(f"is damaged ({error}); {AWAY}")
    except json.JSONDecodeError as error:
        refuse(f"is damaged (a protocol in it is no JSON: {error}); {AWAY}")


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing. The lock is taken at once, so that what is read first still holds when it is written."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.rollback()
        raise
    database.commit()


def _version(database: sqlite3.Connection, path: Path) -> int:
    """Return the schema of the file; 0 is an empty one.

    Raises:
        UserError: it is another program's, or newer than this program.
    """
    one = lambda query: database.execute(query).fetchone()[0]
    version, application = one("PRAGMA user_version"), one("PRAGMA application_id")
    if application != APPLICATION and (version or application or one("SELECT count(*) FROM sqlite_schema")):
        raise UserError(f"{path}: is a database of another program, no history of results; {AWAY}")
    if version > len(MIGRATIONS):
        raise UserError(
            f"{path}: written by a newer version (schema {version}; this program reads up to {len(MIGRATIONS)}): update it"
        )
    return version


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    """Within a transaction: ``executescript`` would end it, so statements are run one by one."""
    steps = MIGRATIONS[_version(database, path) :]
    if not steps:
        return
    for statement in ";".join(steps).split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
