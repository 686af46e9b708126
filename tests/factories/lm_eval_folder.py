"""Worlds for tests: folders as lm-eval 0.4.13's command line writes them with --output_path and --log_samples."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TIME = "2026-05-01T10-00-00.000001"
LATER = "2026-05-02T10-00-00.000001"
FILTERS = {"gsm": ("strict-match", "flexible-extract"), "swag": ("none",), "notes": ("none",), "sums": ("none",)}
METRICS = {
    "gsm": ("exact_match",),
    "swag": ("acc", "acc_norm"),
    "notes": ("word_perplexity", "bits_per_byte"),
    "sums": ("distance",),
}
HIGHER = {"notes": {"word_perplexity": False, "bits_per_byte": False}, "sums": {"distance": False}}
"""Tasks with metrics that are better when lower: a perplexity, and an error by a function of the task."""
CONFIGS: dict[str, dict[str, Any]] = {
    "gsm": {
        "output_type": "generate_until",
        "num_fewshot": 2,
        "generation_kwargs": {"until": ["Question:"], "do_sample": False},
        "fewshot_delimiter": "\n\n",
        "target_delimiter": " ",
    },
    "swag": {"output_type": "multiple_choice", "num_fewshot": 0, "target_delimiter": " ", "fewshot_delimiter": "\n\n"},
    "notes": {
        "output_type": "loglikelihood_rolling",
        "num_fewshot": 0,
        "metric_list": [
            {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
            {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
        ],
    },
    "sums": {
        "output_type": "generate_until",
        "num_fewshot": 0,
        "metric_list": [{"metric": "def distance(references, predictions):\n    ...\n", "aggregation": "mean"}],
    },
}


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _values(task: str, number: int, right: bool) -> dict[str, Any]:
    """What lm-eval logs of a document's metrics."""
    if task == "notes":
        nats = -8.0 if right else -12.0
        return {"word_perplexity": [nats, 4 + number % 3], "bits_per_byte": [nats, 20 + number % 3]}
    return {"distance": 0.0 if right else 0.5} if task == "sums" else dict.fromkeys(METRICS[task], float(right))


def sample(task: str, number: int, right: bool) -> list[dict[str, Any]]:
    """The entries of a document, one a filter."""
    if task == "notes":
        doc = {"note": f"Note {number} of the shop."}
        prompt = target = doc["note"]
        arguments: dict[str, Any] = {"gen_args_0": {"arg_0": prompt}}
        resps: list[Any] = [[str(_values(task, number, right)["word_perplexity"][0])]]
    elif task in ("gsm", "sums"):
        doc = {"question": f"How much is {number} and 1?", "answer": f"#### {number + 1}"}
        prompt = f"Question: How much is 1 and 1?\nAnswer: #### 2\n\nQuestion: {doc['question']}\nAnswer:"
        target = doc["answer"]
        arguments = {"gen_args_0": {"arg_0": prompt, "arg_1": CONFIGS["gsm"]["generation_kwargs"]}}
        # a wrong answer lacks the marker, and its number is right: the laxer filter finds it
        resps = [[f" #### {number + 1}" if right else f" {number + 1}"]]
    else:
        doc = {"ctx": f"Situation {number}: she", "endings": ["sings.", "flies away."], "label": 0}
        prompt, target = doc["ctx"], "0"
        arguments = {f"gen_args_{i}": {"arg_0": prompt, "arg_1": f" {text}"} for i, text in enumerate(doc["endings"])}
        levels = (-1.5, -20.25) if right else (-20.25, -1.5)
        resps = [[[str(level), str(level > -2)]] for level in levels]
    hashes = {"doc_hash": digest(json.dumps(doc, indent=2)), "prompt_hash": digest(prompt), "target_hash": digest(target)}
    common = {"doc_id": number, "doc": doc, "target": target, "arguments": arguments, "resps": resps}
    return [
        {
            **common,
            "filtered_resps": [one[0] for one in resps],
            "filter": name,
            "metrics": list(METRICS[task]),
            **hashes,
            **_values(task, number, right or name == "flexible-extract"),
        }
        for name in FILTERS[task]
    ]


def write(
    out: Path, arguments: Mapping[str, str], right: Mapping[str, Sequence[bool]], time: str = TIME, **results: Any
) -> Path:
    """Writes a run and returns its folder. `right`: by task, gsm or swag, the outcome of each document.

    `results` replaces sections of the results file.
    """
    model = arguments.get("peft", arguments["pretrained"])
    folder = out / model.replace("/", "__")
    folder.mkdir(parents=True, exist_ok=True)
    samples = {
        task: [
            entry
            for name in range(len(FILTERS[task]))
            for number, one in enumerate(outcomes)
            for entry in sample(task, number, one)[name : name + 1]
        ]
        for task, outcomes in right.items()
    }
    for task, entries in samples.items():
        lines = "".join(json.dumps(entry) + "\n" for entry in entries)
        (folder / f"samples_{task}_{time}.jsonl").write_text(lines)
    content = {
        "results": {task: _results(task, entries) for task, entries in samples.items()},
        "group_subtasks": {},
        "configs": {task: {"task": task, **CONFIGS[task]} for task in samples},
        "versions": dict.fromkeys(samples, 1.0),
        "higher_is_better": {task: HIGHER[task] for task in samples if task in HIGHER},
        "n-samples": {task: {"original": len(right[task]), "effective": len(right[task])} for task in samples},
        "config": {
            "model": "hf",
            "model_args": dict(arguments),
            "model_dtype": "torch.float32",
            "device": "cpu",
            "limit": None,
        },
        "lm_eval_version": "0.4.13",
        "transformers_version": "5.23.0",
        "task_hashes": {
            task: digest("".join(one["doc_hash"] + one["prompt_hash"] + one["target_hash"] for one in entries))
            for task, entries in samples.items()
        },
        "model_name": model,
        "total_evaluation_time_seconds": "12.5",
    }
    (folder / f"results_{time}.json").write_text(json.dumps({**content, **results}, indent=2))
    return folder


def _results(task: str, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": task, "sample_len": len(entries) // len(FILTERS[task])}
    for name in FILTERS[task]:
        own = [entry for entry in entries if entry["filter"] == name]
        for metric in METRICS[task]:
            found[f"{metric},{name}"] = _aggregate(metric, [entry[metric] for entry in own])
            found[f"{metric}_stderr,{name}"] = 0.01
    return found


def _aggregate(metric: str, values: Sequence[Any]) -> float:
    if metric not in HIGHER["notes"]:
        return float(sum(values) / len(values))
    nats, sizes = (sum(column) for column in zip(*values, strict=True))
    return math.exp(-nats / sizes) if metric == "word_perplexity" else -nats / sizes / math.log(2)


def shares(right: int, of: int = 60, start: int = 0) -> list[bool]:
    """`right` documents in a row of `of`, from `start` on."""
    return [start <= number < start + right for number in range(of)]


def base_and_tunes(out: Path) -> Path:
    """A base, and two adapters of it: `careful` keeps what the base can do on gsm, `greedy` loses half of it."""
    write(out, {"pretrained": "org/base"}, {"gsm": shares(50), "swag": shares(30)})
    write(out, {"pretrained": "org/base", "peft": "me/careful"}, {"gsm": shares(49), "swag": shares(40)})
    write(out, {"pretrained": "org/base", "peft": "me/greedy"}, {"gsm": shares(25), "swag": shares(50)})
    return out
