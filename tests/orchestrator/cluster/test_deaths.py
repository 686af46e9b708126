"""The cause of a worker's death, out of what Ray reports."""

import types

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError

from orchestrator.cluster.deaths import _first_cause, out_of_memory_as_death


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        (
            "The actor died because of an error\n  File x\nModuleNotFoundError: No module named 'peft'",
            "ModuleNotFoundError: No module named 'peft'",
        ),
        (
            "The actor died.\n\tpid: 7\nWorker exit detail: Unexpected end of file. Some common causes include: (1) x",
            "Unexpected end of file.",
        ),
        ("Node is gone", "Node is gone"),
    ],
)
def test_report_is_one_line_without_advice(report, cause):
    assert _first_cause(report) == cause


def test_worker_that_ray_kills_for_lack_of_memory_has_died_and_does_not_end_the_run():
    """Ray Tune's own manager of actors, with a task of an actor that Ray has killed."""
    manager, told = RayActorManager(types.SimpleNamespace()), []  # its resources are not used
    actor = types.SimpleNamespace(actor_id=1, _on_error=lambda _, error: told.append(error))
    manager._cleanup_actor = lambda tracked_actor: None
    task = types.SimpleNamespace(_tracked_actor=actor, _on_error=None)
    error = OutOfMemoryError(
        "2 worker(s) were killed. Memory on the node (IP: 1) was 22.63GB used / 23.54GB limit (0.96)\nOOM ..."
    )
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(tracked_actor_task=task, exception=error)
    with out_of_memory_as_death():
        manager._actor_task_failed(tracked_actor_task=task, exception=error)
    assert [type(one) for one in told] == [RayActorError]
    assert _first_cause(str(told[0])) == "killed by Ray, because the machine was out of memory (22.63GB used / 23.54GB)"
    with pytest.raises(RuntimeError, match="unexpected exception"):
        manager._actor_task_failed(tracked_actor_task=task, exception=error)
