"""The same commands in persona and in git: HEAD, branches, reflogs, files, conflicts and exit codes agree.

They differ only where the table of docs/git.md says so.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import table
from tests.properties.beside_git.running import FOLDER, Sequence, read, run
from tests.properties.beside_git.world import World, copied, first

SEQUENCES = [sequence for file in sorted(FOLDER.glob("*.txt")) for sequence in read(file)]
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return first(tmp_path_factory.mktemp("first"))


@needs_git
@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.title)
def test_a_sequence_of_commands_does_what_git_does(
    sequence: Sequence, template: World, tmp_path: Path
) -> None:
    done = []
    for step in run(sequence, copied(template, tmp_path)):
        done.append(step)
        assert step.as_expected, "\n\n".join(map(str, done))


def test_each_difference_of_the_page_is_shown_by_a_sequence_and_each_of_these_is_on_the_page() -> None:
    listed = [row[0] for row in table("git.md", "command", holding="why")]
    shown = {row.replace("`", "") for sequence in SEQUENCES for row in sequence.rows}
    assert (sorted(set(listed)), len(set(listed))) == (sorted(shown), len(listed))
