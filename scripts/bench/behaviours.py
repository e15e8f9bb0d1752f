#!/usr/bin/env python
"""Trains the five behaviours of the example `companion` and measures them, from an empty repository.

    scripts/bench/behaviours.py --base build/demo/models/SmolLM2-135M-Instruct --work build/behaviours

The parts, in this order; `--only` takes some of them:

- `train`: one vector for each pattern.
- `each`: every vector alone: effect, control, check, the leakage matrix, damage.
- `methods`: one pattern trained as full weights, LoRA, a baked prompt and a contrastive pair.
- `removal`: the unwanted pattern removed by −τ and by −(τ⁺ − τ⁻).
- `revert`: all five in one recipe; one of them dropped by `revert`, against a recipe that never had it.
- `sweep`: one α of a recipe with two of them, and of one vector alone until its effect falls.
- `build`: `persona build` of all five in a repository of its own, and once more, when nothing is to do.
- `optimizers`, `warm`, `tune`, `presets`: optimizer_memory.py, optimizers.py, warm_start.py, tune.py and
  presets.py of this directory.

These are all numbers of docs/behaviour.md. Everything is kept in the directory `--work`, so a second run
repeats only what is missing. All commands are those of a user; the tables are Markdown.
`--smoke` trains two steps and asks four probes of each pattern: it tries the script, and its numbers mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import ROOT, machine

KEYS = ("listening", "patience", "openness", "suggesting", "voice")
UNWANTED = "suggesting"
COMPARED = "voice"
DROPPED = "openness"
SWEPT = ("listening", "voice")
TUNED = ("--seeds", "3", "--probes", "4", "--measurements", "9")
"""Of tune.py: what keeps it short."""
PRESETS = ("--probes", "8", "--text", "0.5", "--threads", "1")
"""Of presets.py: what keeps it short."""
ANSWERS = (0, 1, 8)  # pass, fail, inconclusive: each is an answer of verify
Json = Any


@dataclass(frozen=True)
class Bot:
    """A repository, and the command that works in it."""

    persona: Path
    root: Path
    base: Path
    smoke: bool

    def run(self, *words: str | Path, codes: Sequence[int] = (0,)) -> str:
        """The standard output of a command; RuntimeError if it fails. What it took goes to stderr."""
        command = [str(self.persona), "-C", str(self.root), *map(str, words)]
        if words[0] == "init":
            command = [str(self.persona), *map(str, words)]
        started = time.perf_counter()
        done = subprocess.run(command, env=environment(), text=True, capture_output=True)
        said = f"$ persona {' '.join(map(str, words))}"
        print(f"{said}  [exit {done.returncode}, {time.perf_counter() - started:.0f} s]", file=sys.stderr)
        if done.returncode not in codes:
            raise RuntimeError(f"{said}: exit {done.returncode}\n{done.stderr}{done.stdout}")
        return done.stdout

    def json(self, *words: str | Path, codes: Sequence[int] = (0,)) -> Json:
        """The result of a command: the last line, after those of progress."""
        return json.loads(self.run(*words, "--json", codes=codes).splitlines()[-1])

    def train(self, key: str) -> Json:
        """The vector of a pattern: trained now, or known already."""
        steps = ("--steps", "2") if self.smoke else ()
        path = self.root.parent / "trained" / f"{key}.json"
        found = self.json("train", key, *steps)[0]
        if found["trained"]:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found))
        return json.loads(path.read_text()) if path.exists() else found

    def verify(self, *words: str) -> Json:
        """The scores of a revision, or of vectors."""
        return self.json("verify", *words, codes=ANSWERS)

    def script(self, name: str, *words: str | Path, smoke: Sequence[str] = ()) -> None:
        """Runs another script of this directory, which prints its own tables."""
        command = [sys.executable, Path(__file__).with_name(name), *words, *(smoke if self.smoke else ())]
        subprocess.run([*map(str, command)], env=environment(), check=True)

    def branch(self, name: str, start: str = "main") -> None:
        """Goes to a branch of this name, which begins at `start` if it is new."""
        known = {one["name"] for one in self.json("branch")}
        self.run("switch", "--force", *((name,) if name in known else ("-c", name, start)))


def environment() -> dict[str, str]:
    """That of the commands: offline, and signed by nobody."""
    found = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    for who in ("PERSONA_AUTHOR", "PERSONA_COMMITTER"):
        found |= {f"{who}_NAME": "bench", f"{who}_EMAIL": "bench@example.org"}
    return found


# -- numbers and tables --------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table in Markdown."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(flush=True)


def title(text: str) -> None:
    """Prints the title of a part."""
    print(f"\n## {text}\n", flush=True)


def interval(found: Json) -> str:
    """A mean and its interval: `12.3 (10.1 … 14.4)`."""
    if found is None:
        return "–"
    return signed(found["mean"]) + f" ({signed(found['low'])} … {signed(found['high'])})"


def signed(number: float) -> str:
    """A number of nats with its sign."""
    return f"{number:+.1f}".replace("-", "−")


def rate(found: Json) -> str:
    """How many answers met the check."""
    return "–" if found is None else f"{found['met']}/{found['items']}"


def exact(found: Json, digits: int) -> str:
    """A mean and half of its interval's width."""
    return f"{found['mean']:.{digits}f} ± {(found['high'] - found['low']) / 2:.{digits}f}"


def effect_of(scores: Json, probe: str) -> Json:
    """The effect on one pattern's probes."""
    return next(effect for effect in scores["effects"] if effect["pattern"] == probe)


def effect_row(name: str, scores: Json, probe: str) -> list[str]:
    """Effect, control and check of a pattern's own probes."""
    effect = effect_of(scores, probe)
    splits = [interval(effect["splits"].get(split)) for split in ("seen", "unseen")]
    control = "–" if effect["control"] is None else signed(effect["control"])
    check = f"{rate(effect['before'])} → {rate(effect['after'])}"
    return [name, interval(effect["margin"]), *splits, control, check, effect["verdict"] or "–"]


EFFECT = ("", "effect (nats)", "seen form", "unseen form", "control", "check", "verdict")
DAMAGE = ("", "KL to the base", "same top token", "ratio of the losses")


def damage_row(name: str, scores: Json) -> list[str]:
    """The damage on neutral text."""
    damage = scores["damage"]
    return [name, exact(damage["kl"], 4), exact(damage["top"], 3), exact(damage["ratio"], 4)]


def spill_row(name: str, scores: Json, probes: Sequence[str], own: str | None = None) -> list[str]:
    """Δmargin on each pattern's probes; the own one is bold."""
    cells = []
    for probe in probes:
        margin = effect_of(scores, probe)["margin"]
        cell = f"{signed(margin['mean'])} ± {(margin['high'] - margin['low']) / 2:.1f}"
        cells.append(f"**{cell}**" if probe == own else cell)
    return [name, *cells]


# -- the parts -----------------------------------------------------------------------------------------------


def begin(bot: Bot) -> None:
    """A repository with the example's graph, if there is none."""
    if not (bot.root / "recipe.toml").exists():
        bot.run("init", bot.root, "--base", bot.base, "--example", "companion")
        if bot.smoke:
            for path in (bot.root / "graph" / "data").glob("*.probes.jsonl"):
                lines = path.read_text().splitlines(keepends=True)
                forms = (f'"split": "{split}"' for split in ("seen", "unseen"))
                path.write_text("".join("".join([one for one in lines if form in one][:2]) for form in forms))
            bot.run("commit", "-m", "ask less")


def train_all(bot: Bot) -> None:
    """Trains each pattern with one command."""
    bot.branch("each")
    title("Training")
    rows = []
    for key in KEYS:
        made = bot.train(key)
        rows.append(
            [
                key,
                str(made["steps"]),
                f"{made['seconds']:.0f}",
                f"{made['first_loss']:.2f} → {made['last_loss']:.2f}",
                f"{made['stored_bytes'] / 1e6:.1f}",
                f"{100 * made['changed_fraction']:.1f}",
            ]
        )
    table(("", "steps", "seconds", "loss", "MB stored", "% of weights changed"), rows)


def measure_each(bot: Bot) -> None:
    """Measures each vector alone."""
    bot.branch("each")
    names = {bot.train(key)["id"]: key for key in KEYS}
    found = {names[scores["about"]]: scores for scores in bot.verify("--each")}
    title("Each vector alone, at α = 1")
    table(EFFECT, [effect_row(key, found[key], key) for key in KEYS])
    print("Δmargin in nats; a row is a vector, a column the probes of a pattern:\n")
    table(("", *KEYS), [spill_row(key, found[key], KEYS, key) for key in KEYS])
    table(DAMAGE, [damage_row(key, found[key]) for key in KEYS])


def variant(name: str, data: dict[str, str], train: dict[str, str], sign: int = 1) -> str:
    """The file of a pattern that differs from another one in how it is trained."""
    lines = ["+++", f'key = "{name}"', f"sign = {sign}", "[data]"]
    lines += [f'{role} = "data/{file}"' for role, file in data.items()]
    lines += ["[train]", *(f"{key} = {value}" for key, value in train.items()), "+++", ""]
    return "\n".join(lines)


def settings_of(bot: Bot, key: str) -> dict[str, str]:
    """The `[train]` of a pattern of the example, as TOML values."""
    text = (bot.root / "graph" / f"{key}.md").read_text().split("+++")[1].partition("[train]")[2]
    pairs = (line.split("#")[0].partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def compare_methods(bot: Bot) -> None:
    """Trains one pattern in four ways."""
    bot.branch("methods")
    probes = {"probes": f"{COMPARED}.probes.jsonl"}
    dialogues = {"train": f"{COMPARED}.jsonl"}
    usual = settings_of(bot, COMPARED)
    lora = {name: value for name, value in usual.items() if name not in ("lr", "optimizer")}
    baked = {"prompt": f"{COMPARED}.prompt.txt", "turns": f"{COMPARED}.turns.jsonl"}
    pair = {**dialogues, "opposite": f"not-{COMPARED}.jsonl"}
    variants = {
        f"{COMPARED}-lora": (
            "LoRA",
            variant(f"{COMPARED}-lora", {**dialogues, **probes}, {**lora, "method": '"lora"'}),
        ),
        f"{COMPARED}-baked": ("baked prompt", variant(f"{COMPARED}-baked", {**baked, **probes}, usual)),
        f"{COMPARED}-pair": ("contrastive pair", variant(f"{COMPARED}-pair", {**pair, **probes}, usual)),
    }
    for key, (_, text) in variants.items():
        (bot.root / "graph" / f"{key}.md").write_text(text)
    bot.run("commit", "-m", f"{COMPARED}, to be trained in other ways", codes=(0, 1))
    made = {COMPARED: ("full weights", bot.train(COMPARED))}
    made |= {key: (label, bot.train(key)) for key, (label, _) in variants.items()}
    words = [word for key in made for word in ("--vector", key)]
    found = {scores["about"]: scores for scores in bot.verify(*words)}
    title(f"`{COMPARED}`, trained in four ways")
    rows = [(label, key, found[one["id"]], one) for key, (label, one) in made.items()]
    table(EFFECT, [effect_row(label, scores, key) for label, key, scores, _ in rows])
    others = [key for key in KEYS if key != COMPARED]
    table(("spill", *others), [spill_row(label, scores, others) for label, _, scores, _ in rows])
    table(
        (*DAMAGE, "MB stored", "seconds"),
        [
            [*damage_row(label, scores), f"{(one['stored_bytes'] or 0) / 1e6:.1f}", f"{one['seconds']:.0f}"]
            for label, _, scores, one in rows
        ],
    )


def remove_unwanted(bot: Bot) -> None:
    """Subtracts the unwanted pattern in two ways."""
    bot.branch("each")
    parts = bot.train(UNWANTED)["parts"]
    plus = next(name for name in parts if name.endswith("plus"))
    title(f"`{UNWANTED}` removed")
    rows = []
    for alpha in ("-0.5", "-1"):
        for label, words in (("τ", ("vector", "derive", UNWANTED)), ("(τ⁺ − τ⁻)", ())):
            name = f"removal{alpha}-{'alone' if words else 'pair'}"
            bot.branch(name, "main")
            known = UNWANTED in bot.json("show", "HEAD")["recipe"]["vectors"]
            if words and not known:
                # A run before this one may have given it another name.
                names = {one["id"]: one["name"] for one in bot.json("vector", "ls")}
                bot.run(*words, f"1 * {names.get(parts[plus], plus)}", "--alpha", alpha)
            elif not known:
                bot.run("train", UNWANTED, *(("--steps", "2") if bot.smoke else ()))
                bot.run("set", UNWANTED, "--alpha", alpha)
            bot.run("commit", "-m", f"remove {UNWANTED} by {label} at {alpha}", codes=(0, 1))
            rows.append((f"{alpha.replace('-', '−')} · {label}", bot.verify("HEAD")))
    table(EFFECT, [effect_row(label, scores, UNWANTED) for label, scores in rows])
    others = [key for key in KEYS if key != UNWANTED]
    table(("spill", *others), [spill_row(label, scores, others) for label, scores in rows])
    table(DAMAGE, [damage_row(label, scores) for label, scores in rows])


def drop_one(bot: Bot) -> None:
    """Drops one of five behaviours, and compares with a recipe that never had it."""
    recipes = {"all": KEYS, "without": tuple(key for key in KEYS if key != DROPPED)}
    for name, keys in recipes.items():
        bot.branch(name)
        for key in keys:
            bot.train(key)
        bot.run("commit", "-m", f"{', '.join(keys)}", codes=(0, 1))
    bot.branch("dropped", "all")
    if DROPPED in bot.json("show", "HEAD")["recipe"]["vectors"]:
        bot.run("revert", "--vector", DROPPED)
    found = {"all five": "all", f"after `revert {DROPPED}`": "dropped", f"never with {DROPPED}": "without"}
    scores = {label: bot.verify(branch) for label, branch in found.items()}
    title(f"All five in one recipe, and `{DROPPED}` dropped")
    table(("", *KEYS), [spill_row(label, one, KEYS) for label, one in scores.items()])
    table(
        (*DAMAGE, "weights"),
        [
            [*damage_row(label, one), f"`{one['weights'].removeprefix('blake3:')[:16]}`"]
            for label, one in scores.items()
        ],
    )


def sweep_one(bot: Bot) -> None:
    """Sweeps the α of one vector beside another one, and of one alone."""
    bot.branch("two")
    for key in SWEPT:
        bot.train(key)
    bot.run("commit", "-m", " and ".join(SWEPT), codes=(0, 1))
    beside, key = SWEPT
    for name, largest, step, words in ((key, 1.5, 0.5, ()), (key, 6, 1, ()), (beside, 12, 2, ("--alone",))):
        command = ("sweep", name, "--alpha", f"0:{largest}:{largest if bot.smoke else step}", "--probe", name)
        title(f"`persona {' '.join((*command, *words))}`")
        print(bot.run(*command, *words), flush=True)


def build_all(bot: Bot) -> None:
    """Builds the personality in a repository of its own, or prints what an earlier run of this part said."""
    own = replace(bot, root=bot.root.with_name("built"))
    begin(own)
    if bot.smoke:
        for path in (own.root / "graph").glob("*.md"):
            path.write_text(re.sub(r"steps = \d+", "steps = 2", path.read_text()))
    said = own.root.with_name("built.txt")
    build = ("build", *(("--force",) if bot.smoke else ()))
    if not said.exists():
        said.write_text(own.run(*build))
    title("`persona build`")
    print(said.read_text())
    started = time.perf_counter()
    print(own.run(*build), f"in {time.perf_counter() - started:.2f} s", flush=True)


def optimizers(bot: Bot) -> None:
    """The memory of the optimizers, and their losses on one pattern."""
    title("The optimizers")
    bot.script("optimizer_memory.py", "--base", bot.base)
    chart = bot.root.parent / "optimizers.png"
    bot.script("optimizers.py", "--base", bot.base, "--chart", chart, smoke=("--steps", "25"))


def warm_starts(bot: Bot) -> None:
    """Training that starts warm, in seven arms."""
    title("Warm starts")
    work = bot.root.parent / "warm"
    smoke = ("--seeds", "2", "--steps", "4", "--warm-steps", "1", "--probes", "6")
    bot.script("warm_start.py", "--base", bot.base, "--work", work, smoke=smoke)


def tune_all(bot: Bot) -> None:
    """`tune` against grids, on the recipe with all five."""
    bot.branch("all")
    title("All α together")
    bot.script("tune.py", "--bot", bot.root, *TUNED, smoke=("--seeds", "1", "--probes", "2"))


def compare_presets(bot: Bot) -> None:
    """The presets, at equal damage."""
    bot.branch("all")
    title("Presets")
    bot.script("presets.py", "--repository", bot.root, *PRESETS, smoke=("--settings", "ties"))


PARTS: dict[str, Callable[[Bot], None]] = {
    "train": train_all,
    "each": measure_each,
    "methods": compare_methods,
    "removal": remove_unwanted,
    "revert": drop_one,
    "sweep": sweep_one,
    "build": build_all,
    "optimizers": optimizers,
    "warm": warm_starts,
    "tune": tune_all,
    "presets": compare_presets,
}


def main() -> None:
    """Runs the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=ROOT / "build/demo/models/SmolLM2-135M-Instruct")
    parser.add_argument("--work", type=Path, default=ROOT / "build/behaviours")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--smoke", action="store_true", help="two steps, four probes a pattern")
    parser.add_argument("--persona", type=Path, default=Path(sys.executable).with_name("persona"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    bot = Bot(given.persona, (given.work / "bot").resolve(), given.base.resolve(), given.smoke)
    print(machine(), flush=True)
    started = time.perf_counter()
    begin(bot)
    for part in given.only:
        PARTS[part](bot)
    print(f"{(time.perf_counter() - started) / 60:.0f} minutes", flush=True)


if __name__ == "__main__":
    main()
