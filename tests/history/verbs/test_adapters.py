"""`export_adapter` and `vectors.extract`: an adapter directory, from a revision or a vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.errors import BusyError, InvalidInput, Refused, UsageError
from persona.history.results import as_json
from persona.repository import Repository
from persona.store.lock import making
from tests.checkpoints import Model, read_file, write_model
from tests.disks import cut_at_each_call
from tests.history.bots import Bot, Tensors

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KEY = "base_model.model."


def floats(bits: np.ndarray) -> np.ndarray:
    """bf16 or F32 bits as numbers."""
    wide = bits.astype(np.uint32) << np.uint32(16) if bits.itemsize == 2 else bits
    return wide.view(np.float32).astype(np.float64)


def config_in(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / CONFIG).read_text())
    return found


def applied(bot: Bot, out: Path) -> dict[str, np.ndarray]:
    """The base's tensors with an adapter merged into them, in binary64."""
    held, config = read_file(out / WEIGHTS), config_in(out)
    found = {name: floats(bits) for name, bits in bot.base.items()}
    for name in found:
        module = name.removesuffix(".weight")
        rank = config["rank_pattern"].get(module, config["r"])
        scale = config["alpha_pattern"].get(module, config["lora_alpha"]) / rank
        key = KEY + module
        if KEY + name in held:
            found[name] = floats(held[KEY + name].bits)
        elif f"{key}.lora_A.weight" in held:
            a, b = (floats(held[f"{key}.lora_{letter}.weight"].bits) for letter in "AB")
            found[name] = found[name] + scale * (b @ a)
        elif f"{key}.lora_embedding_A" in held:
            a, b = (floats(held[f"{key}.lora_embedding_{letter}"].bits) for letter in "AB")
            found[name] = found[name] + scale * (b @ a).T
    return found


def away(one: dict[str, np.ndarray], other: Tensors) -> float:
    return max(float(np.abs(one[name] - floats(other[name])).max()) for name in one)


@pytest.fixture
def out(grown: Bot) -> Path:
    return grown.models / "adapter"


def test_an_adapter_of_full_rank_is_the_revision(grown: Bot, out: Path) -> None:
    grown.repo.checkout("HEAD", out=grown.models / "whole")
    found = grown.repo.export_adapter("HEAD", out=out)
    weights = {
        name: tensor.bits for name, tensor in read_file(grown.models / "whole" / "model.safetensors").items()
    }
    assert away(applied(grown, out), weights) < 1e-7
    assert found.kept_energy == pytest.approx(1.0, abs=1e-6)
    assert (found.rank, found.revision, found.vector) == (10, grown.repo.resolve("HEAD"), None)


def test_a_vector_is_extracted_at_full_strength(grown: Bot, out: Path) -> None:
    found = grown.repo.vectors.extract("listening", rank=20, out=out)
    assert away(applied(grown, out), grown.tunes["listening"]) < 1e-7
    assert found.vector == grown.repo.vectors["listening"].id
    assert found.stored_bytes == grown.repo.vectors["listening"].stored_bytes
    assert found.bytes == (out / WEIGHTS).stat().st_size


def test_a_smaller_rank_keeps_less_and_says_how_much(grown: Bot, out: Path) -> None:
    before = {name: floats(bits) for name, bits in grown.base.items()}
    kept = []
    for rank in (1, 3, 9):
        found = grown.repo.vectors.extract("listening", rank=rank, out=out)
        made = applied(grown, out)
        for tensor in found.tensors:
            wanted = floats(grown.tunes["listening"][tensor.name]) - before[tensor.name]
            missing = made[tensor.name] - before[tensor.name] - wanted
            assert tensor.energy == pytest.approx((wanted**2).sum(), rel=1e-6)
            assert tensor.kept_energy == pytest.approx(1 - (missing**2).sum() / tensor.energy, abs=1e-5)
        kept.append(found.kept_energy)
        assert not found.exact
    assert kept == sorted(kept)
    assert kept[0] < 0.7 < kept[2]


def test_a_norm_is_held_whole_with_its_own_bits(grown: Bot, out: Path) -> None:
    found = grown.repo.vectors.extract("listening", rank=1, out=out)
    assert config_in(out)["modules_to_save"] == ["norm"]
    held = read_file(out / WEIGHTS)[f"{KEY}model.norm.weight"]
    assert np.array_equal(held.bits, grown.tunes["listening"]["model.norm.weight"])
    assert {tensor.how for tensor in found.tensors if "norm" in tensor.name} == {"whole"}


def test_what_is_left_out_is_named_and_counts_as_lost(grown: Bot, out: Path) -> None:
    found = grown.repo.vectors.extract("listening", rank=20, out=out, lora_only=True)
    assert found.left_out == ("model.norm.weight",)
    assert "model.norm.weight" in found.notes[0]
    assert config_in(out)["modules_to_save"] is None
    assert all("norm" not in name for name in read_file(out / WEIGHTS))
    assert 0.5 < found.kept_energy < 0.999
    assert not found.exact


@pytest.mark.parametrize(("dtype", "name"), [("bfloat16", "BF16"), ("float16", "F16"), (None, "F32")])
def test_factors_have_the_dtype_that_was_asked_for(
    grown: Bot, out: Path, dtype: str | None, name: str
) -> None:
    grown.repo.vectors.extract("listening", rank=2, out=out, dtype=dtype, lora_only=True)
    assert {tensor.dtype for tensor in read_file(out / WEIGHTS).values()} == {name}


def test_the_same_command_gives_the_same_file(grown: Bot, out: Path) -> None:
    first = files_of(grown.repo, out, threads=1)
    assert files_of(grown.repo, grown.models / "again", threads=3)[WEIGHTS] == first[WEIGHTS]


def files_of(repo: Repository, out: Path, **options: Any) -> dict[str, bytes]:
    repo.export_adapter("HEAD", rank=2, out=out, **options)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_recipe_that_changes_nothing_is_refused(bot: Bot, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="the weights are the base's"):
        bot.repo.export_adapter("HEAD", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_change_of_norms_alone_is_refused_by_name(bot: Bot, tmp_path: Path) -> None:
    bot.commit(bot.tune("calm", 3, only="norm"))
    with pytest.raises(Refused, match=r"only model\.norm\.weight"):
        bot.repo.export_adapter("HEAD", out=tmp_path / "out")


def test_a_change_that_is_not_finite_is_refused(bot: Bot, tmp_path: Path) -> None:
    bot.commit(bot.tune("calm", 3), alpha="3e38")
    bot.edit(lambda text: text.replace("density = 1.0", 'merge = "sum"\nlambda = 3e38'))
    with pytest.raises(InvalidInput, match="not finite"):
        bot.repo.export_adapter(out=tmp_path / "out")
    assert not (tmp_path / "out" / CONFIG).exists()


def test_values_that_cannot_be_are_refused(grown: Bot, out: Path) -> None:
    with pytest.raises(UsageError, match="rank must be a whole number above 0"):
        grown.repo.vectors.extract("listening", rank=0, out=out)
    with pytest.raises(UsageError, match="dtype 'int8'"):
        grown.repo.vectors.extract("listening", dtype="int8", out=out)
    with pytest.raises(UsageError, match="the work tree"):
        grown.repo.export_adapter("HEAD", out=grown.root)


def test_an_earlier_adapter_is_replaced_and_other_files_are_not(grown: Bot, out: Path) -> None:
    grown.repo.vectors.extract("listening", rank=2, out=out)
    (out / "notes.md").write_text("mine\n")
    grown.repo.vectors.extract("suggesting", rank=3, out=out)
    assert config_in(out)["r"] == 3
    (out / CONFIG).write_text("{}")
    with pytest.raises(Refused, match=f"{CONFIG}: not as persona wrote it"):
        grown.repo.vectors.extract("listening", rank=2, out=out)
    grown.repo.vectors.extract("listening", rank=2, out=out, force=True)
    assert config_in(out)["r"] == 2
    assert (out / "notes.md").read_text() == "mine\n"


def test_files_of_somebody_else_are_refused(grown: Bot, out: Path) -> None:
    out.mkdir()
    (out / WEIGHTS).write_bytes(b"theirs")
    with pytest.raises(Refused, match=WEIGHTS):
        grown.repo.export_adapter("HEAD", out=out)
    assert (out / WEIGHTS).read_bytes() == b"theirs"
    grown.repo.export_adapter("HEAD", out=out, force=True)
    assert read_file(out / WEIGHTS)


def test_an_adapter_is_never_put_beside_a_model(grown: Bot, out: Path) -> None:
    grown.repo.checkout("HEAD", out=out)
    with pytest.raises(Refused, match=r"holds a model"):
        grown.repo.export_adapter("HEAD", out=out, force=True)
    write_model(grown.models / "theirs", grown.base)
    with pytest.raises(Refused, match=r"model\.safetensors"):
        grown.repo.export_adapter("HEAD", out=grown.models / "theirs")


def test_two_writers_never_mix(grown: Bot, out: Path) -> None:
    out.mkdir()
    with making(out), pytest.raises(BusyError):
        grown.repo.export_adapter("HEAD", out=out)


def test_a_cut_leaves_the_old_adapter_the_new_one_or_none(grown: Bot, out: Path) -> None:
    grown.repo.vectors.extract("suggesting", rank=2, out=out)
    old: Model = read_file(out / WEIGHTS)
    states = set()

    def start() -> Repository:
        grown.repo.vectors.extract("suggesting", rank=2, out=out, force=True)
        return grown.repo

    def act(repo: Repository) -> None:
        repo.vectors.extract("listening", rank=3, out=out)

    for _ in cut_at_each_call(start, act):
        if not (out / CONFIG).exists():
            states.add("none")
            continue
        held = read_file(out / WEIGHTS)
        is_old = all(tensor.same(old[name]) for name, tensor in held.items() if name in old)
        assert config_in(out)["r"] == (2 if is_old else 3)
        states.add("old" if is_old else "new")
    assert states == {"old", "none", "new"}


def test_the_answer_has_the_keys_of_the_page(grown: Bot, out: Path) -> None:
    found = as_json(grown.repo["HEAD"].export_adapter(rank=2, out=out))
    page = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
    entry = page.partition("export, vector extract\n")[2].partition("checkout  ")[0]
    assert all(f'"{key}"' in entry for key in (*found, *found["tensors"][0]))
    record = json.loads((out / "persona.json").read_text())
    assert record["adapter"] is True
    assert record["complete"] is True
    assert set(record["files"]) == {CONFIG, WEIGHTS}


def test_too_little_memory_is_refused_with_the_least_that_does(grown: Bot, out: Path) -> None:
    with pytest.raises(UsageError, match="at least 1 MiB") as refused:
        grown.repo.vectors.extract("listening", rank=2, out=out, memory=1000)
    assert "memory=1048576" in str(refused.value)
    assert not (out / CONFIG).exists()
    grown.repo.vectors.extract("listening", rank=2, out=out, memory=1048576)
