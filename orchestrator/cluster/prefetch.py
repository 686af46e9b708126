"""Fetches models and data from the hub once a node, before the node's trials request them all at the same time.

A node that joins later fetches with its first trial; huggingface_hub's file locks let one process of a node do it.
"""

from collections.abc import Callable, Iterator

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.config.model import SweepConfig
from trials.errors import InputError
from trials.hub.hub import SELF, Hub, find_source
from trials.models.gguf import TOKENIZER

_OTHER_FORMATS = ["*.pth", "*.gguf", "original/*"]  # transformers reads the weights as safetensors


def prestage(config: SweepConfig, say: Callable[[str], None]) -> None:
    """Fetches on every node that can run trials; InputError where a node cannot. Does nothing where all files are local."""
    wanted = sorted(set(_from_hub(config)))
    if not wanted:
        return
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    fetch = ray.remote(num_cpus=0, max_retries=2)(_fetch)
    answers = [
        fetch.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            config.model_dump_json()
        )
        for node in nodes
    ]
    where = f" on {len(nodes)} nodes" if len(nodes) > 1 else ""
    say(f"fetching {', '.join(wanted)}{where}, where it is not there yet ...")
    for node, answer in zip(nodes, answers, strict=True):
        try:
            problem = ray.get(answer)
        except ray.exceptions.RayTaskError:  # a bug: keep its traceback
            raise
        except ray.exceptions.RayError:  # the node has left the cluster
            continue
        if problem:
            raise InputError(f"node {node['NodeManagerAddress']}: {problem}")


def _from_hub(config: SweepConfig) -> Iterator[str]:
    """The models, data sets and tasks that are not local."""
    from trials.tasks import own_tasks
    from trials.tasks.tasks import Tasks

    hub = Hub(config.hub_mirror)
    yield from (spec.base.model for spec in config.baseline_specs() if not hub.has(spec.base.model))
    replayed = [config.data.replay.source] if config.data.replay.source else []
    for name in (name for name in [*config.data.mix, *replayed] if name != SELF):
        source = find_source(config.data, name)
        if hub.files(name, source) is None:
            yield source.dataset
    tasks, stock = Tasks(hub), set()
    for evaluation in config.eval.values():
        for name in evaluation.tasks:
            own, others = own_tasks.datasets(evaluation.include, name) if evaluation.include is not None else ([], [name])
            stock.update(others)
            yield from (dataset for dataset in own if not hub.has(dataset))
    for name in stock:
        if not tasks.bundled(name) and (hub.mirror is None or not all(map(hub.has, tasks.datasets(name)))):
            yield name


def _fetch(config: str) -> str | None:
    """Runs on a node: fills its cache with data, tasks and weights; returns the problem, None without one."""
    import huggingface_hub

    from orchestrator.preflight import check_inputs

    wanted = SweepConfig.model_validate_json(config)
    hub = Hub(wanted.hub_mirror)
    try:
        check_inputs(wanted)
        for base in {spec.base for spec in wanted.baseline_specs()}:
            if not hub.has(base.model) and base.gguf:
                huggingface_hub.snapshot_download(base.model, revision=base.revision, allow_patterns=[base.gguf, *TOKENIZER])
            elif not hub.has(base.model):
                huggingface_hub.snapshot_download(base.model, revision=base.revision, ignore_patterns=_OTHER_FORMATS)
    except (InputError, OSError) as error:
        return " ".join(str(error).split())[:300]
    return None
