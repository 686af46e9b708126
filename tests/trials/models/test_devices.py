"""The 16-bit type follows from the device."""

import pytest
import torch

from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import base, devices
from trials.spec import Base


@pytest.mark.parametrize(
    ("capability", "expected"),
    [(None, "bfloat16"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")],
)
def test_type_is_bfloat16_on_hardware_with_units_for_it(capability, expected):
    assert devices.half_type(capability) == expected


def on_a_gpu(monkeypatch, capability) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)


def test_bfloat16_without_units_is_refused_before_loading(monkeypatch):
    on_a_gpu(monkeypatch, (7, 5))
    with pytest.raises(InputError, match=r"\(compute capability 7\.5\) has no units for bfloat16; use base\.dtype: float16"):
        base.load(Base(model="micro", dtype="bfloat16"), Hub())
    devices.check("float16")
    on_a_gpu(monkeypatch, (8, 9))
    devices.check("bfloat16")


def test_unresolved_type_is_refused():
    for refusing in (base.check, base.load):
        with pytest.raises(InputError, match="auto is resolved to a type before a trial gets its key"):
            refusing(Base(model="micro"), Hub())
