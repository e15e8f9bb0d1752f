"""`checkout -o OUT`: it replaces what persona wrote there and is as it was written, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from persona.errors import BusyError, Refused, UsageError
from persona.repository import Repository
from persona.store import files
from tests.checkpoints import digest_of, same, write_model
from tests.disks import Intruding, Quick, cut_at_each_call
from tests.history.bots import Bot, at, base_tensors, read_weights, save, tuned

THEIRS = tuned(base_tensors(), 99)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture
def out(grown: Bot) -> Path:
    return grown.models / "out"


def foreign_model(place: Path) -> None:
    write_model(place, THEIRS)


def foreign_shards(place: Path) -> None:
    write_model(place, THEIRS)
    (place / "model.safetensors").rename(place / "model-00001-of-00001.safetensors")
    names = dict.fromkeys(THEIRS, "model-00001-of-00001.safetensors")
    (place / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def one_text(place: Path) -> None:
    place.mkdir()
    (place / "README.md").write_text("mine\n")


def a_foreign_record(place: Path) -> None:
    place.mkdir()
    (place / "persona.json").write_text('{"name": "Ada", "files": {"persona.json": {}}}')


@pytest.mark.parametrize("lie", [foreign_model, foreign_shards, one_text, a_foreign_record])
def test_what_persona_did_not_write_is_named_and_stays(
    grown: Bot, out: Path, lie: Callable[[Path], None]
) -> None:
    lie(out)
    before = contents(out)
    name = sorted(before)[0]
    with pytest.raises(Refused, match=rf"(?s){name}.*force=True"):
        grown.repo.checkout("HEAD", out=out)
    assert contents(out) == before
    if lie is not a_foreign_record:
        grown.repo.checkout("HEAD~2", out=out, force=True)
        assert same(read_weights(out), grown.tunes["listening"])
        assert not (out / "model.safetensors.index.json").exists()
        grown.repo.checkout("HEAD", out=out)


def test_an_output_is_written_again_without_what_the_revision_lacks(grown: Bot, out: Path) -> None:
    (grown.root / "chat_template.jinja").unlink()
    grown.commit()
    grown.repo.checkout("HEAD~1", out=out, max_shard_size=300)
    assert (out / "chat_template.jinja").exists()
    (out / "notes.md").write_text("mine\n")
    grown.repo.checkout("HEAD", out=out)
    assert sorted(contents(out)) == ["config.json", "model.safetensors", "notes.md", "persona.json"]
    grown.repo.checkout("HEAD~3", out=out)
    assert same(read_weights(out), grown.tunes["listening"])
    assert (out / "notes.md").read_text() == "mine\n"


@pytest.mark.parametrize(
    "name", ["config.json", "chat_template.jinja", "model.safetensors", "generation_config.json"]
)
def test_a_file_that_somebody_changed_is_no_longer_persona_s(grown: Bot, out: Path, name: str) -> None:
    (grown.root / "generation_config.json").write_text("{}\n")
    grown.commit()
    grown.repo.checkout("HEAD~1", out=out)
    if name == "model.safetensors":
        write_model(grown.models / "theirs", THEIRS)
        shutil.copy(grown.models / "theirs" / name, out / name)
    else:
        (out / name).write_text("mine\n")
    before = contents(out)
    with pytest.raises(Refused, match=name.replace(".", r"\.")):
        grown.repo.checkout("HEAD", out=out)
    assert contents(out) == before
    grown.repo.checkout("HEAD", out=out, force=True)
    assert "mine\n" not in {path.read_text() for path in out.glob("*.j*")}
    grown.repo.checkout("HEAD~1", out=out)


def test_a_changed_file_that_the_revision_lacks_is_named_too(grown: Bot, out: Path) -> None:
    (grown.root / "chat_template.jinja").unlink()
    grown.commit()
    grown.repo.checkout("HEAD~1", out=out)
    (out / "chat_template.jinja").write_text("mine\n")
    with pytest.raises(Refused, match="chat_template"):
        grown.repo.checkout("HEAD", out=out)
    assert (out / "chat_template.jinja").read_text() == "mine\n"


def test_one_bit_of_the_weights_makes_them_somebody_else_s(grown: Bot, out: Path) -> None:
    grown.repo.checkout("HEAD", out=out)
    path = out / "model.safetensors"
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(Refused, match=r"model\.safetensors"):
        grown.repo.checkout("HEAD~2", out=out)
    assert path.read_bytes() == data


def test_an_output_says_from_what_it_was_made(grown: Bot, out: Path) -> None:
    made = grown.repo.checkout("HEAD", out=out)
    said = json.loads((out / "persona.json").read_text())
    assert said["complete"] is True
    assert said["weights"] == made.weights == digest_of(read_weights(out))
    assert said["revision"] == grown.repo.resolve("HEAD")
    assert said["base"]["name"] == "tiny"
    assert {name: term["alpha"] for name, term in said["vectors"].items()} == {
        "listening": 0.7,
        "suggesting": -0.5,
    }
    assert said["rules"]["preset"] == "ties"
    assert sorted(said["files"]) == sorted(set(contents(out)) - {"persona.json"})


def test_the_record_of_an_output_is_no_file_of_its_model(grown: Bot, out: Path, tmp_path: Path) -> None:
    grown.repo.checkout("HEAD~2", out=out)
    Repository.init(tmp_path / "again", base=out, author=at(), chunk=64)
    assert not (tmp_path / "again" / "persona.json").exists()
    (tmp_path / "tiny" / "persona.json").write_text('{"name": "Ada"}')
    Repository.init(tmp_path / "other", base=tmp_path / "tiny", author=at(), chunk=64)
    assert (tmp_path / "other" / "persona.json").exists()


def test_links_other_repositories_and_files_are_no_place_for_an_output(grown: Bot, tmp_path: Path) -> None:
    theirs = write_model(tmp_path / "theirs", THEIRS)
    (tmp_path / "link").symlink_to(theirs)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    Repository.init(tmp_path / "other", base=theirs, author=at(), chunk=64)
    before = contents(tmp_path)
    places = ["link", "dangling", "file", "other", "other/.persona", "other/.persona/packs/x", "file/x"]
    for name in places:
        with pytest.raises(Refused):
            grown.repo.checkout("HEAD", out=tmp_path / name, force=True)
    for place in (grown.root, grown.root / ".persona" / "x"):
        with pytest.raises(UsageError):
            grown.repo.checkout("HEAD", out=place)
    assert {k: v for k, v in contents(tmp_path).items() if k in before} == before
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "parent").symlink_to(tmp_path / "theirs")
    grown.repo.checkout("HEAD", out=tmp_path / "parent" / "below")
    assert (theirs / "below" / "model.safetensors").exists()


def test_an_output_cut_anywhere_is_written_by_the_same_command(grown: Bot, out: Path) -> None:
    (grown.root / "chat_template.jinja").unlink()
    grown.commit()

    def start() -> None:
        shutil.rmtree(out, ignore_errors=True)
        with files.replaced_calls(Quick()):
            grown.repo.checkout("HEAD~1", out=out, threads=1)

    def checkout(_: None) -> None:
        grown.repo.checkout("HEAD", out=out, max_shard_size=300, threads=1)

    cuts = 0
    for _, done in cut_at_each_call(start, checkout):
        if done:
            break
        cuts += 1
        shutil.copytree(out, dead := grown.models / "dead")  # nobody holds a lock on what lies there
        shutil.rmtree(out)
        dead.rename(out)
        with files.replaced_calls(Quick()):
            checkout(None)
        assert not (out / "chat_template.jinja").exists()
        assert not (out / "model.safetensors").exists()
        assert not list(out.rglob(".*")), cuts
        with files.replaced_calls(Quick()):
            grown.repo.checkout("HEAD~3", out=out, threads=1)
        assert same(read_weights(out), grown.tunes["listening"])
    assert cuts > 15


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "chat_template.jinja"])
def test_what_is_saved_while_an_output_is_written_is_never_overwritten(
    grown: Bot, out: Path, name: str
) -> None:
    theirs = (write_model(grown.models / "theirs", THEIRS) / "model.safetensors").read_bytes()
    (grown.root / "chat_template.jinja").unlink()
    grown.commit()
    grown.repo.checkout("HEAD~1", out=out)
    before = grown.models / "before"
    out.rename(before)
    for moment in range(1, 10_000):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(before, out)
        saved = list[bool]()

        def act(moment: int = moment, saved: list[bool] = saved) -> None:
            save(out / name, theirs, in_place=moment % 2 == 0)
            saved.append(True)

        with files.replaced_calls(Intruding(moment, act, only=out)):
            try:
                grown.repo.checkout("HEAD~3", out=out, threads=1)
            except Refused as error:
                refused = error.message
        if not saved:
            break
        assert (out / name).read_bytes() == theirs, moment
    assert name in refused
    assert moment > 5


def test_two_outputs_at_once_do_not_mix(grown: Bot, out: Path) -> None:
    with Repository.open(grown.root) as other:

        def progress(*_: object) -> None:
            with pytest.raises(BusyError):
                other.checkout("HEAD~2", out=out)

        grown.repo.checkout("HEAD", out=out, progress=progress)
    assert digest_of(read_weights(out)) == grown.repo.digest("HEAD").weights


@pytest.mark.parametrize(
    "entry", ['{"size": 1e999, "digest": "x"}', '{"size": "big", "digest": "x"}', "[]", "null", "3"]
)
def test_a_record_of_another_shape_vouches_for_nothing(grown: Bot, out: Path, entry: str) -> None:
    grown.repo.checkout("HEAD", out=out)
    said = json.loads((out / "persona.json").read_text())
    said["files"]["config.json"] = "ENTRY"
    (out / "persona.json").write_text(json.dumps(said).replace('"ENTRY"', entry))
    before = contents(out)
    with pytest.raises(Refused, match="which persona did not write"):
        grown.repo.checkout("HEAD~1", out=out)
    assert contents(out) == before


def test_a_record_that_lists_itself_loses_nothing(grown: Bot, out: Path) -> None:
    grown.repo.checkout("HEAD", out=out)
    said = json.loads((out / "persona.json").read_text())
    said["files"]["persona.json"] = said["files"]["config.json"]
    (out / "persona.json").write_text(json.dumps(said))
    grown.repo.checkout("HEAD~1", out=out)
    assert "persona.json" not in json.loads((out / "persona.json").read_text())["files"]


def in_notes(bot: Bot) -> None:
    """Two commits: the text files notes/one.md and then, in its directory's place, notes."""
    (bot.root / "notes").mkdir()
    (bot.root / "notes" / "one.md").write_text("one\n")
    bot.repo.add(bot.root / "notes")
    bot.commit()
    shutil.rmtree(bot.root / "notes")
    (bot.root / "notes").write_text("two\n")
    bot.repo.add(bot.root / "notes")
    bot.commit()


def test_a_file_of_an_output_takes_the_place_of_a_directory_and_the_reverse(grown: Bot, out: Path) -> None:
    in_notes(grown)
    for rev, path in [("HEAD~1", "notes/one.md"), ("HEAD", "notes"), ("HEAD~1", "notes/one.md")]:
        grown.repo.checkout(rev, out=out)
        assert [name for name in contents(out) if name.startswith("notes")] == [path]
        assert json.loads((out / "persona.json").read_text())["complete"] is True


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("what", ["directory", "file", "link", "beside", "record"])
def test_what_stands_in_the_way_of_an_output_is_named_before_anything_changes(
    grown: Bot, out: Path, what: str, force: bool
) -> None:
    in_notes(grown)
    grown.repo.checkout("HEAD~2" if what == "file" else "HEAD~1", out=out)
    elsewhere = grown.models / "elsewhere"
    rev, named = "HEAD", "config.json/mine"
    if what == "directory":
        (out / "config.json").unlink()
        (out / "config.json").mkdir()
        (out / "config.json" / "mine").write_text("mine\n")
    elif what == "file":
        rev, named = "HEAD~1", "notes"
        (out / "notes").write_text("mine\n")
    elif what == "link":
        rev, named = "HEAD~1", "notes"
        (out / "notes").rename(elsewhere)
        (out / "notes").symlink_to(elsewhere)
    elif what == "beside":
        named = "notes/mine"
        (out / "notes" / "mine").write_text("mine\n")
    else:
        rev, named = "HEAD~1", "persona.json"
        (out / "persona.json").unlink()
        (out / "persona.json").mkdir()
    before = contents(grown.models)
    with pytest.raises(Refused, match=rf"{named} (is|are) in the way"):
        grown.repo.checkout(rev, out=out, force=force)
    assert contents(grown.models) == before
    if what == "link":  # what it leads to is not the output's
        grown.repo.checkout("HEAD~2", out=out)
        assert (elsewhere / "one.md").read_text() == "one\n"


def test_an_output_lies_in_no_work_tree_of_others_and_in_none_of_what_is_tracked(
    grown: Bot, tmp_path: Path
) -> None:
    (grown.root / "graph").mkdir()
    Repository.init(tmp_path / "other", base=tmp_path / "tiny", author=at(), chunk=64)
    Repository.init(grown.root / "inner", base=tmp_path / "tiny", author=at(), chunk=64)
    for place in ("other/new", "other/graph/new", "bot/inner/new", "bot/graph", "bot/graph/new"):
        with pytest.raises(Refused):
            grown.repo.checkout("HEAD", out=tmp_path / place, force=True)
        assert not (tmp_path / place / "persona.json").exists()
    grown.repo.checkout("HEAD", out=grown.root / "runs" / "new")
    with Repository.open(grown.root / "inner") as inner, pytest.raises(Refused):
        inner.checkout("HEAD", out=grown.root / "runs" / "newer")
