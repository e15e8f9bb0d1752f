"""`--device` and `--device-memory`, where there is no GPU and where there is one: the words, the exit codes,
and the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from persona.merge.devices import choose
from persona.merge.devices.device import NoDevice
from tests.cli.command_line import CommandLine
from tests.merge.devices.late import LateDevice

LINE = "computed on the CPU: there is no NVIDIA driver (libcuda.so.1)"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a driver."""

    def refuse() -> Any:
        raise NoDevice("there is no NVIDIA driver (libcuda.so.1)")

    monkeypatch.setattr(choose, "cuda_devices", refuse)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> LateDevice:
    """A machine with a GPU that is late."""
    device = LateDevice(seed=1)
    monkeypatch.setattr(choose, "cuda_devices", lambda: (device,))
    return device


@pytest.mark.parametrize("words", [["checkout"], ["checkout", "-o", "../out"], ["digest"]])
@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu_is_said_in_a_sentence(grown: CommandLine, words: list[str]) -> None:
    said = grown.refused(7, *words, "--device", "cuda")
    assert said.splitlines() == [
        "no GPU to compute on: there is no NVIDIA driver (libcuda.so.1)",
        "hint: use --device auto or --device cpu",
    ]
    assert not (grown.directory / "model.safetensors").exists()
    assert not (grown.directory.parent / "out").exists()


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_says_so_where_it_was_asked_for(grown: CommandLine) -> None:
    for words in (["digest"], ["checkout", "-o", "../out"]):
        asked = grown(*words, "--device", "auto")
        assert asked.exit_code == 0
        assert asked.stderr.count(LINE) == 1
    grown.ok("config", "checkout.device", "auto")
    assert LINE in grown("digest").stderr
    assert LINE not in grown("digest", "--device", "cpu").stderr


def test_without_a_flag_and_a_setting_the_cpu_merges_and_no_gpu_is_looked_for(
    grown: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "cuda_devices", lambda: pytest.fail("a GPU was looked for"))
    for words in (["checkout"], ["checkout", "-o", "../out"], ["digest"], ["identify", "../out"]):
        assert "CPU" not in grown(*words).stderr
    assert grown.json("checkout", "-o", "../out")["device"] == "cpu"


@pytest.mark.parametrize("word", ["auto", "cuda"])
def test_a_gpu_computes_the_same_bytes(grown: CommandLine, gpu: LateDevice, word: str) -> None:
    on_cpu = grown.json("checkout", "-o", "../cpu")
    here = grown.json("checkout", "--device", word)
    there = grown.json("checkout", "-o", "../out", "--device", word, "--device-memory", "1MB")
    merges = gpu.merges
    digest = grown.json("digest", "--device", word)
    assert [found["device"] for found in (on_cpu, here, there)] == ["cpu", "cuda", "cuda"]
    assert gpu.merges > merges > 0
    assert {found["weights"] for found in (on_cpu, here, there, digest)} == {on_cpu["weights"]}
    written = [directory / "model.safetensors" for directory in (grown.directory, Path("cpu"), Path("out"))]
    assert len({(grown.directory.parent / path).read_bytes() for path in written}) == 1


def test_a_gpu_without_room_is_said_in_a_sentence(grown: CommandLine, gpu: LateDevice) -> None:
    gpu.memory = 10
    said = grown.refused(7, "digest", "--device", "cuda")
    assert said.startswith("the GPU has 0 MiB free, but this recipe's chunks need at least 1 MiB")
    assert said.endswith("use --device cpu")
    found = grown("--json", "digest", "--device", "auto")
    assert found.exit_code == 0
    assert found.stderr.count("computed on the CPU: the GPU has 0 MiB free") == 1


@pytest.mark.usefixtures("gpu")
def test_memory_of_a_gpu_in_which_nothing_fits_is_a_usage_error(grown: CommandLine) -> None:
    grown.ok("config", "checkout.device", "auto")
    said = grown.refused(2, "digest", "--device-memory", "10")
    assert said.startswith(
        "this recipe's chunks need at least 1 MiB on the GPU\nhint: give --device-memory 1048576"
    )
    grown.ok("config", "checkout.device-memory", "12")
    assert grown.refused(2, "digest") == said
    grown.refused(4, "config", "checkout.device-memory", "much")
    config = grown.directory / ".persona" / "config"  # a user edits that too
    config.write_text(config.read_text().replace("12", '"much"'))
    assert grown.refused(4, "digest").startswith("config checkout.device-memory: 'much' is not a size")


def test_a_commit_that_computes_weights_does_it_where_the_settings_say(
    grown: CommandLine, gpu: LateDevice
) -> None:
    grown.ok("config", "commit.checkout", "true")
    grown.ok("config", "checkout.device", "auto")
    grown.ok("set", "listening", "--alpha", "0.25")
    assert "(cuda)" in grown.ok("commit", "-m", "less")
    merges = gpu.merges
    grown.ok("config", "checkout.device", "cpu")
    grown.ok("set", "listening", "--alpha", "0.125")
    assert "(cpu)" in grown.ok("commit", "-m", "still less")
    assert gpu.merges == merges


@pytest.mark.usefixtures("no_gpu")
def test_a_commit_that_could_not_compute_weights_records_nothing(grown: CommandLine) -> None:
    grown.ok("config", "commit.checkout", "true")
    grown.ok("config", "checkout.device", "cuda")
    grown.ok("set", "listening", "--alpha", "0.25")
    head = grown.ok("rev-parse", "HEAD")
    for words in (["commit", "-m", "less"], ["revert", "listening"]):
        assert grown.refused(7, *words).startswith("no GPU to compute on")
    assert grown.ok("rev-parse", "HEAD") == head
    grown.ok("config", "checkout.device", "auto")
    done = grown("commit", "-m", "less")
    assert done.exit_code == 0
    assert LINE in done.stderr
