"""**native kernel** — machine code of a numba kernel, called without importing numba.

**variant** — a kernel compiled for one combination of argument types.

Importing numba takes as long as a small checkout, and compiling all variants takes about a minute. So persona
looks for machine code in this order:

1. code for exactly this processor, in the user's cache (`code_files`);
2. code for the processor's level (x86-64-v3, x86-64-v4, …), which was compiled when persona was built and is
   installed with it (`processor`, `build`);
3. the compiler (`compiler`), whose code goes into the cache.

A file of machine code is named after everything that the code depends on (`key`), and carries a BLAKE3
digest. After linking (`link`), a kernel computes its golden cases (`golden`) before anybody uses it. Code
that is damaged, stale or wrong is never used: the next place in the list is tried.
"""

from __future__ import annotations

from persona.codec.native.kernel import Kernel, Kernels
from persona.codec.native.processor import has_compress
from persona.codec.native.watch import tell_of_compilation, watch_compilation

__all__ = ["Kernel", "Kernels", "has_compress", "tell_of_compilation", "watch_compilation"]
