"""Every accepted variant of LoRA against PEFT's own merge, to the bit.

A matrix product with fused multiply-add rounds otherwise than docs/numerics.md says. MKL has a mode without
it, COMPATIBLE, in which it adds in the order of the ranks. MKL reads the mode when it starts, so PEFT merges
in a process of its own: this file is that program, too. Convolutions are multiplied by another library.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.intake.peft_adapters import ACCEPTED, Trained, same, weights

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="PyTorch multiplies without MKL here")
def test_an_adapter_has_the_bits_that_peft_merges_without_fused_multiply_add(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.intake.test_bits_of_peft", tmp_path],
        cwd=ROOT,
        env=os.environ | {"MKL_CBWR": "COMPATIBLE"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [f"same: {name}" for name in ACCEPTED]


def main(place: Path) -> None:
    """Commits each variant in float32, and prints whether the checkout has the bits of PEFT's merge."""
    for number, (name, made) in enumerate(ACCEPTED.items()):
        trained = Trained(place / str(number), made, dtype=torch.float32)
        with trained.open() as repo:
            trained.commit(repo)
            found = same(weights(repo), trained.merged())
        sys.stdout.write(f"{'same' if found else 'other'}: {name}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
