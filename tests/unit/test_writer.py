"""The writer: in order, patient with a store that is away, short with one that refuses."""

import threading
import time

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE

from ms_automl.callbacks.mlflow.writer import Writer

AWAY = MlflowException("the store is away", error_code=TEMPORARILY_UNAVAILABLE)
REFUSED = MlflowException("no such parameter at http://user:secret@host/x", error_code=INVALID_PARAMETER_VALUE)


class Store:
    """Takes writes, or raises what it is told to, so many times."""

    def __init__(self):
        self.taken, self.attempts = [], []

    def write(self, name, *errors):
        left = list(errors)

        def attempt(number):
            self.attempts.append((name, number))
            if left:
                raise left.pop(0)
            self.taken.append(name)

        return attempt


def written(*writes, **limits):
    writer = Writer(**limits)
    for write in writes:
        writer.put(write)
    writer.start()
    writer.close()
    return writer


def test_writes_are_made_in_order_and_none_is_lost():
    store = Store()
    writer = written(*(store.write(number) for number in range(50)))
    assert store.taken == list(range(50)) and writer.written == 50 and writer.lost is None


def test_a_store_that_is_away_is_waited_for_and_the_write_knows_that_it_is_tried_again():
    store = Store()
    writer = written(store.write("a", AWAY, ConnectionError("refused")), store.write("b"))
    assert store.taken == ["a", "b"] and writer.lost is None
    assert store.attempts == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]


def test_what_a_store_refuses_is_given_up_at_once_and_said_without_passwords():
    store = Store()
    began = time.monotonic()
    writer = written(store.write("a", REFUSED, REFUSED), store.write("b"))
    assert time.monotonic() - began < 1
    assert store.taken == ["b"]
    assert writer.lost == "no such parameter at http://host/x"


def test_a_mistake_of_our_own_is_no_outage():
    store = Store()
    writer = written(store.write("a", KeyError("run")), store.write("b"))
    assert store.taken == ["b"] and writer.lost == "'run'"


def test_an_outage_that_does_not_end_is_given_up_and_the_rest_is_not_waited_for_as_long():
    store = Store()
    writer = written(store.write("a", *[AWAY] * 100), store.write("b"), outage=0.3)
    assert store.taken == ["b"] and "the store is away" in writer.lost


def test_putting_never_waits_for_the_store():
    gate = threading.Event()
    writer = Writer()
    writer.start()
    began = time.monotonic()
    for _ in range(1000):
        writer.put(lambda attempt: gate.wait())
    assert time.monotonic() - began < 0.5
    gate.set()
    writer.close()
    assert writer.written == 1000


def test_at_the_end_it_waits_as_long_as_writes_succeed_and_no_longer():
    slow = [lambda attempt: time.sleep(0.15) for _ in range(6)]
    assert written(*slow, patience=0.5).lost is None
    gate = threading.Event()
    stuck = written(lambda attempt: gate.wait(), patience=0.3)
    assert stuck.lost == "the store did not answer for 0.3 s"
    gate.set()
