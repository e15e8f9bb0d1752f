"""The one step of the build that pyproject.toml has no words for: the machine code of the kernels.

Kernels are compiled for each level of this architecture and put into the package, so that nobody waits for a
compiler (docs/decisions/022). A build that cannot compile them still makes a working package, which compiles
its kernels when they are first called.
"""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = Path("persona", "codec", "native", "shipped")
LIMIT = 1800
"""Seconds for one level, which takes about 40 on a core of its own."""
LEVELS = "from persona.codec.native import processor; print(*[level.name for level in processor.levels()])"
SHIP = "import sys; from persona.merge.arithmetic.warm_up import ship; ship(*sys.argv[1:])"


def run(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a process that imports the persona that is being built."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=True)


def ship(level: str, into: Path) -> str | None:
    """Compiles the kernels for a level; returns why it could not."""
    try:
        run(SHIP, level, into)
    except (OSError, subprocess.SubprocessError) as error:
        return f"{level}: {reason(error)}"
    return None


def reason(error: Exception) -> str:
    """The last line that a process said before it failed, or the error."""
    said = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else ""
    return said.splitlines()[-1] if said else str(error)


class BuildWithKernels(build_py):
    """Builds the package, and the machine code of its kernels into it."""

    def run(self) -> None:
        """An editable install gets them into the source tree, where git ignores them. It gets byte code, too,
        which pip writes for other installs: the first command may not be able to.
        """
        super().run()
        root = ROOT if self.editable_mode else Path(self.build_lib)
        if self.editable_mode:
            compileall.compile_dir(ROOT / "persona", quiet=2)
        try:
            levels = run(LEVELS).stdout.split()
        except (OSError, subprocess.SubprocessError) as error:
            self.warn(f"kernels are not compiled, and will be when they are first called: {reason(error)}")
            return
        self.announce(f"compiling kernels for {', '.join(levels)}; this takes about a minute", level=2)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for problem in pool.map(lambda level: ship(level, root / SHIPPED / level), levels):
                if problem:
                    self.warn(f"kernels are not compiled, and will be when they are first called: {problem}")


class WheelWithKernels(bdist_wheel):
    """A wheel for this platform, for any version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """The tag in the wheel's name; for any platform if there is no machine code in it."""
        built = any(Path(self.bdist_dir).rglob("*.o"))
        return "py3", "none", super().get_tag()[2] if built else "any"


class WithMachineCode(Distribution):
    """A package that differs from platform to platform."""

    def has_ext_modules(self) -> bool:
        """There is machine code in it."""
        return True


setup(distclass=WithMachineCode, cmdclass={"build_py": BuildWithKernels, "bdist_wheel": WheelWithKernels})
