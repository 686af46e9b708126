"""Runs trials in this process, without Ray: `python -m trials SPEC.yaml ...`. Prints their scores.

Specs that share base, layers, sequence length and batch size are trained in one pass. An interrupted trial resumes. Exit code:
0 when every record is complete, 2 on bad input, 1 otherwise.
"""

import trials.search_path  # noqa: F401  # first: a file in the working folder may shadow any other module

# isort: split
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trials.printable import printable
from trials.run.threads import adopt

if TYPE_CHECKING:
    from trials.hub.hub import Hub
    from trials.ledger.record import TrialRecord
    from trials.run.worker import Ended, Worker
    from trials.spec import TrialSpec


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slimsweep-trial", description=__doc__)
    parser.add_argument("specs", nargs="+", metavar="SPEC", help="a TrialSpec in YAML, such as STORAGE/ledger/KEY/spec.yaml")
    parser.add_argument("--storage", default="runs", help="storage root; the record goes to its ledger (runs)")
    parser.add_argument("--hub-mirror", help="folder laid out as org/name, read before the hub")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; cpus_per_trial of the sweep for equal numbers (1)")
    return parser


def main() -> int:
    from trials import command

    return command.run(_run)


def _run() -> int:
    options = parser().parse_args()
    adopt(options.threads)
    from trials.errors import InputError, StorageFailed
    from trials.ledger.storage import root
    from trials.spec import TrialSpec
    from trials.yaml_file import YamlFile

    try:
        specs = [YamlFile(root(path)).check(TrialSpec) for path in options.specs]
        import torch  # after the specs: a bad one is reported without waiting for it

        from trials.hub.hub import Hub
        from trials.ledger.record import Ledger, TrialRecord
        from trials.progress_line import ProgressLine
        from trials.run.worker import Worker

        torch.set_num_threads(options.threads)  # numbers are equal for equal threads only
        worker = Worker(Ledger(root(options.storage)), Hub(options.hub_mirror))
        shown = worker.session.observe = ProgressLine()
        specs = [pinned(spec, root(path), worker.session.hub) for spec, path in zip(specs, options.specs, strict=True)]
        try:
            records = run(worker, specs)
        finally:
            shown.clear()
        for path, record in zip(options.specs, records, strict=True):
            if record is None:
                print(f"{printable(path)}: another process runs this trial", file=sys.stderr)
        return max(report(record, worker) if isinstance(record, TrialRecord) else 1 for record in records)
    except InputError as error:
        print(printable(error), file=sys.stderr)
        return 2
    except StorageFailed as error:
        print(printable(error), file=sys.stderr)
        return 1


def pinned(spec: "TrialSpec", path: Path, hub: "Hub") -> "TrialSpec":
    """The spec, pinned to the current content of its names. A spec in its record's folder stays unchanged."""
    from trials.hub import pinning

    return spec if path.parent.name == spec.key else pinning.pinned(spec, hub)


def run(worker: "Worker", specs: "Sequence[TrialSpec]") -> "list[Ended]":
    """Runs the trials; None for one that another process runs. Raises InputError before the start where one cannot run."""
    from trials.data.survey import Survey
    from trials.models import devices, layout
    from trials.preflight import check

    settled, survey = [], Survey(worker.session.hub)
    for spec in specs:
        if spec.base.dtype == "auto":
            dtype = devices.half_type(devices.capability())
            spec = spec.model_copy(update={"base": spec.base.model_copy(update={"dtype": dtype})})
        if worker.session.ledger.complete(spec.key) is None:  # a complete trial needs neither its base nor its data
            if found := layout.of(spec.base, worker.session.hub):
                for note in layout.check(spec, found):
                    print(f"note: {note}", file=sys.stderr)
            check(spec, worker.session.hub, worker.session.tasks, survey)
        settled.append(spec)
    return worker.run_many(settled)


def report(record: "TrialRecord", worker: "Worker") -> int:
    """Prints the outcome of a trial and returns its exit code."""
    from trials.errors import InputError

    if record.failure and record.failure.kind == InputError.__name__:
        print(printable(record.failure.message), file=sys.stderr)
        return 2
    if record.failure:
        print(printable(record.failure.traceback), file=sys.stderr)
        return 1
    for role, score in record.scores.items():
        print(f"{printable(role):<14} {score.value:.4f} +- {score.stderr:.4f}  ({score.n} documents)")
    print(f"{sum(record.seconds.values()):.1f} s  {printable(worker.session.ledger.folder(record.key) / 'record.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
