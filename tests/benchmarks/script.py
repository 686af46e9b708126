"""The sweep as its users would write it without slimsweep, plain or well tuned: `python -m tests.benchmarks.script JOB.json`.

Plain: a Ray Tune function that loads the model, the task manager and the tokenizer for every trial, trains with PEFT and the
Trainer, which looks at the loss of held-out rows at the end, and scores with lm-eval's HFLM at its defaults. Tuned: one actor
after the other's trials with all of that kept at module level, HFLM with batches of 64, and a Trainer that neither logs nor
saves. JOB.json names the base, the rows (token numbers and labels), those held out, the evaluations and the trials; each trial
leaves its seconds by phase and its documents' outcomes.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEPT: dict[str, Any] = {}


def kept(name: str, make: Any, tuned: bool) -> Any:
    """What a tuned script makes once a process."""
    if not tuned or name not in KEPT:
        KEPT[name] = make()
    return KEPT[name]


def load(job: dict[str, Any]) -> tuple[Any, Any]:
    import bitsandbytes
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype = getattr(torch, job["dtype"])
    quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    quantized.bnb_4bit_use_double_quant = job["double_quantization"]
    place = {"": 0 if torch.cuda.is_available() else "cpu"}
    model = AutoModelForCausalLM.from_pretrained(job["model"], quantization_config=quantized, dtype=dtype, device_map=place)
    for module in model.modules():  # on some CPUs bitsandbytes would evaluate in bfloat16, and train on weights rounded for it
        if isinstance(module, bitsandbytes.nn.Linear4bit) and dtype == torch.float32:
            module.support_avx512bf16_for_cpu = False
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return model, tokenizer


def train(model: Any, tokenizer: Any, job: dict[str, Any], trial: dict[str, Any], folder: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    torch.manual_seed(trial["seed"])
    model.requires_grad_(False)
    model = get_peft_model(
        model,
        LoraConfig(task_type="CAUSAL_LM", r=trial["rank"], lora_alpha=trial["alpha"], target_modules=job["target_modules"]),
    )
    if not job["rows"]:
        return model
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=job["micro_batch_size"],
        gradient_accumulation_steps=job["batch_size"] // job["micro_batch_size"],
        num_train_epochs=1,
        learning_rate=trial["learning_rate"],
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=trial["warmup_steps"],
        max_grad_norm=job["max_grad_norm"],
        weight_decay=job["weight_decay"],
        train_sampling_strategy="sequential",
        seed=trial["seed"],
        save_strategy="no",
        report_to="none",
        logging_steps=1 if not job["tuned"] else 500,
        eval_strategy="epoch" if job["heldout"] else "no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    collate = DataCollatorForSeq2Seq(tokenizer, padding=True)
    rows = {"train_dataset": job["rows"], "eval_dataset": job["heldout"]}
    Trainer(model=model, args=arguments, data_collator=collate, **rows).train()
    return model.eval()


def score(model: Any, tokenizer: Any, job: dict[str, Any], tuned: bool, done: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row per document: task, doc_id, score, response. `done` is told every role as it ends."""
    import lm_eval
    import lm_eval.utils
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from trials.evaluation import documents, evaluate
    from trials.hub.hub import Hub
    from trials.spec import Evaluation
    from trials.tasks import splits
    from trials.tasks.tasks import Tasks

    # trials.tasks has templates compiled once; here each text compiles its own, as lm-eval does
    lm_eval.utils.apply_template = lambda template, doc: lm_eval.utils.env.from_string(template).render(**doc)

    manager = kept("manager", TaskManager, tuned)
    tasks = kept("tasks", lambda: Tasks(Hub(job["mirror"])), tuned)
    rows = []
    model_of = HFLM(pretrained=model, tokenizer=tokenizer, **({"batch_size": 64} if tuned else {}))
    for role, told in job["eval"].items():
        evaluation = Evaluation.model_validate(told)
        built = tasks.build(evaluation)
        for task in built.values():  # lm-eval's own walk through the documents again
            vars(task).pop("doc_iterator", None)
        samples = splits.sample({name: len(t.eval_docs) for name, t in built.items()}, evaluation.documents, evaluation.seed)
        found = lm_eval.simple_evaluate(
            model=model_of,
            tasks=[built[name] for name in samples],
            task_manager=manager,
            samples=samples,
            bootstrap_iters=0,
            log_samples=True,
        )
        for name, entries in found["samples"].items():
            outcome = documents.outcomes(role, name, evaluation, entries, evaluate.measures(built[name], evaluation))
            rows += outcome[["role", "task", "doc_id", "score", "response"]].to_dict("records")
        done(f"evaluate.{role}")
    return rows


def run(job: dict[str, Any], trial: dict[str, Any]) -> None:
    import tempfile

    seconds, began = {}, time.perf_counter()

    def lap(phase: str) -> None:
        nonlocal began
        seconds[phase], began = round(time.perf_counter() - began, 3), time.perf_counter()
        print(trial["name"], phase, seconds[phase], flush=True)

    import torch

    torch.set_num_threads(job["threads"])
    model, tokenizer = kept("base", lambda: load(job), job["tuned"])
    lap("load")
    with tempfile.TemporaryDirectory() as folder:
        tuned = train(model, tokenizer, job, trial, folder) if trial["rank"] else model
    lap("train")
    documents = score(tuned, tokenizer, job, job["tuned"], lap)
    if job["tuned"] and trial["rank"]:
        tuned.unload()
    out = Path(job["out"]) / f"{trial['name']}.json"
    out.write_text(json.dumps({"seconds": seconds, "documents": documents}))


def sweep(path: str) -> None:
    """All trials of the job, on Ray Tune."""
    import ray
    from ray import tune

    job = json.loads(Path(path).read_text())

    class Kept(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.trial = config["trial"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.trial = new_config["trial"]
            return True

        def step(self) -> dict[str, Any]:
            run(json.loads(Path(path).read_text()), self.trial)
            return {"done": True}

    def plain(config: dict[str, Any]) -> None:
        run(json.loads(Path(path).read_text()), config["trial"])

    ray.init(num_cpus=job["workers"], include_dashboard=False, logging_level="ERROR")
    trainable: Any = Kept if job["tuned"] else plain
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"trial": tune.grid_search(job["trials"])},
        tune_config=tune.TuneConfig(reuse_actors=job["tuned"]),
        run_config=tune.RunConfig(storage_path=str(Path(job["out"]).absolute() / "ray"), verbose=0),
    ).fit()


if __name__ == "__main__":
    sweep(sys.argv[1])
