"""The record's versions, hardware and memory come from this process."""

import importlib.metadata
import os

import torch

from trials.run import provenance


def test_versions_are_those_that_are_installed():
    versions = provenance.versions()
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions["unsloth"] == "not installed" or versions["unsloth"][0].isdigit()


def test_hardware_names_cores_and_threads():
    hardware = provenance.hardware()
    assert (hardware["cores"], hardware["threads"]) == (os.cpu_count(), torch.get_num_threads())
    assert (hardware["gpu"] is None) == (not torch.cuda.is_available())


def test_peak_memory_grows_with_an_allocation():
    provenance.reset_peak_memory()
    before = provenance.peak_memory()["host"]
    block = torch.ones(1 << 26)
    assert provenance.peak_memory()["host"] >= before
    assert provenance.peak_memory()["host"] > block.nbytes
