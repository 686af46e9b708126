"""`python -m tests.gpu_check --folder DIR`: runs the parts that have not passed yet; DIR/results.json and results.md.

A part that passed on this machine with this base and code is not run again, so that a call that was cut off goes on where it
stopped; `--minutes` begins no part after so long. `--parts a,b` runs these, passed or not. Exit code 1 if a part has failed.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}  # before libraries read them

import torch

from tests.gpu_check import memory, numerics, programs, sweeps
from tests.gpu_check.finding import Finding, World, code
from trials.run import provenance

PARTS: dict[str, Callable[[World], Iterator[Finding]]] = {
    "layers": numerics.layers,
    "methods": numerics.methods,
    "float16": numerics.float16,
    "engine": numerics.engine,
    "training": numerics.training,
    "graphs": memory.graphs,
    "short": memory.short,
    "estimate": memory.estimate,
    "fractions": sweeps.fractions,
    "killed": sweeps.killed,
    "programs": programs.programs,
}


def run(name: str, world: World) -> dict[str, Any]:
    """The outcome of a part: passed, failed with the reason, or not applicable here."""
    began, findings, reason = time.perf_counter(), [], None
    try:
        findings = list(PARTS[name](world))
    except Exception:  # noqa: BLE001  # the other parts are to run all the same
        reason = traceback.format_exc()
    broken = reason is not None or not all(finding.holds for finding in findings)
    state = "failed" if broken else "passed" if findings else "needs a GPU"
    return {
        "state": state,
        "seconds": round(time.perf_counter() - began, 1),
        "findings": [{**asdict(finding), "bounds": finding.bounds, "holds": finding.holds} for finding in findings],
        "reason": reason,
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# GPU check", "", *dict.fromkeys(f"- {_where(part['here'])}" for part in results["parts"].values()), ""]
    lines += ["| part | state | seconds | measured | value | bounds |", "|---|---|---:|---|---:|---|"]
    for name, part in results["parts"].items():
        head = f"| {name} | {part['state']} | {part['seconds']:g} |"
        rows = [
            f" {one['what']} | {one['value']:.4g}{'' if one['holds'] else ' (!)'} | {one['bounds']} |"
            for one in part["findings"]
        ]
        lines += [head + rows[0], *("| | | |" + row for row in rows[1:])] if rows else [f"{head} | | |"]
    reasons = {name: part["reason"] for name, part in results["parts"].items() if part["reason"]}
    lines += [line for name, reason in reasons.items() for line in ("", f"## {name}", "", "```", reason.rstrip(), "```")]
    return "\n".join(lines) + "\n"


def _where(here: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    return f"{here['machine']}, base {here['base']}, code {str(here['code'])[:12]}, {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument(
        "--mirror", help="a folder with SmolLM2-135M-Instruct and the benchmarks, laid out as the hub; default: micro"
    )
    parser.add_argument("--parts", default="", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args()
    wanted = [name for name in options.parts.split(",") if name]
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    base = "smollm2" if options.mirror else "micro"
    here = {"machine": machine(), "base": base, "code": code(), "versions": provenance.versions()}
    options.folder.mkdir(parents=True, exist_ok=True)
    began, kept = time.monotonic(), options.folder / "results.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {"parts": {}}
    passed = {name for name, part in results["parts"].items() if part["state"] == "passed" and part["here"] == here}
    for name in wanted or [name for name in PARTS if name not in passed]:
        if time.monotonic() - began > 60 * options.minutes:
            print(f"{options.minutes:g} minutes are over: call again for {name} and what comes after it")
            break
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=options.folder))  # a new one for every try
        results["parts"][name] = run(name, World(folder, base, options.mirror)) | {"here": here}
        kept.write_text(json.dumps(results, indent=1))
        (options.folder / "results.md").write_text(page(results))
        print(f"{name}: {results['parts'][name]['state']} after {results['parts'][name]['seconds']:g} s", flush=True)
    print(options.folder / "results.md")
    return int(any(part["state"] == "failed" for part in results["parts"].values()))


def machine() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"


if __name__ == "__main__":
    sys.exit(main())
