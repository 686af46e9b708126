"""What differs between the kinds of adapters that `lora.method` names: LoRA, OFT, SHiRA and full updates, by PEFT's classes."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from peft import LoraConfig, OFTConfig, PeftConfig, ShiraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from trials.adapters import init
from trials.adapters.init import ADAPTER
from trials.adapters.low_rank import Converted, Square, sum_weights
from trials.mix import Example
from trials.spec import Lora

# torch warns at the first sparse tensor unless this is set; SHiRA's check holds what would be checked
torch.sparse.check_sparse_tensor_invariants.disable()

Shapes = Mapping[str, Sequence[int]]
"""[outputs, inputs] of a base's layers, by name."""
# PEFT takes names for regular expressions, some of which never terminate
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$")]
_Count = Annotated[int, Field(gt=0)]
_Scale = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Saved(BaseModel):
    """Settings of a saved adapter that are read: all that are set, and none that makes PEFT load code."""

    model_config = ConfigDict(strict=True, extra="ignore")

    target_modules: list[_Name]


class _Blocks(_Saved):
    layers_to_transform: list[int] | None
    layers_pattern: list[_Name] | None


class _SavedLoRA(_Blocks):
    r: _Count
    lora_alpha: _Scale
    rank_pattern: dict[_Name, _Count]
    alpha_pattern: dict[_Name, _Scale]
    fan_in_fan_out: bool
    use_rslora: bool
    use_dora: bool


class _SavedOFT(_Blocks):
    oft_block_size: Annotated[int, Field(ge=2)]


class _SavedSHiRA(_Saved):
    r: _Count


class Method(ABC):
    """One of PEFT's kinds of adapters."""

    config: ClassVar[type[PeftConfig]]
    saved: ClassVar[type[_Saved]]

    @abstractmethod
    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        """PEFT's settings, beside those that name the layers. `inputs`: number of each layer's inputs, by name."""

    def configured(self, options: Mapping[str, Any], seed: int) -> PeftConfig:
        """PEFT's settings of a fresh adapter. `seed` draws what its form leaves open."""
        return self.config(task_type="CAUSAL_LM", **options)

    @abstractmethod
    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        """Sets the weights of a fresh adapter; raises InputError if they do not fit the base or the rows."""

    @abstractmethod
    def check(self, saved: Any, weights: Mapping[str, torch.Tensor], shapes: Shapes) -> None:
        """Raises ValueError for saved weights that do not fit their settings or the base's layers, before PEFT allocates."""

    @abstractmethod
    def tuned(self, layer: Any, weight: torch.Tensor) -> torch.Tensor:
        """(outputs, inputs) the layer's weight with the adapter merged; `weight` is the base's."""

    @abstractmethod
    def scale(self, layer: Any, strength: float) -> None:
        """Multiplies the layer's update by `strength`."""

    def clear(self, layer: Any) -> None:
        """Removes the layer's update, so that the layer is the base's to the bit."""
        self.scale(layer, 0.0)


class _LoRA(Method):
    config = LoraConfig
    saved = _SavedLoRA

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {
            "r": lora.rank,
            "lora_alpha": lora.alpha,  # PEFT only divides by it
            "lora_dropout": lora.dropout,
            "use_rslora": lora.use_rslora,
            "use_dora": lora.use_dora,
            **init.settings(lora),
        }

    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        init.begin(model, pad_id, lora, rows)

    def check(self, saved: _SavedLoRA, weights: Mapping[str, torch.Tensor], shapes: Shapes) -> None:
        downs = _named(weights, ".lora_A.weight")
        for layer, weight in downs.items():
            _fits(layer, weight, (weight.shape[0] if weight.ndim else 0, _inputs(layer, shapes)))
        ranks = {weight.shape[0] for weight in downs.values()}
        for rank in (saved.r, *saved.rank_pattern.values()):
            if rank not in ranks:
                raise ValueError(f"its rank is {rank}, its weights have another")

    def tuned(self, layer: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight + layer.get_delta_weight(ADAPTER)

    def scale(self, layer: Any, strength: float) -> None:
        variant, up = layer.lora_variant.get(ADAPTER), layer.lora_B[ADAPTER].weight.data
        if isinstance(variant, Converted):
            variant.up *= strength
        if ADAPTER not in layer.lora_magnitude_vector:
            up *= strength
            return
        # DoRA: another B and other magnitudes give the straight line between base and tuned weights exactly:
        # W + t (c (W + s B A) - W) = g W + t c s B A, where g = 1 - t + t c, and c is a row's magnitude over its norm
        magnitude, down = layer.lora_magnitude_vector[ADAPTER].weight.data, layer.lora_A[ADAPTER].weight.data
        weight, scale = init.dense(layer), layer.scaling[ADAPTER]
        ratio = magnitude / torch.linalg.norm(weight + scale * up @ down, dim=1)
        kept = 1 - strength + strength * ratio
        up *= (strength * ratio / kept)[:, None]
        magnitude.copy_(kept * torch.linalg.norm(weight + scale * up @ down, dim=1))

    def clear(self, layer: Any) -> None:
        layer.lora_B[ADAPTER].weight.zero_()
        variant = layer.lora_variant.get(ADAPTER)
        if isinstance(variant, Converted):
            variant.up.zero_()
        elif variant is not None:  # DoRA: resets the magnitudes to the base's
            variant.init(layer, adapter_name=ADAPTER)


class _Full(_LoRA):
    """A full update of each layer's weights, as the B of a LoRA whose A is the identity and stays it.

    It is what a full fine-tuning of these layers trains without weight decay, which draws this update towards the base. The
    base's own weights stay as they are, so a strength, a lower rank and a penalty on the update's size mean what they mean for
    LoRA.
    """

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {"r": max(inputs.values()), "rank_pattern": inputs, "lora_alpha": 1, "alpha_pattern": inputs}

    @torch.no_grad()
    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        for layer in adapted_layers(model).values():
            torch.nn.init.eye_(layer.lora_A[ADAPTER].weight).requires_grad_(False)
            layer.lora_variant[ADAPTER] = Square()
            if type(layer.get_base_layer()) is torch.nn.Linear:  # others hold it in 4 bits, or transposed
                sum_weights(layer, ADAPTER)


class _FromZero(Method):
    """A method whose update is zero as PEFT makes it."""

    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        pass


class _OFT(_FromZero):
    """Orthogonal fine-tuning (arXiv 2306.07280): a layer's inputs are rotated, block by block, before its weights see them.

    The rotation is Cayley's (I + Q) (I - Q)^-1 of a skew-symmetric Q, by the first five terms of its Neumann series (arXiv
    2506.19847), as PEFT does by default. Q is zero at the start, and a strength scales Q: the angles, to first order.
    """

    config = OFTConfig
    saved = _SavedOFT

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {"r": 0, "oft_block_size": lora.block_size}

    def check(self, saved: _SavedOFT, weights: Mapping[str, torch.Tensor], shapes: Shapes) -> None:
        size = saved.oft_block_size
        for layer, weight in _named(weights, ".oft_R.weight").items():
            _fits(layer, weight, (_inputs(layer, shapes) // size, size * (size - 1) // 2))

    def tuned(self, layer: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight @ layer.get_delta_weight(ADAPTER).T  # the layer computes (x R) W^T

    def scale(self, layer: Any, strength: float) -> None:
        layer.oft_R[ADAPTER].weight.data *= strength


class _SHiRA(_FromZero):
    """Sparse high-rank adapters (arXiv 2406.13175): single weights, chosen at random, as many as LoRA of the same rank has.

    Their places are drawn from the training's seed and saved. PEFT adds the update to the base's weights at each pass, in
    base.dtype: in 16 bits an update that is small beside a weight is rounded away.
    """

    config = ShiraConfig
    saved = _SavedSHiRA

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {"r": lora.rank}

    def configured(self, options: Mapping[str, Any], seed: int) -> PeftConfig:
        config = super().configured(options, seed)
        # with a seed of its own, PEFT would choose the same places in all layers of one shape
        config.mask_fn = functools.partial(_mask, torch.Generator().manual_seed(seed))  # type: ignore[attr-defined]
        return config

    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        del model.peft_config[ADAPTER].mask_fn  # saved adapters hold the places themselves

    def check(self, saved: _SavedSHiRA, weights: Mapping[str, torch.Tensor], shapes: Shapes) -> None:
        places = _named(weights, ".shira_indices")
        for layer, weight in _named(weights, ".shira_weight").items():
            outputs, inputs = shapes[layer] if layer in shapes else (0, _inputs(layer, shapes))
            _fits(layer, weight, (saved.r * (outputs + inputs),))
            if layer not in places:
                raise ValueError(f"it lacks the places of {layer}")
            _fits(layer, places[layer], (2, len(weight)))
            sizes = torch.tensor([[outputs], [inputs]])
            if places[layer].dtype != torch.int32 or bool(((places[layer] < 0) | (places[layer] >= sizes)).any()):
                raise ValueError(f"it has weights outside of {layer}")  # PEFT would write to memory there

    def tuned(self, layer: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight + layer.get_delta_weight(ADAPTER)

    def scale(self, layer: Any, strength: float) -> None:
        layer.shira_weight[ADAPTER].data *= strength


METHODS: dict[str, Method] = {"lora": _LoRA(), "oft": _OFT(), "shira": _SHiRA(), "full": _Full()}


def capturable(model: Any) -> bool:
    """Whether CUDA graphs may hold the model's passes: OFT and SHiRA make matrices as they run, which has not been tried."""
    return all(isinstance(layer, LoraLayer) for layer in adapted_layers(model).values())


def _mask(generator: torch.Generator, layer: Any, rank: int, **_: Any) -> torch.Tensor:
    """(outputs, inputs), true at the places that SHiRA trains."""
    shape = (layer.out_features, layer.in_features)
    places = torch.randperm(shape[0] * shape[1], generator=generator)[: rank * sum(shape)]
    mask = torch.zeros(shape[0] * shape[1], dtype=torch.bool)
    mask[places] = True
    return mask.view(shape).to(layer.weight.device)


_PREFIX = "base_model.model."
"""Of the names of saved weights."""


def _named(weights: Mapping[str, torch.Tensor], end: str) -> dict[str, torch.Tensor]:
    """The saved weights whose names end so, by layer."""
    return {name.removesuffix(end).removeprefix(_PREFIX): weight for name, weight in weights.items() if name.endswith(end)}


def _inputs(layer: str, shapes: Shapes) -> int:
    if layer not in shapes:
        raise ValueError(f"the base has no layer {layer}")
    return shapes[layer][1]


def _fits(layer: str, weight: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(weight.shape) != shape or not weight.numel():
        raise ValueError(f"{layer} has weights of the shape {tuple(weight.shape)}, and {shape} fits its settings and the base")


def of(config: PeftConfig) -> Method:
    """The method that reads, scales and merges adapters of this kind; that of LoRA for a full update."""
    return next(method for method in METHODS.values() if isinstance(config, method.config))


def adapted_layers(model: Any) -> dict[str, Any]:
    """The layers with an adapter, of whatever method, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
