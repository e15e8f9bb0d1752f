"""The CUDA device over the memory of the host, for kernels that are interpreted."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from persona.merge.devices.cuda import CudaDevice


class Ready:
    """A stream, and an event, that is never behind."""

    def record(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Hosted(CudaDevice):
    """The device over the host's memory."""

    def __init__(self, kernels: ModuleType) -> None:
        super().__init__(0, kernels)
        self.where = torch.device("cpu")

    def _queue(self) -> tuple[Any, Any]:
        return Ready(), Ready()
