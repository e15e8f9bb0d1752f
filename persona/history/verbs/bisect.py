"""`bisect`: finds the first commit with a property, in about log₂ of the commits between good and bad.

Each call writes `state/bisect` first and moves HEAD then. If the move fails, the state is put back, so a
command that is refused has recorded nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from persona.errors import Call, Keyword, PersonaError, Refused, UsageError, pieces, quoted
from persona.history import placing
from persona.history.bisecting.log import begun, log_lines, read_log
from persona.history.bisecting.results import Bisection, Tested
from persona.history.bisecting.search import (
    BAD,
    GOOD,
    SKIP,
    Search,
    checked_terms,
    read_search,
    under_way,
)
from persona.history.bisecting.stepping import WAITING, Step, next_step
from persona.history.computing import device_choice
from persona.history.history import History
from persona.history.names.revisions import resolve, resolve_range
from persona.history.names.walk import walk_links
from persona.history.options import RunOptions
from persona.history.results import Carried, Head
from persona.history.worktree import weights
from persona.history.worktree.changing import changing
from persona.history.worktree.locked import LockedTree
from persona.history.worktree.move import Target, plan_files, target_of
from persona.history.worktree.sequence import is_sequence_under_way, is_unmerged
from persona.objects.ids import abbreviate
from persona.store.refs import HEADS, NoteList

_SKIPS = (125, 8)
"""Exit codes for "it cannot be tested": of git, and of an inconclusive `verify`."""
_NOT_RUN = (126, 127)
"""Exit codes of a shell whose program cannot be run, or is not found."""
_ENDS = 128
"""The first exit code that ends `run`."""


# -- the search ----------------------------------------------------------------------------------------------


def status(history: History) -> Bisection:
    """The bisect that is under way, what comes next, and which commits are left. Changes nothing."""
    search = read_search(history)
    if search is None:
        return Bisection("none", head=history.head())
    return _bisection(history, search, next_step(history, search))


def start(
    history: History,
    bad: str | None = None,
    good: str | Sequence[str] | None = None,
    *,
    term_old: str | None = None,
    term_new: str | None = None,
    first_parent: bool = False,
    checkout: bool = False,
) -> Bisection:
    """Begins a bisect, with commits that are known to be bad and good.

    If both are given, HEAD goes to the first commit to test. A bisect that is under way ends. `term_old` and
    `term_new`: other words for good and bad. `first_parent`: follows only first parents, so that the answer
    is a commit of the branch or a merge into it. `checkout`: computes the weights at each step.
    """
    terms = checked_terms(term_new, term_old)
    with changing(history) as tree:
        notes: list[str] = []
        search = Search(_begin(history), terms, first_parent=first_parent, checkout=checkout)
        revs = [good] if isinstance(good, str) else list(good or ())
        if bad is not None or revs:
            newest = [] if bad is None else [resolve(history, bad, notes)]
            search = begun(search, newest, [resolve(history, rev, notes) for rev in revs])
        return _begun(tree, search, notes)


def mark(history: History, term: str, revs: str | Sequence[str] | None = None) -> Bisection:
    """Marks commits (default: HEAD) with a term of this bisect, and goes to the next commit to test.

    Of several bad commits, the last one counts that is no descendant of another.
    """
    with changing(history) as tree:
        word, search = under_way(history).settled(term)
        notes: list[str] = []
        return _go(tree, search.marked(word, _ids(history, word, revs, notes)), notes)


def good(history: History, revs: str | Sequence[str] | None = None) -> Bisection:
    """Marks commits (default: HEAD) as good, and goes to the next commit to test."""
    return mark(history, GOOD, revs)


def bad(history: History, revs: str | Sequence[str] | None = None) -> Bisection:
    """Marks a commit (default: HEAD) as bad, and goes to the next commit to test."""
    return mark(history, BAD, revs)


def skip(history: History, revs: str | Sequence[str] | None = None) -> Bisection:
    """Marks commits (default: HEAD), or those of ranges, as impossible to test; goes to another one."""
    with changing(history) as tree:
        search, notes = under_way(history), list[str]()
        return _go(tree, search.marked(SKIP, _ids(history, SKIP, revs, notes)), notes)


def next_(history: History) -> Bisection:
    """Goes to the commit to test, wherever HEAD is now."""
    with changing(history) as tree:
        return _go(tree, under_way(history), [])


def log(history: History) -> str:
    """The marks of the bisect, as text that `replay` reads."""
    return "".join(f"{line}\n" for line in log_lines(history, under_way(history)))


def replay(history: History, text: str) -> Bisection:
    """Begins the bisect that a text of `log` describes, or one of git's form. A bisect under way ends."""
    with changing(history) as tree:
        notes: list[str] = []
        search = read_log(text, _begin(history), lambda rev: resolve(history, rev, notes))
        return _begun(tree, search, notes)


def reset(history: History, rev: str | None = None) -> Bisection:
    """Ends the bisect, and goes back to where HEAD was before it, or to `rev`."""
    with changing(history) as tree:
        search = None
        try:
            search = read_search(history)
        except PersonaError:
            if rev is None:
                raise
        else:
            if search is None:
                return Bisection("none", head=history.head())
        notes: list[str] = []
        target = (
            _start_of(history, search) if rev is None and search else target_of(history, rev or "", notes)
        )
        carried = _move(tree, search, target, notes)
        tree.bisect(None)
        return Bisection(
            "none",
            head=history.head(),
            carried=carried,
            weights=weights.standing(history, tree),
            notes=tuple(dict.fromkeys(notes)),
        )


# -- tests by a program --------------------------------------------------------------------------------------


def run(history: History, test: Callable[[Bisection], bool | int | None]) -> Bisection:
    """Tests one commit after another until the first bad one is found.

    `test` is called with HEAD at the commit to test, and returns whether it is good; None skips it. An int is
    an exit code: 0 is good, 125 and 8 skip, other codes up to 127 are bad. If the first 126 or 127 comes for
    a commit that is known to be good as well, the program cannot be run: `Refused`. So is a code of 128 or
    more. Then nothing is recorded for that commit.
    """
    step = next_(history)
    if step.state == "waiting":
        raise Refused(
            f"there is nothing to test yet: {waiting_for(step)}",
            hint=(Call("bisect.bad"), " and ", Call("bisect.good"), " mark commits"),
        )
    tests: list[Tested] = []
    doubted = False
    while step.state == "testing" and step.commit is not None:
        answer = test(step)
        word = _mark_of(answer, step.commit)
        if not doubted and _is_unrun(answer):
            doubted = True
            _check_on_good(history, step, test, answer)
        tests.append(Tested(step.commit, word, answer if _is_code(answer) else None))
        step = _judged(history, word, step.commit)
    return replace(step, tests=tuple(tests))


def _judged(history: History, word: str, id: str) -> Bisection:
    """The bisect after a test; the commit is the tested one, even if the test has moved HEAD."""
    with changing(history) as tree:
        return _go(tree, under_way(history).marked(word, [id]), [])


def _is_code(answer: object) -> bool:
    return isinstance(answer, int) and not isinstance(answer, bool)


def _is_unrun(answer: object) -> bool:
    return _is_code(answer) and answer in _NOT_RUN


def _mark_of(answer: bool | int | None, id: str) -> str:
    """The mark for the answer of a test. `Refused` for an exit code that ends `run`."""
    if answer is None:
        return SKIP
    if isinstance(answer, bool):
        return GOOD if answer else BAD
    if not isinstance(answer, int):
        raise UsageError(
            f"the test returned {quoted(answer)}; it must return True, False, None or an exit code"
        )
    if answer in _SKIPS:
        return SKIP
    if 0 <= answer < _ENDS:
        return BAD if answer else GOOD
    how = f"exit code {answer}" if answer > 0 else f"signal {-answer}"
    raise Refused(
        f"the test of {abbreviate(id)} ended with {how}, which is no answer; it was not recorded",
        hint="run the same command again to go on; exit code 125 skips a commit that cannot be tested",
    )


def _check_on_good(
    history: History,
    step: Bisection,
    test: Callable[[Bisection], bool | int | None],
    answer: bool | int | None,
) -> None:
    """`Refused` if the test ends as `answer` for a good commit too. HEAD is back at the commit afterwards."""
    assert step.commit is not None
    sound = step.good[-1]
    with changing(history) as tree:
        _move(tree, under_way(history), Target(sound, None), [])
    try:
        again = test(replace(step, commit=sound, subject=history.commit(sound).subject))
    finally:
        with changing(history) as tree:
            _move(tree, under_way(history), Target(step.commit, None), [])
    if again == answer:
        raise Refused(
            f"the command ended with exit code {answer} for {abbreviate(step.commit)}, and also for"
            f" {abbreviate(sound)}, which is {step.terms[1]}: it cannot be run, so its exit code says nothing"
        )
    _mark_of(again, sound)


# -- moves ---------------------------------------------------------------------------------------------------


def _begin(history: History) -> Head:
    """Where a new bisect begins: where the one that is under way began, else HEAD."""
    _refuse_sequence(history)
    history.head_commit()
    search = read_search(history)
    return history.head() if search is None else search.begin


def _refuse_sequence(history: History) -> None:
    """`Refused` if a merge, cherry-pick, revert or rebase has stopped."""
    if is_sequence_under_way(history) or is_unmerged(history):
        from persona.history.sequencing.state import refuse_second

        refuse_second(history, "bisect")


def _ids(history: History, word: str, revs: str | Sequence[str] | None, notes: NoteList) -> list[str]:
    """The commits to mark. Ranges are for skips; of several bad commits one is chosen."""
    texts = ["HEAD"] if revs is None else [revs] if isinstance(revs, str) else list(revs)
    found: list[str] = []
    for text in texts:
        if word == SKIP and ".." in text and not text.startswith(":/"):
            chosen = resolve_range(history, [text], notes)
            found += [id for id, _ in walk_links(history, chosen.starts, chosen.hidden)]
        else:
            found.append(resolve(history, text, notes))
    if word == BAD and len(found) > 1:
        others = list(dict.fromkeys(found))
        first = [id for id in others if _is_oldest(history, id, others)]
        return first[-1:]
    return found


def _is_oldest(history: History, id: str, others: Sequence[str]) -> bool:
    """Whether a commit reaches none of the others."""
    reached = {one for one, _ in walk_links(history, [id])}
    return reached.isdisjoint(other for other in others if other != id)


def _begun(tree: LockedTree, search: Search, notes: list[str]) -> Bisection:
    """Begins a search. If there is nothing to test yet, HEAD goes back to where the search before began."""
    history = tree.history
    before = read_search(history)
    if before is not None and next_step(history, search) is WAITING:
        carried = _move(tree, before, _start_of(history, before), notes)
        tree.bisect(search.to_json())
        return _bisection(history, search, WAITING, notes, carried)
    return _go(tree, search, notes)


def _go(tree: LockedTree, search: Search, notes: list[str]) -> Bisection:
    """Records a search, and moves HEAD to the commit that it tests next."""
    history = tree.history
    before = read_search(history)
    step = next_step(history, search)
    bad = search.words[0]
    notes += [
        f"the merge base {abbreviate(base)} is skipped; if it is {bad}, the first {bad} commit is that one or"
        " an ancestor of it, which bisect cannot find"
        for base in step.told
        if base not in search.told
    ]
    search = replace(search, told=step.told)
    if step.state != "testing" or step.commit is None:
        tree.bisect(replace(search, asked=None).to_json())
        return _bisection(history, search, step, notes)
    search = replace(search, asked=step.commit)

    def record() -> None:
        tree.bisect(search.to_json())

    try:
        carried = _move(tree, search, Target(step.commit, None), notes, leaving=before, record=record)
    except PersonaError:
        if not search.checkout:  # else the commit can still be skipped
            with suppress(PersonaError):
                tree.bisect(None if before is None else before.to_json())
        raise
    return replace(_bisection(history, search, step, notes, carried), weights=weights.standing(history, tree))


def _move(
    tree: LockedTree,
    search: Search | None,
    target: Target,
    notes: list[str],
    *,
    leaving: Search | None = None,
    record: Callable[[], None] = lambda: None,
) -> tuple[Carried, ...]:
    """Moves HEAD and the text files, and computes weights if the search wants them.

    Returns the edits that came along. No note says that HEAD leaves a commit to which bisect itself moved it.
    `record` is called when it is known that nothing would be lost, before anything moves.
    """
    history = tree.history
    _refuse_sequence(history)
    started = time.perf_counter()
    head = history.head_or_name()
    own = {one.asked for one in (search, leaving) if one} | {search.begin.id if search else None}
    computing = search is not None and search.checkout
    here = head.id == target.id and head.branch == (target.branch and target.branch.removeprefix(HEADS))
    if here and not computing:
        record()
        return ()
    files = plan_files(history, target.id, force=False, can_force=False)
    recipe = history.recipe_of(target.id)
    if computing:
        found = weights.look(history, tree)
        weights.refuse_losing(found, recipe, "that revision", Call("checkout", force=True))
    record()

    def move() -> list[str]:
        left = tree.move_head(target, history.committer(), verb="bisect")
        return [] if head.id in own else left

    if not computing:
        with tree.moving(files):
            notes += [*files.notes, *move()]
        return files.carried
    how = history.in_force(RunOptions, RunOptions())
    try:
        made = placing.place(tree, recipe, target.id, files, move, how, device_choice(how), started)
    except PersonaError as error:
        if any(type(piece) is Keyword for piece in pieces(error.hint)):  # an option of `checkout`
            error.hint = (Call("bisect.skip", abbreviate(target.id)), " goes to another commit")
        raise
    notes += made.notes
    return made.carried


def _start_of(history: History, search: Search) -> Target:
    """The place where a search began. `Refused` if its branch is gone."""
    begin = search.begin
    assert begin.id is not None
    if begin.branch is None:
        return Target(begin.id, None)
    id = history.store.refs.read(HEADS + begin.branch)
    if id is None:
        raise Refused(
            f"the bisect began on branch {begin.branch}, which is gone",
            hint=(Call("bisect.reset", abbreviate(begin.id)), " goes to the commit that it had"),
        )
    return Target(id, HEADS + begin.branch)


# -- results -------------------------------------------------------------------------------------------------


def _bisection(
    history: History,
    search: Search,
    step: Step,
    notes: Sequence[str] = (),
    carried: tuple[Carried, ...] = (),
) -> Bisection:
    return Bisection(
        state=step.state,
        commit=step.commit,
        subject=None if step.commit is None else history.commit(step.commit).subject,
        merge_base=step.merge_base,
        left=step.left,
        steps=step.steps,
        candidates=step.candidates,
        bad=search.bad,
        good=search.good,
        skipped=search.skipped,
        terms=search.words,
        begin=search.begin,
        head=history.head(),
        carried=carried,
        notes=tuple(dict.fromkeys(notes)),
    )


def waiting_for(result: Bisection) -> str:
    """The marks that a bisect still needs, in a sentence."""
    bad, good = result.terms
    if result.bad is not None:
        return f"waiting for {good} commit(s), {bad} commit known"
    if result.good:
        count = len(result.good)
        return f"waiting for {bad} commit, {count} {good} commit{'s' if count > 1 else ''} known"
    return f"waiting for both {good} and {bad} commits"
