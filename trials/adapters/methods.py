"""What differs between the kinds of adapters that `lora.method` names: LoRA, OFT, SHiRA and full updates, by PEFT's classes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from peft import LoraConfig, OFTConfig, PeftConfig, ShiraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer

from trials.adapters import init
from trials.adapters.init import ADAPTER
from trials.adapters.low_rank import Converted
from trials.mix import Example
from trials.spec import Lora

# Said explicitly, or torch warns of the first sparse tensor. check_places holds what would be checked.
torch.sparse.check_sparse_tensor_invariants.disable()

_BLOCKS = ("layers_to_transform", "layers_pattern")
"""PEFT's settings that name blocks. SHiRA has none."""
_PATTERNS = ("rank_pattern", "alpha_pattern")
"""PEFT's settings of layers with a rank and an alpha of their own."""


class Method(ABC):
    """One of PEFT's kinds of adapters."""

    config: ClassVar[type[PeftConfig]]
    settings: ClassVar[tuple[str, ...]]
    """Settings of a saved adapter that are read beside target_modules: all that are set, none that makes PEFT load code."""

    @abstractmethod
    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        """PEFT's settings, beside those that name the layers. `inputs`: number of each layer's inputs, by name."""

    @abstractmethod
    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        """Sets the weights of a fresh adapter; raises InputError if they do not fit the base or the rows."""

    @abstractmethod
    def check(self, settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        """Raises ValueError for saved settings that are not those of the saved weights, before PEFT allocates by them."""

    def places(self, name: str, weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
        """(2, weights) the saved rows and columns that a layer's adapter changes; None if it changes all."""
        return None

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
    settings = ("r", "lora_alpha", *_PATTERNS, *_BLOCKS, "fan_in_fan_out", "use_rslora", "use_dora")

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

    def check(self, settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        ranks = {weight.shape[0] for name, weight in weights.items() if name.endswith("lora_A.weight")}
        for rank in (settings["r"], *settings["rank_pattern"].values()):
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

    It is what a full fine-tuning of these layers trains. The base's own weights stay as they are, so a strength, a lower rank
    and a penalty on the update's size mean what they mean for LoRA.
    """

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {"r": max(inputs.values()), "rank_pattern": inputs, "lora_alpha": 1, "alpha_pattern": inputs}

    @torch.no_grad()
    def begin(self, model: Any, pad_id: int, lora: Lora, rows: Sequence[Example]) -> None:
        for layer in adapted_layers(model).values():
            torch.nn.init.eye_(layer.lora_A[ADAPTER].weight).requires_grad_(False)


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
    settings = ("oft_block_size", *_BLOCKS)

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {"r": 0, "oft_block_size": lora.block_size}

    def check(self, settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        size = settings["oft_block_size"]
        if not weights or {weight.shape[1] for weight in weights.values()} != {size * (size - 1) // 2}:
            raise ValueError(f"its blocks have {size} inputs, its weights those of others")

    def tuned(self, layer: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight @ layer.get_delta_weight(ADAPTER).T  # the layer computes (x R) W^T

    def scale(self, layer: Any, strength: float) -> None:
        layer.oft_R[ADAPTER].weight.data *= strength


class _SHiRA(_FromZero):
    """Sparse high-rank adapters (arXiv 2406.13175): single weights, chosen at random, as many as LoRA of the same rank has.

    PEFT draws their places from a seed and saves them.
    """

    config = ShiraConfig
    settings = ("r", "random_seed")
    _WEIGHT, _PLACES = ".shira_weight", ".shira_indices"

    def options(self, lora: Lora, inputs: dict[str, int]) -> dict[str, Any]:
        return {"r": lora.rank, "random_seed": 0}

    def check(self, settings: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
        rank = settings["r"]
        counts = [len(weight) for name, weight in weights.items() if name.endswith(self._WEIGHT)]
        if not counts or not isinstance(rank, int) or rank < 1 or any(count % rank for count in counts):
            raise ValueError(f"its rank is {rank}, its weights have another")

    def places(self, name: str, weights: dict[str, torch.Tensor]) -> torch.Tensor | None:
        return weights[name + self._PLACES]

    def tuned(self, layer: Any, weight: torch.Tensor) -> torch.Tensor:
        return weight + layer.get_delta_weight(ADAPTER)

    def scale(self, layer: Any, strength: float) -> None:
        layer.shira_weight[ADAPTER].data *= strength


METHODS: dict[str, Method] = {"lora": _LoRA(), "oft": _OFT(), "shira": _SHiRA(), "full": _Full()}


def capturable(model: Any) -> bool:
    """Whether CUDA graphs may hold the model's passes: OFT and SHiRA make matrices as they run, which has not been tried."""
    return all(isinstance(layer, LoraLayer) for layer in adapted_layers(model).values())


def check_places(method: Method, layers: dict[str, Any], weights: dict[str, torch.Tensor]) -> None:
    """Raises ValueError for saved weights whose places are outside of a layer's: PEFT would write to memory beyond it."""
    for name, layer in layers.items():
        places = method.places(name, weights)
        if places is None:
            continue
        sizes = torch.tensor([[layer.out_features], [layer.in_features]])
        if places.is_floating_point() or bool(((places < 0) | (places >= sizes)).any()):
            raise ValueError(f"it has weights outside of {name}")


def of(config: PeftConfig) -> Method:
    """The method that reads, scales and merges adapters of this kind; that of LoRA for a full update."""
    return next(method for method in METHODS.values() if isinstance(config, method.config))


def adapted_layers(model: Any) -> dict[str, Any]:
    """The layers with an adapter, of whatever method, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}
