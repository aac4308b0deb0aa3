"""How long the command line takes to start: wall time of ``moe-placement --help`` and of its imports.

Run: ``python benchmarks/startup.py [RUNS]``. Target: ``--help`` within 0.5 s.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python alone": ["-c", "pass"],
    "moe-placement --help": ["-c", "from api.cli import main; main()", "--help"],
    "moe-placement solve --help": ["-c", "from api.cli import main; main()", "solve", "--help"],
    "moe-placement topologies": ["-c", "from api.cli import main; main()", "topologies"],
}


def main() -> None:
    """Print median, least and greatest wall time of each command."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    for name, arguments in COMMANDS.items():
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - start)
        print(f"{name:28} median {statistics.median(times):.3f} s  ({min(times):.3f} to {max(times):.3f}, {runs} runs)")


if __name__ == "__main__":
    main()
