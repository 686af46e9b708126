"""Prompts of an evaluation in the base's chat template: the counterpart of lm-eval's HFLM.apply_chat_template.

lm-eval makes the messages: `system` and the task's description, few-shot examples, the question. They become a text here, with
the template that `chat_template` names, the pinned date, and within the bounds of trials/data/chat_template.py. A template that
refuses a system message is rendered without it, as in HFLM.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jinja2
from jinja2.sandbox import SecurityError

from trials.data.sandbox import ERRORS, reason
from trials.errors import InputError
from trials.spec import Evaluation
from trials.tasks.tasks import Tasks
from trials.template import dated

Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""

WITHOUT_SYSTEM = "the chat template takes no system message, so prompts are without it"


class ChatPrompts:
    """Renders the messages of a role's prompts."""

    def __init__(self, role: str, evaluation: Evaluation, tokenizer: Any):
        """Raises InputError where the tokenizer has no such template."""
        self._where = f"eval.{role}.chat_template"
        self._tokenizer = tokenizer
        self._template = _selected(self._where, evaluation.chat_template, tokenizer)
        if evaluation.date is not None:
            self._template = dated(self._template, evaluation.date)
        thinking = {} if evaluation.enable_thinking is None else {"enable_thinking": evaluation.enable_thinking}
        self._arguments = evaluation.chat_template_args | thinking
        self.without_system = False
        """Whether a system message was left out of a prompt."""

    def __call__(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The text up to where the model goes on; without `add_generation_prompt` it goes on within the last message.

        Raises InputError where the template does not take the messages.
        """
        rest = [message for message in messages if message["role"] != "system"]
        try:
            try:
                return self._rendered(messages, add_generation_prompt)
            except SecurityError:
                raise
            except jinja2.TemplateError:
                if len(rest) == len(messages):
                    raise
                text = self._rendered(rest, add_generation_prompt)
                self.without_system = True
                return text
        except ERRORS as error:
            raise InputError(
                f"{self._where}: the chat template of {_name(self._tokenizer)} does not take the prompt's messages "
                f"({', '.join(dict.fromkeys(message['role'] for message in messages))}): {reason(error)}"
            ) from error

    def _rendered(self, messages: Sequence[Message], open_turn: bool) -> str:
        found: str = self._tokenizer.apply_chat_template(
            list(messages),
            chat_template=self._template,
            tokenize=False,
            add_generation_prompt=open_turn,
            continue_final_message=not open_turn,
            **self._arguments,
        )
        return found


def _selected(where: str, wanted: bool | str, tokenizer: Any) -> str:
    """The text of the template. lm-eval's command line logs a named template, but renders the default one."""
    known = tokenizer.chat_template
    if not known:
        raise InputError(
            f"{where}: the tokenizer of {_name(tokenizer)} has no chat template; leave chat_template out, or take the instruct "
            "model of this base"
        )
    named: dict[str, str] = known if isinstance(known, dict) else {}
    if isinstance(wanted, str):
        if wanted not in named:
            there = f"has {', '.join(sorted(named))}" if named else "has one template, without a name: write true"
            raise InputError(f"{where}: no template {wanted!r}; {_name(tokenizer)} {there}")
        return named[wanted]
    if named and "default" not in named:
        raise InputError(f"{where}: true is the template `default`, and {_name(tokenizer)} has {', '.join(sorted(named))}")
    return named["default"] if named else str(known)


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "")) or "the base"


def check(role: str, evaluation: Evaluation, tasks: Tasks, tokenizer: Any) -> list[str]:
    """Renders a prompt of each task of a role with a chat template; returns notes, a line each.

    Raises InputError where the base has no such template, or where it takes no such prompt.
    """
    check_tasks(role, evaluation, tasks)
    if not evaluation.chat_template:
        return []
    render = ChatPrompts(role, evaluation, tokenizer)
    for task in tasks.build(evaluation).values():
        task.set_fewshot_seed(seed=evaluation.fewshot_seed)
        doc = task.eval_docs[0]
        shots = {"num_fewshot": task.config.num_fewshot or 0, "system_instruction": evaluation.system}
        style = {"apply_chat_template": True, "fewshot_as_multiturn": evaluation.multiturn, "chat_template": render}
        task.fewshot_context(doc, **shots, **style, gen_prefix=task.doc_to_prefix(doc))
    return [f"eval.{role}: {WITHOUT_SYSTEM}"] if render.without_system else []


def check_tasks(role: str, evaluation: Evaluation, tasks: Tasks) -> None:
    """Raises InputError for a task whose requests the role's chat settings do not fit."""
    refuse = partial(_refused, role)
    for name, task in tasks.build(evaluation).items():
        if evaluation.enable_thinking and task.OUTPUT_TYPE != "generate_until":
            raise refuse("enable_thinking", f"task {name} scores given answers, before which a model does not reason")
        if not evaluation.chat_template:
            continue
        if task.OUTPUT_TYPE == "loglikelihood_rolling":
            raise refuse("chat_template", f"task {name} scores running text, which has no messages")
        if (task.config.metadata or {}).get("continues_answer"):
            raise refuse(
                "chat_template",
                f"the prompt of the forced-choice task {name} ends within the gold solution, which the template would put into "
                "the user's message: it is no twin of a benchmark under a chat template",
            )


def _refused(role: str, setting: str, reason: str) -> InputError:
    return InputError(f"eval.{role}.{setting}: {reason}; leave {setting} out")
