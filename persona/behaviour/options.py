"""The options of the verbs of behaviour, declared once for Python and the command line.

`persona.history.options` says how. Annotations are evaluated here as well.
"""

from typing import Annotated

from persona.history.options import Device, Option, WorkOptions
from persona.history.settings import parse_digits


class TrainOptions(WorkOptions, total=False):
    """How a pattern is trained: `train`. In place of its file's `[train]`: method to seed."""

    onto: Annotated[
        str | None,
        Option(
            "--onto",
            metavar="base|REV",
            completion="base_or_revision",
            help="Train the base (default), or the weights of REV.",
        ),
    ]
    method: Annotated[
        str | None,
        Option("--method", metavar="[full|lora]", words=("full", "lora"), help="Train weights, or a LoRA."),
    ]
    optimizer: Annotated[
        str | None,
        Option(
            "--optimizer",
            metavar="NAME",
            words=("apollo", "apollo-mini", "adamw"),
            help="apollo, apollo-mini or adamw.",
        ),
    ]
    steps: Annotated[int | None, Option("--steps", metavar="N", parse=parse_digits, help="Number of steps.")]
    batch: Annotated[
        int | None, Option("--batch", metavar="N", parse=parse_digits, help="Dialogues in a batch.")
    ]
    lr: Annotated[float | None, Option("--lr", metavar="X", parse=float, help="Learning rate.")]
    seed: Annotated[int | None, Option("--seed", metavar="N", parse=parse_digits, help="Seed of the run.")]
    alpha: Annotated[
        str | float | None,
        Option(
            "--alpha",
            metavar="A",
            help="Strength of the vector. Default: the pattern's sign.",
        ),
    ]
    save_every: Annotated[
        int | None,
        Option("--save-every", metavar="N", parse=parse_digits, help="Steps between two checkpoints."),
    ]
    resume: Annotated[bool, Option("--resume", help="Only go on with a run that was cut short.")]
    force: Annotated[bool, Option("-f", "--force", help="Train again, even if nothing changed.")]
    device: Device
