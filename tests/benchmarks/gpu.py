"""One trial of a Llama-3.2-1B-shaped random model as the tuned script runs it and as slimsweep's worker does; `make bench-gpu`.

`python -m tests.benchmarks.gpu`, on a GPU where there is one. 2,000 rows to train on, all documents of HellaSwag, GSM8K with
five shots and MMLU computer science, of random words and the real lengths (see synthetic.py); no download, no Ray. Each program
has a process of its own and runs a small trial first; slimsweep then runs the trial at half the rank, which the first of a
worker's trials is, and at the whole one, which all others are. Prints seconds and asked tokens a second by phase, the share of
the phase's floor that is reached, peak memory, and what of the outcomes differs.

It takes over ten minutes. With `--folder DIR` what a program found stays there: `--programs slimsweep` and
`--programs tuned` may be two calls, and the second one compares.

The floor is counted operations and moved bytes over an H200's rates, whatever machine this is:
`--shape tiny --share 0.01 --rows 64 --batch 64 --dtype float32` shows on a CPU that all of it works, and no more.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import synthetic
from tests.benchmarks.programs import compare, job_of

RATE, BANDWIDTH = 990e12, 4.8e12  # of an H200: bfloat16 operations and bytes a second
RANK, LEARNING_RATE = 16, 2.0e-4
WARM = {"rows": 16, "documents": 1}
ROLES = {"commonsense": "hellaswag", "math": "gsm8k", "knowledge": "mmlu_cs"}


@dataclass(frozen=True)
class Floor:
    tokens: float
    """That the phase asks for, each ending with its context."""
    seconds: float
    """That the least work for them takes."""


def sweep(dtype: str, rows: int, batch: int, documents: int | None) -> dict[str, Any]:
    """The trial's settings; few-shot rows as lm-eval draws them for a full run, whatever the number of documents."""
    evaluation = {"documents": documents, "batch_size": batch, "fewshot": "stock"}
    return {
        "base": {"model": synthetic.MODEL, "dtype": dtype},
        "data": {"samples": rows, "mix": {"alpaca": 1.0}},
        "lora": {"rank": RANK, "alpha": 32, "target_modules": ["q_proj", "k_proj", "v_proj"]},
        "train": {"batch_size": 8, "micro_batch_size": 8, "learning_rate": LEARNING_RATE},
        "eval": {role: {"preset": preset, **evaluation} for role, preset in ROLES.items()},
    }


# ---------------------------------------------------------------------- the two programs


def tuned(folder: Path, whole: dict[str, Any], warm: dict[str, Any], mirror: str, threads: int) -> dict[str, Any]:
    from tests.benchmarks import script
    from trials.run import provenance

    job = job_of(whole, mirror, [(RANK, LEARNING_RATE)], 1)
    job |= {"tuned": True, "out": str(folder), "threads": threads}
    trial = job["trials"][1]
    script.run({**job, "rows": job["rows"][: WARM["rows"]], "eval": warm["eval"]}, trial)
    provenance.reset_peak_memory()
    script.run(job, trial)
    found = json.loads((folder / f"{trial['name']}.json").read_text())
    return {**found, "memory": provenance.peak_memory(), "lengths": [len(row["input_ids"]) for row in job["rows"]]}


def slimsweep(folder: Path, whole: dict[str, Any], warm: dict[str, Any], mirror: str, threads: int) -> dict[str, Any]:
    import torch

    from trials.hub.hub import Hub
    from trials.ledger.record import Ledger
    from trials.run.worker import Worker
    from trials.spec import TrialSpec

    torch.set_num_threads(threads)
    worker = Worker(Ledger(folder), Hub(mirror))
    first = {**whole, "lora": {**whole["lora"], "rank": RANK // 2}}
    for settings in (warm, first, whole):
        record = worker.run(TrialSpec.model_validate(settings))
        if record.failure:
            raise RuntimeError(record.failure.traceback)
        print(f"slimsweep, rank {record.spec.lora.rank}, {record.rows}:", json.dumps(record.seconds), flush=True)
    documents = worker.session.ledger.documents(record.key, ["role", "task", "doc_id", "score", "response"])
    return {"seconds": record.seconds, "documents": documents.to_dict("records"), "memory": record.peak_memory}


def alone(run: Callable[..., Any], *arguments: Any) -> Any:
    """In a process of its own: what it takes of the GPU is free again afterwards."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run, *arguments).result()


# ---------------------------------------------------------------------- floors


def floors(mirror: str, whole: dict[str, Any], sizes: synthetic.Sizes, lengths: list[int], generated: int) -> dict[str, Floor]:
    """By phase; `generated`: tokens of all responses."""
    from orchestrator.planning import benchmark_lengths, cost, model_shape
    from trials.hub.hub import Hub
    from trials.spec import TrialSpec

    spec = TrialSpec.model_validate(whole)
    shape, batch = model_shape.read_shape(spec.base, Hub(mirror)), spec.eval["math"].batch_size
    attended = 2 * shape.layers * shape.heads * shape.head_dim  # operations for a token and one that it sees, causal mean

    def passed(tokens: float, length: float, answered: float) -> float:
        """Operations where the head is asked for `answered` tokens alone."""
        return tokens * (2 * shape.linear + attended * length) + answered * 2 * shape.head

    rows, mean = sum(lengths), sum(lengths) / len(lengths)
    training = 2 * cost.forward(shape, rows, mean) + rows * (attended * mean + 6 * shape.adapter(spec))
    hellaswag, gsm8k, mmlu = (benchmark_lengths.lengths(spec.eval[role])[0] for role in ROLES)
    endings, prompt = hellaswag.requests * hellaswag.ending, gsm8k.context + gsm8k.examples
    wide = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2  # bytes of a token's keys and values
    steps = generated / min(batch, sizes.gsm8k)
    moved = steps * 2 * (shape.linear + shape.head) + generated * wide * (prompt + generated / sizes.gsm8k / 2)
    decode = max(passed(generated, 2 * prompt, generated) / RATE, moved / BANDWIDTH)
    questions, short = 2 * sizes.mmlu, mmlu.context + mmlu.ending
    choice = passed(sizes.hellaswag * (hellaswag.context + endings), hellaswag.context, sizes.hellaswag * endings)
    return {
        "train": Floor(rows, training / RATE),
        "evaluate.commonsense": Floor(
            sizes.hellaswag * hellaswag.requests * (hellaswag.context + hellaswag.ending), choice / RATE
        ),
        "evaluate.math": Floor(
            sizes.gsm8k * prompt + generated, passed(sizes.gsm8k * prompt, prompt, sizes.gsm8k) / RATE + decode
        ),
        "evaluate.knowledge": Floor(questions * short, passed(questions * short, short, questions) / RATE),
    }


# ---------------------------------------------------------------------- told


def table(found: Mapping[str, dict[str, Any]], floor: Mapping[str, Floor]) -> str:
    lines = [
        "| phase | floor, H200 | tuned | slimsweep | ratio | tokens/s, tuned | slimsweep | of the floor, tuned | slimsweep |",
        "|---|" + "---:|" * 8,
    ]
    one, other = (found[program]["seconds"] for program in ("tuned", "slimsweep"))
    for phase in dict.fromkeys([*other, *one]):
        cells = [f"{of[phase]:.2f} s" if phase in of else "" for of in (one, other)]
        ratio = f"{one[phase] / other[phase]:.2f}" if phase in one and other.get(phase) else ""
        least, speeds, shares = "", ["", ""], ["", ""]
        if phase in floor:
            least = f"{floor[phase].seconds:.4g} s"
            speeds = [f"{floor[phase].tokens / of[phase]:,.0f}" for of in (one, other)]
            shares = [f"{floor[phase].seconds / of[phase]:.1%}" for of in (one, other)]
        lines.append("| " + " | ".join([phase, least, *cells, ratio, *speeds, *shares]) + " |")
    totals = [sum(of.values()) for of in (one, other)]
    lines.append(f"| all | | {totals[0]:.2f} s | {totals[1]:.2f} s | {totals[0] / totals[1]:.2f} | | | | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=synthetic.SHAPES, default="1b")
    parser.add_argument("--share", type=float, default=1.0, help="of each benchmark's documents")
    parser.add_argument("--rows", type=int, default=2000, help="to train on")
    parser.add_argument("--batch", type=int, default=256, help="of slimsweep's evaluation; the tuned script has 64")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--programs", default="slimsweep,tuned")
    parser.add_argument("--folder", help="where what they found stays")
    options = parser.parse_args()
    sizes = synthetic.Sizes().share(options.share, options.rows)
    whole = sweep(options.dtype, options.rows, options.batch, None)
    warm = sweep(options.dtype, WARM["rows"], options.batch, WARM["documents"])
    with tempfile.TemporaryDirectory(prefix="slimsweep-gpu-") as temporary:
        os.environ |= {"HF_DATASETS_CACHE": f"{temporary}/datasets", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        os.environ["OMP_NUM_THREADS"] = str(options.threads)
        mirror = Path(temporary) / "mirror"
        alone(synthetic.write, mirror, options.shape, sizes, options.dtype)
        kept = Path(options.folder or temporary)
        for program in (slimsweep, tuned):
            if program.__name__ in options.programs.split(","):
                folder = Path(temporary) / program.__name__
                folder.mkdir()
                one = alone(program, folder, whole, warm, str(mirror), options.threads)
                (kept / f"{program.__name__}.json").write_text(json.dumps(one))
                print(program.__name__, json.dumps(one["seconds"]), flush=True)
        paths = {name: kept / f"{name}.json" for name in ("tuned", "slimsweep")}
        if not all(path.exists() for path in paths.values()):
            return
        found = {name: json.loads(path.read_text()) for name, path in paths.items()}
        responses = [row["response"] for row in found["tuned"]["documents"] if row["role"] == "math"]
        generated = sum(len(response.split()) for response in responses)
        floor = floors(str(mirror), whole, sizes, found["tuned"]["lengths"], generated)
        print(json.dumps({**vars(options), **asdict(sizes), "generated": round(generated / len(responses), 1)}))
        print(table(found, floor))
        for program, one in found.items():
            print(
                f"{program}: peak memory "
                + ", ".join(f"{where} {size / 2**30:.2f} GiB" for where, size in one["memory"].items())
            )
        trial = {program: {"trial": one} for program, one in found.items()}
        print(compare(trial["tuned"], trial["slimsweep"]))


if __name__ == "__main__":
    main()
