"""Plans: waves, reaches, and the table of policy settings."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.rollout.plan import EVERYBODY, Plan, Wave, parse_waves
from edgeops.rollout.policy import DEFAULTS, PPM, Policy, policy_from
from edgeops.wire.errors import Misuse


def written(text) -> str:
    """Waves as parsed and written again."""
    return ",".join(map(str, parse_waves(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,10%,100%", "1,10%,100%"),
        ("1,10%", "1,10%,100%"),
        ("5", "5,100%"),
        ("100%", "100%"),
        ("0.5%,12.25%,100%", "0.5%,12.25%,100%"),
        (" 1 , 2 ", "1,2,100%"),
        ("100.0%", "100%"),
        ("10%,1", "10%,1,100%"),
    ],
)
def test_waves_are_read_and_completed(text, expected):
    """A bare number is devices, % a share, and the last 100 % is implied."""
    assert written(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "1,,2",
        "0",
        "0%",
        "101%",
        "100%,5",
        "100%,100%",
        "5,3",
        "5,5",
        "10%,10%",
        "-1",
        "1.5",
        "a",
        "1 %",
        "1e3",
        "٣",
        "1" * 10,
    ],
)
def test_wrong_waves_are_refused(text):
    """Waves that do not rise, or that we do not understand, are refused with an example."""
    with pytest.raises(Misuse, match="1,10%,100%") as caught:
        parse_waves(text)
    assert caught.value.reason == "waves-invalid"


def test_too_many_waves_are_refused():
    """At most fifty waves make a plan."""
    with pytest.raises(Misuse, match="at most 50"):
        parse_waves(",".join(str(i) for i in range(1, 60)))


def test_a_plan_checks_its_waves_and_id():
    """A plan built by hand is held to the same rules."""
    for rollout_id, waves in [("r/1", (EVERYBODY,)), ("r", ()), ("r", (Wave("count", 3),)), ("r", (Wave("count", 0), EVERYBODY))]:
        with pytest.raises(Misuse):
            Plan(rollout_id, "new", "m", 1, "main", None, waves)


steps = st.lists(
    st.one_of(st.integers(1, 10**6).map(str), st.integers(1, PPM - 1).map(lambda p: str(Wave("share", p)))), max_size=6
)


@given(steps, st.integers(0, 10**6))
def test_reaches_never_fall_and_end_with_everybody(parts, targets):
    """Whatever waves are accepted: written and read they stay the same, and their reaches rise to all targets."""
    try:
        waves = parse_waves(",".join([*parts, "100%"]))
    except Misuse:
        return
    assert written(",".join(map(str, waves))) == ",".join(map(str, waves))
    reaches = Plan("r", "new", "m", 1, "main", None, waves).reaches(targets)
    assert list(reaches) == sorted(reaches)
    assert reaches[-1] == targets
    for wave, reach in zip(waves, reaches, strict=True):
        assert reach >= wave.reach(targets)


def test_a_share_rounds_up():
    """One percent of twenty devices is one device, one percent of 101 is two."""
    assert [Wave("share", 10_000).reach(n) for n in (0, 20, 100, 101)] == [0, 1, 1, 2]


def test_the_table_of_settings_is_the_policy():
    """DEFAULTS names each field with its true default, bounds that contain it, and a sentence."""
    assert set(DEFAULTS) == {f.name for f in fields(Policy)}
    for name, knob in DEFAULTS.items():
        assert getattr(Policy(), name) == knob.default
        assert knob.low <= knob.default <= knob.high
        assert knob.help.endswith(".") and knob.unit


@pytest.mark.parametrize("name", list(DEFAULTS))
def test_each_setting_is_held_to_type_and_bounds(name):
    """A value of another type or out of bounds is refused by name."""
    knob = DEFAULTS[name]
    wrong = [1, "x"] if isinstance(knob.default, bool) else [knob.low - 1, knob.high + 1, "x", True, None]
    for value in wrong:
        with pytest.raises(Misuse, match=name) as caught:
            policy_from({name: value})
        assert caught.value.reason == "policy-invalid"


def test_unknown_and_contradicting_settings_are_refused():
    """A typo gets a suggestion; a dwell beyond the timeout and a failure before unknown contradict themselves."""
    with pytest.raises(Misuse, match="did you mean dwell_s"):
        policy_from({"dwel_s": 3})
    with pytest.raises(Misuse, match="shorten the dwell"):
        policy_from({"dwell_s": 100, "wave_timeout_s": 10})
    with pytest.raises(Misuse, match="unknown before"):
        policy_from({"silence_s": 100, "silence_failure_s": 10})
    assert policy_from({"success_fraction": 1}).success_ppm == PPM
