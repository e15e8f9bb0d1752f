"""Models by their ids on the Hugging Face hub: from its cache, or downloaded; never with a network here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from persona.errors import InvalidInput
from persona.progress import DOWNLOADING, Phase
from persona.weights.hub import HubId, cached_name, id_of, located, repository_of, shown
from tests.checkpoints import INDEX, Given, write_file, write_model, write_shards

MODEL: dict[str, Given] = {"w": [1.0, 2.0]}
OLD, NEW = "0" * 40, "1" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty, and a current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def snapshot(cache: Path, id: str, revision: str = OLD, *, ref: str | None = "main") -> Path:
    """An empty snapshot of a model in the cache."""
    repository = cache / f"models--{id.replace('/', '--')}"
    if ref is not None:
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(revision)
    (repository / "snapshots" / revision).mkdir(parents=True)
    return repository / "snapshots" / revision


def no_network(*_: object, **__: object) -> str:
    raise AssertionError("the network was looked at")


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("Org/Model-1.5B", HubId("Org/Model-1.5B")),
        ("Org/Model@v2", HubId("Org/Model", "v2")),
        ("https://huggingface.co/Org/Model", HubId("Org/Model")),
        ("https://hf.co/Org/Model/tree/refs-1/", HubId("Org/Model", "refs-1")),
        ("https://hf.co/Org/Model/tree/refs%2Fpr%2F1", HubId("Org/Model", "refs/pr/1")),
        ("Org/Model@refs/pr/1", HubId("Org/Model", "refs/pr/1")),
        ("Org/Model@feature/x-2/", HubId("Org/Model", "feature/x-2")),
        ("here/Model@refs/pr/1", None),
        ("Org/Model@refs/pr/1/model.safetensors", None),
        ("Org/Model@v2@v3", None),
        ("here/Model", None),
        ("there/Model", None),
        ("Model", None),
        ("./Org/Model", HubId("Org/Model")),
        ("../Org/Model", None),
        ("/Org/Model", None),
        ("Org/Model/more", None),
        ("notes/today.md", None),
        ("run/model.safetensors", None),
        ("https://example.org/Org/Model", None),
        ("-x/y", None),
    ],
)
def test_an_id_is_told_from_a_path(cache: Path, text: str, id: HubId | None) -> None:
    Path("here").mkdir()
    write_model(Path("there/Model"), MODEL)
    assert id_of(Path(text)) == id


def test_a_model_of_the_cache_is_taken_without_a_look_at_the_network(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    single = write_model(snapshot(cache, "Org/Single"), MODEL)
    assert located(Path("Org/Single")) == single
    assert located(Path("https://huggingface.co/Org/Single")) == single
    old = write_model(snapshot(cache, "Org/Other", ref="v1"), MODEL)
    new = write_model(snapshot(cache, "Org/Other", NEW), MODEL)
    assert located(Path("Org/Other@v1")) == located(Path(f"Org/Other@{OLD}")) == old
    assert located(Path("Org/Other")) == new
    adapter = snapshot(cache, "Org/Adapter")
    write_file(adapter / "adapter_model.safetensors", MODEL)
    (adapter / "adapter_config.json").write_text("{}")
    assert located(Path("Org/Adapter")) == adapter


def test_a_model_of_the_cache_is_shown_by_its_id(cache: Path) -> None:
    place = snapshot(cache, "Org/My-Model")
    assert shown(place) == shown(repository_of(place)) == "Org/My-Model"
    assert shown(cache) == str(cache)
    assert shown(cache / "models--gpt2") == str(cache / "models--gpt2")


def test_a_pull_request_of_the_cache_is_a_revision(cache: Path) -> None:
    write_model(snapshot(cache, "Org/Model", OLD), MODEL)
    place = write_model(snapshot(cache, "Org/Model", NEW, ref=None), MODEL)
    ref = cache / "models--Org--Model" / "refs" / "refs" / "pr" / "1"
    ref.parent.mkdir(parents=True)
    ref.write_text(NEW)
    assert located(Path("Org/Model@refs/pr/1")) == place
    assert located(Path("https://huggingface.co/Org/Model/tree/refs%2Fpr%2F1")) == place
    with pytest.raises(InvalidInput, match=r"`hf download Org/Model --revision refs/pr/2`"):
        located(Path("Org/Model@refs/pr/2"))


def test_without_a_network_the_only_snapshot_stands_for_the_main_branch(cache: Path) -> None:
    place = write_model(snapshot(cache, "Org/Model", ref="v1"), MODEL)
    assert located(Path("Org/Model")) == place
    write_model(snapshot(cache, "Org/Model", NEW, ref=None), MODEL)
    with pytest.raises(InvalidInput, match="cannot be reached"):
        located(Path("Org/Model"))
    bare = snapshot(cache, "Org/Bare")
    write_file(bare / "model.safetensors", MODEL)
    assert located(Path("Org/Bare")) == bare


@pytest.mark.parametrize("lacking", ["everything", "weights", "a shard", "config", "blob"])
def test_a_model_that_the_cache_holds_in_part_is_downloaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(id: str, *, revision: str | None, ignore_patterns: list[str], tqdm_class: Any) -> str:
        asked.append((id, revision))
        assert "*.bin" in ignore_patterns
        assert "*.safetensors" not in ignore_patterns
        with (
            tqdm_class(total=0, unit="B", name="huggingface_hub.snapshot_download") as bar,
            tqdm_class(total=0, unit="B", name="huggingface_hub.snapshot_download.transfer") as other,
        ):
            bar.total = 10
            bar.update(4)
            other.update(3)
            bar.set_description("more")
            bar.update(6)
        return str(write_model(Path("downloaded"), MODEL))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    if lacking != "everything":
        place = snapshot(cache, "Org/Model")
        write_shards(place, {"a.safetensors": MODEL, "b.safetensors": {"v": [1.0]}})
        (place / "config.json").write_text("{}")
        gone = {
            "weights": INDEX,
            "a shard": "b.safetensors",
            "config": "config.json",
        }
        if lacking in gone:
            (place / gone[lacking]).unlink()
        if lacking == "blob":
            (place / "a.safetensors").unlink()
            (place / "a.safetensors").symlink_to("../../blobs/gone")
    said: list[tuple[Phase, int, int]] = []
    assert located(Path("Org/Model"), lambda *how: said.append(how)) == Path("downloaded")
    assert asked == [("Org/Model", None)]
    assert said == [(DOWNLOADING, 4, 10), (DOWNLOADING, 10, 10)]
    assert located(Path("Org/Model@v1")) == Path("downloaded")


def test_without_a_network_the_line_that_fetches_the_model_is_said(cache: Path) -> None:
    snapshot(cache, "Org/Half")
    for id, line in (
        ("Org/Model", "hf download Org/Model"),
        ("Org/Model@v2", "hf download Org/Model --revision v2"),
    ):
        with pytest.raises(InvalidInput, match=rf"^{id}: no such file[^`]*`{line}` fetches"):
            located(Path(id))
    with pytest.raises(InvalidInput, match=r"no whole safetensors weights\n.*`hf download Org/Half` fetches"):
        located(Path("Org/Half"))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (RepositoryNotFoundError, "no model of this name.*`hf auth login`"),
        (GatedRepoError, "gated.*https://huggingface.co/Org/Model"),
        (LocalEntryNotFoundError, "cannot be reached.*`hf download Org/Model`"),
        (RuntimeError, "cannot be downloaded from the Hugging Face hub: first line\nhint"),
    ],
)
def test_a_failure_of_the_hub_says_what_to_do(
    cache: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], said: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        error = kind.__new__(kind)
        Exception.__init__(error, "first line\nsecond line")
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InvalidInput, match=f"(?s){said}"):
        located(Path("Org/Model"))


def test_a_directory_of_the_cache_is_its_model(cache: Path) -> None:
    place = write_model(snapshot(cache, "Org/My--Model"), MODEL)
    newer = snapshot(cache, "Org/My--Model", NEW, ref=None)
    assert located(place.parent.parent) == place
    assert located(place) == place
    (place.parent.parent / "refs" / "main").write_text(NEW)
    assert located(place.parent.parent) == newer
    (place.parent.parent / "refs" / "main").unlink()
    with pytest.raises(InvalidInput, match=r"has the snapshots .* and no main branch"):
        located(place.parent.parent)
    newer.rmdir()
    assert located(place.parent.parent) == place
    assert cached_name(place) == cached_name(place.parent.parent) == "My--Model"
    assert repository_of(place) == place.parent.parent


def test_any_other_path_stands_for_itself(cache: Path) -> None:
    for path in ("nothing", "a/b/c", "/x/y", "models--a--b"):
        assert located(Path(path)) == Path(path)
        assert repository_of(Path(path)) == Path(path)
    assert cached_name(Path("plain/snapshots/0123")) is None
