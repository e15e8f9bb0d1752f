"""`persona export` as it is typed: one form, and the options of that form."""

from __future__ import annotations

import pytest

from tests.checkpoints import read_file
from tests.cli.command_line import CommandLine


def test_a_patch_is_written_between_two_revisions(grown: CommandLine) -> None:
    out = grown.directory.parent / "p.safetensors"
    assert grown.ok("export", "--patch", "HEAD~2..HEAD", "-o", out).startswith(
        f"wrote {out}: 1 elements of 1 tensor ("
    )
    assert set(read_file(out)) == {"a.indices", "a.values"}
    answer = grown.json("export", "--patch", "HEAD~2", "HEAD~1", "-o", out, "-f")
    assert (answer["tensors"], answer["changed"], answer["to"]) == (
        1,
        1,
        grown.json("rev-parse", "HEAD~1")["id"],
    )


def test_a_patch_is_added_as_a_vector(grown: CommandLine) -> None:
    grown.ok("export", "--patch", "HEAD~2..HEAD~1", "-o", "../p.safetensors")
    assert " + p  " in grown.ok("commit", "../p.safetensors", "-m", "patched")


def test_a_directory_for_mergekit_is_written(grown: CommandLine) -> None:
    out = grown.directory.parent / "for-mergekit"
    text = grown.ok("export", "--mergekit", "-o", out)
    assert text.endswith(f"\nmergekit-yaml {out}/mergekit.yml OUT\n")
    assert "weight: 0.5" in (out / "mergekit.yml").read_text()


def test_the_name_of_a_vector_is_no_revision_but_a_vector_can_be_extracted(grown: CommandLine) -> None:
    assert "hint: `persona vector extract -o OUT listening` writes the vector of this name" in grown.refused(
        3, "export", "--adapter", "listening", "-o", "../x"
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("export -o x", "give one of --adapter, --mergekit, --patch"),
        ("export --patch --mergekit HEAD -o x", "give one of --adapter, --mergekit, --patch"),
        ("export --patch -o x", "--patch needs two revisions: A..B"),
        ("export --patch a b c -o x", "--patch takes A..B, or A B"),
        ("export --mergekit a b -o x", "--mergekit takes one revision"),
        ("export --patch HEAD --rank 4 -o x", "--rank does not go with --patch"),
        ("export --mergekit HEAD --lora-only -o x", "--lora-only does not go with --mergekit"),
    ],
)
def test_other_lines_are_usage_errors(grown: CommandLine, line: str, said: str) -> None:
    assert said in grown.refused(2, *line.split())
