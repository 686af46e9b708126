"""The part of an error that concerns a task folder: its own code, at the innermost line."""

import traceback
from pathlib import Path


def told(error: BaseException, root: Path) -> BaseException:
    """The error that says what is wrong: the last one that the folder's code raised, else the error's cause.

    lm-eval calls a metric again, in another way, after a TypeError, and datasets wraps the reason of a failure.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    return next((one for one in chain if inside(one, root)), error.__cause__ or error)


def inside(error: BaseException, root: Path) -> list[traceback.FrameSummary]:
    """The frames of the folder's code, the outermost first."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(root)]
