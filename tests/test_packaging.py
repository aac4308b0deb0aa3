"""What is installed: types, version, console script, and a word where something else has the name of a package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import moe_placement

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
SCRIPT = "from moe_placement import main; main()"


def run(
    code: str, folder: Path, *paths: Path, arguments: tuple[str, ...] = (), flags: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code in a folder, which comes first on Python's path; then `paths`, the repository's by default."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths or (ROOT,)))}
    command = [sys.executable, *flags, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a copy of the packages, as in an environment's site-packages."""
    site = tmp_path / "site-packages"
    for name in SHIPPED:
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    return site


def test_packages_are_all_there() -> None:
    """The wheel has every package of the repository, and each says that it is typed."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(SHIPPED) == {*moe_placement.PACKAGES, "moe_placement"}
    assert [name for name in SHIPPED if not (ROOT / name / "py.typed").is_file()] == []


def test_version() -> None:
    """The version is that of the distribution, looked up when it is asked for."""
    assert moe_placement.__version__ == version("moe-placement")
    code = "import sys, moe_placement; print('importlib.metadata' in sys.modules)"
    assert run(code, ROOT).stdout == "False\n"


def test_console_script_can_not_be_hidden() -> None:
    """The script of the distribution starts in the one package whose name is its own."""
    assert PROJECT["project"]["scripts"] == {"moe-placement": "moe_placement:main"}
    assert run(SCRIPT, ROOT, arguments=("--version",)).stdout.strip() == version("moe-placement")


@pytest.mark.parametrize(
    ("package", "hidden"),
    [
        ("placement", ["traces"]),
        ("solvers", ["traces"]),
        ("solvers", ["placement"]),
        ("solvers", ["traces", "placement"]),
        ("api.client", ["solvers"]),
    ],
)
@pytest.mark.parametrize("form", ["{}/__init__.py", "{}.py"], ids=["folder", "file"])
def test_what_hides_a_package_is_named(package: str, hidden: list[str], form: str, tmp_path: Path) -> None:
    """A package or a module of the same name in the working directory is told of, with its path and what to do."""
    for name in hidden:
        path = tmp_path / form.format(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text("raise SystemExit('it was run')\n")
    done = run(f"import {package}", tmp_path)
    assert done.returncode == 1
    (told,) = re.findall(r"^moe_placement.distribution.PackageError: (.*)\Z", done.stderr, re.MULTILINE | re.DOTALL)
    lines = told.splitlines()
    assert len(lines) == len(hidden)
    for name, line in zip(hidden, lines, strict=True):
        path = tmp_path / form.format(name)
        assert line.startswith(
            f"Python finds {name!r} at {path}, which hides the package {name!r} of moe-placement in "
        )
        assert f"Rename it, or keep {tmp_path} off Python's path" in line


@pytest.mark.parametrize("name", moe_placement.PACKAGES)
def test_console_script_names_what_hides_a_package(name: str, tmp_path: Path) -> None:
    """One error and no traceback, for each of the packages."""
    other = tmp_path / "other"
    (other / name).mkdir(parents=True)
    (other / name / "__init__.py").touch()
    done = run(SCRIPT, tmp_path, other, ROOT, arguments=("solvers",))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: Python finds {name!r} at {other / name / '__init__.py'}, which hides ")


@pytest.mark.parametrize(("name", "package"), [("traces", "placement"), ("placement", "solvers")])
def test_another_distribution_in_the_same_place_is_named(
    name: str, package: str, tmp_path: Path, installed: Path
) -> None:
    """Installed over ours, as PyPI's `traces` and `openstack-placement` would be: it is told, with the distribution."""
    (installed / name / "__init__.py").write_text('"""Another one."""\n')
    record = installed / "other-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (record / "RECORD").write_text(f"{name}/__init__.py,,\n")
    done = run(f"import {package}", tmp_path, installed)
    assert done.returncode == 1
    path = installed / name / "__init__.py"
    assert f"PackageError: Another distribution (other) has replaced {path}" in done.stderr


def test_missing_package_is_named(tmp_path: Path, installed: Path) -> None:
    """Half an installation says which half is not there."""
    shutil.rmtree(installed / "traces")
    done = run("import placement", tmp_path, installed, flags=("-S",))  # without what this environment has installed
    assert "PackageError: The package 'traces' of moe-placement is not in" in done.stderr


def test_folders_of_data_hide_nothing(tmp_path: Path) -> None:
    """A folder `traces` with files, which is no package, is not in the way; nor is a `placement` to who needs none."""
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "run.npz").touch()
    assert run("import placement", tmp_path).stderr == ""
    (tmp_path / "placement").mkdir()
    (tmp_path / "placement" / "__init__.py").touch()
    assert run("import traces", tmp_path).stderr == ""
