#!/usr/bin/env python3
"""How long does it take to compute the weights of a recipe, against mergekit on the same inputs?

`persona checkout -o OUT` and `mergekit-yaml CONFIG OUT --lazy-unpickle` (0.1.5, in an environment of its
own) merge the same fine-tunes into the same base by TIES at the same density, each as a whole process into
a fresh directory, taking turns. persona's output is fsynced, checked against its hashes and digested;
mergekit's is neither.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import harness

PEER = "mergekit==0.1.5"


def mergekit(environment: Path) -> Path:
    """`mergekit-yaml` in a virtual environment, made where there is none."""
    command = environment / "bin" / "mergekit-yaml"
    if not command.exists():
        print(f"installing {PEER} into {environment} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip: list[str | Path] = [environment / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "-c", harness.ROOT / "constraints.txt", PEER], check=True)
    return command


def config(base: Path, tuned: list[Path], density: float) -> str:
    """mergekit's recipe (JSON is YAML)."""
    return json.dumps(
        {
            "merge_method": "ties",
            "base_model": str(base),
            "models": [
                {"model": str(path), "parameters": {"weight": 1.0, "density": density}} for path in tuned
            ],
            "parameters": {"normalize": True, "int8_mask": False},
            "dtype": "bfloat16",
        },
        indent=1,
    )


def main() -> None:
    """Parse, measure, print."""
    options = harness.parser(__doc__)
    options.add_argument("--density", default="1", help="on both sides (default: 1)")
    options.add_argument("--vectors", type=int, help="use only the first N fine-tunes")
    options.add_argument("--threads", help="persona's --threads")
    options.add_argument(
        "--peer",
        type=Path,
        default=harness.ROOT / ".venv-mergekit",
        help="mergekit's environment (default: .venv-mergekit)",
    )
    args = options.parse_args()
    base, tuned = harness.models_of(args.models)
    tuned = tuned[: args.vectors]
    peer = mergekit(args.peer.resolve())
    with harness.scratch(args.scratch) as work:
        repository = harness.repository(args.persona, work / "repository", base, tuned)
        harness.run([args.persona, "-C", repository, "set", "--merge", f"density={args.density}"])
        (work / "config.yaml").write_text(config(base, tuned, float(args.density)))
        ours, theirs = work / "ours", work / "theirs"
        threads = ["--threads", args.threads] if args.threads else []
        measured = harness.rounds(
            [
                harness.Contestant(
                    "persona checkout",
                    [args.persona, "-C", repository, "checkout", "-o", ours, "--json", *threads],
                    lambda: harness.remove(ours),
                ),
                harness.Contestant(
                    "mergekit-yaml 0.1.5",
                    [peer, work / "config.yaml", theirs, "--lazy-unpickle"],
                    lambda: harness.remove(theirs),
                ),
            ],
            args.rounds,
            warm_up=not args.no_warm_up,
        )
        report = json.loads(measured["persona checkout"][-1].output)
        weights = sum(path.stat().st_size for path in ours.glob("*.safetensors"))
    harness.show(
        f"checkout: TIES, {len(tuned)} vectors, density {args.density}, {weights / harness.MB:,.0f} MB",
        ["whole process", "median s", "all s", "peak MB"],
        [
            [
                name,
                f"{harness.seconds(runs):.2f}",
                " ".join(f"{one.seconds:.2f}" for one in runs),
                f"{harness.peak(runs) / harness.MB:,.0f}",
            ]
            for name, runs in measured.items()
        ],
    )
    print(
        f"\npersona is faster {harness.ratio(measured['mergekit-yaml 0.1.5'], measured['persona checkout'])};"
    )
    print(f"it computed {report['tensors_computed']} tensors and reused {report['tensors_reused']}.")


if __name__ == "__main__":
    main()
