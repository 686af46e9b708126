"""Trials, GPU-hours and hours: whichever runs out first."""

from orchestrator.sweep.budget import Budget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def budget(trials: int | None = None, gpu_hours: float | None = None, hours: float | None = None) -> Budget:
    return Budget(trials, gpu_hours, hours, Clock())


def test_number_of_trials_is_a_limit():
    two = budget(trials=2)
    assert [two.allows_another(counted) for counted in (0, 1, 2, 3)] == [True, True, False, False]
    assert [two.left(counted) for counted in (0, 1, 2, 3)] == [2, 1, 0, 0]


def test_gpu_hours_are_a_limit():
    one = budget(trials=9, gpu_hours=1)
    one.spend(1799, gpus=2)
    assert one.allows_another(0)
    one.spend(1, gpus=2)
    assert not one.allows_another(0)


def test_hours_are_a_limit():
    clock = Clock()
    one = Budget(None, None, 1, clock)
    clock.now += 3599
    assert one.allows_another(0)
    clock.now += 1
    assert not one.allows_another(0)


def test_spending_of_earlier_commands_counts():
    one = budget(gpu_hours=1, hours=1)
    one.restore((3000, 3599))
    assert one.spent == (3000, 3599)
    one.spend(600, gpus=1)
    assert one.gpu_seconds == 600
    assert one.spent == (3600, 3599)
    assert not one.allows_another(0)


def test_gpu_hours_of_other_drivers_count_and_their_hours_do_not():
    one = budget(gpu_hours=1, hours=1)
    one.restore((0, 60))
    one.spend(100, gpus=1)
    one.count_others(3500)
    assert one.spent == (3600, 60)


def test_no_limit_allows_any_number():
    assert budget().allows_another(10**9)
    assert budget().left(0) is None
