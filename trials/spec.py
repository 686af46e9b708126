"""TrialSpec: all settings that a trial's numbers depend on, frozen, and the key that names the trial.

Its sections are those of a sweep's config; `python -m trials` reads a file that holds just these.
"""

import hashlib
import json
import math
from typing import Any

from pydantic import Field, field_validator, model_validator

from trials import dotted_path
from trials.evaluation_section import FOLDER, STOCK_ENGINE, Evaluation
from trials.sections import Base, Count, Data, Derive, Lora, Replay, Section, Source, Train

__all__ = ["Base", "Count", "Data", "Derive", "Evaluation", "Lora", "Replay", "Section", "Source", "Train", "TrialSpec"]

SCHEMA = 2  # part of every key. Raise it when the same spec would give other numbers.


def plain_roles(roles: dict[str, Evaluation]) -> dict[str, Evaluation]:
    for role in roles:
        if not role.isidentifier():
            raise ValueError(f"a role is a plain word, but got {role!r}")
        if role == "learning":
            raise ValueError("the role 'learning' names what the training did; call the benchmark's role otherwise")
    return roles


class TrialSpec(Section):
    """One trial. Its numbers are a function of this alone."""

    base: Base
    data: Data
    lora: Lora = Lora()
    train: Train = Train()
    eval: dict[str, Evaluation] = Field(min_length=1)
    """Role -> benchmark."""
    derive: Derive = Derive()

    _plain_roles = field_validator("eval")(plain_roles)

    @model_validator(mode="after")
    def _compatible(self) -> "TrialSpec":
        if self.lora.use_dora and self.train.l2 > 0:
            raise ValueError("train.l2 is the size of B @ A, which is not what lora.use_dora adds to the base; use train.kl")
        if self.lora.method in ("oft", "shira") and self.train.l2 > 0:
            raise ValueError(f"train.l2 is the size of B @ A, which lora.method {self.lora.method} does not have; use train.kl")
        if self.lora.init == "loftq" and (self.base.quantization == "none" or self.base.gguf is not None):
            has = "base.gguf has none" if self.base.gguf is not None else "base.quantization is none"
            raise ValueError(f"lora.init loftq compares unquantised safetensors with their quantisation, and {has}")
        return self

    @model_validator(mode="after")
    def _derivable(self) -> "TrialSpec":
        derive, train, samples = self.derive, self.train, self.data.rows
        self._check_off()
        if derive.rank is not None and self.lora.use_dora:
            raise ValueError("derive.rank does not go with lora.use_dora: a DoRA adapter has no singular values to cut off")
        if derive.rank is not None and self.lora.method in ("oft", "shira"):
            raise ValueError(f"derive.rank does not go with lora.method {self.lora.method}: its update has no low rank to cut")
        if derive.rank is not None and self.lora.method == "lora" and derive.rank > self.lora.rank:
            raise ValueError(f"derive.rank {derive.rank} is above lora.rank {self.lora.rank}")
        if derive.samples is None:
            return self
        # the adapter after n rows equals a training with n rows only while the learning rate does not depend on the total
        if train.schedule in ("cosine", "linear") or train.epochs > 1:
            raise ValueError(
                f"derive.samples needs a constant or wsd schedule and one epoch, but train.schedule is {train.schedule} with "
                f"{train.epochs} epochs: the adapter after {derive.samples} rows is not that of a training with so many"
            )
        if train.stop_kl is not None:
            raise ValueError("derive.samples does not go with train.stop_kl, which may end the training before so many rows")
        warm = math.ceil(math.ceil(samples / train.batch_size) * train.warmup) * train.batch_size
        if derive.samples <= warm:
            raise ValueError(f"derive.samples {derive.samples} is within the warm-up, the first {warm} rows of this training")
        steady = samples if train.schedule == "constant" else math.floor(samples * (1 - train.decay))
        if derive.samples % train.batch_size:
            raise ValueError(f"derive.samples {derive.samples} is no multiple of train.batch_size {train.batch_size}")
        if derive.samples > steady:
            raise ValueError(f"derive.samples {derive.samples} is beyond the {steady} rows that are trained at a constant rate")
        return self

    def _check_off(self) -> None:
        """Checks `derive.off` as far as that is possible without the base; target_modules.part checks the rest."""
        off, modules, layers = self.derive.off, self.lora.target_modules, self.lora.layers
        if off in ("q", "k", "v"):
            if modules == "mlp":
                raise ValueError(f"derive.off {off} does not go with lora.target_modules mlp: the adapter has nothing there")
        elif off is not None and isinstance(layers, str) and layers not in ("all", off):
            raise ValueError(f"derive.off {off} does not go with lora.layers {layers}: the adapter has nothing there")

    def baseline(self) -> "TrialSpec":
        """The same base, quantisation and evaluation with nothing trained."""
        data = self.data.model_copy(update={"samples": 0})
        return self.model_copy(update={"data": data, "derive": Derive()})

    @property
    def parent(self) -> "TrialSpec | None":
        """The trial whose adapter this one is derived from; None for one that trains its own."""
        if self.is_baseline or self.derive == Derive():
            return None
        return self.model_copy(update={"derive": Derive()})

    @property
    def is_baseline(self) -> bool:
        return self.data.samples == 0

    @property
    def chats(self) -> bool:
        """Whether the base's chat template is used, in training or in an evaluation."""
        return self.data.template == "chat" or any(evaluation.chat_template for evaluation in self.eval.values())

    def setting(self, path: str) -> Any:
        """The value at a dotted path; None if there is no such setting."""
        return dotted_path.read(self, path)

    def canonical(self) -> dict[str, Any]:
        """The settings that the numbers depend on: a baseline has no training settings, a mix no source with share 0."""
        parts = self.model_dump(mode="json")
        _drop_unpinned(parts, self.data)
        if self.base.quantization == "none":  # then this setting has no effect
            del parts["base"]["double_quantization"]
        for role, evaluation in self.eval.items():
            parts["eval"][role]["fewshot"] = evaluation.sampler  # resolved: a default and its explicit value are one key
            parts["eval"][role]["engine"] = evaluation.engine if evaluation.engine == "vllm" else STOCK_ENGINE
            _drop_chat(parts["eval"][role], evaluation)
            del parts["eval"][role]["trust_code"]  # it permits code, and changes no number
            if evaluation.include is None or FOLDER in evaluation.content:  # a moved folder with the same content is the same
                del parts["eval"][role]["include"]
        if self.is_baseline:
            del parts["data"], parts["lora"], parts["train"], parts["derive"]
            return parts
        for name in ("target_modules", "layers"):  # the order of the names has no effect
            if not isinstance(parts["lora"][name], str):
                parts["lora"][name] = sorted(set(parts["lora"][name]))
        for name in self.lora.unread:
            del parts["lora"][name]
        if self.lora.method == "lora":  # a later addition: older keys do not contain it
            del parts["lora"]["method"]
        data, train = parts["data"], parts["train"]
        # `how` is left out: equal numbers of rows give the same training, whether replay was added or substituted
        replay = data.pop("replay")
        if self.data.replay.share > 0:
            data["replay"] = {"source": replay["source"], "share": replay["share"]}
            if replay["control"] != "true":
                data["replay"]["control"] = replay["control"]
        data |= {"mix": {name: share for name, share in self.data.mix.items() if share > 0}, "samples": self.data.rows}
        data["sources"] = {name: value for name, value in data["sources"].items() if name in self.data.shares}
        if train["schedule"] != "wsd":
            del train["decay"]
        if train["loss"] != "masked":
            del train["mask_above"]
        if train["loss"] == "nll":  # a later addition: older keys do not contain it
            del train["loss"]
        for name in ("off", "shallow"):  # later additions: older keys do not contain them
            if parts["derive"][name] is None:
                del parts["derive"][name]
        return parts

    @property
    def key(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps({"schema": SCHEMA, **self.canonical()}, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _drop_chat(parts: dict[str, Any], evaluation: Evaluation) -> None:
    """Resolves the settings of an evaluation's chat template, and drops what is at its default: a later addition."""
    parts["fewshot_as_multiturn"] = evaluation.multiturn if evaluation.chat_template else None
    if not evaluation.chat_template:
        parts["chat_template"] = parts["date"] = None
    for name in ("chat_template", "fewshot_as_multiturn", "system", "enable_thinking", "think_end_token", "date"):
        if parts.get(name) is None:
            parts.pop(name, None)
    if not parts["chat_template_args"]:
        del parts["chat_template_args"]


def _drop_unpinned(parts: dict[str, Any], data: Data) -> None:
    """Drops what was added to specs later and is not set, so that older specs keep their keys."""
    pins = {name: pin for name, pin in parts["data"]["content"].items() if name in data.shares}
    parts["data"] |= {"content": pins}
    if data.template != "chat":
        parts["data"]["date"] = None
    for section in (parts["base"], parts["data"], *parts["eval"].values()):
        for name in ("content", "date"):
            if not section.get(name):
                section.pop(name, None)
    for source in parts["data"]["sources"].values():
        for name in ("revision", "messages", "context", "tools"):
            if source[name] is None:
                del source[name]
