"""Checksums of files: cached for large files, and independent of their order."""

import os

from trials.hub import fingerprint


def test_large_file_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(2 << 20))
    os.utime(path, (1, 1))
    monkeypatch.setattr(fingerprint, "_SETTLED", -1)
    one = fingerprint.sha256(path)
    monkeypatch.setattr(fingerprint.hashlib, "file_digest", None)
    assert fingerprint.sha256(path) == one


def test_files_together_depend_on_names_and_content_but_not_on_order(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text(name)
    files = [(name, tmp_path / name) for name in "ab"]
    assert fingerprint.together(files) == fingerprint.together(reversed(files))
    swapped = [("a", tmp_path / "b"), ("b", tmp_path / "a")]
    assert fingerprint.together(files) != fingerprint.together(swapped)
