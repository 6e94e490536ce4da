"""A few hostile models, ordered at a real agent by a real manager; `python -m tests.agent_inference.hostile` plays all of them."""

import shutil

import pytest

from tests.agent.real.site import Site
from tests.agent_inference.hostile.live import orphan, play
from tests.agent_inference.hostile.models import FILES, MODELS, NATIVE
from tests.agent_inference.hostile.scene import NoCompiler, tampered

pytestmark = pytest.mark.real
SAMPLE = ("nan", "expand-64-gib-later", "external-absolute", "fork@load", "kill-parent@load", "garbage@load", "segfault@trial")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A manager that is up."""
    made = Site(tmp_path_factory.mktemp("site"))
    made.init()
    made.up()
    yield made
    made.down()


def test_there_are_enough():
    """At least 20 crafted files and 20 native ones, each with its own name, in each of the phases."""
    assert len(FILES) >= 20 and len(NATIVE) >= 20 and len(MODELS) == len(FILES) + len(NATIVE)
    assert {each.phase for each in NATIVE} == {"load", "trial", "committed"}


def test_a_sample_is_contained(site, tmp_path):
    """Each ends by name, the good model answers on, the agent is untouched, and ordered again it is known."""
    try:
        code = tampered(tmp_path)
    except NoCompiler as error:
        pytest.skip(f"native models need a compiler: {error}")
    rows = list(play(site, tmp_path, "sample", code, [MODELS[name] for name in SAMPLE]))
    assert [row.line() for row in rows if row.problems] == [] and len(rows) == len(SAMPLE) + 1


def test_a_model_that_would_outlive_the_agent(site, tmp_path):
    """The agent is killed while a worker that has closed everything computes: that goes with it, and the good model comes back."""
    try:
        code = tampered(tmp_path)
    except NoCompiler as error:
        pytest.skip(f"native models need a compiler: {error}")
    assert orphan(site, tmp_path, code).problems == ()


def test_crafted_files_without_a_compiler(site, tmp_path, monkeypatch):
    """Where there is no compiler the crafted files are played on the agent as it is."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoCompiler):
        tampered(tmp_path)
    rows = list(play(site, tmp_path, "plain", None, [MODELS["other-shape-than-declared"]]))
    assert [row.line() for row in rows if row.problems] == []
