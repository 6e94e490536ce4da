"""Enrolment tokens: spent once, with a name for every refusal."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.fleet import enrol
from edgeops.fleet.device import Device
from edgeops.fleet.enrol import Enrolment, hash_secret, issue, redeem, revoke_tokens
from edgeops.wire.errors import Misuse

SECRET = b"s" * 32
HASH = hash_secret(SECRET)


def fresh() -> Enrolment:
    """A registered device with one open token that lives from 100 to 200."""
    return issue(Enrolment(Device("d")), SECRET, now=100, ttl_s=100)


def refusal(state, secret_hash, now, identity="") -> str:
    """The reason with which a redemption is refused."""
    with pytest.raises(Misuse) as caught:
        redeem(state, secret_hash, now, identity)
    return caught.value.reason


def test_the_clear_secret_is_not_kept():
    """Only the SHA-256 of the secret is in the state."""
    assert "s" * 32 not in repr(fresh())
    assert fresh().tokens[0].secret_hash == HASH


def test_redeeming_enrols_with_the_next_incarnation():
    """A good token makes the device enrolled, remembers its identity and raises the incarnation by one."""
    state = redeem(fresh(), HASH, 150, "key-1")
    assert (state.device.status, state.device.incarnation, state.device.identity) == ("enrolled", 1, "key-1")
    again = redeem(issue(state, b"t" * 32, 300), hash_secret(b"t" * 32), 301, "key-2")
    assert again.device.incarnation == 2


def test_every_refusal_has_its_name():
    """Unknown, expired, revoked and spent tokens and revoked devices are told apart."""
    assert refusal(fresh(), hash_secret(b"other"), 150) == "token-unknown"
    assert refusal(fresh(), "é", 150) == "token-unknown"
    assert refusal(fresh(), HASH, 200) == "token-expired"
    assert refusal(revoke_tokens(fresh()), HASH, 150) == "token-revoked"
    assert refusal(redeem(fresh(), HASH, 150, "k"), HASH, 151, "other") == "token-spent"
    gone = replace(fresh(), device=replace(fresh().device, status="revoked"))
    assert refusal(gone, HASH, 150) == "device-revoked"
    with pytest.raises(Misuse, match="revoked"):
        issue(gone, SECRET, 150)


def test_a_lost_answer_may_be_asked_for_again_by_the_same_key_only():
    """The same identity redeems the same token again without effect; without an identity it is spent."""
    state = redeem(fresh(), HASH, 150, "key-1")
    assert redeem(state, HASH, 160, "key-1") == state
    assert refusal(state, HASH, 201, "key-1") == "token-spent"
    anonymous = redeem(fresh(), HASH, 150)
    assert refusal(anonymous, HASH, 151) == "token-spent"


def test_an_old_token_cannot_return_after_a_newer_enrolment():
    """Once a later token was spent, the earlier one is spent for its own key too."""
    state = redeem(fresh(), HASH, 150, "key-1")
    state = redeem(issue(state, b"t" * 32, 160), hash_secret(b"t" * 32), 161, "key-2")
    assert refusal(state, HASH, 162, "key-1") == "token-spent"


def test_issuing_withdraws_open_tokens_and_bounds_the_list():
    """Only the newest token is open and the history stays short."""
    state = fresh()
    for i in range(40):
        state = issue(state, bytes([i]) * 32, 101 + i)
    assert [t.status for t in state.tokens].count("open") == 1
    assert len(state.tokens) == enrol.MAX_TOKENS
    assert redeem(state, hash_secret(bytes([39]) * 32), 150).device.incarnation == 1


@pytest.mark.parametrize(
    ("secret", "ttl", "reason"),
    [(b"short", 10, "token-weak"), (SECRET, 0, "token-ttl-invalid"), (SECRET, 10**9, "token-ttl-invalid")],
)
def test_weak_tokens_are_not_issued(secret, ttl, reason):
    """A guessable secret or an endless life is refused."""
    with pytest.raises(Misuse) as caught:
        issue(Enrolment(Device("d")), secret, 0, ttl)
    assert caught.value.reason == reason


def test_the_comparison_is_constant_time(monkeypatch):
    """Every stored hash is compared with hmac.compare_digest, also after one was found."""
    calls = []
    real = enrol.hmac.compare_digest
    monkeypatch.setattr(enrol.hmac, "compare_digest", lambda a, b: calls.append(1) or real(a, b))
    state = issue(issue(Enrolment(Device("d")), SECRET, 1), b"t" * 32, 1)
    refusal(state, HASH, 2)
    assert len(calls) == 2


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 40)), max_size=30))
def test_a_token_enrols_at_most_once(moves):
    """Over any sequence of issuing, revoking and redeeming, the incarnation equals the number of distinct tokens spent."""
    state, now = Enrolment(Device("d")), 0
    spent = set()
    for kind, which, delay in moves:
        now += delay
        secret = bytes([which]) * 32
        before = state.device.incarnation
        if kind == 0:
            state = issue(state, bytes([which, len(state.tokens)]) * 16, now, 60)
        elif kind == 1:
            state = revoke_tokens(state)
        else:
            token = state.tokens[which % len(state.tokens)].secret_hash if state.tokens else hash_secret(secret)
            try:
                state = redeem(state, token, now, f"key-{which}")
            except Misuse:
                continue
            if state.device.incarnation != before:
                found = [(t.secret_hash, t.issued_at) for t in state.tokens if t.incarnation == state.device.incarnation]
                assert len(found) == 1 and found[0] not in spent
                spent.add(found[0])
        assert state.device.incarnation == len(spent)
