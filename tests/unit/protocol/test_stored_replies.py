"""An engine's answers are kept within their limits, the newest ones, and what has gone is known to have gone."""

from hypothesis import given
from hypothesis import strategies as st

from nsactors.protocol.messages import RequestId
from nsactors.protocol.stored_replies import Missing, ReplyStore, StoredReply


def stored(text: str = "stored") -> StoredReply:
    return StoredReply(text.encode())


def test_an_answer_is_there_for_whoever_asks_and_as_often_as_they_ask() -> None:
    store = ReplyStore()
    store.add(RequestId("ann", 3), stored(), 6)
    assert store.get(RequestId("ann", 3)) == stored()
    assert store.get(RequestId("ann", 3)) == stored()


def test_the_first_answer_to_a_request_stays_its_answer() -> None:
    store = ReplyStore()
    store.add(RequestId("ann", 0), stored("ran"), 3)
    store.add(RequestId("ann", 0), stored("refused"), 7)
    assert store.get(RequestId("ann", 0)) == stored("ran")
    assert store.nbytes == 3


def test_the_oldest_answer_makes_room_and_is_known_to_have_been_there() -> None:
    store = ReplyStore(limit_replies=1)
    store.add(RequestId("ann", 0), stored(), 1)
    store.add(RequestId("bob", 0), stored(), 1)
    assert store.get(RequestId("ann", 0)) is Missing.DROPPED
    assert store.get(RequestId("ann", 1)) is Missing.UNKNOWN
    assert store.get(RequestId("eve", 0)) is Missing.UNKNOWN


def test_an_answer_larger_than_the_limit_does_not_drive_out_the_others() -> None:
    store = ReplyStore(limit_bytes=10, limit_stored_bytes=10)
    store.add(RequestId("ann", 0), stored(), 10)
    store.add(RequestId("ann", 1), stored(), 11)
    store.add(RequestId("ann", 2), stored(), 0, stored_bytes=11)
    assert store.get(RequestId("ann", 0)) == stored()
    assert store.get(RequestId("ann", 1)) is Missing.DROPPED
    assert store.get(RequestId("ann", 2)) is Missing.DROPPED


def test_values_in_the_object_store_have_a_limit_of_their_own() -> None:
    store = ReplyStore(limit_stored_bytes=10)
    store.add(RequestId("ann", 0), stored(), 1, stored_bytes=6)
    store.add(RequestId("ann", 1), stored(), 1, stored_bytes=6)
    assert store.get(RequestId("ann", 0)) is Missing.DROPPED
    assert store.stored_bytes == 6


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12), st.integers(0, 12))),
    st.integers(1, 5),
    st.integers(0, 20),
)
def test_whatever_comes_the_limits_hold_and_the_newest_answers_are_there(
    sizes: list[tuple[str, int, int]], limit_replies: int, limit_bytes: int
) -> None:
    store = ReplyStore(limit_replies, limit_bytes, limit_bytes)
    kept: list[tuple[RequestId, int, int]] = []  # a model: everything, oldest first
    for seq, (client, nbytes, stored_bytes) in enumerate(sizes):
        request = RequestId(client, seq)
        store.add(request, stored(str(seq)), nbytes, stored_bytes)
        if nbytes <= limit_bytes and stored_bytes <= limit_bytes:
            kept.append((request, nbytes, stored_bytes))
        while len(kept) > limit_replies or any(sum(e[i] for e in kept) > limit_bytes for i in (1, 2)):
            kept.pop(0)
        assert len(store) == len(kept)
        assert (store.nbytes, store.stored_bytes) == (sum(e[1] for e in kept), sum(e[2] for e in kept))
    there = {request for request, _, _ in kept}
    for seq, (client, _, _) in enumerate(sizes):
        found = store.get(RequestId(client, seq))
        assert found == stored(str(seq)) if RequestId(client, seq) in there else found is Missing.DROPPED
