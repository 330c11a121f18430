"""The votes of a study: SQLite in WAL mode, each vote on disk before it is confirmed.

The schema itself says that a rater answers a question about a pair once. What is undone
moves to a table of its own, so that nothing anybody said is lost.
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from mmjax.errors import UserError
from mmjax.judging import study as studies
from mmjax.judging.study import QUESTIONS, Study

FILE = "votes.sqlite"
LEASE = 900.0  # seconds that a pair is kept for somebody who does not answer
_APART = 5  # pairs between one and its repeat
_RATERS = 10_000  # sessions that a study takes
_VOTE = """rater INTEGER NOT NULL, pair TEXT NOT NULL,
  question TEXT NOT NULL CHECK (question IN ('realism', 'match')),
  choice TEXT NOT NULL CHECK (choice IN ('a', 'b')),
  seconds REAL NOT NULL, at REAL NOT NULL"""
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS raters (
  id INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, begun REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS shown (
  rater INTEGER NOT NULL REFERENCES raters, number INTEGER NOT NULL,
  pair TEXT NOT NULL, flipped INTEGER NOT NULL CHECK (flipped IN (0, 1)),
  at REAL NOT NULL, PRIMARY KEY (rater, number), UNIQUE (rater, pair)) STRICT;
CREATE TABLE IF NOT EXISTS votes (id INTEGER PRIMARY KEY, {_VOTE},
  UNIQUE (rater, pair, question),
  FOREIGN KEY (rater, pair) REFERENCES shown (rater, pair)) STRICT;
CREATE INDEX IF NOT EXISTS votes_pair ON votes (pair);
CREATE TABLE IF NOT EXISTS undone (
  id INTEGER PRIMARY KEY, {_VOTE}, undone REAL NOT NULL) STRICT;
"""


class Conflict(Exception):
    """A vote that does not fit what a rater has before them, and is not stored."""


@dataclasses.dataclass(frozen=True)
class Vote:
    """A row of the votes: `choice` is "a" or "b" of the pair, wherever it stood."""

    rater: int
    pair: str
    question: str
    choice: str
    seconds: float
    at: float


class Votes:
    """The votes of a study's folder, for one server; its threads take turns.

    Args:
      target: Votes wanted of each pair; the study's own number without it.
      clock: Seconds, for tests.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        study: Study,
        *,
        target: int | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self.study, self.target, self.clock = study, target or study.votes, clock
        self._turn = threading.Lock()
        try:
            self._db = sqlite3.connect(
                folder / FILE, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")  # a vote outlives the power
            self._db.execute("PRAGMA foreign_keys = ON")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise UserError(f"cannot open {folder / FILE}: {error}") from error

    def close(self) -> None:
        """Ends the use of the file."""
        with self._turn:
            self._db.close()

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on disk, or none."""
        with self._turn:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def secret(self, name: str) -> str:
        """A random text that is the study's for good: the links stay as they are."""
        with self._write() as db:
            new = (name, secrets.token_urlsafe(32))
            db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", new)
            held = db.execute("SELECT value FROM secrets WHERE name = ?", (name,))
            return held.fetchone()[0]

    def begin(self) -> str:
        """A new rater's session, the key to their votes; only its hash is stored.

        Raises:
          Conflict: the study has as many sessions as it takes.
        """
        session = secrets.token_urlsafe(32)
        with self._write() as db:
            if db.execute("SELECT COUNT(*) FROM raters").fetchone()[0] >= _RATERS:
                raise Conflict(f"this study has {_RATERS} sessions and takes no more")
            db.execute(
                "INSERT INTO raters (session, begun) VALUES (?, ?)",
                (_hash(session), self.clock()),
            )
        return session

    def rater(self, session: str) -> int | None:
        """The rater of a session, None of an unknown one."""
        with self._turn:
            row = self._db.execute(
                "SELECT id FROM raters WHERE session = ?", (_hash(session),)
            ).fetchone()
        return row and row[0]

    def state(self, rater: int) -> dict[str, Any]:
        """What a rater has before them; chooses their next pair where they need one.

        Of the pair it says only its number among theirs, its prompt and the question.
        """
        with self._write() as db:
            return self._state(db, rater)

    def vote(
        self, rater: int, shown: int, question: str, side: str, seconds: float
    ) -> dict[str, Any]:
        """Stores an answer and returns the new state. The same one again is no other.

        Raises:
          Conflict: it is not the question that this rater has to answer.
        """
        with self._write() as db:
            row = db.execute(
                "SELECT pair, flipped FROM shown WHERE rater = ? AND number = ?",
                (rater, shown),
            ).fetchone()
            if row is None:
                raise Conflict(f"pair {shown} was not shown")
            pair, flipped = row
            choice = "ab"[(side == "right") != bool(flipped)]
            said = self._answers(db, rater, pair)
            if question in said:
                if said[question] != choice:
                    raise Conflict("this question has another answer already")
                return self._state(db, rater)
            if question != QUESTIONS[len(said)]:
                raise Conflict(f"the question is {QUESTIONS[len(said)]}")
            values = (rater, pair, question, choice, seconds, self.clock())
            db.execute(
                "INSERT INTO votes (rater, pair, question, choice, seconds, at) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                values,
            )
            return self._state(db, rater)

    def undo(self, rater: int) -> dict[str, Any]:
        """Takes a rater's last answer back, and returns the state before it."""
        with self._write() as db:
            row = db.execute(
                "SELECT id FROM votes WHERE rater = ? ORDER BY id DESC LIMIT 1",
                (rater,),
            ).fetchone()
            if row:
                db.execute(
                    "INSERT INTO undone (rater, pair, question, choice, seconds, at, "
                    "undone) SELECT rater, pair, question, choice, seconds, at, ? "
                    "FROM votes WHERE id = ?",
                    (self.clock(), row[0]),
                )
                db.execute("DELETE FROM votes WHERE id = ?", row)
            return self._state(db, rater)

    def image(self, rater: int, shown: int, side: str) -> str | None:
        """The stem of the image at a side of a pair that this rater was shown."""
        with self._turn:
            row = self._db.execute(
                "SELECT pair, flipped FROM shown WHERE rater = ? AND number = ?",
                (rater, shown),
            ).fetchone()
        if row is None:
            return None
        pair = self.study.find(row[0])
        return (pair.b if (side == "right") != bool(row[1]) else pair.a).image

    def _answers(self, db: sqlite3.Connection, rater: int, pair: str) -> dict[str, str]:
        rows = db.execute(
            "SELECT question, choice FROM votes WHERE rater = ? AND pair = ?",
            (rater, pair),
        )
        return dict(rows.fetchall())

    def _state(self, db: sqlite3.Connection, rater: int) -> dict[str, Any]:
        seen = db.execute(
            "SELECT s.number, s.pair, s.flipped, COUNT(v.id) FROM shown s LEFT JOIN "
            "votes v ON v.rater = s.rater AND v.pair = s.pair WHERE s.rater = ? "
            "GROUP BY s.number ORDER BY s.number",
            (rater,),
        ).fetchall()
        asked = len(QUESTIONS)
        finished = sum(row[3] >= asked for row in seen)
        # Where an answer to a pair before the last is undone, that pair comes first.
        current = next((row for row in seen if row[3] < asked), None)
        free = self._free(db, {row[1] for row in seen})
        open_pairs = sum(row[3] < asked for row in seen)
        if current is None:
            current = self._show(db, rater, seen, free)
            open_pairs = int(current is not None)
            free.pop(current[1] if current else "", None)
        rate = sum(1 / every for every in self._every if every)
        state = {
            "done": current is None,
            "finished": finished,
            "about": finished + open_pairs + round(len(free) * (1 + rate)),
            "undo": any(row[3] for row in seen),
        }
        if current is not None:
            pair = self.study.find(current[1])
            state |= {
                "number": current[0],
                "prompt": self.study.prompts[pair.prompt],
                "question": QUESTIONS[current[3]],
            }
        return state

    @property
    def _every(self) -> tuple[int, int]:
        return self.study.trap_every, self.study.repeat_every

    def _free(self, db: sqlite3.Connection, seen: set[str]) -> dict[str, int]:
        """Plain pairs that want votes, not among a rater's, and how many they have.

        A pair that somebody was shown a while ago without an answer is free again.
        """
        rows = db.execute(
            "SELECT pair, COUNT(*) FROM (SELECT s.pair FROM shown s LEFT JOIN votes v "
            "ON v.rater = s.rater AND v.pair = s.pair GROUP BY s.rater, s.number "
            "HAVING COUNT(v.id) = ? OR s.at > ?) GROUP BY pair",
            (len(QUESTIONS), self.clock() - LEASE),
        )
        taken = dict(rows.fetchall())
        return {
            name: taken.get(name, 0)
            for name in self.study.of("plain")
            if name not in seen and taken.get(name, 0) < self.target
        }

    def _show(
        self,
        db: sqlite3.Connection,
        rater: int,
        seen: list[tuple[int, str, int, int]],
        free: dict[str, int],
    ) -> tuple[int, str, int, int] | None:
        """A rater's next pair as a row of `shown`, None where there is no more."""
        if not free:
            return None
        study, n = self.study, len(seen)

        def draw(*of: object) -> int:
            return studies.number(study.seed, rater, *of)

        def falls(kind: str, every: int) -> bool:
            """One of every so many, at a place that a rater cannot guess."""
            return bool(every) and draw(kind, n // every) % every == n % every

        names, shown = {row[1]: row[2] for row in seen}, None
        if falls("trap", study.trap_every):
            traps = [p for kind in studies.SCORED for p in study.of(kind)]
            traps = [name for name in traps if name not in names]
            shown = min(traps, key=lambda name: draw("trap", name), default=None)
        elif falls("repeat", study.repeat_every):
            before = [row[1] for row in seen[: max(n - _APART, 0)]]
            plain = [p for p in before if p in study.pairs]
            plain = [p for p in plain if study.pairs[p].kind == "plain"]
            olds = [studies.again(p) for p in plain if studies.again(p) not in names]
            shown = min(olds, key=lambda name: draw("repeat", name), default=None)
        if shown is None:
            # Those with most votes first: a study that ends early has whole pairs.
            shown = min(free, key=lambda name: (-free[name], draw("pair", name)))
        flipped = draw("side", shown) % 2
        if studies.original(shown):
            flipped = 1 - names[studies.original(shown)]
        row = (n + 1, shown, flipped, 0)
        db.execute(
            "INSERT INTO shown VALUES (?, ?, ?, ?, ?)", (rater, *row[:3], self.clock())
        )
        return row


def read(folder: pathlib.Path) -> list[Vote]:
    """All votes of a study in the order they came, also while it is served.

    Raises:
      UserError: there are none yet, or the file cannot be read.
    """
    path = folder / FILE
    serve = f"run mmjax judge serve {folder} and have people vote"
    if not path.is_file():
        raise UserError(f"{folder} has no votes yet: {serve}")
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA query_only = ON")
            rows = db.execute(
                "SELECT rater, pair, question, choice, seconds, at FROM votes "
                "ORDER BY id"
            ).fetchall()
    except sqlite3.Error as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not rows:
        raise UserError(f"{folder} has no votes yet: {serve}")
    return [Vote(*row) for row in rows]


def _hash(session: str) -> str:
    return hashlib.sha256(session.encode()).hexdigest()
