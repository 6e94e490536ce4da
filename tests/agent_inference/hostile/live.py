"""All hostile models, a table and the count: `python -m tests.agent_inference.hostile [id …]`; `make crash-live` calls it too."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.agent.real.site import Site

from .models import MODELS, Hostile
from .scene import NoCompiler, Row, Scene, tampered

MOST_A_DEVICE = 12
"""An agent remembers the last 16 releases that failed; each one is asked whether it knows them all."""
HEAD = f"{'model':<28} {'phase':<10} {'outcome':<12} {'reason':<18} {'back in':>7}  failed"


def run(say: Callable[[str], object], names: Sequence[str] = ()) -> tuple[int, int, list[str]]:
    """Play every model (or those named): how many were contained, how many there were, what was wrong with the rest."""
    wanted = [MODELS[name] for name in names] or list(MODELS.values())
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    site = Site(folder / "site")
    say(HEAD)
    try:
        (folder / "site").mkdir()
        site.init()
        site.up()
        with ThreadPoolExecutor(2) as both:
            queues = [[each for each in wanted if each.native is native] for native in (False, True)]
            rows = [row for found in both.map(lambda queue: list(_play(site, folder, queue, say)), queues) for row in found]
    finally:
        site.down()
        shutil.rmtree(folder, ignore_errors=True)
    failures = [f"{row.id}: {problem}" for row in rows for problem in row.problems]
    say(f"hostile models contained {sum(not row.problems for row in rows)} of {len(rows)}")
    return sum(not row.problems for row in rows), len(rows), failures


def _play(site: Site, folder: Path, queue: Sequence[Hostile], say: Callable[[str], object]) -> Iterator[Row]:
    """One device after the other, each with its share; what is native from a copy of the agent."""
    if not queue:
        return
    kind, code = ("native", None) if queue[0].native else ("file", None)
    try:
        code = tampered(folder / kind) if queue[0].native else None
    except NoCompiler as error:
        say(f"{len(queue)} native models skipped: {error}")
        return
    for at in range(0, len(queue), MOST_A_DEVICE):
        for row in play(site, folder / kind, f"{kind}-{at}", code, queue[at : at + MOST_A_DEVICE]):
            say(row.line())
            yield row
    if code is not None:
        row = orphan(site, folder / "orphan", code)
        say(row.line())
        yield row


def play(site: Site, folder: Path, name: str, code: Path | None, models: Sequence[Hostile]) -> Iterator[Row]:
    """These models on one new device, one after the other; then all of them are ordered once more and must be known."""
    scene = Scene(site, folder, name, code)
    try:
        scene.open()
        for hostile in models:
            try:
                yield scene.play(hostile)
            except AssertionError as error:
                yield Row(hostile.id, hostile.phase, "-", "-", 0.0, 0, (str(error),))
        again = tuple(scene.order_again(list(scene.kept)))
        yield Row("all of them once more", "-", "rolled-back", "known-bad", 0.0, 0, again)
    finally:
        scene.close()


def orphan(site: Site, folder: Path, code: Path) -> Row:
    """The model that would outlive its agent, on a device of its own."""
    scene = Scene(site, folder, "orphan", code)
    try:
        scene.open()
        return scene.orphan()
    except AssertionError as error:
        return Row("outlive@load", "load", "-", "-", 0.0, 0, (str(error),))
    finally:
        scene.close()
