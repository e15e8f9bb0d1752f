#!/usr/bin/env python
"""Runs sequences of commands on persona and on git, and prints every step that is not as docs/git.md says.

scripts/beside_git.py                 # all sequences
scripts/beside_git.py -v amend        # those with this word in their title, every step
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.properties.beside_git import running, world


def main() -> int:
    """Prints the steps; returns 1 if one of them is not as the docs say."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("words", nargs="*", help="words of a title")
    arguments.add_argument("-v", "--verbose", action="store_true", help="print every step")
    given = arguments.parse_args()
    began, wrong, count = time.perf_counter(), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        template = world.first(place / "first")
        for file in sorted(running.FOLDER.glob("*.txt")):
            for sequence in running.read(file):
                if not all(word in sequence.title for word in given.words):
                    continue
                count += 1
                steps = running.run(sequence, world.copied(template, place / str(count)))
                wrong += _printed(sequence, steps, given.verbose)
    print(f"{count} sequences, {wrong} not as in docs/git.md, {time.perf_counter() - began:.1f} s")
    return int(wrong > 0)


def _printed(sequence: running.Sequence, steps: Iterable[running.Step], verbose: bool) -> int:
    """Runs one sequence; prints its steps up to the first that is wrong, and returns 1 if there is one."""
    done = []
    for step in steps:
        done.append(step)
        if not step.as_expected:
            break
    wrong = not done[-1].as_expected
    if wrong or verbose:
        print(f"# {sequence.title}")
        for step in done:
            print(step if verbose or step is done[-1] else step.line)
        print()
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
