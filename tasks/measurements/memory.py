"""Going on with fewer rows at a time where the device's memory runs out.

Rows do not depend on their neighbours, so passes over half as many give the same numbers but for rounding. How many fit is
remembered in ``Forwards``: what failed once is not tried again by whoever shares it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from tasks.measurements.language import Forwards

Row = TypeVar("Row")
Found = TypeVar("Found")


def fitting(
    rows: Sequence[Row], work: Callable[[Sequence[Row]], Found], forwards: Forwards | None = None
) -> Iterator[Found]:
    """``work`` on all rows, in as many consecutive parts as it takes for each to fit in memory.

    Raises ``torch.OutOfMemoryError`` where a single row does not.

    >>> list(fitting([1, 2, 3, 4, 5], sum, Forwards(most=2)))
    [3, 7, 5]
    """
    shared = forwards or Forwards()
    waiting = deque([rows])
    while waiting:
        part = waiting.popleft()
        if shared.most is not None and len(part) > shared.most:
            waiting.extendleft([part[shared.most :], part[: shared.most]])
            continue
        try:
            found = work(part)
        except torch.OutOfMemoryError:
            if not shared.halve(len(part)):
                raise
            waiting.appendleft(part)
        else:
            yield found
            continue
        # Only here: while the error is being handled its traceback holds the tensors of the pass that failed.
        release()


def until_it_fits(work: Callable[[], Found], forwards: Forwards, rows: int) -> Found:
    """``work()``, all of it again with half the rows a pass whenever memory ran out, of ``rows`` at first.

    For what cannot be taken up in the middle, such as a search by gradients. Raises ``torch.OutOfMemoryError`` where
    passes over a single row do not fit.
    """
    while True:
        try:
            return work()
        except torch.OutOfMemoryError:
            if not forwards.halve(rows):
                raise
        release()


def release() -> None:
    """Gives cached blocks back to the device: halves need blocks of other sizes."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
