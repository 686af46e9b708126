"""The section `eval` of a TrialSpec: the benchmark of each role."""

import datetime as dt
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from trials import benchmark_presets
from trials.sections import MANY, Block, Count, Section, Seed

STOCK_ENGINE = "hf"
"""The engine's name in every key, and in records from before there were two engines."""
FOLDER = "include/"
"""The task folder's name in Evaluation.content. No data set is called so."""


class Evaluation(Section):
    """The benchmark of a role: lm-eval tasks, pooled over their documents.

    `NAME` or {preset: NAME, ...} expands to a preset's fields (see trials/benchmark_presets.py), {questions: FILE, ...} to
    those of a task made of the file (see trials/tasks/questions.py).
    """

    written: ClassVar[tuple[str, ...]] = ("preset", *benchmark_presets.OF_QUESTIONS)  # keys of a config that become fields

    task: str | Annotated[tuple[str, ...], Field(min_length=1)]
    """An lm-eval task, or several whose documents are pooled."""
    metric: str
    """A metric of the task."""
    filter: str = "none"
    """The task's filter that finds the answer in a response."""
    flexible: str | None = None
    """For a generated task: a filter that also finds an answer without the marker."""
    marker: str | None = None
    """For a generated task: the text before the final result of an answer in the trained format."""
    shots: Annotated[int, Field(ge=0, le=MANY)] | None = None
    """Number of few-shot examples. None: the task's default."""
    fewshot: Literal["first_n", "stock", "drawn"] | None = None
    """`first_n`: the first rows, for every document. `stock`: the task's own way. `drawn`: drawn for each document. None is
    `first_n` for a sample of the documents, whose draws would differ from those of a full run, and `stock` for all."""
    fewshot_seed: Seed = 1234
    """Seed of the draws. The default is lm-eval's."""
    chat_template: bool | Annotated[str, Field(min_length=1)] = False
    """Puts prompts into the base's chat template, as lm-eval's --apply_chat_template does. A text is the name of a template."""
    fewshot_as_multiturn: bool | None = None
    """Few-shot examples as turns of the chat; false: all in the user's message. Default under a chat template: true."""
    system: Annotated[str, Field(min_length=1)] | None = None
    """A system message, lm-eval's --system_instruction. Without a chat template it is the beginning of the prompt."""
    enable_thinking: bool | None = None
    """Argument of the chat template that turns the reasoning of a hybrid model on or off."""
    think_end_token: Annotated[str, Field(min_length=1)] | Block | None = None
    """The text or the token id that ends a model's reasoning. A response is what follows the last one."""
    chat_template_args: dict[str, Any] = Field(default={})
    """Further arguments of the chat template."""
    date: dt.date | None = None
    """The date in a chat template's output, as data.date."""
    documents: Count | None = None
    """Size of a seeded sample of the documents. None: all."""
    seed: Seed = 0
    """Seed of the sample of the documents."""
    batch_size: Count = 32
    """Requests in memory at once; halved where memory runs out."""
    engine: Literal["exact", "hflm", "vllm"] = "exact"
    """The fast engine, or the plain one, which batches as lm-eval's HFLM does. Their numbers are equal, so the key does not
    contain the choice between them. `vllm`: vLLM generates the responses, which are then its own, and in the key."""
    include: Annotated[str, Field(min_length=1)] | None = None
    """A folder of lm-eval tasks that has `task`. A name in it goes before the same name of lm-eval's own. Once the sweep is
    pinned, the key contains the folder's content and not its path."""
    trust_code: bool = False
    """Whether Python code that a task of `include` names may run. It has all rights of the command."""
    content: dict[str, str] = Field(default={})
    """By data set of the tasks, as in data.content. FOLDER is the checksum of `include`."""

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if isinstance(given, dict) and "questions" in given:
            from trials.tasks import questions  # imports the readers of files, which few configs need

            given = questions.expand(given)
        elif isinstance(given, dict) and "include" in given:
            from trials.tasks import metric_list

            if text := metric_list.missing(given):
                raise ValueError(text)
        return benchmark_presets.expand(given)

    @model_validator(mode="after")
    def _trusts_a_folder(self) -> "Evaluation":
        if self.trust_code and self.include is None:
            raise ValueError("trust_code is for the code of a task folder; name the folder with include")
        return self

    # records of before this engine existed call lm-eval's own `hf`
    @field_validator("engine", mode="before")
    @classmethod
    def _renamed(cls, name: Any) -> Any:
        return "hflm" if name == STOCK_ENGINE else name

    @field_validator("think_end_token")
    @classmethod
    def _digits_are_an_id(cls, token: str | int | None) -> str | int | None:
        return int(token) if isinstance(token, str) and token.isdecimal() else token  # as HFLM reads it

    @model_validator(mode="after")
    def _chat_fits(self) -> "Evaluation":
        if not self.chat_template:
            named = {"fewshot_as_multiturn": self.multiturn, "enable_thinking": self.enable_thinking is not None}
            for name in (name for name, used in (named | {"chat_template_args": self.chat_template_args}).items() if used):
                raise ValueError(f"{name} is a setting of the chat template; give chat_template: true, or leave it out")
        if "enable_thinking" in self.chat_template_args:
            raise ValueError("enable_thinking in chat_template_args has a key of its own; give enable_thinking beside it")
        if self.enable_thinking and self.think_end_token is None:
            raise ValueError('enable_thinking needs think_end_token, the end of the reasoning, such as "</think>"')
        return self

    @property
    def multiturn(self) -> bool:
        """`fewshot_as_multiturn` with its default resolved."""
        return bool(self.chat_template) if self.fewshot_as_multiturn is None else self.fewshot_as_multiturn

    @property
    def sampler(self) -> Literal["first_n", "stock", "drawn"]:
        """`fewshot` with its default resolved."""
        return self.fewshot or ("stock" if self.documents is None else "first_n")

    @property
    def tasks(self) -> tuple[str, ...]:
        return (self.task,) if isinstance(self.task, str) else self.task
