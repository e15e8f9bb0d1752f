"""What a writer publishes appears whole, replaces what is ours, and touches nothing else."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from persona.errors import BusyError, Refused, SystemFault
from persona.objects.tensors import TensorSpec
from persona.store import files
from persona.weights.index import replaced_entry
from persona.weights.shards import ShardLayout, plan_shards
from persona.weights.writer import ModelWriter, foreign_weight_files, shard_names, weight_files
from tests.checkpoints import write_file, write_shards
from tests.disks import Failing, Quick, Refusing, cut_at_each_call
from tests.weights.crafted import contents_of, digests_of, names_in, publish, specs_of

OLD = {"a": b"old-a", "b": b"old-bb", "c": b"old-ccc"}
NEW = {"a": b"new-a", "b": b"new-bb", "c": b"new-ccc"}
HUB_SHARDS = {
    "model-00001-of-00002.safetensors": {"a": OLD["a"], "b": OLD["b"]},
    "model-00002-of-00002.safetensors": {"c": OLD["c"]},
}


def as_one(directory: Path) -> None:
    publish(directory, OLD)


def as_our_shards(directory: Path) -> None:
    publish(directory, OLD, 6)


def as_hub_shards(directory: Path) -> None:
    write_shards(directory, HUB_SHARDS)


STARTS: list[Callable[[Path], None]] = [as_one, as_our_shards, as_hub_shards]


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("size", [None, 6, 11])
def test_publication_replaces_whatever_was_there(
    start: Callable[[Path], None], size: int | None, tmp_path: Path
) -> None:
    start(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    published = publish(tmp_path, NEW, size)
    assert names_in(tmp_path) == sorted([*published, "config.json"])
    assert contents_of(tmp_path) == NEW
    assert weight_files(tmp_path) == sorted(published)


@pytest.fixture
def _no_fsync() -> Iterator[None]:
    """Where hundreds of directories are written, waiting for the disk shows nothing."""
    with files.replaced_calls(Quick()):
        yield


@pytest.mark.usefixtures("_no_fsync")
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("size", [None, 6])
def test_a_kill_at_any_step_leaves_the_old_weights_or_the_new_and_the_next_writer_cleans_up(
    start: Callable[[Path], None], size: int | None, tmp_path: Path
) -> None:
    seen: list[bool] = []

    def begin() -> Path:
        directory = tmp_path / str(len(seen))
        directory.mkdir()
        start(directory)
        return directory

    for directory, done in cut_at_each_call(begin, lambda directory: publish(directory, NEW, size)):
        if done:
            break
        step, found = len(seen), contents_of(directory)
        assert found in (OLD, NEW), step
        seen.append(found == NEW)
        again = publish(directory, NEW, size) if step % 2 else publish(directory, OLD, None)
        assert names_in(directory) == sorted(again), step
        assert contents_of(directory) == (NEW if step % 2 else OLD)
    assert seen == sorted(seen)
    assert False in seen
    assert True in seen


@pytest.mark.usefixtures("_no_fsync")
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("size", [None, 6])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_fault_at_any_step_is_typed_and_leaves_no_temporary(
    start: Callable[[Path], None], size: int | None, code: int, tmp_path: Path
) -> None:
    for step in range(1, 200):
        directory = tmp_path / str(step)
        directory.mkdir()
        start(directory)
        before = names_in(directory)
        try:
            with files.replaced_calls(Failing(step, code)):
                publish(directory, NEW, size)
        except SystemFault:
            found = contents_of(directory)
            assert not [name for name in names_in(directory) if name.startswith(".")], step
            if found == OLD and size is None:
                assert names_in(directory) == before, step
            assert found in (OLD, NEW), step
        else:
            break
        publish(directory, NEW, size)
        assert contents_of(directory) == NEW
    assert step > 5


def test_a_writer_that_fails_before_the_index_takes_its_shards_back(tmp_path: Path) -> None:
    as_our_shards(tmp_path)
    before = names_in(tmp_path)

    no_index = Refusing(
        "rename", OSError(errno.ENOSPC, "no space"), lambda path: path.name.endswith(".index.json")
    )
    with files.replaced_calls(no_index), pytest.raises(SystemFault):
        publish(tmp_path, NEW, 6)
    assert names_in(tmp_path) == before
    assert contents_of(tmp_path) == OLD


def test_writing_over_the_checkpoint_that_is_being_read(tmp_path: Path) -> None:
    from persona.weights.checkpoint import Checkpoint

    as_hub_shards(tmp_path)
    with Checkpoint.open(tmp_path) as source:
        plan = plan_shards(
            [spec for spec, _ in source.tensors.values()],
            shards=source.shards,
            shard_of=[i for _, i in source.tensors.values()],
        )
        with ModelWriter(tmp_path, plan) as writer:
            for name, (spec, _) in source.tensors.items():
                data = bytearray(spec.nbytes)
                source.read_into(name, 0, data)
                writer.write(name, 0, data)
            writer.publish(digests_of(OLD))
            for name, data in OLD.items():
                out = bytearray(len(data))
                source.read_into(name, 0, out)
                assert out == data
    assert contents_of(tmp_path) == OLD
    assert len(names_in(tmp_path)) == 3


def test_links_at_the_output_are_replaced_and_never_followed(tmp_path: Path) -> None:
    directory, outside = tmp_path / "out", tmp_path / "outside"
    directory.mkdir()
    outside.write_bytes(b"precious")
    layout = plan_shards(specs_of(NEW), 6)
    for name in ("model.safetensors", "model.safetensors.index.json", *shard_names(layout, digests_of(NEW))):
        (directory / name).symlink_to(outside)
    publish(directory, NEW, 6)
    assert contents_of(directory) == NEW
    (directory / "model.safetensors").symlink_to(outside)
    publish(directory, NEW)
    assert contents_of(directory) == NEW
    assert not any(path.is_symlink() for path in directory.iterdir())
    assert outside.read_bytes() == b"precious"


def test_a_hard_link_to_old_weights_keeps_them(tmp_path: Path) -> None:
    publish(tmp_path / "out", OLD)
    os.link(tmp_path / "out" / "model.safetensors", tmp_path / "kept.safetensors")
    publish(tmp_path / "out", NEW)
    assert contents_of(tmp_path / "kept.safetensors") == OLD


def test_pipes_at_the_output_are_replaced_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    os.mkfifo(tmp_path / "model.safetensors.index.json")
    publish(tmp_path, NEW)
    assert names_in(tmp_path) == ["model.safetensors"]


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "model.safetensors.index.json", "model-00001-of-00002-0123456789ab.safetensors"],
)
@pytest.mark.parametrize("size", [None, 6])
def test_a_directory_where_weights_go_is_refused_by_name(name: str, size: int | None, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(Refused, match=name):
        publish(tmp_path, NEW, size)
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize(
    "name", ["consolidated.safetensors", "model-00001-of-00009.safetensors", "other.safetensors"]
)
@pytest.mark.parametrize("size", [None, 6])
def test_weights_that_nothing_names_are_refused_by_name(name: str, size: int | None, tmp_path: Path) -> None:
    publish(tmp_path, OLD)
    write_file(tmp_path / name, {"x": b"x"})
    assert foreign_weight_files(tmp_path) == [name]
    with pytest.raises(Refused, match=name):
        publish(tmp_path, NEW, size)
    assert contents_of(tmp_path) == OLD
    assert names_in(tmp_path) == sorted([name, "model.safetensors"])


def test_a_damaged_index_makes_its_shards_nobodys(tmp_path: Path) -> None:
    as_hub_shards(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{")
    assert foreign_weight_files(tmp_path) == sorted(HUB_SHARDS)
    with pytest.raises(Refused):
        publish(tmp_path, NEW)


def test_an_index_cannot_have_files_elsewhere_removed(tmp_path: Path) -> None:
    directory = tmp_path / "out"
    write_shards(directory, HUB_SHARDS)
    precious = write_file(tmp_path / "precious.safetensors", NEW)
    index = json.loads((directory / "model.safetensors.index.json").read_text())
    index["metadata"]["replaced"] = ["../precious.safetensors", str(precious), "config.json", 3]
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text("{}")
    publish(directory, NEW)
    assert precious.exists()
    assert names_in(directory) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("size", [None, 6])
def test_a_downloaded_index_has_no_file_removed_that_it_lists(tmp_path: Path, size: int | None) -> None:
    write_shards(tmp_path, HUB_SHARDS)
    precious = write_file(tmp_path / "pre cious.safetensors", NEW)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    status = precious.stat()
    for entry in (precious.name, f"{status.st_ino} {status.st_mtime_ns - 1} {precious.name}"):
        index["metadata"]["replaced"] = [entry]
        path.write_text(json.dumps(index))
        with pytest.raises(Refused, match="pre cious"):
            publish(tmp_path, NEW, size)
        assert contents_of(precious) == NEW


def test_a_replaced_file_that_was_left_is_removed_and_one_put_back_later_is_not(tmp_path: Path) -> None:
    write_shards(tmp_path, HUB_SHARDS)
    old = {name: (tmp_path / name).read_bytes() for name in HUB_SHARDS}
    publish(tmp_path, NEW, 6)
    for name, data in old.items():
        (tmp_path / name).write_bytes(data)
    assert foreign_weight_files(tmp_path) == sorted(HUB_SHARDS)
    for name in old:
        (tmp_path / name).unlink()
    left = write_file(tmp_path / "left over.safetensors", OLD)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["metadata"]["replaced"] = [replaced_entry(left)]  # cut before it was removed
    path.write_text(json.dumps(index))
    publish(tmp_path, OLD, 6)
    assert not left.exists()


def test_the_same_weights_divided_otherwise_have_other_names() -> None:
    names = [set(shard_names(plan_shards(specs_of(NEW), size), digests_of(NEW))) for size in (6, 11)]
    assert not names[0] & names[1]
    assert not names[0] & set(shard_names(plan_shards(specs_of(NEW), 6), digests_of(OLD)))


def test_a_shard_is_named_after_what_it_holds_alone() -> None:
    layout = plan_shards(specs_of(NEW), 6)
    before = shard_names(layout, digests_of(NEW))
    after = shard_names(layout, digests_of(NEW | {"b": b"new-BB"}))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_a_kept_shard_is_not_written_and_stays_under_its_name(tmp_path: Path) -> None:
    as_hub_shards(tmp_path)
    kept = tmp_path / "model-00002-of-00002.safetensors"
    before = kept.stat()
    layout = plan_shards(specs_of(OLD), 11)
    digests = digests_of(NEW | {"c": OLD["c"]})
    with ModelWriter(tmp_path, layout, keep={kept.name: kept.name}) as writer:
        writer.write("a", 0, NEW["a"])
        writer.write("b", 0, NEW["b"])
        published = writer.publish(digests)
    assert published == [shard_names(layout, digests)[0], kept.name, "model.safetensors.index.json"]
    assert names_in(tmp_path) == sorted(published)
    assert contents_of(tmp_path) == NEW | {"c": OLD["c"]}
    assert kept.stat() == before


def test_a_large_shard_is_synced_while_the_next_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.weights.writer.SYNC_EARLY_BYTES", 1)
    synced = threading.Event()

    class Watching(Quick):
        def fsync(self, fd: int) -> None:
            synced.set()

    with files.replaced_calls(Watching()), ModelWriter(tmp_path, plan_shards(specs_of(NEW), 6)) as writer:
        writer.write("a", 0, NEW["a"])
        assert synced.wait(60)
        writer.restart("a")
        for name, data in NEW.items():
            writer.write(name, 0, data)
        writer.publish(digests_of(NEW))
    assert contents_of(tmp_path) == NEW


def test_an_early_sync_that_failed_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.weights.writer.SYNC_EARLY_BYTES", 1)
    as_one(tmp_path)
    unsyncable = Refusing("fsync", OSError(errno.EIO, os.strerror(errno.EIO)))
    with (
        files.replaced_calls(unsyncable),
        ModelWriter(tmp_path, plan_shards(specs_of(NEW), 100)) as writer,
    ):
        for name, data in NEW.items():
            writer.write(name, 0, data)
        with pytest.raises(SystemFault):
            writer.publish(digests_of(NEW))
    assert unsyncable.tries == 1
    assert names_in(tmp_path) == ["model.safetensors"]
    assert contents_of(tmp_path) == OLD


def test_publishing_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first = publish(tmp_path, NEW, 6)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert publish(tmp_path, NEW, 6) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_two_writers_never_mix_and_a_dead_ones_rest_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".persona-weights-999999-0123456789abcdef").write_bytes(b"left by a kill")
    (tmp_path / ".persona-weights-notes").write_bytes(b"somebody's")
    with ModelWriter(tmp_path, plan_shards(specs_of(NEW))) as writer:
        with pytest.raises(BusyError):
            ModelWriter(tmp_path, plan_shards(specs_of(NEW)))
        for name, data in NEW.items():
            writer.write(name, 0, data)
        writer.publish(digests_of(NEW))
    publish(tmp_path, OLD)
    assert names_in(tmp_path) == [".persona-weights-notes", "model.safetensors"]


def test_nothing_appears_without_publication(tmp_path: Path) -> None:
    publish(tmp_path, OLD)
    with ModelWriter(tmp_path, plan_shards(specs_of(NEW), 6)) as writer:
        writer.write("a", 0, NEW["a"])
        assert contents_of(tmp_path) == OLD
        with pytest.raises(ValueError, match="2 tensors are not complete"):
            writer.publish(digests_of(NEW))
    assert names_in(tmp_path) == ["model.safetensors"]
    assert contents_of(tmp_path) == OLD


def test_chunks_come_in_any_order_from_any_thread_and_as_arrays(tmp_path: Path) -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    specs = [
        TensorSpec("w", "F32", (100, 100)),
        TensorSpec("s", "F32", ()),
        TensorSpec("none", "F32", (0, 3)),
    ]
    with ModelWriter(tmp_path, plan_shards(specs), tmp_dir=None) as writer:
        assert writer.nbytes == 40_004
        rows = [
            threading.Thread(target=lambda i=i: writer.write("w", i * 400, values[i]))
            for i in reversed(range(100))
        ]  # type: ignore[misc]
        for thread in rows:
            thread.start()
        for thread in rows:
            thread.join()
        writer.write("s", 0, np.float32(1.5).reshape(()))
        writer.write("none", 0, np.zeros((0, 3), np.float32))
        for offset, data in ((-1, b"1"), (4, b"1"), (0, b"12345")):
            with pytest.raises(ValueError, match="s, which has 4"):
                writer.write("s", offset, data)
        writer.publish({})
    found = contents_of(tmp_path)
    assert found["w"] == values.tobytes()
    assert found["s"] == np.float32(1.5).tobytes()


def test_unfinished_files_can_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    with ModelWriter(
        tmp_path / "new" / "out", plan_shards(specs_of(NEW)), tmp_dir=tmp_path / "tmp"
    ) as writer:
        assert len(names_in(tmp_path / "tmp")) == 1
        for name, data in NEW.items():
            writer.write(name, 0, data)
        writer.publish(digests_of(NEW))
    assert names_in(tmp_path / "tmp") == []
    assert contents_of(tmp_path / "new" / "out") == NEW


def test_a_layout_that_names_files_itself_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plan_shards"):
        ModelWriter(tmp_path, [ShardLayout("../x.safetensors", (), {})])
    with pytest.raises(ValueError, match="plan_shards"):
        ModelWriter(tmp_path, [])
    assert names_in(tmp_path) == []


class Recorded(Quick):
    """Notes what would outlive a power cut, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, str]] = []

    def fsync(self, fd: int) -> None:
        self.events.append(("fsync", Path(os.readlink(f"/proc/self/fd/{fd}")).name))

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self.events.append(
            ("fsynced rename" if ("fsync", source.name) in self.events else "rename", target.name)
        )

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.events.append(("unlink", path.name))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("size", [None, 6])
def test_each_step_is_on_the_disk_before_the_next(
    start: Callable[[Path], None], size: int | None, tmp_path: Path
) -> None:
    directory = tmp_path / "out"
    directory.mkdir()
    start(directory)
    old = weight_files(directory)
    recorded = Recorded()
    with files.replaced_calls(recorded):
        names = publish(directory, NEW, size)
    events = [event for event in recorded.events if event[0] != "fsync" or event[1] == "out"]
    barrier = ("fsync", "out")
    gone = sorted(set(old) - {*names, "model.safetensors", "model.safetensors.index.json"})
    last = [
        name
        for name in ("model.safetensors", "model.safetensors.index.json")
        if name in old and name not in names
    ]
    expected = [("fsynced rename", name) for name in names if not name.endswith(".json")]
    if size is not None:
        expected += [barrier, ("fsynced rename", "model.safetensors.index.json")]
    expected += [barrier, *(("unlink", name) for name in gone), barrier]
    for name in last:
        expected += [("unlink", name), barrier]
    assert events == expected
