"""What is uploaded: wheel and source distribution, made from a copy of what is tracked."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
LEFT = {".git", ".venv", "build", "dist", "runs", "shared", "site"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution of a clone, and the wheel that is made of the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    nothing = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(
        ROOT, folder / "clone", ignore=lambda at, names: {*nothing(at, names), *(LEFT if Path(at) == ROOT else ())}
    )

    def run(what: str, where: Path) -> Path:
        code = f"import sys; from setuptools import build_meta; print(build_meta.build_{what}(sys.argv[1]))"
        command = [sys.executable, "-c", code, str(folder)]
        printed = subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout
        return folder / printed.splitlines()[-1]

    source = run("sdist", folder / "clone")
    with tarfile.open(source) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    return source, run("wheel", unpacked)


def test_the_source_holds_what_describes_it_and_no_tests(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "docs/tutorial.md", "mkdocs.yml"}
    tops = {"", "LICENSE", "PKG-INFO", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "MANIFEST.in", "pyproject.toml"}
    tops |= {"setup.cfg", "constraints.txt", "mkdocs.yml", "docs", "dareu.egg-info", *FOLDERS.values()}
    assert {name.partition("/")[0] for name in names} <= tops


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    wanted = set()
    for package, folder in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                wanted.add(f"{package.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}")
    shipped = {name for name in names if ".dist-info/" not in name}
    assert shipped == wanted
    (information,) = {name.partition("/")[0] for name in names - shipped}
    assert {f"{information}/licenses/LICENSE", f"{information}/entry_points.txt"} <= names


def test_what_the_index_is_told_is_true(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = HeaderParser().parsestr(archive.read(name).decode())
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt")]
        assert "dareu = dareu.cli:main" in archive.read(name).decode()
    assert told["License-Expression"] == "MIT" and told["Description-Content-Type"] == "text/markdown"
    assert told["Version"] in built[1].name and told["Requires-Python"] == ">=3.11"
    assert set(told.get_all("Provides-Extra") or ()) == set(PROJECT["project"]["optional-dependencies"])
