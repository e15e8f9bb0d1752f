from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from persona.errors import InvalidInput
from persona.objects.names import check_file_path, check_ref_name, check_tensor_name, check_vector_name

# fmt: off
PIECES = [
    "/", "..", ".", "\\", "\x00", "~", "a", "B", "-", "@", "{", ".lock", ".git", ".persona", "HEAD", "f" * 64,
    "\xe9", "e\u0301", "\u200c", "\ud800", "\x1b", "\n", " ", ":", "*", "x" * 256,
]
# fmt: on
tricky = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=6).map("".join)


def accepts(check: Callable[[str], str], name: str) -> bool:
    try:
        return check(name) == name
    except InvalidInput:
        return False


@settings(max_examples=300)
@given(tricky)
def test_no_name_that_is_accepted_leaves_its_directory(name: str) -> None:
    for check in (check_ref_name, check_vector_name, check_file_path):
        if accepts(check, name):
            whole = os.path.normpath(os.path.join("/store/refs", name))
            assert whole == f"/store/refs/{name}"
            assert "\x00" not in name
            os.fsencode(name)
    if accepts(check_tensor_name, name):
        assert os.path.normpath(os.path.join("/store/refs", name)).startswith("/store/refs")
        name.encode()


@settings(max_examples=200)
@given(tricky)
def test_no_tracked_path_enters_the_repository_itself(path: str) -> None:
    if accepts(check_file_path, path):
        seen = "".join(char for char in path if char not in "\u200c\u200d\ufeff")
        assert not {".persona", ".git"} & {part.casefold() for part in seen.split("/")}


@pytest.mark.skipif(shutil.which("git") is None, reason="git's own rules are asked for")
@settings(max_examples=60)
@given(tricky)
@example("a/b.lock")
@example("a@{b")
@example("@")
@example("a//b")
def test_every_ref_name_that_is_accepted_is_one_for_git(name: str) -> None:
    if accepts(check_ref_name, name):
        run = subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=False)
        assert run.returncode == 0


# fmt: off
NO_REFS = [
    "", "@", "HEAD", "-", "-b", "a/-b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[b", "a\\b", "a..b", "a@{1}",
    "/a", "a/", "a//b", ".a", "a/.b", "a.", "a./b", "a.lock", "a.lock/b", "a\x7fb", "a\nb", "a\x00",
    "f" * 64, "refs/heads/" + "0" * 64, "e\u0301", "a\ud800", "x" * 256, "\xe9" * 128,
]
# fmt: on


@pytest.mark.parametrize("name", NO_REFS)
def test_a_ref_cannot_be_named(name: str) -> None:
    assert not accepts(check_ref_name, name)


@pytest.mark.parametrize(
    "name", ["main", "refs/heads/main", "feature/x-1", "v1.0", "été", "日本", "a@b", "{", "f" * 63]
)
def test_a_ref_can_be_named(name: str) -> None:
    assert accepts(check_ref_name, name)


# fmt: off
NO_VECTORS = [
    "", " a", "a ", "a/b", "a\\b", "..", ".a", "-a", "a..b", "a@{b", "a\nb", "\x7f",
    "f" * 64, "e\u0301", "x" * 256, "\ud800",
]
# fmt: on


@pytest.mark.parametrize("name", NO_VECTORS)
def test_a_vector_cannot_be_named(name: str) -> None:
    assert not accepts(check_vector_name, name)


@pytest.mark.parametrize("name", ["listening", "a b", "core-personality#voice", "v1.2", "été", "C++", "a:b"])
def test_a_vector_can_be_named(name: str) -> None:
    assert accepts(check_vector_name, name)


# fmt: off
NO_FILES = [
    "", "/etc/passwd", "../x", "a/../b", "a/..", "./a", "a/.", "a//b", "a/", "a\\..\\b",
    "a\x00", "a\nb", "\x1b[2J", "x" * 256, "\ud800",
    ".persona", ".persona/HEAD", "x/.PERSONA/y", ".git/hooks/post-checkout", ".Git", ".per\u017fona",
    ".g\u200cit/config", ".persona\ufeff/HEAD", ".\u200d.",
]
# fmt: on


@pytest.mark.parametrize("path", NO_FILES)
def test_a_file_cannot_be_tracked(path: str) -> None:
    assert not accepts(check_file_path, path)


@pytest.mark.parametrize(
    "path", ["config.json", "graph/a/b.md", ".gitignore", "-x", "a b", "été.txt", "...", "a..b"]
)
def test_a_file_can_be_tracked(path: str) -> None:
    assert accepts(check_file_path, path)


# fmt: off
NO_TENSORS = [
    "", "__metadata__", "/a", "\\a", "..", "../../x", "a/../b", "a\\..\\b",
    "a\nb", "\x00", "\x7f", "\ud800", "x" * 4097,
]
# fmt: on


@pytest.mark.parametrize("name", NO_TENSORS)
def test_a_tensor_cannot_be_named(name: str) -> None:
    assert not accepts(check_tensor_name, name)


@pytest.mark.parametrize(
    "name", ["model.layers.0.mlp.up_proj.weight", "a/b", "a..b", "w", " ", "été", "x" * 4096]
)
def test_a_tensor_can_be_named(name: str) -> None:
    assert accepts(check_tensor_name, name)
