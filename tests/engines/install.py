"""Get the pinned releases of the engines into a folder of their own, without their GPU stacks.

Everything is in ``pins.toml``. Releases are downloaded with pip, alone, and unpacked beside each other; a virtual
environment holds PyTorch for the CPU, transformers, this project, and the small libraries that the engines import. The
folder is used again as long as the pins, and the Python, are the same. megatron-core asks for Python 3.12: it gets an
environment of that, if there is a 3.12 and a PyTorch for the CPU for it; else its files run on 3.11.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PINS = Path(__file__).with_name("pins.toml")
_OLDER = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_24_x86_64", "manylinux_2_28_x86_64")
PLATFORMS = (*_OLDER, "manylinux_2_34_x86_64", "manylinux_2_35_x86_64", "any")


def pins() -> dict[str, dict[str, Any]]:
    """Return the content of the pins, without the environment's."""
    return {name: pin for name, pin in tomllib.loads(PINS.read_text()).items() if name != "environment"}


def pip(python: Path | str, *words: str, **environment: str) -> None:
    """Run pip, quietly."""
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def make_environment(folder: Path, python: str) -> Path:
    """Make a virtual environment with PyTorch for the CPU, and return its Python."""
    settings = tomllib.loads(PINS.read_text())["environment"]
    subprocess.run([python, "-m", "venv", "--clear", str(folder)], check=True)
    constraints = folder / "constraints.txt"
    ours = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line.partition("==")[0] != "transformers"
    ]
    constraints.write_text("\n".join(ours) + "\n")
    wanted = [f"torch=={settings['torch']}", f"transformers=={settings['transformers']}", *settings["packages"]]
    try:
        pip(folder / "bin" / "python", "install", "--constraint", str(constraints), *wanted, "--editable", str(ROOT))
    except subprocess.CalledProcessError:
        shutil.rmtree(folder)
        raise
    return folder / "bin" / "python"


def download(name: str, pin: dict[str, Any], python: Path, folder: Path) -> None:
    """Download one engine's release, and unpack its Python files."""
    archive = folder / "archives" / name
    shutil.rmtree(archive, ignore_errors=True)
    words = ["download", "--no-deps", "--dest", str(archive), f"{pin['package']}=={pin['version']}"]
    if pin.get("kind") == "source":
        words += ["--no-binary=:all:", "--no-build-isolation"]
    else:
        words += ["--only-binary=:all:", "--python-version", pin.get("python", "3.11")]
        words += [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip(python, *words, **pin.get("setup", {}))
    (file,) = archive.iterdir()
    for path, content in members(file):
        if not path.startswith(f"{name}/"):
            continue  # tests and tools of a source distribution
        target = folder / "packages" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    shutil.rmtree(archive)


def members(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a wheel or source distribution but for libraries, by their path in the installed package."""
    unwanted = (".so", ".a", ".bin", "/")
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            for name in wheel.namelist():
                if not name.endswith(unwanted):
                    yield name, wheel.read(name)
        return
    with tarfile.open(file) as source:
        for member in source:
            path = member.name.partition("/")[2]
            if (
                member.isfile()
                and not path.endswith(unwanted)
                and "/" in path
                and (content := source.extractfile(member))
            ):
                yield path, content.read()


def newer_python() -> str | None:
    """Return a Python of 3.12 or later, or None."""
    for name in ("python3.12", "python3.13", "python3.14", str(Path.home() / ".local/bin/python3.12")):
        found = shutil.which(name)
        probe = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))"
        if found and not subprocess.run([found, "-c", probe], capture_output=True, check=False).returncode:
            return found
    return None


def install(folder: Path) -> None:
    """Fill the folder, unless it holds what the pins say."""
    made_of = f"{PINS.read_text()}{Path(__file__).read_text()}{sys.version}{ROOT}{newer_python()}"
    stamp, state = folder / "stamp", hashlib.sha256(made_of.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == state:
        print(f"{folder}: as pinned")
        return
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder / "packages", ignore_errors=True)
    python = make_environment(folder / "python3.11", sys.executable)
    for name, pin in pins().items():
        print(f"{pin['package']} {pin['version']}", flush=True)
        download(name, pin, python, folder)
    shutil.rmtree(folder / "python3.12", ignore_errors=True)
    if later := newer_python():
        try:
            make_environment(folder / "python3.12", later)
        except subprocess.CalledProcessError:
            print(
                f"no PyTorch for the CPU for {later}: megatron-core runs on {sys.version.split()[0]}", file=sys.stderr
            )
    stamp.write_text(state)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    install(parser.parse_args().folder.resolve())
