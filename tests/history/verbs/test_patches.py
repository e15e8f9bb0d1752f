"""Sparse patches: exported between any two revisions, and imported as vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from persona.errors import InvalidInput, NothingChanged, Refused, UsageError
from persona.repository import Repository
from tests.checkpoints import Bits, Given, Tensor, read_file, same, write_file, write_model
from tests.history.bots import at

DTYPES = {"bf": "BF16", "half": "F16", "single": "F32"}
NAN = {"BF16": 0x7FC1, "F16": 0x7E01, "F32": 0x7FC00001}
ONE = {"BF16": 0x3F80, "F16": 0x3C00, "F32": 0x3F800000}


def weights(seed: int) -> dict[str, Tensor]:
    """Three chunks of each dtype: a NaN, zeros, and elements that a `seed` above 0 changes."""
    found = {}
    for name, dtype in DTYPES.items():
        width = {"F32": np.uint32}.get(dtype, np.uint16)
        bits = (np.arange(150, dtype=width) + ONE[dtype]).reshape(3, 50)
        bits[0, 3], bits[1, 13], bits[1, 14] = NAN[dtype], 0, 0
        if seed:
            flat = bits.reshape(-1)
            flat[seed :: 7 * seed] += seed
            flat[0], flat[149], flat[3] = ONE[dtype] - seed, ONE[dtype] - seed, NAN[dtype]
            bits[1, 13] = 1 << (8 * bits.itemsize - 1)  # −0
            bits[1, 14] = 0
        found[name] = Tensor(dtype, bits)
    return found | {"steady": Tensor("BF16", np.full(9, ONE["BF16"], np.uint16))}


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    write_model(tmp_path / "base", weights(0))
    for seed in (1, 2):
        write_model(tmp_path / f"ft{seed}", weights(seed))
    with Repository.init(
        tmp_path / "bot", base=tmp_path / "base", author=at(), committer=at(), chunk=64
    ) as repo:
        repo.commit(tmp_path / "ft1", message="one")
        yield repo


def weights_of(repo: Repository, rev: str) -> dict[str, Bits]:
    return {name: np.array(array).view(f"u{array.itemsize}") for name, array in repo.tensors(rev)}


def patched(before: Mapping[str, Bits], patch: Path) -> dict[str, Bits]:
    """Weights with a patch applied, as a server does it."""
    found = {name: array.copy() for name, array in before.items()}
    read = read_file(patch)
    for name in {name.rpartition(".")[0] for name in read}:
        indices, values = read[f"{name}.indices"], read[f"{name}.values"]
        assert indices.dtype == "I32"
        found[name].reshape(-1)[indices.bits] = values.bits
    return found


def equal(one: Mapping[str, Bits], other: Mapping[str, Bits]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "revisions", [("HEAD~2", "HEAD"), ("HEAD", "HEAD~2"), ("HEAD~1", "HEAD"), ("HEAD", "HEAD~1")]
)
def test_a_patch_holds_exactly_the_elements_whose_bits_differ(
    repo: Repository, tmp_path: Path, revisions: tuple[str, str]
) -> None:
    repo.commit(tmp_path / "ft2", message="two", only="half")
    before, after = (weights_of(repo, rev) for rev in revisions)
    result = repo.export_patch("..".join(revisions), out=tmp_path / "p.safetensors")
    assert equal(patched(before, tmp_path / "p.safetensors"), after)
    held = {name: tensor.bits.size for name, tensor in read_file(tmp_path / "p.safetensors").items()}
    differing = {name: int((before[name] != after[name]).sum()) for name in before}
    assert held == {
        f"{name}.{part}": n for name, n in differing.items() if n for part in ("indices", "values")
    }
    assert result.changed == sum(differing.values())
    assert result.bytes == (tmp_path / "p.safetensors").stat().st_size


def test_a_patch_from_the_base_is_the_vector_of_the_fine_tune(repo: Repository, tmp_path: Path) -> None:
    repo.export_patch("HEAD~1", "HEAD", out=tmp_path / "p.safetensors")
    assert repo.add(tmp_path / "p.safetensors").vectors[0].id == repo.recipe["ft1"].id


@pytest.mark.parametrize("name", [".persona/HEAD", ".persona/new", "recipe.toml", "model.safetensors"])
def test_a_patch_never_replaces_a_file_of_the_model_or_of_the_repository(
    repo: Repository, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "bot" / name
    before = place.read_bytes() if place.exists() else None
    with pytest.raises(UsageError if name.startswith(".") else Refused, match="write elsewhere"):
        repo.export_patch("HEAD~1..HEAD", out=place, force=True)
    assert (place.read_bytes() if place.exists() else None) == before


def test_a_patch_onto_a_revision_is_the_vector_of_the_whole_model(repo: Repository, tmp_path: Path) -> None:
    start = repo.head().id
    repo.commit(tmp_path / "ft2", message="two", only="half")
    repo.export_patch(f"{start}..HEAD", out=tmp_path / "p.safetensors")
    write_model(tmp_path / "whole", _as_tensors(repo))
    repo.reset(start, mode="hard")
    of_patch, of_model = (
        repo.add(tmp_path / name, onto="HEAD").vectors[0] for name in ("p.safetensors", "whole")
    )
    assert of_patch.id == of_model.id
    assert repo.recipe["p"].join == "add"


def test_a_patch_leads_to_the_work_tree_without_a_second_revision(repo: Repository, tmp_path: Path) -> None:
    repo.recipe.set("ft1", only="single")
    result = repo.export_patch("HEAD", out=tmp_path / "p.safetensors")
    assert result.to is None
    assert {name.rpartition(".")[0] for name in read_file(tmp_path / "p.safetensors")} == {"bf", "half"}


def test_a_file_that_is_there_stays_unless_forced(repo: Repository, tmp_path: Path) -> None:
    target = tmp_path / "p.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(Refused, match="is there already"):
        repo.export_patch("HEAD~1..HEAD", out=target)
    assert target.read_bytes() == b"mine"
    repo.export_patch("HEAD~1..HEAD", out=target, force=True)
    assert read_file(target)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_equal_weights_make_no_patch_and_no_file(repo: Repository, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="nothing to patch"):
        repo.export_patch("HEAD..HEAD", out=tmp_path / "p.safetensors")
    assert list(tmp_path.glob("*p.safetensors*")) == []


def _patch(indices: list[int], values: int, dtype: str = "BF16", kind: str = "I32") -> dict[str, Given]:
    where = np.array(indices, {"I32": np.int32, "I64": np.int64}[kind])
    bits = np.full(values, ONE[dtype] + 1, np.uint32 if dtype == "F32" else np.uint16)
    return {"bf.indices": Tensor(kind, where), "bf.values": Tensor(dtype, bits)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        (_patch([3, 2], 2), {}, "must ascend"),
        (_patch([2, 2], 2), {}, "must ascend"),
        (_patch([70, 3, 71], 3), {}, "must ascend"),
        (_patch([-1, 3], 2), {}, "must ascend"),
        (_patch([3, 150], 2), {}, "must ascend"),
        (_patch([3, 64], 1), {}, "2 indices and values of the shape"),
        (_patch([3], 1, "F16"), {}, "its values are F16, but the base has BF16"),
        (_patch([3], 1, kind="I64"), {}, "must be I32"),
        (_patch([3], 1), {"encoding": "gap_delta"}, "encoding 'gap_delta'"),
        (_patch([3], 1) | {"half.indices": Tensor("I32", np.zeros(1, np.int32))}, {}, "no counterpart"),
        (_patch([3], 1) | {"half": weights(1)["half"]}, {}, "no counterpart"),
        (
            {name.replace("bf", "other"): t for name, t in _patch([3], 1).items()},
            {},
            "base does not have: other",
        ),
    ],
)
def test_a_file_that_is_no_patch_of_this_base_is_refused(
    repo: Repository, tmp_path: Path, tensors: dict[str, Given], metadata: dict[str, str], said: str
) -> None:
    write_file(tmp_path / "p.safetensors", tensors, metadata)
    before = (repo.root / "recipe.toml").read_bytes()
    with pytest.raises(InvalidInput, match=said):
        repo.add(tmp_path / "p.safetensors")
    assert (repo.root / "recipe.toml").read_bytes() == before


def test_a_patch_of_a_bias_that_the_base_lacks_is_refused_and_tensors_can_be_left(tmp_path: Path) -> None:
    base = {"a.weight": weights(0)["bf"], "lm_head.weight": weights(0)["bf"]}
    write_model(tmp_path / "base", base)
    index = Tensor("I32", np.array([0], np.uint32))
    value = Tensor("BF16", np.array([0], np.uint16))
    parts = {
        f"{name}.{end}": held
        for name in ("a.bias", "a.weight")
        for end, held in (("indices", index), ("values", value))
    }
    patch = write_file(tmp_path / "p.safetensors", parts)
    with Repository.init(tmp_path / "own", base=tmp_path / "base", author=at(), committer=at()) as repo:
        with pytest.raises(InvalidInput, match=r"a\.bias"):
            repo.commit(patch, message="x")
        (change,) = repo.commit(patch, message="x", extra="*.bias").vectors
        assert change.left == ()
        with pytest.raises(NothingChanged):
            repo.commit(patch, message="x", extra="*.bias", leave="*.weight", replace=True)


@pytest.mark.parametrize("indices", [[], [5]])
def test_a_patch_that_changes_nothing_adds_no_vector(
    repo: Repository, tmp_path: Path, indices: list[int]
) -> None:
    values = weights(0)["bf"].bits.reshape(-1)[indices]
    where = np.array(indices, np.int32)
    write_file(
        tmp_path / "p.safetensors", {"bf.indices": Tensor("I32", where), "bf.values": Tensor("BF16", values)}
    )
    with pytest.raises(NothingChanged):
        repo.add(tmp_path / "p.safetensors")


def test_a_base_may_have_tensors_of_such_names(tmp_path: Path) -> None:
    tensors = {"x.indices": Tensor("I32", np.arange(3, dtype=np.uint32)), "x.values": weights(0)["bf"]}
    write_model(tmp_path / "base", tensors)
    write_model(tmp_path / "ft", tensors | {"x.values": weights(1)["bf"]})
    with Repository.init(tmp_path / "bot", base=tmp_path / "base", author=at(), committer=at()) as repo:
        repo.commit(tmp_path / "ft", message="one")
        assert same(read_file(tmp_path / "ft" / "model.safetensors"), _as_tensors(repo))


def _as_tensors(repo: Repository) -> dict[str, Tensor]:
    return {
        name: Tensor(array.tensor_dtype, np.array(array).view(f"u{array.itemsize}"))
        for name, array in repo.tensors("HEAD")
    }
