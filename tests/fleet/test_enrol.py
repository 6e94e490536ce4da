"""Enrolment: what proves a device, what an operator must approve, and one refusal for everything that is wrong."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.fleet import enrol
from edgeops.fleet.enrol import AGAIN_S, DAY_S, MOST_RENEWALS, Ask, Enrolment, check_fingerprint, fingerprint_of, issue
from edgeops.wire.errors import Misuse

KEY, OTHER = "11" * 32, "22" * 32
SECRET, WRONG = "a" * 64, "b" * 64
ASK = Ask(KEY, SECRET)
LATE_S = 90 * DAY_S


def fresh(**more: Any) -> Enrolment:
    """A registered device with one open token that lives from 100 to 200."""
    return issue(Enrolment("d", **more), SECRET, 100, 100)


def factory(**more: Any) -> Enrolment:
    """A device the factory has announced."""
    return Enrolment("d", fingerprint=fingerprint_of(KEY), **more)


def refusal(state: Enrolment, ask: Ask, now: int) -> str:
    """The reason with which a request is refused."""
    with pytest.raises(Misuse) as caught:
        enrol.enrol(state, ask, now)
    return caught.value.reason


def admitted(state: Enrolment, ask: Ask, now: int) -> Enrolment:
    """The state after a request that must be admitted."""
    state, step = enrol.enrol(state, ask, now)
    assert step == "admitted"
    return state


def test_a_token_admits_as_the_next_incarnation():
    """A good token makes the device enrolled, remembers its identity and raises the incarnation by one."""
    state = admitted(fresh(), ASK, 150)
    assert (state.status, state.incarnation, state.identity, state.token_spent) == ("enrolled", 1, KEY, 150)
    again = admitted(issue(state, WRONG, 300, 60), Ask(OTHER, WRONG), 301)
    assert (again.incarnation, again.identity) == (2, OTHER)


def test_every_refusal_is_the_same():
    """Unknown, expired, withdrawn, foreign and spent tokens, unregistered keys and devices that are over: one reason, one text."""
    spent = admitted(fresh(), ASK, 150)
    cases = [
        (fresh(), Ask(KEY, WRONG), 150), (fresh(), Ask(KEY, ""), 150), (fresh(), ASK, 200), (spent, Ask(OTHER, SECRET), 151),
        (spent, ASK, 150 + AGAIN_S), (Enrolment("d"), ASK, 150), (Enrolment("d"), Ask(KEY, ""), 150),
        (factory(), Ask(OTHER, ""), 150),
        (issue(factory(), "e" * 64, 100, 100), Ask(KEY, ""), 150),
        (enrol.revoke(fresh()), ASK, 150), (enrol.decommission(fresh()), ASK, 150), (enrol.revoke(factory()), Ask(KEY, ""), 150),
        (factory(status="clone"), Ask(KEY, ""), 150), (enrol.decommission(factory()), Ask(KEY, ""), 150),
        (replace(fresh(), status="decommissioned"), ASK, 150),
    ]  # fmt: skip
    texts = set()
    for state, ask, now in cases:
        with pytest.raises(Misuse) as caught:
            enrol.enrol(state, ask, now)
        assert caught.value.reason == "token-refused", state
        texts.add(caught.value.message)
    assert len(texts) == 1


def test_a_token_stands_for_the_fingerprint():
    """An operator's token admits an announced device with whatever key it has now; the announced key alone no more."""
    for before in (factory(), admitted(factory(), Ask(KEY, ""), 10), enrol.revoke(factory())):
        state = issue(before, SECRET, 100, 100)
        assert state.fingerprint == ""
        assert admitted(state, Ask(OTHER, SECRET), 150).incarnation == before.incarnation + 1
        assert refusal(state, Ask(KEY, ""), 150) == refusal(state, Ask(KEY, WRONG), 150) == "token-refused"


def test_a_factory_key_admits_once_and_then_needs_an_operator():
    """Without a secret the first request is admitted, a lost answer is given again, and a re-flash waits for approval."""
    state = admitted(factory(), Ask(KEY, ""), 100)
    assert enrol.enrol(state, Ask(KEY, ""), 100 + AGAIN_S - 1) == (state, "again")
    waiting, step = enrol.enrol(state, Ask(KEY, ""), 100 + AGAIN_S)
    assert (step, waiting.status, waiting.incarnation) == ("pending", "enrolled", 1)
    assert admitted(enrol.decide(waiting, "granted"), Ask(KEY, ""), 9_000).incarnation == 2


def test_a_lost_answer_is_given_again_to_the_same_key_only():
    """While the token lives, and for an hour after it was spent, the same key gets the same incarnation."""
    state = admitted(fresh(), ASK, 150)
    assert enrol.enrol(state, ASK, 151) == (state, "again")
    assert enrol.enrol(state, ASK, 150 + AGAIN_S - 1) == (state, "again")
    assert refusal(state, Ask(OTHER, SECRET), 151) == "token-refused"


def test_approval_binds_the_token_and_outlives_it():
    """The first key that comes is the one that waits; the operator may take longer than the token lives."""
    waiting, step = enrol.enrol(fresh(approval=True), ASK, 150)
    assert (step, waiting.status, waiting.incarnation) == ("pending", "registered", 0)
    assert refusal(waiting, Ask(OTHER, SECRET), 151) == "token-refused"
    assert enrol.enrol(waiting, ASK, 9_999) == (waiting, "pending")
    assert refusal(enrol.decide(waiting, "rejected"), ASK, 160) == "enrolment-rejected"
    done = admitted(enrol.decide(waiting, "granted"), ASK, 9_999)
    assert (done.incarnation, done.pending) == (1, None)
    assert enrol.enrol(done, ASK, 10_000) == (done, "again")
    assert refusal(issue(waiting, WRONG, 160, 60), ASK, 161) == "token-refused"


def test_the_old_key_cannot_use_a_token_that_a_new_key_waits_with():
    """While a re-flashed device waits for approval, the key it had before is not given the credentials."""
    old = admitted(fresh(approval=False), ASK, 150)
    again = replace(issue(old, WRONG, 300, 60), approval=True)
    waiting, step = enrol.enrol(again, Ask(OTHER, WRONG), 301)
    assert step == "pending" and refusal(waiting, Ask(KEY, WRONG), 302) == "token-refused"


def test_nothing_to_decide_is_told():
    """Approving a device that waits for nothing is a mistake with a name."""
    with pytest.raises(Misuse, match="nothing-pending"):
        enrol.decide(fresh(), "granted")


@pytest.mark.parametrize("ttl", [0, -1, 10**9])
def test_an_endless_or_instant_token_is_not_issued(ttl):
    """A token lives from a second to ninety days."""
    with pytest.raises(Misuse, match="token-ttl-invalid"):
        issue(Enrolment("d"), SECRET, 0, ttl)


def test_renewal_at_any_age_but_late_only_with_approval():
    """Until the limit after its end a certificate is renewed at once; then an operator decides, once for this renewal."""
    state = replace(admitted(fresh(), ASK, 150), certificate_expires=1_000)
    for now in (200, 1_000, 1_000 + LATE_S):
        assert enrol.renew(state, 0, now, LATE_S) == (state, "admitted")
    waiting, step = enrol.renew(state, 0, 1_001 + LATE_S, LATE_S)
    assert step == "pending" and enrol.renew(waiting, 0, 2_000 + LATE_S, LATE_S) == (waiting, "pending")
    done, step = enrol.renew(enrol.decide(waiting, "granted"), 0, 2_000 + LATE_S, LATE_S)
    assert (step, done.pending) == ("admitted", None)
    with pytest.raises(Misuse, match="renewal-rejected"):
        enrol.renew(enrol.decide(waiting, "rejected"), 0, 2_000 + LATE_S, LATE_S)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "revoked"}, "device-revoked"), ({"status": "decommissioned"}, "device-revoked"),
        ({"status": "registered"}, "device-revoked"), ({"status": "clone"}, "device-quarantined"),
    ],
)  # fmt: skip
def test_who_is_not_enrolled_renews_nothing(change, reason):
    """Revoked, decommissioned and quarantined devices are refused by name: they have proven who they are."""
    with pytest.raises(Misuse, match=reason):
        enrol.renew(replace(admitted(fresh(), ASK, 150), **change), 0, 200, LATE_S)


def test_renewals_within_a_day_are_few():
    """A lost answer may be asked for again, an endless row of certificates not."""
    state = replace(admitted(fresh(), ASK, 150), certificate_expires=1_000)
    assert enrol.renew(state, MOST_RENEWALS - 1, 200, LATE_S)[1] == "admitted"
    with pytest.raises(Misuse, match="renewed-lately"):
        enrol.renew(state, MOST_RENEWALS, 200, LATE_S)


def test_decommissioning_is_for_good():
    """No token, no revocation and no second decommissioning of what is over; releasing needs a quarantine."""
    over = enrol.decommission(admitted(fresh(), ASK, 150))
    for act in (enrol.revoke, enrol.decommission, lambda state: issue(state, SECRET, 0, 60)):
        with pytest.raises(Misuse, match="device-decommissioned"):
            act(over)
    with pytest.raises(Misuse, match="not-quarantined"):
        enrol.release(fresh())
    assert enrol.release(replace(fresh(), status="clone")).status == "enrolled"


def test_fingerprints_as_people_write_them():
    """Colons, capitals and white space at the ends do not matter; everything else does."""
    plain = fingerprint_of(KEY)
    written = ":".join(plain[at : at + 2] for at in range(0, 64, 2)).upper()
    assert check_fingerprint(f" {written}\n") == plain
    for wrong in ("", plain[:-1], plain + "0", "g" * 64, plain[:32] + " " + plain[32:]):
        with pytest.raises(Misuse, match="fingerprint-invalid"):
            check_fingerprint(wrong)


def test_the_comparison_is_constant_time(monkeypatch):
    """Secret and fingerprint are compared with hmac.compare_digest, whether or not there is anything to compare with."""
    calls = []
    real = enrol.hmac.compare_digest
    monkeypatch.setattr(enrol.hmac, "compare_digest", lambda a, b: calls.append(1) or real(a, b))
    for state in (Enrolment("d"), fresh(), factory(), enrol.decommission(factory())):
        calls.clear()
        refusal(state, Ask(OTHER, WRONG), 150)
        assert len(calls) == 2


MOVES = st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 3 * AGAIN_S))


@given(st.lists(MOVES, max_size=40), st.booleans(), st.booleans())
def test_credentials_are_given_only_for_a_proof(moves, approval, announced):
    """Over any sequence of acts: each token enrols once, the incarnation counts admissions, nobody gets in unapproved."""
    state = Enrolment("d", approval=approval, fingerprint=fingerprint_of(KEY) if announced else "")
    now, issued, spent, granted = 0, 0, set[str](), False
    for kind, which, delay in moves:
        now += delay
        before = state
        try:
            if kind == 0:
                issued += 1
                state, granted = issue(state, f"{issued:064d}", now, 2 * AGAIN_S), False
            elif kind == 1:
                state, granted = enrol.revoke(state), False
            elif kind == 2:
                state = enrol.decide(state, "granted")
                granted = True
            else:
                key = KEY if which else OTHER
                state, step = enrol.enrol(state, Ask(key, f"{max(issued - (kind == 4), 0):064d}" if issued else ""), now)
                if step == "admitted":
                    assert not announced or issued or key == KEY
                    assert state.incarnation == before.incarnation + 1 and state.identity == key
                    assert not approval or granted
                    granted = False
                    if before.token_hash:
                        assert before.token_hash not in spent
                        spent.add(before.token_hash)
                else:
                    assert state.incarnation == before.incarnation
        except Misuse:
            assert state == before
