"""Initialisation of an adapter: its weights before the first step, by `lora.init`.

With default, gaussian, orthogonal and eva, B @ A is zero and the model starts as its base. With loftq, B @ A is the
quantisation error, so the model starts nearer to the unquantised one. pissa, olora and corda start from a part of the base's
weights. PEFT subtracts that part from the base; here the base stays unchanged and `Converted` subtracts it in the adapter, so
that the model starts as its base to the bit, and no residual is quantised again (as it is in QPiSSA).

The result is a function of base, lora, random generators and rows, so a resumed training starts alike.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from peft import initialize_lora_eva_weights
from peft.tuners.lora.config import EvaConfig
from peft.utils.integrations import dequantize_module_weight
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file

from trials.adapters.low_rank import Converted, lora_layers
from trials.data.batching import collate
from trials.errors import InputError
from trials.mix import Example
from trials.spec import Lora

ADAPTER = "default"  # PEFT's name of the one adapter
ROWS = 64  # training rows that eva and corda read
_ROWS_AT_ONCE = 8
_EVA_PASSES = 25  # over the rows; eva that has not converged by then never does
_ITERATIONS = 16  # of svd_lowrank, as PEFT's pissa_niter_16
_OVERSAMPLED = 8
_COVARIANCES = 2**30  # bytes of corda's covariances in memory at once; each such group of layers costs a pass over the rows
_DAMPING = 0.01  # share of a covariance's mean diagonal, as in PEFT

Factors = tuple[torch.Tensor, torch.Tensor]


def settings(lora: Lora) -> dict[str, Any]:
    """The initialisation settings of PEFT's LoraConfig, for the methods that PEFT runs."""
    if lora.init == "eva":  # rho 1 keeps the same rank in all layers, because lora.rank is a setting of its own
        return {"init_lora_weights": "eva", "eva_config": EvaConfig(rho=1.0)}
    return {"init_lora_weights": "gaussian" if lora.init == "gaussian" else True}


def begin(model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
    """Sets the weights of a fresh adapter; raises InputError if `lora.init` does not fit the base or the rows.

    eva and corda read the first 64 rows. eva starts from the directions in which they vary most; corda, in the paper's
    knowledge-preserved mode, from the components that matter least to them.
    """
    if lora.init in ("eva", "corda") and not rows:
        raise InputError(f"lora.init: {lora.init} needs training rows, and there are none")
    if lora.init == "eva":
        _eva(model, pad_id, lora, rows[:ROWS])
        return
    for module, (down, up) in _factors(model, lora, rows[:ROWS]):
        _set(module, down, up)
        if lora.converted:
            module.lora_variant[ADAPTER] = Converted(down, up)


@torch.no_grad()
def _set(module: Any, down: torch.Tensor, up: torch.Tensor) -> None:
    module.lora_A[ADAPTER].weight.copy_(down)
    module.lora_B[ADAPTER].weight.copy_(up)
    if ADAPTER in module.lora_variant:  # DoRA's magnitudes are the norms of base and update together
        module.lora_variant[ADAPTER].init(module, adapter_name=ADAPTER)


def _factors(model: Any, lora: Lora, rows: Sequence[Example]) -> Iterator[tuple[Any, Factors]]:
    """Each layer with its initial A and B; none for the methods that PEFT runs by itself."""
    layers = lora_layers(model)
    if lora.init == "orthogonal":
        for module in layers.values():
            yield module, _orthogonal(module, lora.rank)
    elif lora.init == "loftq":
        original = _originals(model.get_base_model())
        for name, module in layers.items():
            error = original(name.removeprefix("base_model.model."), module) - dense(module)
            yield module, _balanced(*_leading(error, lora), _scale(module))
    elif lora.init == "corda":
        for group in _groups(layers.values()):
            covariances = _covariances(model, group, rows)
            for module in group:
                yield module, _balanced(*_least(dense(module), covariances.pop(module), lora), _scale(module))
    elif lora.init == "pissa":
        for module in layers.values():
            yield module, _balanced(*_leading(dense(module), lora), _scale(module))
    elif lora.init == "olora":
        for module in layers.values():
            yield module, _olora(dense(module), lora)


def _scale(module: Any) -> float:
    return float(module.scaling[ADAPTER])


def dense(module: Any) -> torch.Tensor:
    """(outputs, inputs) the base's weight, dequantised, in float32."""
    layer = module.get_base_layer()
    weight = dequantize_module_weight(layer).detach().float()
    return weight.T if module.fan_in_fan_out else weight


# ---------------------------------------------------------------------- factors of a matrix


def _check_rank(matrix: torch.Tensor, lora: Lora) -> None:
    if lora.rank > min(matrix.shape):
        outputs, inputs = matrix.shape
        raise InputError(f"lora.rank: {lora.rank} is more than lora.init {lora.init} finds in a layer of {outputs} x {inputs}")


def _leading(matrix: torch.Tensor, lora: Lora) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (outputs, rank), S (rank,) and V^T (rank, inputs) of the largest singular values."""
    _check_rank(matrix, lora)
    wanted = lora.rank + _OVERSAMPLED
    if 4 * wanted < min(matrix.shape):  # on smaller matrices the exact decomposition is as fast
        u, s, v = torch.svd_lowrank(matrix, q=wanted, niter=_ITERATIONS)
        vh = v.T
    else:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, : lora.rank], s[: lora.rank], vh[: lora.rank]


def _balanced(u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor, scale: float) -> Factors:
    """A and B with scale * B A = U S V^T, with the square roots of the singular values in each, as in PEFT's pissa."""
    # PEFT's loftq omits the scale, and so adds alpha / rank times the error that it means to undo
    root = (s / scale).sqrt()
    return (root[:, None] * vh).contiguous(), (u * root).contiguous()


def _olora(weight: torch.Tensor, lora: Lora) -> Factors:
    """The first rows of R and columns of Q in W = Q R."""
    _check_rank(weight, lora)
    q, _ = torch.linalg.qr(weight[:, : lora.rank])  # the first columns of Q depend on no other columns of W
    return (q.T @ weight).contiguous(), q.contiguous()


def _least(weight: torch.Tensor, covariance: torch.Tensor, lora: Lora) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The smallest components of W = U S V^T C^-1, where U S V^T = W C and C is the covariance of the rows."""
    _check_rank(weight, lora)
    covariance = covariance.double()
    covariance.diagonal().add_(_DAMPING * covariance.diagonal().mean())
    u, s, vh = torch.linalg.svd(weight @ covariance.float(), full_matrices=False)
    last = vh[-lora.rank :]
    back = torch.cholesky_solve(last.T.double(), torch.linalg.cholesky(covariance)).T.float()
    return u[:, -lora.rank :], s[-lora.rank :], back


def _orthogonal(module: Any, rank: int) -> Factors:
    """A and B, random in two orthogonal halves of a `rank`-dimensional space, so that B A is zero up to rounding."""
    # PEFT's own method stores them in the type of the base's weight, which is bytes for a 4-bit layer
    q, _ = torch.linalg.qr(torch.randn(rank, rank))
    down = (torch.randn(module.in_features, rank // 2) @ q[0::2]).T / 10
    up = torch.randn(rank // 2, module.out_features).T @ q[1::2] / 10
    return down, up


# ---------------------------------------------------------------------- rows and unquantised weights


def _eva(model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
    batches = [collate(rows[first : first + _ROWS_AT_ONCE], pad_id) for first in range(0, len(rows), _ROWS_AT_ONCE)]
    left = _EVA_PASSES * len(batches)

    def forward(model: Any, inputs: dict[str, torch.Tensor]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(
                f"lora.init: eva finds no {lora.rank} stable directions in {len(rows)} rows; lower lora.rank or train on more"
            )
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])

    config = model.peft_config[ADAPTER]
    names = config.target_modules
    initialize_lora_eva_weights(model, batches, forward_fn=forward, show_progress_bar=False)
    config.target_modules = names  # PEFT has replaced them by every layer's full name


def _groups(modules: Any) -> Iterator[list[Any]]:
    """The layers in order, in groups whose covariances fit in memory."""
    group: list[Any] = []
    size = 0
    for module in modules:
        more = 4 * module.in_features**2
        if group and size + more > _COVARIANCES:
            yield group
            group, size = [], 0
        group.append(module)
        size += more
    yield group


@torch.no_grad()
def _covariances(model: Any, modules: Sequence[Any], rows: Sequence[Example]) -> dict[Any, torch.Tensor]:
    """(inputs, inputs) by layer: the mean over the rows of X^T X, each row's X divided by its largest entry, as in PEFT."""
    found: dict[Any, torch.Tensor] = {}

    def add(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        x = given[0].reshape(-1, module.in_features).float()
        x = x / x.max().abs()
        found[module] = found.get(module, 0) + x.T @ x / len(rows)

    hooks = [module.register_forward_pre_hook(add) for module in modules]
    training = model.training
    model.eval()
    try:
        with model.disable_adapter():
            for row in rows:
                model(input_ids=torch.tensor([row.input_ids], device=model.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found


def _originals(base: Any) -> Callable[[str, Any], torch.Tensor]:
    """A function (layer's name, adapter's layer) -> (outputs, inputs) that reads unquantised weights from safetensors."""
    path, revision = base.config._name_or_path, getattr(base.config, "_commit_hash", None)

    def file(name: str) -> str | None:
        return cached_file(path, name, revision=revision, _raise_exceptions_for_missing_entries=False)

    index = file("model.safetensors.index.json")
    if index:
        places = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
    elif whole := file("model.safetensors"):
        with safetensors.safe_open(whole, framework="pt") as opened:
            places = dict.fromkeys(opened.keys(), "model.safetensors")
    else:
        raise InputError(f"lora.init: loftq reads the base's unquantised weights, and {path} has no safetensors")

    def read(name: str, module: Any) -> torch.Tensor:
        layer = module.get_base_layer()
        if not hasattr(layer.weight, "quant_state"):
            raise InputError("lora.init: loftq starts from the error of a quantisation, and base.quantization is none")
        keys = [f"{name}.weight", f"{name}.weight".removeprefix(f"{base.base_model_prefix}.")]
        key = next((key for key in keys if key in places), None)
        if key is None:
            raise InputError(f"lora.init: loftq reads the base's unquantised weights, and those of {path} have no {keys[0]}")
        with safetensors.safe_open(file(places[key]), framework="pt") as opened:
            weight = opened.get_tensor(key)
        if issubclass(getattr(layer, "source_cls", torch.nn.Linear), Conv1D):
            weight = weight.T
        if not weight.is_floating_point() or tuple(weight.shape) != (module.out_features, module.in_features):
            raise InputError(f"lora.init: loftq reads the base's unquantised weights, and {path} holds {key} in another form")
        return weight.to(layer.weight.device).float()

    return read
