"""Cold readings, each in a new process with four threads and every format: each must end, or its stacks are shown.

    python tests/soak.py --runs 300 --limit 60

Exits with 1 at the first that fails or does not end. About a second each.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import races
import watchdog


def main() -> int:
    parser = argparse.ArgumentParser(description="Reads volumes in many new processes, each with a limit.")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for each; a reading takes about one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = races.write_samples(Path(folder, "samples"))
        return read_often([sys.executable, races.__file__, "--read", str(samples)], options.runs, options.limit)


def read_often(command: list[str], runs: int, limit_s: float) -> int:
    """Runs the command so many times, each with a limit; 1 after the first that fails, else 0."""
    for number in range(1, runs + 1):
        code = watchdog.run(command, limit_s, limit_s)
        if code != 0:
            print(f"reading {number} of {runs} ended with exit code {code}")
            return 1
    print(f"{runs} cold readings, and each ended")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
