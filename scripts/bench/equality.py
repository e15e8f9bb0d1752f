"""Do the presets give what the peers give? On the real model, element by element.

`mergekit`: persona's preset against `mergekit-yaml` 0.1.5 with `dtype: float32` and the model's `out_dtype`.
Elements whose magnitude equals a cut-off are apart: mergekit breaks such ties by an unstable sort. Then what
mergekit's own `dtype: bfloat16` moves. `paper`: persona's preset against the official algorithm, written here
once more, over the flattened model: trim by the k-th largest magnitude, elect by the sign of the sum with the
majority's for ties, mean of those that agree, added in the recipe's canonical order, since binary32 sums
depend on it.

    scripts/bench/equality.py --models build/models --density 0.2
"""

from __future__ import annotations

import json
from pathlib import Path

import harness
import torch
from checkout import config, mergekit
from safetensors import safe_open


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a model of one file, by name."""
    with safe_open(path / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}


def ulps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """How many bf16 steps lie between two tensors, element by element."""

    def line(tensor: torch.Tensor) -> torch.Tensor:
        bits = tensor.view(torch.int16).int()
        return torch.where(bits < 0, -(bits & 0x7FFF), bits)

    return (line(one) - line(other)).abs()


def at_the_cut(base: torch.Tensor, tuned: list[torch.Tensor], density: float) -> torch.Tensor:
    """Where some vector's magnitude equals its cut-off."""
    tied = torch.zeros(base.shape, dtype=torch.bool)
    for one in tuned:
        t = (one.float() - base.float()).abs()
        rank = max(1, int(density * t.numel()))
        cut = t.flatten().kthvalue(t.numel() - rank + 1).values
        tied |= (t == cut) & (t > 0)
    return tied


def paper(base: torch.Tensor, tuned: list[torch.Tensor], density: float) -> tuple[torch.Tensor, torch.Tensor]:
    """TIES as its authors wrote it, over one flat vector a model, keeping the ⌊d·n⌋ + 1 largest of each.

    Returns the merged model, and the fine-tune's own number where one alone contributes (NaN elsewhere).
    """
    kept = []
    for one in tuned:
        t = one - base
        rank = int(density * t.numel()) + 1
        cut = t.abs().kthvalue(t.numel() - rank + 1).values
        kept.append(torch.where(t.abs() >= cut, t, 0.0))
    sign = sum(kept[1:], kept[0]).sign()
    sign[sign == 0] = 1.0 if sign.sum(dtype=torch.float64) > 0 else -1.0
    total, count = torch.zeros_like(base), torch.zeros_like(base)
    own = torch.full_like(base, torch.nan)
    for t, one in zip(kept, tuned, strict=True):
        agrees = t * sign > 0
        total += torch.where(agrees, t, 0.0)
        count += agrees
        own[agrees] = one[agrees]
    own[count != 1] = torch.nan
    return base + total / count.clamp(min=1), own


def main() -> None:
    """Parse, merge, compare, print."""
    options = harness.parser(__doc__)
    options.add_argument("--density", default="0.2", help="on both sides (default: 0.2)")
    options.add_argument(
        "--peer", type=Path, default=harness.ROOT / ".venv-mergekit", help="mergekit's environment"
    )
    args = options.parse_args()
    density = float(args.density)
    base_path, tuned_paths = harness.models_of(args.models)
    peer = mergekit(args.peer.resolve())
    base, tuned = tensors(base_path), [tensors(path) for path in tuned_paths]
    rows = []
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base_path, tuned_paths)

        def ours(preset: str) -> dict[str, torch.Tensor]:
            command = [args.persona, "-C", repository]
            harness.run(
                [*command, "set", "--merge", f"preset={preset}", "--merge", f"density={args.density}"]
            )
            harness.run([*command, "checkout", "-o", work / preset])
            return tensors(work / preset)

        def theirs(dtype: str) -> dict[str, torch.Tensor]:
            recipe = json.loads(config(base_path, tuned_paths, density)) | {
                "dtype": dtype,
                "out_dtype": "bfloat16",
            }
            (work / "config.yaml").write_text(json.dumps(recipe))
            harness.run([peer, work / "config.yaml", work / dtype, "--lazy-unpickle"])
            return tensors(work / dtype)

        mine, exact, coarse = ours("mergekit"), theirs("float32"), theirs("bfloat16")
        total = differ = tied = one_step = moved = 0
        for name, tensor in base.items():
            steps = ulps(mine[name], exact[name])
            cut = at_the_cut(tensor, [model[name] for model in tuned], density)
            total += tensor.numel()
            differ += int((steps > 0).sum())
            tied += int(((steps > 0) & cut).sum())
            one_step += int(((steps == 1) & ~cut).sum())
            moved += int((ulps(exact[name], coarse[name]) > 0).sum())
        rows += [
            [
                "mergekit, dtype float32",
                f"{total:,}",
                f"{differ:,}",
                f"{tied:,}",
                f"{one_step:,}",
                f"{differ - tied - one_step:,}",
            ],
            ["mergekit, bfloat16 against float32", f"{total:,}", f"{moved:,}", "", "", ""],
        ]
        found = ours("paper")
        listed = json.loads(harness.run([args.persona, "-C", repository, "vector", "ls", "--json"]).output)
        order = [[path.name for path in tuned_paths].index(one["name"]) for one in listed]
        flat = torch.cat([found[name].flatten() for name in base])
        want, own = paper(
            torch.cat([tensor.flatten().float() for tensor in base.values()]),
            [
                torch.cat([model[name].flatten().float() for name in base])
                for model in (tuned[k] for k in order)
            ],
            density,
        )
        other = flat != want.to(torch.bfloat16)
        alone = int((other & (flat.float() == own)).sum())
        rest = int(other.sum()) - alone
        rows.append(
            ["paper, over the flat model", f"{flat.numel():,}", f"{alone + rest:,}", "", "", f"{rest:,}"]
        )
    print(
        f"paper: {alone} that differ are a lone vector's own bits (docs/numerics.md), which the official"
        " base + (own - base) rounds away"
    )
    harness.show(
        f"presets against their peers, {len(tuned)} vectors, density {args.density}",
        ["peer", "elements", "differ", "of these tied at a cut", "else one rounding", "else more"],
        rows,
    )


if __name__ == "__main__":
    main()
