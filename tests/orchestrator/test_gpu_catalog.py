"""GPUs are found by the names that people, drivers and Ray give them."""

import pytest

from orchestrator import gpu_catalog
from trials.errors import InputError


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("A100-80G", "A100-80GB"),
        ("a100", "A100-40GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx3090", "RTX 3090"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA H200", "H200"),
    ],
)
def test_gpu_is_found_by_its_names(name, kind):
    assert gpu_catalog.find(name).name == kind


def test_unknown_gpu_is_one_line_with_the_known_ones():
    with pytest.raises(InputError, match=r"--gpu L40: .*; there are H200, .*T4"):
        gpu_catalog.find("L40")


def test_old_gpus_have_no_bfloat16():
    assert gpu_catalog.before_bfloat16("Tesla T4") == (7, 5)
    assert gpu_catalog.before_bfloat16("NVIDIA A100-SXM4-40GB") is None
