"""The Yocto recipe keeps up with the tree: what it leaves out, installs and asks for. BitBake itself is not run here."""

import re
import tomllib

from .conftest import ROOT

LAYER = ROOT / "deploy" / "yocto" / "meta-edgeops"
RECIPE = (LAYER / "recipes-edgeops" / "edgeops-agent" / "edgeops-agent_git.bb").read_text()
SHARED = {"wire", "parcel", "sketch"}


def test_it_leaves_out_all_of_the_managers_rooms() -> None:
    """Every room of edgeops but the three shared ones, and no other."""
    (listed,) = re.findall(r"for room in ([\w ]+);", RECIPE)
    assert set(listed.split()) == {path.parent.name for path in (ROOT / "edgeops").glob("*/__init__.py")} - SHARED


def test_it_asks_for_every_base_dependency() -> None:
    """RDEPENDS names all that the base install needs, in OpenEmbedded's words."""
    asked = set(RECIPE.partition("RDEPENDS:${PN} +=")[2].replace("\\", " ").replace('"', " ").split())
    base = {re.split(r"[<>=]", each)[0] for each in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}
    assert asked == {"onnxruntime" if name == "onnxruntime" else f"python3-{name}" for name in base} | {"python3-modules"}


def test_what_it_installs_is_there() -> None:
    """Each file it takes from the tree exists, and its version is the tree's."""
    taken = re.findall(r"\$\{S\}/(\S+)", RECIPE)
    assert len(taken) == 3 and all((ROOT / path).is_file() for path in taken)
    version = re.search(r'__version__ = "(.+)"', (ROOT / "edgeops" / "__init__.py").read_text())
    assert version is not None and f'PV = "{version[1]}+git"' in RECIPE
