from __future__ import annotations

from typing import Any

import pytest

from persona.errors import IntegrityError
from persona.objects import canonical
from persona.objects.tree import Tree

ID, OTHER = "ab" * 32, "cd" * 32
TREE = Tree(ID, {"recipe.toml": OTHER, "graph/a.md": OTHER, "chat_template.jinja": None})


def test_a_tree_comes_back_with_its_deleted_files() -> None:
    assert Tree.decode(TREE.encode()) == TREE
    assert TREE.encode().decode() == (
        f'{{"files":{{"chat_template.jinja":null,"graph/a.md":"{OTHER}","recipe.toml":"{OTHER}"}},"recipe":"{ID}"}}'
    )


def test_the_order_of_files_changes_no_byte() -> None:
    assert Tree(ID, dict(reversed(TREE.files.items()))).encode() == TREE.encode()


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        {"../x": ID},
        {"../x": None},
        {"/x": ID},
        {".persona/format": None},
        {"": ID},
        {"a": "0" * 64},
        {"a": "x"},
        {"a": 1},
        {"a": [ID]},
    ],
)
def test_a_tree_with_a_wrong_file_is_refused(files: Any) -> None:
    with pytest.raises(IntegrityError, match=r"^tree"):
        Tree.decode(canonical.encode({"files": files, "recipe": ID}))


@pytest.mark.parametrize("recipe", [None, "", "0" * 64, "x" * 64, 7])
def test_a_tree_without_a_recipe_is_refused(recipe: Any) -> None:
    with pytest.raises(IntegrityError, match="tree recipe"):
        Tree.decode(canonical.encode({"files": {}, "recipe": recipe}))
