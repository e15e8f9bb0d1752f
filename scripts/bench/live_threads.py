#!/usr/bin/env python3
"""Does a live model that many threads use change its weights in time, and does everybody get their turn?

Threads use a tiny model without a pause, in one of three ways: single forward passes, `generate`, or whole
answers inside `live.using()`. The main thread calls `live.set` every 50 ms. The longest wait of both sides is
printed; where one took longer than LIMIT, the exit status is 1.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness

sys.path.insert(0, str(harness.ROOT))

PAUSE = 0.05
LIMIT = 2.0
HEADER = ["threads", "use", "sets", "worst set s", "uses", "worst use s"]
WAYS = {"forward": "one forward pass", "generate": "one token of an answer", "using": "one answer, held"}


def main() -> None:
    """Parse, make a model, let the threads loose, and print."""
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("threads", type=int)
    options.add_argument("seconds", type=float)
    options.add_argument("way", choices=WAYS)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as work:
        sets, uses = measure(Path(work), args.threads, args.seconds, args.way)
    row = [len(sets), f"{max(sets):.2f}", sum(map(len, uses)), f"{max(map(max, uses)):.2f}"]
    title = f"live.set every {PAUSE * 1000:.0f} ms for {args.seconds:.0f} s"
    harness.show(title, HEADER, [[str(args.threads), WAYS[args.way], *map(str, row)]])
    if max(*sets, *map(max, uses)) > LIMIT:
        sys.exit(f"something waited longer than {LIMIT} s")


def measure(work: Path, threads: int, seconds: float, way: str) -> tuple[list[float], list[list[float]]]:
    """The seconds that each set took, and for each thread those of each use."""
    import persona

    llama(work / "base", seed=0)
    llama(work / "tuned", seed=1)
    with persona.init(work / "bot", base=work / "base") as repo:
        repo.commit(work / "tuned", message="tune")
        live = repo.live(rev="HEAD", threads=1)
        over = threading.Event()
        uses: list[list[float]] = [[] for _ in range(threads)]
        failures: list[BaseException] = []

        def run(times: list[float]) -> None:
            use = user(live, way, times)
            try:
                while not over.is_set():
                    use()
            except BaseException as error:
                failures.append(error)
                raise

        workers = [threading.Thread(target=run, args=(times,)) for times in uses]
        for worker in workers:
            worker.start()
        sets: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end and not failures:
            time.sleep(PAUSE)
            started = time.perf_counter()
            live.set("tuned", alpha=0.1 + 0.8 * (len(sets) % 2))
            sets.append(time.perf_counter() - started)
        over.set()
        for worker in workers:
            worker.join()
        if failures:
            sys.exit(f"a thread failed: {failures[0]!r}")
        live.checkout("HEAD")
        if live.digest() != repo.digest("HEAD").weights:
            sys.exit("the digest of the parameters is not the recipe's")
        return sets, uses


def user(live: Any, way: str, times: list[float]) -> Callable[[], None]:
    """What a thread does all the time; it appends how long each use took, waiting included."""
    import torch

    model, words = live.model, torch.arange(8).reshape(1, 8)

    @torch.no_grad()
    def forward() -> None:
        started = time.perf_counter()
        model(words)
        times.append(time.perf_counter() - started)

    def generate() -> None:
        last = [time.perf_counter()]

        def token(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            now = time.perf_counter()
            times.append(now - last[0])
            last[0] = now
            return scores

        model.generate(
            words,
            attention_mask=torch.ones_like(words),
            do_sample=False,
            min_new_tokens=12,
            max_new_tokens=12,
            pad_token_id=0,
            logits_processor=[token],
        )

    @torch.no_grad()
    def using() -> None:
        started = time.perf_counter()
        with live.using():
            for _ in range(4):
                model(words)
        times.append(time.perf_counter() - started)

    return {"forward": forward, "generate": generate, "using": using}[way]


def llama(directory: Path, seed: int) -> None:
    """A tiny llama."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)


if __name__ == "__main__":
    main()
