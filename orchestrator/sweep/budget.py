"""The budget of a sweep: its limits, what has been spent, and whether another trial fits. No I/O; the clock is handed in."""

from collections.abc import Callable


class Budget:
    def __init__(self, trials: int | None, gpu_hours: float | None, hours: float | None, clock: Callable[[], float]):
        """None is no limit. `clock` counts seconds and never jumps; the sweep runs from now on."""
        self.trials, self._gpu_hours, self._hours = trials, gpu_hours, hours
        self._clock, self._began = clock, clock()
        self._before = (0.0, 0.0)
        self.gpu_seconds = 0.0
        """Spent by this driver."""

    @property
    def spent(self) -> tuple[float, float]:
        """GPU-seconds (a CPU worker counts as one GPU) and seconds of all commands that have run this sweep."""
        gpu_seconds, seconds = self._before
        return gpu_seconds + self.gpu_seconds, seconds + self._clock() - self._began

    def spend(self, seconds: float, gpus: float) -> None:
        self.gpu_seconds += seconds * gpus

    def restore(self, spent: tuple[float, float]) -> None:
        """Sets what other drivers and earlier commands spent."""
        self._before = spent

    def count_others(self, gpu_seconds: float) -> None:
        """Sets the GPU-seconds of all other drivers. Their seconds run in parallel to this driver's and are not added."""
        self._before = (gpu_seconds, self._before[1])

    def allows_another(self, counted: int) -> bool:
        """Whether another trial may be proposed after `counted` trials. Trials that run already may exceed the budget."""
        gpu_seconds, seconds = self.spent
        return (
            (self.trials is None or counted < self.trials)
            and (self._gpu_hours is None or gpu_seconds < self._gpu_hours * 3600)
            and (self._hours is None or seconds < self._hours * 3600)
        )

    def left(self, counted: int) -> int | None:
        """Trials that may still be proposed; None where only time limits them."""
        return None if self.trials is None else max(self.trials - counted, 0)
