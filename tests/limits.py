"""Calls that a workspace limit may refuse: `python limits.py FIRST COUNT LOG`.

A refused call has written nothing: each output still has the bits that it was filled with.
test_properties.py runs this in processes of their own; LOG has what was drawn last.
"""

import sys
from collections.abc import Callable
from typing import Any, TextIO

import fastconv
from cases import ConvCase
from checks import at_rank, op
from memory import Placed, random_place
from views import Call

LEAST_REFUSED = 0.2  # of the calls: with fewer this program would prove little
SIZES = {1: (90,), 2: (19, 21), 3: (5, 6, 13)}


class LimitedCall(Call):
    """A drawn call with outputs that must stay as they are where it is refused."""

    def output(self, shape: tuple[int, ...]) -> Placed:
        place = random_place(self.rng, len(shape))
        self.note("out", shape, place)
        return Placed(shape, self.dtype, place)

    def refuses(self, call: Callable[[], Any], outs: list[Placed]) -> bool:
        """Whether the call was; then every cell of the outputs is held to be as it was."""
        try:
            with fastconv.num_threads(self.threads):
                call()
        except ValueError as error:
            if "workspace_limit" not in str(error):
                raise
            for out in outs:
                out.own[...] = False
        for out in outs:
            out.check()
        return not outs[0].own.any()


def limited_case(call: Call) -> ConvCase:
    """Enough channels and pixels to need some workspace; some such as Winograd serves."""
    images, sizes = call.pick((1, 2, 3)), call.extents(*SIZES[call.axes])
    if call.axes == 2 and call.pick((False, True)):
        c, k, taps = call.pick((3, 17, 40)), call.pick((8, 33)), call.pick((3, 5))
        return ConvCase("plain", (images, c, *sizes), (k, c, taps, taps), padding=taps // 2)
    groups = call.pick((1, 1, 1, 2, 8))
    few = (1, 3) if groups == 8 else (1, 3, 8, 17, 40)
    c, k, taps = call.pick(few), groups * call.pick(few), call.extents(*(3,) * call.axes)
    pads = tuple((call.pick((0, 1, 2)) + n - 1, call.pick((2, 1, 0))) for n in taps)
    stride = call.extents(*(3,) * call.axes)
    return ConvCase(
        "drawn", (images, groups * c, *sizes), (k, c, *taps), stride, pads, groups=groups
    )


def limited(call: LimitedCall) -> bool:
    """Any pass with any limit; whether it was refused."""
    case = limited_case(call)
    names = ("auto", "implicit", "im2col", "direct") + ("winograd",) * (case.name == "plain")
    keywords = {
        **case.geometry,
        "layout": at_rank(call.layout, call.axes),
        "algorithm": call.pick(names),
        "workspace_limit": int(2 ** call.rng.uniform(4, 22)),
    }
    x, y = call.image(call.integers(case.x)), call.image(call.integers(case.y))
    w = call.array(call.integers(case.w))
    name = "conv{}d"
    if call.pick((False, True)):
        name, x, y = "conv_transpose{}d", y, x
        ends = ((a.size + a.before + a.after - a.span) % a.stride for a in case.axes)
        keywords["output_padding"] = tuple(ends)
    channels = y.shape[-1 if call.layout == "NHWC" else 1]
    which, args, shapes = call.pick(
        (
            ("", (x, w), (y.shape,)),
            ("_grad_input", (y, w, x.shape), (x.shape,)),
            ("_grad_weight", (y, x, w.shape), (w.shape,)),
            ("_grad", (y, x, w), (x.shape, w.shape, (channels,))),
        )
    )
    call.note(case, name, which, keywords)
    outs = [call.output(shape) for shape in shapes]
    views = tuple(out.view for out in outs)
    keywords["out"] = views if which == "_grad" else views[0]
    function = op(name + which, call.axes)
    return call.refuses(lambda: function(*args, **keywords), outs)


def main(first: int, count: int, log: TextIO) -> None:
    """Draw and check so many calls."""
    refused = sum(limited(LimitedCall(seed, log)) for seed in range(first, first + count))
    assert refused >= LEAST_REFUSED * count, f"{refused} of {count} calls were refused"
    print(count)


if __name__ == "__main__":
    with open(sys.argv[3], "w") as log_file:
        main(int(sys.argv[1]), int(sys.argv[2]), log_file)
