"""Wrong CUDA kernels: a piece of the source, and what stands there instead."""

from __future__ import annotations

VOTES = "    for k in tl.range(0, VOTES, loop_unroll_factor=UNROLL):\n"
STEPS = """        if row_of_ptr is None:
            z = tl.load(row + lane, mask=inside, other=0)
            row += z_stride
"""
LOADED = "_loaded(row_of_ptr + k, row, z_stride, numbers, numbers_stride, lane, inside)"
ROW = f"{STEPS}        else:\n            z, number, steps = {LOADED}\n"
COUNTED = f"{STEPS}        else:\n            z, number, _ = {LOADED}\n"
TERM = "        alpha = tl.load(alpha_ptr + k)\n        cut = tl.load(cut_ptr + k)\n"
BASE = "    bits = tl.load(base_ptr + start + lane, mask=inside, other=0)\n"
STORE = "tl.store(out, result.to(bits.dtype), mask=inside)"
ADDS = "    for k in tl.range(VOTES, VOTES + ADDS, loop_unroll_factor=UNROLL):\n"
SIGNS = "        t = _change(_moved(word, z, DTYPE), b, DTYPE)\n"
BACKWARD = "(VOTES - 1 - k)"

MUTANTS = {
    "fusion allowed": ('"enable_fp_fusion": False', '"enable_fp_fusion": True'),
    "no mask on the base": (BASE, BASE.replace(", mask=inside, other=0", "")),
    "no mask on a vote": (VOTES + ROW + TERM, (VOTES + ROW + TERM).replace(", mask=inside, other=0", "")),
    "no mask on an addition": (ADDS + ROW, (ADDS + ROW).replace(", mask=inside, other=0", "")),
    "no mask on a vote that is counted": (
        COUNTED + SIGNS,
        (COUNTED + SIGNS).replace(", mask=inside, other=0", ""),
    ),
    "no mask on the order": ("order_ptr + start + lane, mask=inside, other=0", "order_ptr + start + lane"),
    "no mask on the output": (STORE, STORE.replace(", mask=inside", "")),
    "terms backward": (
        ROW + TERM,
        (ROW + TERM)
        .replace("row + lane", f"z_ptr + start + {BACKWARD} * z_stride + lane")
        .replace("_ptr + k", f"_ptr + {BACKWARD}"),
    ),
    "division that is not rounded": (
        "tl.math.div_rn(tl.where(total.to(tl.int32, bitcast=True) == 0, 1.0, total), divisor)",
        "tl.where(total.to(tl.int32, bitcast=True) == 0, 1.0, total) / divisor",
    ),
    "ties at the cut trimmed": ("tl.abs(t) < cut", "tl.abs(t) <= cut"),
    "a zero counted": ("p, q = v > 0.0, v < 0.0", "p, q = v >= 0.0, v < 0.0"),
    "halves rounded away from zero": ("bits + 0x7FFF + ((bits >> 16) & 1)", "bits + 0x8000"),
    "a lone vector only nearly itself": ("result = tl.where(alone, own, result)", "pass"),
    "untouched not left alone": ("untouched |= changed == 0", "untouched = changed == 0"),
    "the later of equals": (
        "p & (_magnitude(w) > _magnitude(total_p))",
        "p & (_magnitude(w) >= _magnitude(total_p))",
    ),
    "no mask on numbers": ("mask=inside & ~steps", "mask=~steps"),
    "no mask on steps beside numbers": ("mask=inside & steps", "mask=steps"),
    "numbers that are themselves": (
        "one = tl.where(steps, one, 2.0)\n            count_p",
        "pass\n            count_p",
    ),
    "a tie elects": ("positive, negative = e > 0.0, e < 0.0", "positive, negative = e >= 0.0, e < 0.0"),
}
