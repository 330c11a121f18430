"""Which pairs a rater gets, what is stored, and what the schema refuses."""

import collections
import sqlite3

import pytest

from mmjax.errors import UserError
from mmjax.judging import study as studies
from mmjax.judging import votes as votes_lib


def open_votes(folder, **options):
    return votes_lib.Votes(folder, studies.open_study(folder), **options)


def vote_all(votes, rater, most=10_000):
    """Answers `left` until there is no more; the states on the way."""
    states, state = [], votes.state(rater)
    while not state["done"] and len(states) < most:
        states.append(state)
        state = votes.vote(rater, state["number"], state["question"], "left", 1.0)
    return states


def begin(votes):
    return votes.rater(votes.begin())


def rows(folder, query):
    with sqlite3.connect(folder / votes_lib.FILE) as db:
        return db.execute(query).fetchall()


def test_five_raters_answer_each_pair_and_a_sixth_none(make):
    folder = make(2, 12)
    votes = open_votes(folder)
    for _ in range(5):
        vote_all(votes, begin(votes))
    assert votes.state(begin(votes))["done"]
    study = votes.study
    counts = collections.Counter((v.pair, v.question) for v in votes_lib.read(folder))
    for name in study.of("plain"):
        assert [counts[name, q] for q in studies.QUESTIONS] == [5, 5]
    more = open_votes(folder, target=6)
    assert not more.state(begin(more))["done"]


def test_sides_traps_and_repeats(make):
    folder = make(2, 40, trap_every=5, repeat_every=6)
    votes = open_votes(folder, target=1000)
    raters = [begin(votes) for _ in range(6)]
    for rater in raters:
        vote_all(votes, rater)
    shown = rows(folder, "SELECT rater, number, pair, flipped FROM shown")
    study = votes.study
    plain = [row for row in shown if row[2] in study.of("plain")]
    assert len(plain) == 6 * 40
    assert 0.4 < sum(row[3] for row in plain) / len(plain) < 0.6
    by_pair = collections.defaultdict(set)
    for _, _, pair, flipped in plain:
        by_pair[pair].add(flipped)
    assert sum(len(sides) == 2 for sides in by_pair.values()) > 30  # shuffled by rater
    for rater in raters:
        mine = {row[2]: row for row in shown if row[0] == rater}
        traps = [p for p in mine if p in study.pairs and p not in study.of("plain")]
        repeats = [p for p in mine if studies.original(p)]
        assert 8 <= len(traps) <= 12 and 2 <= len(repeats) <= 10
        for name in repeats:
            first, again = mine[studies.original(name)], mine[name]
            assert again[1] - first[1] > 5 and again[3] == 1 - first[3]
    places = {
        tuple(r[1] for r in shown if r[0] == rater and r[2] in traps)
        for rater in raters
    }
    assert len(places) > 3  # nobody can count to the next trap


def test_a_state_tells_no_more_than_a_rater_may_know(make):
    votes = open_votes(make())
    rater = begin(votes)
    for state in vote_all(votes, rater):
        keys = {"done", "finished", "about", "undo", "number", "prompt", "question"}
        assert set(state) == keys
        assert state["finished"] < state["about"]


def test_the_same_answer_again_is_one_and_another_is_refused(make):
    folder = make()
    votes = open_votes(folder)
    rater = begin(votes)
    votes.state(rater)
    first = votes.vote(rater, 1, "realism", "left", 2.0)
    assert votes.vote(rater, 1, "realism", "left", 2.0) == first
    with pytest.raises(votes_lib.Conflict, match="another answer already"):
        votes.vote(rater, 1, "realism", "right", 2.0)
    assert len(votes_lib.read(folder)) == 1
    with pytest.raises(votes_lib.Conflict, match="pair 9 was not shown"):
        votes.vote(rater, 9, "realism", "left", 2.0)
    other = begin(votes)
    votes.state(other)
    with pytest.raises(votes_lib.Conflict, match="the question is realism"):
        votes.vote(other, 1, "match", "left", 2.0)


def test_the_schema_itself_counts_nothing_twice(make):
    folder = make()
    votes = open_votes(folder)
    rater = begin(votes)
    vote_all(votes, rater, most=1)
    with sqlite3.connect(folder / votes_lib.FILE) as db:
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            db.execute(
                "INSERT INTO votes (rater, pair, question, choice, seconds, at) "
                "SELECT rater, pair, question, 'b', 1.0, 1.0 FROM votes"
            )
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            db.execute("INSERT INTO shown SELECT rater, 99, pair, 0, 0.0 FROM shown")


def test_undo_goes_back_through_everything_and_keeps_it(make):
    folder = make(2, 6)
    votes = open_votes(folder)
    rater = begin(votes)
    states = vote_all(votes, rater, most=9)
    for state in states[::-1]:
        assert votes.undo(rater)["question"] == state["question"]
        assert votes.state(rater)["number"] == state["number"]
    assert votes.undo(rater) == votes.state(rater)
    assert not votes.state(rater)["undo"]
    assert rows(folder, "SELECT COUNT(*) FROM undone") == [(9,)]
    with pytest.raises(UserError, match="has no votes yet: run mmjax judge serve"):
        votes_lib.read(folder)
    again = vote_all(votes, rater, most=9)
    assert [s["prompt"] for s in again] == [s["prompt"] for s in states]


def test_a_pair_that_somebody_left_is_free_after_a_while(make):
    now = [0.0]
    votes = open_votes(make(2, 1), target=1, clock=lambda: now[0])
    gone = begin(votes)
    votes.state(gone)
    late = begin(votes)
    assert votes.state(late)["done"]
    now[0] = votes_lib.LEASE + 1
    assert not votes.state(late)["done"]
    vote_all(votes, gone)  # what was shown may still be answered
    assert votes.state(gone)["done"]


def test_a_study_that_ends_early_has_whole_pairs(make):
    folder = make(2, 40)
    votes = open_votes(folder)
    for _ in range(5):
        vote_all(votes, begin(votes), most=20)
    counts = collections.Counter(
        v.pair for v in votes_lib.read(folder) if v.pair in votes.study.of("plain")
    )
    assert sum(count == 10 for count in counts.values()) >= 5


def test_sessions_are_stored_as_hashes_and_have_an_end(make, monkeypatch):
    folder = make()
    votes = open_votes(folder)
    session = votes.begin()
    assert votes.rater(session) == 1 and votes.rater("other") is None
    assert session not in str(rows(folder, "SELECT * FROM raters"))
    assert votes.secret("link") == open_votes(folder).secret("link")
    monkeypatch.setattr(votes_lib, "_RATERS", 2)
    votes.begin()
    with pytest.raises(votes_lib.Conflict, match="has 2 sessions and takes no more"):
        votes.begin()


def test_the_settings_of_the_file(make):
    folder = make()
    votes = open_votes(folder)
    assert votes._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert votes._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert votes._db.execute("PRAGMA foreign_keys").fetchone() == (1,)
    votes.close()
    (folder / votes_lib.FILE).write_bytes(b"no database" * 100)
    with pytest.raises(UserError, match="cannot open .*votes.sqlite"):
        open_votes(folder)
    with pytest.raises(UserError, match="cannot read .*votes.sqlite"):
        votes_lib.read(folder)
