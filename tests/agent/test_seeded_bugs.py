"""Bugs of facts, checks and trials, each one line in a copy of the agent: a test of this folder notices every one of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeops.wire.errors import Misuse

from . import rooms as patience
from . import test_health, test_hooks, test_senses, test_stated, test_trying
from .rooms import Rooms, changed

Test = Callable[[Rooms, Path], None]


def _one_not_an_error(rooms: Rooms, path: Path) -> None:
    test_hooks.test_a_check_that_cannot_be_asked_is_a_no(rooms, path, "it is no program")


def _open_folder(rooms: Rooms, path: Path) -> None:
    test_hooks.test_a_check_that_cannot_be_asked_is_a_no(rooms, path, "everybody may write the folder")


def _health(test: Callable[[Rooms], None]) -> Test:
    return lambda rooms, path: test(rooms)


EXCUSE = "if calls < ENOUGH or errors * 1_000_000 <= allowed_ppm * calls:"
LEFT = "min(status.st_mtime + valid_s - self._wall(), first + valid_s - self._now())"
BUGS: tuple[tuple[str, str, str, str, Test], ...] = (
    ("a check's exit code is ignored", "shell/hooks.py", "elif ended.code != 0:", "elif False:",
     test_hooks.test_a_failed_check_is_a_no),
    ("not yet is taken for no", "shell/hooks.py", "if ended.code == NOT_YET:", "if False:",
     test_hooks.test_not_yet_is_asked_again),
    ("not yet is taken for yes", "shell/hooks.py", "not_yet[path] = ended.last_line[:300]", "pass",
     test_hooks.test_not_yet_is_no_when_the_window_is_over),
    ("not yet is taken for yes in the end", "shell/hooks.py", "if not standing.over and last and not_yet:", "if False:",
     test_trying.test_a_trial_waits_for_its_checks),
    ("a check has no time limit", "shell/dropins.py", "if not ended and time.monotonic() >= deadline:", "if False:",
     test_hooks.test_a_check_that_hangs_is_ended_and_holds_up_nobody),
    ("what a check has started is left behind", "shell/dropins.py", "os.killpg(process.pid, signal.SIGKILL)", "process.kill()",
     test_hooks.test_a_check_that_hangs_is_ended_and_holds_up_nobody),
    ("checks are waited for by the watch", "shell/hooks.py", "standing, not_yet = self._standing, self._not_yet",
     "self._thread.join()\n        standing, not_yet = self._standing, self._not_yet",
     test_hooks.test_a_check_that_hangs_is_ended_and_holds_up_nobody),
    ("a check that cannot be asked is passed over", "shell/hooks.py", "self._standing = Standing(True, FAILED, error.message)",
     "self._standing = Standing(True)", _one_not_an_error),
    ("checks in an open folder are run", "shell/dropins.py", "        _trust(folder, status)\n", "", _open_folder),
    ("a check goes on after the trial", "shell/runner.py", "            self._trial.hooks.end()\n", "            pass\n",
     test_trying.test_a_check_that_hangs_delays_no_other_verdict),
    ("checks do not matter", "shell/trying.py", "        if checks.reason:\n", "        if False:\n",
     test_trying.test_checks_of_the_owner_decide_too),
    ("a trial does not wait for its checks", "shell/trying.py", "return verdict if checks.over else Verdict(False)",
     "return verdict", test_trying.test_a_trial_waits_for_its_checks),
    ("the error rate is absolute only", "core/health.py", EXCUSE, "if True:",
     _health(test_health.test_what_was_broken_before_is_not_held_against_the_candidate)),
    ("doubt excuses", "core/health.py", EXCUSE, "if calls < ENOUGH:",
     _health(test_health.test_a_sound_predecessor_excuses_nothing)),
    ("excused failures prove something", "core/health.py", "calls - errors if limit > target.max_error_ppm else calls", "calls",
     _health(test_health.test_an_excused_candidate_must_have_answered)),
    ("an idle predecessor is compared with", "core/health.py", "if evidence.previous_calls < ENOUGH or evidence.previous_us <= 0:",
     "if evidence.previous_us <= 0:", test_trying.test_latency_is_held_against_the_model_before),
    ("errors of last week excuse", "shell/lifetime.py", "if bucket[0] >= at]", "if True]",
     test_trying.test_a_camera_that_was_broken_before_is_no_fault_of_the_candidate),
    ("the candidate is its own predecessor", "shell/trying.py", "if earlier and previous.build == target.build:", "if False:",
     test_trying.test_a_trial_that_begins_anew_is_held_against_the_same),
    ("the last counts are missed", "shell/runner.py", "        self._collect_from(old)\n", "",
     test_trying.test_what_the_old_worker_counted_last_counts),
    ("a death between trial and commit is not told", "shell/runner.py", "            self._passed = True\n", "",
     test_trying.test_what_has_passed_but_not_committed_falls_with_its_worker),
    ("a death after the commit is the end", "shell/runner.py", "        if borne:\n", "        if False:\n",
     test_trying.test_what_has_committed_is_started_again),
    ("crashes are borne without end", "shell/revival.py", "if too_often or self._in_a_row > MOST_IN_A_ROW:", "if False:",
     test_trying.test_a_slow_crash_loop_falls_back),
    ("slow crash loops are borne", "shell/revival.py", "if too_often or", "if", test_trying.test_a_slow_crash_loop_falls_back),
    ("stale facts are believed", "shell/senses.py", "if now - seen.at <= STALE_S:", "if True:",
     test_senses.test_nothing_stale_is_believed),
    ("valid_s is ignored", "shell/senses.py", "if now < one.until:", "if True:", test_senses.test_nothing_stale_is_believed),
    ("the age of a file is not counted", "shell/stated.py", LEFT,
     "first + valid_s - self._now()", test_stated.test_facts_hold_as_long_as_they_say),
    ("files from the future hold for ever", "shell/stated.py", LEFT,
     "status.st_mtime + valid_s - self._wall()",
     test_stated.test_a_file_from_the_future_does_not_hold_for_ever),
    ("files everybody may write are believed", "shell/dropins.py", "(stat.S_IWGRP | stat.S_IWOTH)", "stat.S_IWGRP",
     test_stated.test_who_is_heard),
    ("files a group may write are believed", "shell/dropins.py", "(stat.S_IWGRP | stat.S_IWOTH)", "stat.S_IWOTH",
     test_stated.test_who_is_heard),
    ("links are followed", "shell/dropins.py", "os.O_RDONLY | os.O_NOFOLLOW |", "os.O_RDONLY |", test_stated.test_who_is_heard),
    ("a bad file hides the others", "shell/stated.py", "                wrong[path] = error.message\n", "                raise\n",
     test_stated.test_a_bad_file_is_said_once_and_hides_no_other),
    ("a bad file is said again and again", "shell/stated.py", "if self._told.get(path) != why:", "if True:",
     test_stated.test_a_bad_file_is_said_once_and_hides_no_other),
    ("the output of programs has no bound", "shell/dropins.py", "if len(output) > MOST_BYTES:", "if False:",
     test_stated.test_programs_are_bounded),
    ("facts have no bound", "shell/stated.py", "if len(names | one.facts.keys()) > MOST_FACTS:", "if False:",
     test_stated.test_at_most_so_many),
    ("the hour is told while the time is not sure", "shell/senses.py", "if believed is None:\n        return None",
     "if believed is None:\n        believed = 0",
     lambda rooms, path: test_senses.test_the_hour_of_the_week_is_known_when_the_time_is(rooms, path, pytest.MonkeyPatch())),
)  # fmt: skip


@pytest.mark.parametrize(("name", "file", "old", "new", "test"), BUGS, ids=[row[0] for row in BUGS])
def test_seeded_bug_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, file: str, old: str, new: str, test: Test
) -> None:
    """The test fails on the copy with the bug (it passes on the product: that is the test itself)."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setattr(patience, "PATIENCE_S", 1.5)
    with changed(tmp_path, file, old, new) as rooms, pytest.raises((AssertionError, Misuse)):
        test(rooms, work)


def test_an_unchanged_copy_passes(tmp_path: Path) -> None:
    """The tests fail for the bugs, not for being run on a copy."""
    with changed(tmp_path, "shell/hooks.py", "NOT_YET = 21", "NOT_YET = 20 + 1") as rooms:
        for number, test in enumerate(dict.fromkeys(row[4] for row in BUGS)):
            work = tmp_path / f"work{number}"
            work.mkdir()
            test(rooms, work)
