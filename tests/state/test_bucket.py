"""State in a bucket: two writers are never both believed, whatever is lost on the way, and a store that could let them
is refused."""

import errno
import random
import socket
import sys
import threading
import uuid
from contextlib import suppress

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_org import ManualClock

from dinmo_dbt.errors import StateError
from dinmo_dbt.objects import Bucket, BucketTables, open_bucket

TABLES = {"meta": "key TEXT PRIMARY KEY, value TEXT NOT NULL", "held": "name TEXT PRIMARY KEY, n BIGINT NOT NULL"}


class Store:
    """fsspec's store in memory, and what happens around the creation of a version."""

    def __init__(self):
        self.memory = fsspec.filesystem("memory")
        self.root = f"{uuid.uuid4().hex}"
        self.before = self.after = lambda path: None
        self.honours = True

    def __getattr__(self, name):
        return getattr(self.memory, name)

    def pipe_file(self, path, content, mode="overwrite"):
        if "versions" in path:
            self.before(path)
        self.memory.pipe_file(path, content, mode=mode if self.honours else "overwrite")
        if "versions" in path:
            self.after(path)

    def ls(self, path, detail=True, refresh=False):
        return self.memory.ls(path, detail=detail)

    def tables(self):
        return BucketTables(Bucket(f"memory://{self.root}", self, ManualClock()))


@pytest.fixture
def store():
    made = Store()
    made.tables().make(TABLES, {"format": "1"}, ["CREATE INDEX held_n ON held (n)"])
    return made


def add(tables, name, n=1):
    """Read, then write by what was read."""
    with tables.transaction() as connection:
        row = connection.execute("SELECT n FROM held WHERE name = ?", (name,)).fetchone()
        connection.execute("DELETE FROM held WHERE name = ?", (name,))
        connection.execute("INSERT INTO held VALUES (?, ?)", (name, n + (row["n"] if row else 0)))


def held(tables):
    with tables.transaction() as connection:
        return {row["name"]: row["n"] for row in connection.execute("SELECT * FROM held").fetchall()}


def once(act):
    """A hook that acts the first time."""
    left = [act]

    def hook(path):
        if left:
            left.pop()(path)

    return hook


def test_reading_makes_no_object(store):
    other = Store()
    tables = other.tables()
    assert not tables.exists()
    with tables.transaction() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}
    assert not other.memory.exists(f"{other.root}")
    before = store.memory.find(store.root)
    assert held(store.tables()) == {}
    assert store.memory.find(store.root) == before


def test_what_fails_within_a_transaction_is_not_there(store):
    tables = store.tables()
    with pytest.raises(ZeroDivisionError), tables.transaction():
        tables.execute("INSERT INTO held VALUES ('a', 1)")
        raise ZeroDivisionError
    assert held(tables) == held(store.tables()) == {}


def test_who_comes_second_is_committed_on_what_the_first_left_if_that_changes_no_answer(store):
    first, second = store.tables(), store.tables()
    store.before = once(lambda _: add(first, "a"))
    add(second, "b")
    assert held(store.tables()) == held(first) == held(second) == {"a": 1, "b": 1}


def test_who_comes_second_is_refused_where_it_went_by_what_changed(store):
    first, second = store.tables(), store.tables()
    store.before = once(lambda _: add(first, "a", 10))
    with pytest.raises(StateError, match="DB501"):
        add(second, "a")
    assert held(second) == held(store.tables()) == {"a": 10}
    add(second, "a")
    assert held(first) == {"a": 11}


@pytest.mark.parametrize("others", [0, 1, 2, 5])
def test_a_commit_whose_reply_is_lost_stands_once(store, others):
    """The client tells an error, and others go on meanwhile: so far that our version is removed."""
    mine, theirs = store.tables(), store.tables()

    def lose(_):
        for _ in range(others):
            add(theirs, "b")
        raise ConnectionResetError("gone")

    store.after = once(lose)
    add(mine, "a")
    assert held(mine) == held(store.tables()) == {"a": 1} | ({"b": others} if others else {})


@pytest.mark.parametrize("others", [1, 3, 5])
def test_a_version_that_others_have_built_on_before_we_looked_stands_once(store, others):
    mine, theirs = store.tables(), store.tables()
    store.after = once(lambda _: [add(theirs, "b") for _ in range(others)])
    add(mine, "a")
    assert held(mine) == held(store.tables()) == {"a": 1, "b": others}


@pytest.mark.parametrize("others", [1, 3, 4, 6, 9])
def test_a_writer_that_slept_until_its_number_was_free_again_comes_second(store, others):
    slow, theirs = store.tables(), store.tables()
    store.before = once(lambda _: [add(theirs, "b") for _ in range(others)])
    add(slow, "a")
    assert held(slow) == held(store.tables()) == {"a": 1, "b": others}
    add(theirs, "b")
    assert held(slow) == {"a": 1, "b": others + 1}
    numbers = sorted(int(path.rpartition("/")[2]) for path in store.memory.find(f"{store.root}/versions"))
    assert numbers == list(range(numbers[-1] - 2, numbers[-1] + 1))


def test_two_that_make_the_tables_at_once_make_them_once():
    store = Store()
    first, second = store.tables(), store.tables()
    store.before = once(lambda _: first.make(TABLES, {"format": "1", "lineage": "first"}, ()))
    second.make(TABLES, {"format": "1", "lineage": "second"}, ())
    for tables in (first, second):
        with tables.transaction() as connection:
            assert connection.execute("SELECT value FROM meta WHERE key = 'lineage'").fetchall() == [{"value": "first"}]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from("ab"), st.sampled_from("bal")), max_size=12), st.integers()
)
def test_transactions_are_serial_whatever_comes_between(steps, seed):
    """A writer after the other, each with another that writes before its object, after it, or as its reply is lost."""
    store, chance = Store(), random.Random(seed)
    runners = [store.tables() for _ in range(4)]
    runners[0].make(TABLES, {}, ())
    done = {"a": 0, "b": 0}

    def written(tables, name):
        try:
            add(tables, name)
        except StateError as error:
            assert error.problems[0].code == "DB501"
        else:
            done[name] += 1

    for runner, name, when in steps:
        others = [each for each in runners if each is not runners[runner]]

        def between(_, others=others):
            for _ in range(chance.randrange(5)):
                written(chance.choice(others), chance.choice("ab"))

        def lost(path, between=between):
            between(path)
            raise TimeoutError

        store.before, store.after = (once(between) if when == "b" else lambda _: None), lambda _: None
        if when != "b":
            store.after = once(between if when == "a" else lost)
        written(runners[runner], name)
        assert {name: n for name, n in done.items() if n} == held(chance.choice(runners))


@pytest.mark.slow
def test_threads_over_a_real_server_lose_no_commit(s3):
    location = f"{s3}/{uuid.uuid4().hex}"
    BucketTables(open_bucket(location, ManualClock())).make(TABLES, {}, ())
    refused = []

    def run(name):
        tables = BucketTables(open_bucket(location, ManualClock()))
        tables._lock = threading.RLock()  # as another process
        for _ in range(4):
            for each in (name, "all"):
                try:
                    add(tables, each)
                except StateError as error:
                    refused.append((each, error.problems[0].code))

    threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each for each, _ in refused} <= {"all"}
    assert {code for _, code in refused} <= {"DB501"}
    found = held(BucketTables(open_bucket(location, ManualClock())))
    assert found == {"a": 4, "b": 4, "c": 4, "all": 12 - len(refused)}


def test_threads_of_one_process_wait_for_each_other_and_none_is_refused(store):
    inside, goes_on = threading.Event(), threading.Event()

    def held_up(_path):
        store.before = lambda path: None
        inside.set()
        assert goes_on.wait(60)

    store.before = held_up
    first = threading.Thread(target=add, args=(store.tables(), "a"))
    first.start()
    assert inside.wait(60)
    refused = []

    def come_second():
        try:
            add(store.tables(), "a")
        except StateError as error:
            refused.append(error)

    second = threading.Thread(target=come_second)
    second.start()
    second.join(0.2)
    goes_on.set()
    for thread in (first, second):
        thread.join(60)
    assert refused == []
    with store.tables().transaction() as connection:
        assert connection.execute("SELECT n FROM held WHERE name = 'a'").fetchone() == {"n": 2}


@pytest.mark.parametrize(
    "spoil", [lambda b: b[:-40], lambda b: b"{}\n" + b, lambda b: b"", lambda b: b[:-9] + b"012345678"]
)
def test_a_version_that_is_not_as_it_was_written_is_refused_and_left(store, spoil):
    add(store.tables(), "a")
    path = max(store.memory.find(f"{store.root}/versions"))
    bent = spoil(store.memory.cat_file(path))
    store.memory.pipe_file(path, bent)
    tables = store.tables()
    for _ in range(2):
        with pytest.raises(StateError, match="DB502"):
            add(tables, "a")
    assert store.memory.cat_file(path) == bent


def test_a_store_that_lets_two_create_one_object_is_refused(store, s3):
    bucket = open_bucket(f"{s3}/{uuid.uuid4().hex}", ManualClock())
    assert abs(bucket.check()) > 1e6, "its clock counts, not the test's"
    assert bucket.names("probe") == []
    store.honours = False
    with pytest.raises(StateError, match=r"DB521 memory://.*two writers") as refusal:
        store.tables().check()
    assert "If-None-Match" in refusal.value.problems[0].hint
    assert store.memory.find(f"{store.root}/probe") == []


def test_credentials_that_may_not_delete_are_refused_before_the_first_write(store):
    """Else rows are sent first, and their spool can't go."""

    def refuse(path):
        raise PermissionError("AccessDenied")

    before = store.memory.find(f"{store.root}/versions")
    store.rm_file = refuse
    with pytest.raises(StateError, match=r"DB510 .*AccessDenied") as refusal:
        store.tables().check()
    assert "delete" in refusal.value.problems[0].hint
    assert store.memory.find(f"{store.root}/versions") == before


def test_a_bucket_that_is_not_there_is_said_when_it_is_written(s3):
    tables = BucketTables(open_bucket("s3://nowhere/x", ManualClock()))
    assert not tables.exists()
    with pytest.raises(StateError, match=r"DB515 s3://nowhere/x: .*no such bucket"):
        tables.make(TABLES, {}, ())


@pytest.mark.parametrize(
    ("scheme", "module", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gs"), ("abfs", "adlfs", "az")]
)
def test_a_client_that_is_not_installed_is_named_with_its_extra(monkeypatch, scheme, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(
        StateError, match=rf"DB515 {scheme}://b/x: the client for {scheme}:// is not installed"
    ) as refusal:
        open_bucket(f"{scheme}://b/x", ManualClock())
    assert refusal.value.problems[0].hint == f"pip install 'dinmo-dbt[{extra}]'"


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError("AccessDenied"), "DB510"), (TimeoutError(), "DB520 .*: no answer"), (OSError("reset"), "DB520"),
     (OSError(errno.EREMCHG, "another region"), "DB515"), (ValueError("odd"), "DB515"),
     (type("EndpointConnectionError", (Exception,), {})("x"), "DB520"),
     (type("HttpError", (Exception,), {"code": 503})("x"), "DB520"),
     (type("HttpError", (Exception,), {"code": 400})("https://h/x?sig=hidden"), r"DB515 .*https://h/x\s")],
)  # fmt: skip
def test_what_a_store_refuses_is_reported_and_what_was_there_stays(store, error, code):
    tables = store.tables()
    add(tables, "a")

    def refuse(path):
        raise error

    store.before = refuse
    with pytest.raises(StateError, match=code):
        add(tables, "b")
    store.before = lambda _: None
    assert held(tables) == {"a": 1}
    add(tables, "b")
    assert held(store.tables()) == {"a": 1, "b": 1}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_full_is_no_lost_connection(store, tmp_path, number):
    bucket = store.tables().bucket
    bucket.create("snapshots/x", b"1")

    def get_file(path, local):
        raise OSError(number, "no")

    store.get_file = get_file
    with pytest.raises(StateError, match="DB510") as refusal:
        bucket.download("snapshots/x", tmp_path / "x")
    assert str(tmp_path / "x") in refusal.value.problems[0].where


class Deaf:
    """A store's client whose requests get no answer, or not for the first few."""

    def __init__(self, answers_at=None):
        self.asked, self.answers_at = 0, answers_at

    def ls(self, path, detail, refresh):
        self.asked += 1
        if self.answers_at is None or self.asked < self.answers_at:
            raise ConnectionResetError("reset")
        return [f"{path}/1"]

    put_file = get_file = cat_file = rm_file = cp_file = pipe_file = lambda self, *_, **__: self.ls("", False, True)


ASKED = [
    lambda bucket, path: bucket.names("x"),
    lambda bucket, path: bucket.read("x"),
    lambda bucket, path: bucket.create("x", b"1"),
    lambda bucket, path: bucket.upload("x", path),
    lambda bucket, path: bucket.download("x", path),
    lambda bucket, path: bucket.copy("x", "y"),
    lambda bucket, path: bucket.remove(["x"]),
]


@pytest.mark.parametrize("ask", ASKED)
def test_what_gets_no_answer_is_asked_again_and_not_for_ever(tmp_path, ask):
    path = tmp_path / "file"
    path.write_bytes(b"1")
    ask(Bucket("memory://b", Deaf(answers_at=3), ManualClock()), path)
    deaf, clock = Deaf(), ManualClock()
    bucket = Bucket("memory://b", deaf, clock)
    began = clock.monotonic()
    with pytest.raises(StateError, match="DB520"):
        ask(bucket, path)
    assert deaf.asked == 5
    assert 5 < clock.monotonic() - began < 60
    with pytest.raises(StateError, match="DB520"):
        ask(bucket, path)
    assert deaf.asked == 6, "a command that ends does not wait for each of its last requests"
    deaf.answers_at = 7
    ask(bucket, path)
    deaf.answers_at = 10
    ask(bucket, path)
    assert deaf.asked == 10


@pytest.fixture
def silent(monkeypatch):
    """A server at which requests come in and no answer goes out: each connection is closed, or left open."""
    accepted, closes = [], []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with suppress(OSError):
                while True:
                    accepted.append(server.accept()[0])
                    accepted[-1].recv(1 << 16)
                    if closes:
                        accepted[-1].close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield accepted, closes
        server.shutdown(socket.SHUT_RDWR)
    thread.join()
    for connection in accepted:
        connection.close()


@pytest.mark.parametrize("ask", ASKED[:4])
@pytest.mark.parametrize("how", ["closes", "hangs"])
def test_a_server_that_never_answers_is_left(monkeypatch, tmp_path, s3, silent, how, ask):
    """Over real connections: no try within a try, and a time for each."""
    accepted, closes = silent
    path = tmp_path / "file"
    path.write_bytes(b"1")
    if how == "closes":
        closes.append(True)
    for name in ("_TRY_S", "_DOWNLOAD_S", "_HASTY_S"):
        monkeypatch.setattr(f"dinmo_dbt.objects.bucket.{name}", 0.2 if how == "hangs" else 60.0)
    with pytest.raises(StateError, match="DB520"):
        ask(open_bucket("s3://states/x", ManualClock()), path)
    assert len(accepted) <= 10, "the library below makes some twice where a connection closes"
