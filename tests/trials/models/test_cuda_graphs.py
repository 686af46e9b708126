"""A failed capture is reported and not repeated; each device has a stream of its own."""

import pytest
import torch

from trials.models import cuda_graphs


def test_failed_capture_warns_and_is_not_repeated(caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(cuda_graphs, "_warm", lambda run: run())
    model, asked, runs = torch.nn.Linear(1, 1), [], []

    def fails() -> None:
        asked.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    assert cuda_graphs.tried(model, lambda: runs.append(1), fails) is None
    assert cuda_graphs.tried(model, lambda: runs.append(1), fails) is None
    assert (len(asked), len(runs)) == (1, 1)
    assert "Linear" in caplog.text
    assert "operation not permitted" in caplog.text
    other = torch.nn.Linear(1, 1)

    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert cuda_graphs.tried(other, lambda: None, full) is None
    assert cuda_graphs.tried(other, lambda: None, lambda: 7) == 7  # out of memory is no property of the model


def test_error_in_the_warm_up_is_raised(monkeypatch):
    monkeypatch.setattr(cuda_graphs, "_warm", lambda run: run())

    def broken() -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        cuda_graphs.tried(torch.nn.Linear(1, 1), broken, lambda: 7)


def test_each_device_has_one_stream_for_its_captures(monkeypatch):
    """A stream belongs to the device that was current when it was made."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: ("stream of", device, object()))
    cuda_graphs._stream.cache_clear()
    first, second = cuda_graphs._stream(0), cuda_graphs._stream(1)
    assert (first[1], second[1]) == (0, 1)
    assert cuda_graphs._stream(0) is first
    cuda_graphs._stream.cache_clear()
