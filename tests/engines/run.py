"""Run the two-way tests on the engines' own code, a process per file, and keep the table of what came of it."""

from __future__ import annotations

import argparse
import ast
import datetime as dt
import os
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PAGE = ROOT / "docs" / "engines" / "compatibility.md"
WIDTH = 118  # columns of a line
TITLES = {
    "sglang": "SGLang",
    "vllm_ascend": "vllm-ascend",
    "vllm": "vLLM",
    "megatron": "megatron-core",
    "deepspeed": "DeepSpeed",
    "lmdeploy": "LMDeploy",
    "dynamo": "Dynamo",
    "tensorrt_llm": "TensorRT-LLM",
    "transformers": "transformers",
    "declared": "declared defaults",
}


def engine_of(file: Path) -> str:
    """Return the engine that a file of tests is about, by its name."""
    return next(name for name in TITLES if file.stem.removeprefix("test_").startswith(name))


def python_for(engine: str, folder: Path) -> Path:
    """Return the Python that runs an engine's tests: megatron-core asks for 3.12."""
    later = folder / "python3.12" / "bin" / "python"
    return later if engine == "megatron" and later.is_file() else folder / "python3.11" / "bin" / "python"


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Yield each test's name, without parameters, and what came of it."""
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        yield case.attrib["name"].partition("[")[0], kinds.pop() if kinds else "passed"


def sentences(file: Path) -> dict[str, str]:
    """Return the first line of each test's description, by the test's name."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {node.name: (ast.get_docstring(node) or "").partition("\n")[0] for node in found}


def page(results: dict[str, dict[str, Counter[str]]], pythons: dict[str, str]) -> str:
    """Return the table of versions and results."""
    pins = tomllib.loads((FOLDER / "pins.toml").read_text())
    environment = pins.pop("environment")
    pins["transformers"] = {"package": "transformers", "version": environment["transformers"]}
    total = sum((counts for tests in results.values() for counts in tests.values()), Counter[str]())
    lines = [
        "# Compatibility",
        "",
        "`make engines` runs the engines' own code against the readers and writers of this project: the engine writes",
        "and we read, we write and the engine loads; the pages' commands go through the engines' own parsers. This is",
        f"what its last run wrote, on {dt.datetime.now(tz=dt.UTC):%Y-%m-%d}: of {sum(total.values())} tests, "
        f"{total['passed']} passed and {total['skipped']} were skipped.",
        "",
        f"PyTorch {environment['torch']}, transformers {environment['transformers']}; GPU packages are stand-ins.",
        "",
        "| engine | version | Python | passed | failed | skipped |",
        "|---|---|---|---|---|---|",
    ]
    for engine, tests in results.items():
        counts = sum(tests.values(), Counter[str]())
        pin = pins.get(engine)
        version = f"{pin['package']} {pin['version']}" if pin else "all of these" if engine == "declared" else "source"
        failed = counts["failure"] + counts["error"]
        cells = (TITLES[engine], version, pythons[engine], counts["passed"], failed, counts["skipped"])
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for engine, tests in results.items():
        lines += ["", f"## {TITLES[engine]}", ""]
        for sentence, counts in tests.items():
            shown = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items()))
            lines.append(textwrap.fill(f"- {shown}: {sentence}", WIDTH, subsequent_indent="  "))
    return "\n".join(lines) + "\n"


def main(folder: Path) -> int:
    """Run all tests, print how many there were, write the page, and return 1 if one failed."""
    results: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    pythons: dict[str, str] = {}
    broken = 0
    for file in sorted(FOLDER.glob("test_*.py"), key=lambda file: (list(TITLES).index(engine_of(file)), file.name)):
        engine, told = engine_of(file), sentences(file)
        python, report = python_for(engine, folder), folder / "report.xml"
        report.unlink(missing_ok=True)
        environment = {**os.environ, "MOE_PLACEMENT_ENGINES": str(folder / "packages"), "PYTHONPATH": str(ROOT)}
        command = [str(python), "-m", "pytest", "-q", "-W", "ignore", "-p", "no:cacheprovider", f"--junitxml={report}"]
        print(f"== {file.name}", flush=True)
        status = subprocess.run([*command, str(file)], cwd=ROOT, env=environment, check=False).returncode
        broken += status not in (0, 5)
        shown = subprocess.run([str(python), "-V"], capture_output=True, text=True, check=True).stdout
        pythons[engine] = shown.split()[1]
        if report.is_file():
            for name, outcome in outcomes(report):
                results[engine][told.get(name, name)][outcome] += 1
    PAGE.write_text(page(results, pythons), encoding="utf-8")
    total = sum((counts for tests in results.values() for counts in tests.values()), Counter[str]())
    print(f"{sum(total.values())} two-way tests: {', '.join(f'{number} {kind}' for kind, number in total.items())}")
    print(f"{PAGE.relative_to(ROOT)} has the table")
    return int(broken > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    sys.exit(main(parser.parse_args().folder.resolve()))
