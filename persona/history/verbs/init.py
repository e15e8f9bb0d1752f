"""`init`: a model becomes the base of a new repository, and the base its first commit.

Order of writes: the store, the objects, the text files, the name of the base, then the branch. If an init is
cut short before the branch, the next one continues it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from persona.errors import Blank, Call, InvalidInput, Keyword, Note, Refused
from persona.history.base_names import default_base_name
from persona.history.config import Config
from persona.history.examples import example_files
from persona.history.history import History, reason
from persona.history.identity import check_person
from persona.history.recipes.text import RECIPE_FILE, first_text
from persona.history.results import CommitResult
from persona.history.worktree import text_files
from persona.history.worktree.locked import LockedTree, locked
from persona.history.worktree.tracking import GRAPH
from persona.intake.payloads import Payloads
from persona.objects.commit import Commit, Person, Signer
from persona.objects.names import check_ref_name, path_clash
from persona.objects.recipe import Recipe
from persona.objects.rules import AXES, Rules
from persona.objects.tree import Tree
from persona.store.files import remove_tree
from persona.store.refs import BASES
from persona.store.store import DIRECTORY, Store
from persona.weights.checkpoint import Checkpoint
from persona.weights.hub import located

if TYPE_CHECKING:
    from persona.progress import Progress

CONFIG_FILE: Final = "config.json"
NO_CONFIG: Final = Note(
    "the base has no config.json, so transformers cannot load what checkout writes",
    (
        "copy the model's into the work tree and commit it, or begin again with the model's directory as ",
        Keyword("base"),
    ),
)


def init(
    root: Path,
    base: Path | None,
    name: str | None,
    config: Config,
    author: Signer,
    committer: Signer,
    *,
    example: str | None = None,
    chunk: int,
    threads: int | None,
    progress: Progress | None,
) -> CommitResult:
    """See `Repository.init`."""
    rules = default_rules(config)
    if isinstance(author, Person):
        check_person(author)  # before minutes of work
    graph = example_files(example) if example is not None else {}
    in_place = base is None
    for place in (root, *root.parents):
        if os.path.lexists(place) and not place.is_dir():
            raise Refused(f"{place} is in the way: it is not a directory; make the repository elsewhere")
    if os.path.lexists(root / DIRECTORY) and Store.open(root).refs.head_id() is not None:
        raise Refused(
            f"{root} is a persona repository already",
            hint=(Call("commit", Blank("PATH")), " imports a fine-tune"),
        )
    source = root if base is None else located(base, progress)
    if in_place and not source.is_dir():
        raise InvalidInput(
            f"{source} is not a model directory",
            hint=("say which model to begin with: ", Keyword(base=Blank("PATH"))),
        )
    with Checkpoint.open(source) as checkpoint:  # a path that is not there gives no name either
        base_name = check_ref_name(name) if name is not None else default_base_name(source)
        store, made_now = _fresh_store(root)
        history = History(store, config, author_signer=author, committer_signer=committer)
        with store.shared(), locked(history) as tree:
            _refuse_begun(store)  # another init may have been quicker
            try:
                return _first_commit(
                    tree,
                    checkpoint,
                    base_name,
                    rules,
                    graph,
                    in_place,
                    chunk=chunk,
                    threads=threads,
                    progress=progress,
                )
            except BaseException:
                if made_now and store.refs.head_id() is None:
                    remove_tree(store.root)  # under the locks: no other init runs here
                raise


def default_rules(config: Config) -> Rules:
    """The merge rules of a first recipe: `merge.…` of the config, else the preset's own.

    Raises `InvalidInput` that names the setting.
    """
    given = {axis: value for axis in AXES if (value := config.get(f"merge.{axis}")) is not None}
    try:
        return Rules.of(config.get("merge.preset") or "ties", **given)
    except InvalidInput as error:
        raise InvalidInput(f"config merge.{error.message}") from None


def _fresh_store(root: Path) -> tuple[Store, bool]:
    """A new store, or one whose init was cut short before its first commit."""
    try:
        return Store.create(root), True
    except Refused:
        store = Store.open(root)
        _refuse_begun(store)
        return store, False


def _refuse_begun(store: Store) -> None:
    """`Refused` for a repository that has its first commit."""
    if store.refs.head_id() is not None:
        raise Refused(f"{store.worktree} is a persona repository already") from None


def _first_commit(
    tree: LockedTree,
    checkpoint: Checkpoint,
    name: str,
    rules: Rules,
    graph: dict[str, bytes],
    in_place: bool,
    *,
    chunk: int,
    threads: int | None,
    progress: Progress | None,
) -> CommitResult:
    from persona.history.worktree import weights
    from persona.intake.encode import import_base
    from persona.intake.remarks import of_base
    from persona.weights.writer import foreign_weight_files

    history = tree.history
    own = {RECIPE_FILE, *graph}
    contents = {path: checkpoint.read_text(path) for path in checkpoint.text_files if path not in own}
    if in_place:  # the next commit takes them: they are patterns, not files of the base
        contents = {path: data for path, data in contents.items() if not path.startswith(f"{GRAPH}/")}
    if clash := path_clash({*own, *contents}):
        raise InvalidInput(f"{checkpoint.path}: {clash}, so no commit can hold both; rename or delete one")
    text = first_text(name, rules).encode()
    made = {RECIPE_FILE: text, **graph, **({} if in_place else contents)}
    here = _refuse_overwriting(history.root, made)
    history.store.clear_leftovers()
    with history.store.transaction(Payloads(history.store.objects).of) as tx:
        blobs = {path: tx.put("blob", content) for path, content in contents.items()}
        base, base_id = import_base(tx, checkpoint, blobs, chunk=chunk, threads=threads, progress=progress)
        checkpoint.check_unchanged()
        recipe = Recipe.of(base_id, (), rules)
        texts: dict[str, str | None] = {RECIPE_FILE: tx.put("blob", text)}
        texts |= {path: tx.put("blob", content) for path, content in graph.items()}
        root = Tree(tx.put("recipe", recipe.encode()), texts)
        message = f"Begin with {name}\n"
        author, committer = history.author(), history.committer()
        commit = Commit(tx.put("tree", root.encode()), (), author, committer, message)
        id = tx.put("commit", commit.encode())
    tree.apply(made, here)
    held = history.store.refs.read(BASES + name)  # by an init that was cut short
    history.store.refs.update(BASES + name, base_id, reason(committer, f"init: {name}"), expect=held)
    tree.advance(id, committer, f"commit (initial): Begin with {name}", expect=None)
    if in_place:
        weights.settle(tree, recipe, id, base.digest, checkpoint.weights_seen)
    notes: list[str] = [*of_base(checkpoint, foreign_weight_files(history.root))]
    if RECIPE_FILE in checkpoint.text_files:
        notes.append(f"left out: {RECIPE_FILE} (a repository begins with its own)")
    if not (history.root / CONFIG_FILE).exists():
        notes.append(NO_CONFIG)
    return CommitResult(
        id=id,
        branch=history.head().branch,
        parents=(),
        vectors=(),
        notes=tuple(notes),
        subject=f"Begin with {name}",
    )


def _refuse_overwriting(root: Path, contents: dict[str, bytes]) -> dict[str, str]:
    """The blob ids of files that exist already and that the work tree wants unchanged.

    Raises `Refused` if other files have their names.
    """
    found: dict[str, str] = {}
    for path, content in contents.items():
        place = root / path
        if os.path.lexists(place):
            if text_files.read(root, path) != content:
                raise Refused(f"{place} is in the way; move it, or make the repository in an empty directory")
            found[path] = text_files.blob_id(content)
    return found
