"""Session: the state that a process keeps between trials."""

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

from trials import mix
from trials.hub.hub import Hub
from trials.ledger.record import Ledger
from trials.mix import Example
from trials.models import base
from trials.run.reporter import Observe, ignore
from trials.spec import Base, TrialSpec
from trials.tasks.tasks import Tasks
from trials.training.trainer import Pace

if TYPE_CHECKING:
    from trials.evaluation.engine.vllm_server import VllmServer


class Session:
    """The ledger, the hub, the tasks, the loaded base, and the last rows: trials of a sweep often share them."""

    def __init__(self, ledger: Ledger, hub: Hub):
        self.ledger, self.hub, self.tasks = ledger, hub, Tasks(hub)
        self.pace = Pace()
        self.observe: Observe = ignore
        """Gets the progress of every trial that runs in this process."""
        self._base: tuple[Base, base.LoadedBase] | None = None
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    def base(self, wanted: Base) -> base.LoadedBase:
        if self._base is None or self._base[0] != wanted:
            self._base = None  # frees the old base before the new one is loaded
            self._base = (wanted, base.load(wanted, self.hub))
        return self._base[1]

    def vllm(self, wanted: Base) -> "VllmServer":
        """vLLM with this base, which has no adapter at the first call."""
        from trials.evaluation.engine.vllm_server import VllmServer

        return self.once("vllm", wanted.model_dump_json(), lambda: VllmServer(self.base(wanted)))  # type: ignore[no-any-return]

    def drop_base(self) -> None:
        """Makes the next trial load its base again."""
        self._base = None

    def heldout(self, spec: TrialSpec) -> dict[str, list[Example]]:
        """Rows that no training sees, by source."""
        tokenizer = self.base(spec.base).tokenizer
        return self.once("heldout", self.data_identity(spec), lambda: mix.heldout(spec.data, self.hub, tokenizer))

    def data_identity(self, spec: TrialSpec) -> Hashable:
        """A value that is equal for trials with the same rows and the same tokens."""
        return spec.base.model_dump_json(), spec.data.model_dump_json(), mix.state(spec.data, self.hub)

    def once(self, name: str, identity: Hashable, make: Callable[[], Any]) -> Any:
        """The last result of `make` under this name where its identity is the same, else a new one."""
        if name not in self._kept or self._kept[name][0] != identity:
            self._kept.pop(name, None)  # before `make`: both together might not fit
            self._kept[name] = (identity, make())
        return self._kept[name][1]
