"""The options of the verbs of behaviour, declared once for Python and the command line.

`persona.history.options` says how. Annotations are evaluated here as well.
"""

from collections.abc import Sequence
from typing import Annotated

from persona.history.options import ComputeOptions, Device, Option, WorkOptions
from persona.history.settings import parse_digits
from persona.objects.rules import PRESETS


class TrainOptions(WorkOptions, total=False):
    """How a pattern is trained: `train`. In place of its file's `[train]`: method to warm_steps."""

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
    warm: Annotated[
        str | None,
        Option(
            "--warm",
            metavar="[none|moments|distil]",
            words=("none", "moments", "distil"),
            help="Steps before the training that start the optimizer from the pattern's demos.",
        ),
    ]
    warm_steps: Annotated[
        int | None,
        Option(
            "--warm-steps",
            metavar="N",
            parse=parse_digits,
            help="Steps of the warm start. Default: 10.",
        ),
    ]
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


class SweepOptions(ComputeOptions, total=False):
    """What else varies besides α, and what is measured: `sweep`."""

    preset: Annotated[
        str | Sequence[str] | None,
        Option(
            "--preset",
            metavar="P,…",
            completion=tuple(PRESETS),
            help="Measure under each of these presets. Default: the recipe's merge rules.",
        ),
    ]
    density: Annotated[
        str | float | Sequence[str | float] | None,
        Option(
            "--density",
            metavar="D,…",
            help="Measure at each of these densities of the vector. Default: the one in effect.",
        ),
    ]
    join: Annotated[
        str | Sequence[str] | None,
        Option(
            "--join",
            metavar="vote,add",
            completion=("vote", "add", "vote,add"),
            help="Measure the vector voting, adding, or both. Default: as in the recipe.",
        ),
    ]
    alone: Annotated[bool, Option("--alone", help="Leave the other vectors of the recipe out.")]
    probe: Annotated[
        str | Sequence[str] | None,
        Option(
            "--probe",
            metavar="KEY",
            completion="trainables",
            repeated=True,
            help="Measure spill only on the probes of this pattern. With NAME's own pattern, measure no"
            " spill. May be repeated.",
        ),
    ]
    max_damage: Annotated[
        float,
        Option(
            "--max-damage",
            metavar="R",
            parse=float,
            default=1.02,
            help="Largest ratio of the losses on neutral text, model to base. Default: 1.02.",
        ),
    ]
    checks: Annotated[bool, Option("--checks", help="Also generate answers for the checks of NAME's probes.")]


class AnswerOptions(WorkOptions, total=False):
    """How answers are made: `generate` and `chat`."""

    max_tokens: Annotated[
        int,
        Option(
            "--max-tokens",
            metavar="N",
            parse=parse_digits,
            default=256,
            help="End an answer after N tokens. Default: 256.",
        ),
    ]
    temperature: Annotated[
        float,
        Option(
            "--temperature",
            metavar="T",
            parse=float,
            default=0.0,
            help="Draw tokens at this temperature. Default: 0, the most likely token each time.",
        ),
    ]
    top_p: Annotated[
        float,
        Option(
            "--top-p",
            metavar="P",
            parse=float,
            default=1.0,
            help="Draw only among the likeliest tokens that have probability P together.",
        ),
    ]
    seed: Annotated[
        int | None,
        Option(
            "--seed",
            metavar="N",
            parse=parse_digits,
            help="Seed of the drawn tokens. Default: random.",
        ),
    ]
    device: Device
