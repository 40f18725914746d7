"""What is built is what is here: one import name, every module, every data file."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from processes import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("generators", "schemas", "constitution", "train")
SUFFIXES = (".py", ".yaml", ".md", ".txt", ".json", ".typed", ".j2", ".js", ".css", ".html", ".svg")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("build") is None or importlib.util.find_spec("hatchling") is None,
    reason="building needs the packages build and hatchling",
)


def files_here() -> set[str]:
    """The package's files as they lie in the checkout, by the name they must have in the wheel."""
    core = ROOT / "src/tracemill"
    own = (path.relative_to(core) for path in core.rglob("*") if path.suffix in SUFFIXES and "__pycache__" not in path.parts)
    found = {f"tracemill/{path.as_posix()}" for path in own if path.parts[0] not in FOLDERS}
    for folder in FOLDERS:
        assert (core / folder).resolve() == ROOT / folder, "linked into the package for editable use"
        paths = (path for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES and "__pycache__" not in path.parts)
        found |= {f"tracemill/{path.relative_to(ROOT).as_posix()}" for path in paths}
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, set[str]]:
    """The sdist, the wheel that was built from that sdist, and the files that both should have."""
    out = tmp_path_factory.mktemp("dist")
    wanted = files_here()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel, wanted


def test_the_wheel_has_one_import_name_and_every_file_once(built: tuple[Path, Path, set[str]]) -> None:
    _, wheel, wanted = built
    names = zipfile.ZipFile(wheel).namelist()
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"tracemill"}
    assert {name for name in names if name.startswith("tracemill/")} == wanted


def test_the_wheel_says_how_to_call_it_and_under_which_licence(built: tuple[Path, Path, set[str]]) -> None:
    _, wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        info = {name.split(".dist-info/")[1]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name}
    assert "tracemill = tracemill.cli:main" in info["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in info["METADATA"]
    assert info["licenses/LICENSE"] == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in info["licenses/LICENSE"] and "END OF TERMS AND CONDITIONS" in info["licenses/LICENSE"]


def test_the_source_archive_has_the_folders_once_and_nothing_that_is_built(built: tuple[Path, Path, set[str]]) -> None:
    sdist, _, wanted = built
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers()}
    assert {name for name in names if name.startswith("src/tracemill/")} == {
        f"src/{name}" for name in wanted if name.split("/")[1] not in FOLDERS
    }
    assert {f"tracemill/{name}" for name in names if name.split("/")[0] in FOLDERS} == {
        name for name in wanted if name.split("/")[1] in FOLDERS
    }
    assert not [name for name in names if name.startswith((".venv", "shared", "runs", "dist")) or "__pycache__" in name]


def test_the_wheel_works_where_nothing_else_of_the_checkout_is(built: tuple[Path, Path, set[str]], tmp_path: Path) -> None:
    _, wheel, _ = built
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import tracemill\n"
        "from tracemill.generators.environments.catalogue import environment\n"
        "from tracemill.schemas.check import RECORD_KINDS, record_checker\n"
        f"assert tracemill.__file__.startswith({str(tmp_path)!r}), tracemill.__file__\n"
        "assert environment('store').policy_text() and environment('store').grammar()\n"
        "assert all(record_checker(kind).problems({}) for kind in RECORD_KINDS)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *project["optional-dependencies"]["mcp"]]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert all(re.fullmatch(r"[a-z0-9._-]+==[0-9][a-z0-9.+!]*", line) for line in lines)
    assert lines == sorted(lines)
    names = {re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names <= {line.split("==")[0] for line in lines}
