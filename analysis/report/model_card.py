"""The model card of a published model: its numbers beside its adapter's and its baseline's.

Three records are compared over the same documents: the baseline, the adapter on the base it was trained on, and the merged
model. Scores are in the roles' own metrics, accuracies as shares (0..1); intervals are 95 %.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.export.markup import markdown_text
from analysis.formatting import labels
from analysis.stats.estimate import Setting, measure_all, measure_joint, scores
from trials.ledger.outcomes import Split
from trials.ledger.record import TrialRecord

_TEMPLATES = Environment(  # Markdown: its tables are escaped cell by cell
    loader=PackageLoader("analysis"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


@dataclass(frozen=True)
class Facts:
    """The card's facts that the records lack."""

    sweep: str
    trials: int
    """Number of finished trials that the adapter was selected from."""
    base: str
    """A hub id, or a folder's name."""
    where: Literal["hub", "package", "folder"]
    """The source of the base: the hub, slimsweep's own package, or a folder of the machine that ran the sweep."""
    data: Mapping[str, str]
    """Source -> data set, with its configuration and split."""
    datasets: Sequence[str]
    """The data sets on the hub, by id."""
    commands: Sequence[str]
    forced: bool
    """Whether it was published although a role is outside of the adapter's interval."""


def numbers(
    adapter: TrialRecord, merged: TrialRecord, baseline: TrialRecord | None, half: Split, also: Sequence[str] = ()
) -> dict[str, Any]:
    """Content of `record.json`: "documents" (the reported half, or "all"), "roles" and "metrics".

    A role has n and, for baseline, adapter, merged and difference (merged - adapter, paired over documents), {"value", "low",
    "high"} or None; `inside` says whether the merged model's value lies within the adapter's interval and is not inferior, see
    `_not_inferior`. A metric (see analysis.metrics), both times against the same baseline, has the same for adapter and merged;
    of those of several roles, the ones that `also` names.
    """
    own = {"adapter": _against(adapter, baseline, half, also), "merged": _against(merged, baseline, half, also)}
    start = _against(baseline, None, half) if baseline else {}
    between = _against(merged, adapter, half)
    roles: dict[str, Any] = {}
    for role, of_role in scores(adapter, half).items():
        value = f"{role}.value"
        sides = {"baseline": start.get(value)} | {name: found.get(value) for name, found in own.items()}
        difference, adapters = between.get(f"{role}.gain"), sides["adapter"]
        inside = adapters is not None and _within(sides["merged"], adapters) and _not_inferior(difference, adapters)
        roles[role] = {"n": of_role["score"].n, **sides, "difference": difference, "inside": inside}
    names = dict.fromkeys([*own["adapter"], *own["merged"]])
    metrics = {metric: {name: found.get(metric) for name, found in own.items()} for metric in names}
    return {"documents": half, "roles": roles, "metrics": metrics}


def _against(
    tuned: TrialRecord, base: TrialRecord | None, half: Split, also: Sequence[str] = ()
) -> dict[str, dict[str, float | None] | None]:
    """Every metric of `tuned` against `base`, with its interval; None if it is undefined."""
    found: dict[str, dict[str, float | None] | None] = {}
    settings = [Setting([tuned], base)]
    for name, one in (measure_all(settings, half) | measure_joint(settings, also, half)).items():
        value, low, high = (float(part[0]) for part in (one.value, one.low, one.high))
        if one.known[0]:
            ends = (low, high) if math.isfinite(low) and math.isfinite(high) else (None, None)
            found[name] = {"value": value, "low": ends[0], "high": ends[1]} if math.isfinite(value) else None
    return found


def _within(merged: Mapping[str, Any] | None, adapter: Mapping[str, Any] | None) -> bool:
    """Whether the merged model's value lies in the adapter's interval."""
    if merged is None or adapter is None or adapter["low"] is None:
        return False
    return bool(adapter["low"] <= merged["value"] <= adapter["high"])


def _not_inferior(difference: Mapping[str, Any] | None, adapter: Mapping[str, Any]) -> bool:
    """A paired test on the same documents: False where the 95 % interval of merged - adapter lies below 0 and reaches below the
    margin, a quarter of what the adapter's own interval leaves open on either side.

    Few documents cannot show that a loss is smaller than the margin, so the loss itself must be shown too. True where the
    documents do not pair.
    """
    if difference is None or difference["low"] is None:
        return True
    return bool(difference["high"] >= 0 or difference["low"] >= -_margin(adapter))


def _margin(adapter: Mapping[str, Any]) -> float:
    return float(adapter["high"] - adapter["low"]) / 8


def outside(found: Mapping[str, Any]) -> list[str]:
    """A line for each role of the merged model outside of the adapter's interval, or without an interval to compare with."""
    lines = []
    for role, one in found["roles"].items():
        if one["inside"]:
            continue
        if one["merged"] is None or one["adapter"] is None or one["adapter"]["low"] is None:
            lines.append(f"{role} has too few documents for an interval ({one['n']})")
            continue
        name, adapter = f"{role}.value", one["adapter"]
        unit = labels.unit(name)
        if _within(one["merged"], adapter):
            by = f"{role}.gain"
            value, low, high = (labels.percent(by, one["difference"][end]) for end in ("value", "low", "high"))
            margin = labels.percent(by, -_margin(adapter))
            lines.append(
                f"{role}: on the same documents the merged model is {value}{labels.unit(by)} from the adapter (95 %: {low} to "
                f"{high}), which may be more than the margin of {margin}"
            )
            continue
        merged, value, low, high = (
            labels.percent(name, x) for x in (one["merged"]["value"], adapter["value"], adapter["low"], adapter["high"])
        )
        lines.append(f"{role} {merged}{unit} is outside of the adapter's {value}{unit} (95 %: {low} to {high})")
    return lines


def card(facts: Facts, adapter: TrialRecord, merged: TrialRecord, found: Mapping[str, Any]) -> str:
    """README.md. It has no path of this machine: a base or a source that is a folder shows its name."""
    spec = adapter.spec
    head: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if facts.where == "hub":
        head |= {"base_model": facts.base, "base_model_relation": "finetune"}
    if facts.datasets:
        head["datasets"] = list(facts.datasets)
    head["tags"] = ["slimsweep", "lora" if spec.lora.method == "full" else spec.lora.method, "peft"]
    return _TEMPLATES.get_template("card.md.j2").render(
        head=yaml.safe_dump(head, sort_keys=False).strip(),
        facts=facts,
        adapter=adapter,
        merged=merged,
        spec=spec,
        found=found,
        outside=outside(found),
        quantized=spec.base.quantization != "none",
        quantization=spec.base.quantization + (" with double quantisation" if spec.base.double_quantization else ""),
        roles=_role_rows(spec, found),
        parts=_part_rows(found),
        data=_data_rows(facts, adapter),
        kind={"lora": "A LoRA", "oft": "An OFT", "shira": "A SHiRA", "full": "A full-rank"}[spec.lora.method],
        settings=_settings(spec.model_dump(mode="json", exclude={"lora": set(spec.lora.unread)})),
        versions=", ".join(f"{name} {version}" for name, version in adapter.versions.items() if version != "not installed"),
        hardware=", ".join(str(adapter.hardware[name]) for name in ("gpu", "cpu") if adapter.hardware.get(name)),
    )


def _role_rows(spec: Any, found: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for role, one in found["roles"].items():
        evaluation = spec.eval[role]
        shots = "" if evaluation.shots is None else f", {evaluation.shots}-shot"
        how = f"{'+'.join(evaluation.tasks)}, {evaluation.metric}"
        how += f" ({evaluation.filter})" if evaluation.filter != "none" else ""
        shown = [_span(f"{role}.value", one[name]) for name in ("baseline", "adapter", "merged")]
        rows.append(
            [markdown_text(role), markdown_text(how + shots), str(one["n"]), *shown, _span(f"{role}.gain", one["difference"])]
        )
    return rows


def _part_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Gain, drop and forgetting of each role with their parts, for adapter and merged model."""
    rows = []
    for metric, sides in found["metrics"].items():
        if metric.endswith((".value", ".base")) or not any(sides.values()):
            continue
        unit = labels.unit(metric).strip()
        heading = markdown_text(labels.metric_name(metric)) + (f" ({unit})" if unit else "")
        rows.append([heading, *(_span(metric, sides[name]) for name in sides)])
    return rows


def _data_rows(facts: Facts, adapter: TrialRecord) -> list[list[str]]:
    shares = adapter.spec.data.shares
    named = [*shares, *(source for source in adapter.rows if source not in shares)]
    return [
        [
            markdown_text(source),
            markdown_text(facts.data.get(source, "")),
            f"{shares.get(source, 0):.3g}",
            str(adapter.rows.get(source, 0)),
        ]
        for source in named
    ]


def _settings(parts: Mapping[str, Any]) -> list[list[str]]:
    """Settings of lora, train, derive and data by dotted path, without those that other parts of the card show."""
    shown = {name: parts[name] for name in ("lora", "train", "derive")}
    shown["data"] = {name: parts["data"][name] for name in ("samples", "template", "loss_on", "max_length", "seed")}
    rows = [(f"{part}.{name}", value) for part, fields in shown.items() for name, value in fields.items()]
    return [[f"`{path}`", markdown_text(labels.setting(value))] for path, value in rows if value is not None]


def _span(metric: str, one: Mapping[str, float | None] | None) -> str:
    """ "43.2 [39.1, 47.4]", in the metric's unit."""
    if one is None:
        return labels.MISSING
    value, low, high = (labels.percent(metric, one[name]) for name in ("value", "low", "high"))
    return value if one["low"] is None else f"{value} [{low}, {high}]"
