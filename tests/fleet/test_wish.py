"""fleet.toml: the example is valid, and every mistake is named with its path."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeops.fleet.wish import LIMITS, parse_wish
from edgeops.rollout.conditions import SETTINGS as WAITS
from edgeops.rollout.conditions import conditions_from, settings_of
from edgeops.rollout.plan import SETTINGS, check_rollout, parse_waves
from edgeops.rollout.policy import DEFAULTS, policy_from
from edgeops.wire.errors import Misuse

EXAMPLE = Path(__file__).parents[2] / "fleet.example.toml"


def read(text):
    """Parse with the real knobs of a rollout policy."""
    return parse_wish(text, SETTINGS, check_rollout)


def complaint(text) -> str:
    """The message with which a text is refused."""
    with pytest.raises(Misuse) as caught:
        read(text)
    assert caught.value.reason == "fleet-toml-invalid"
    return caught.value.message


def test_the_example_is_valid_and_shows_every_setting():
    """fleet.example.toml parses, its policies build, and it mentions each knob and each limit."""
    text = EXAMPLE.read_text()
    wish = read(text)
    assert {m.name for m in wish.models} == {"detector", "keyword-spotter", "detector-on-the-bench"}
    careful = wish.rollouts["careful"].settings
    assert policy_from({name: careful[name] for name in DEFAULTS}).success_fraction == 0.95
    waits = {name: careful[name] for name in WAITS}
    assert conditions_from(waits).activate == ("parked", "window=22:00-05:00", "consent")
    assert settings_of(conditions_from(waits)).keys() == waits.keys() - {"wait_s", "commit_wait_s"}
    assert set(careful) == set(SETTINGS)
    for name in [*SETTINGS, *LIMITS]:
        assert f"{name} = " in text


def test_the_example_says_that_it_is_only_checked():
    """Until the file is applied, it says so at its top and where it sets limits."""
    top, limits = EXAMPLE.read_text().split("\nfleet = ")[0], EXAMPLE.read_text().split("# --- Limits")[1]
    assert "applies nothing of it" in top
    assert "enforced once this file is applied" in limits


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("fetch_when = 3", "rollouts.r.fetch_when: must be text, not 3"),
        ('activate_when = "parked,battery=>30"', "rollouts.r: conditions: activate_when: 'battery=>30' is no condition: write"),
        ('barrier = "yes"', "rollouts.r.barrier: must be true or false"),
        ("barier = true", "rollouts.r.barier: unknown key; did you mean barrier?"),
        ("wait_s = 9999999999", "rollouts.r.wait_s: 9999999999 is out of bounds"),
    ],
)
def test_wrong_conditions_are_named(line, says):
    """What devices are to wait for is checked with the rest: the bad term, and how to write it."""
    assert says in complaint(f"[rollouts.r]\n{line}")


def test_wrong_waves_are_named_beside_wrong_settings():
    """One wrong setting of a policy does not hide what is wrong with its waves."""
    said = complaint('[rollouts.r]\nwaves = "50%,10%"\ndwell = 3\nsuccess_fraction = 2.0')
    assert all(path in said for path in ("rollouts.r.waves", "rollouts.r.dwell", "rollouts.r.success_fraction"))


def test_the_example_states_the_true_defaults():
    """Where the example sets a limit or comments a plain default, it is the default."""
    assert read(EXAMPLE.read_text()).limits == {name: bound.default for name, bound in LIMITS.items()}
    for line in EXAMPLE.read_text().splitlines():
        name = line.split(" = ")[0]
        if name in DEFAULTS and "; default " in line:
            stated = line.rsplit("default ", 1)[1]
            assert stated == str(DEFAULTS[name].default).lower(), line


def test_an_empty_file_is_an_empty_wish():
    """Nothing wished means no groups, no models, the default policy and default limits."""
    wish = read("")
    assert (wish.groups, wish.models, list(wish.rollouts)) == ({}, (), ["default"])
    assert len(parse_waves(wish.rollouts["default"].waves)) == 4


def test_a_model_takes_its_defaults():
    """Slot, version and policy have defaults; the entry's name is the model's name."""
    (model,) = read('[groups.g]\nselect="all"\n[models.m]\ngroup="g"').models
    assert (model.model, model.slot, model.version, model.rollout) == ("m", "main", None, "default")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = ", "not TOML"),
        ("gruops = 1", "gruops: unknown key; did you mean groups?"),
        ("fleet = 'a b'", "fleet: 'a b' is not a name"),
        ("groups = 3", "groups: must be a table"),
        ("[groups]\ng = 3", "groups.g: must be a table"),
        ("[groups.g]", "groups.g.select: missing"),
        ("[groups.g]\nselect='a=('", "groups.g.select: selector"),
        ("[groups.'a b']\nselect='all'", "groups.a b: 'a b' is not a name"),
        ("[models.m]", "models.m.group: missing"),
        ("[groups.cam]\nselect='all'\n[models.m]\ngroup='cams'", "models.m.group: there is no group 'cams'; did you mean cam?"),
        ("[groups.g]\nselect='all'\n[models.m]\ngroup=['g']", "models.m.group: there is no group"),
        ("[groups.g]\nselect='all'\n[models.m]\ngroup='g'\nrollout='x'", "models.m.rollout: there is no rollout policy 'x'"),
        ("[groups.g]\nselect='all'\n[models.m]\ngroup='g'\nversion=0", "models.m.version: must be"),
        ("[groups.g]\nselect='all'\n[models.m]\ngroup='g'\nversion=true", "models.m.version: must be"),
        (
            "[groups.g]\nselect='all'\n[models.a]\ngroup='g'\n[models.b]\ngroup='g'",
            "models.b.slot: slot 'main' of group 'g' is taken",
        ),
        ("[rollouts.r]\ndwell=3", "rollouts.r.dwell: unknown key; did you mean dwell_s?"),
        ("[rollouts.r]\ndwell_s='3'", "rollouts.r.dwell_s: must be a whole number"),
        ("[rollouts.r]\ndwell_s=-1", "rollouts.r.dwell_s: -1 is out of bounds"),
        ("[rollouts.r]\ncount_unproven=1", "rollouts.r.count_unproven: must be true or false"),
        ("[rollouts.r]\nwaves='10,5'", "rollouts.r.waves: waves '10,5"),
        ("[rollouts.r]\nwaves=[1]", "rollouts.r.waves: must be text"),
        ("[rollouts.r]\ndwell_s=100\nwave_timeout_s=50", "rollouts.r: rollout policy: dwell_s (100) is longer"),
        ("[limits]\nopen_rollouts=0", "limits.open_rollouts: 0 is out of bounds"),
        ("[limits]\nopen=1", "limits.open: unknown key"),
    ],
)
def test_each_mistake_is_named_with_its_path(text, expected):
    """A wrong file is refused with the path of the mistake and what to do about it."""
    assert f"fleet.toml: {expected}" in complaint(text)


def test_all_mistakes_come_at_once():
    """One reading lists every mistake, up to a bound."""
    assert len(complaint("a=1\nb=2\n[limits]\nc=3").splitlines()) == 3
    many = complaint("\n".join(f"k{i}=1" for i in range(50)))
    assert len(many.splitlines()) == 21
    assert many.endswith("and 30 more")


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3), max_leaves=5),
    st.sampled_from(
        [
            "fleet",
            "groups",
            "models.m.group",
            "models.m",
            "rollouts.r.waves",
            "rollouts.r.dwell_s",
            "limits.open_rollouts",
            "models.m.rollout",
            "models.m.slot",
            "groups.g.select",
            "models.m.version",
        ]
    ),
)
def test_no_value_of_a_wrong_type_breaks_the_reader(value, path):
    """Any TOML value in any place is accepted or refused by Misuse, never by another error."""
    try:
        read(f"{path} = {_toml(value)}")
    except Misuse as error:
        assert error.reason == "fleet-toml-invalid"


def _toml(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + "".join(c if c.isalnum() and c.isascii() else "-" for c in value) + '"'
    return "0" if value is None else str(value)
