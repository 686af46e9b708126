"""Ray's own folder: short, writable, or one line that names the variable to set."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from orchestrator.cluster import limits
from trials.errors import InputError


def test_long_tmpdir_is_skipped(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(long))
    folder = limits.ray_folder()
    assert not folder.startswith(str(long)) and len(folder) <= 41


@pytest.mark.parametrize(("folder", "problem"), [("/" + "x" * 80, "longer than"), ("/nowhere", "no such"), ("rel", "absolute")])
def test_unfit_ray_tmpdir_is_refused_by_name(monkeypatch, folder, problem):
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(InputError, match=f"RAY_TMPDIR: {folder}: .*{problem}"):
        limits.ray_folder()


def test_process_that_has_a_ray_needs_no_folder(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    for started in (False, True):
        monkeypatch.setitem(limits.sys.modules, "ray", SimpleNamespace(is_initialized=lambda started=started: started))
        with nullcontext() if started else pytest.raises(InputError, match="RAY_TMPDIR: /nowhere"):
            limits.check_folder()


def test_low_limit_is_named(monkeypatch):
    limit = 4 << 30
    monkeypatch.setattr(limits.resource, "getrlimit", lambda number: (limit if number == limits.resource.RLIMIT_AS else -1, -1))
    assert limits.low() == "4096 MiB of memory (ulimit -v)"


def test_limits_under_which_ray_hangs_are_refused(monkeypatch):
    monkeypatch.setattr(limits.resource, "getrlimit", lambda number: (200, -1))
    monkeypatch.setattr(limits.os, "geteuid", lambda: 65534)
    with pytest.raises(InputError, match=r"200 processes and threads \(ulimit -u\)"):
        limits.check_threads()
    with pytest.raises(InputError, match=r"0 KiB here \(ulimit -f\)"):
        limits.check_file_size(128 << 20)
