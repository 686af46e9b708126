"""Storage roots: the same promises in a folder and in an object store (a real S3 server on loopback)."""

import errno
import multiprocessing
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import optuna
import pandas as pd
import pytest

from tests.factories.creators import create_all
from trials.errors import InputError
from trials.ledger import storage
from trials.ledger.record import Ledger, Score, TrialRecord

ROOT = Path(__file__).parents[3]


@pytest.fixture
def record(spec) -> TrialRecord:
    return TrialRecord(key=spec.key, state="complete", spec=spec, scores={"math": Score(value=0.5, stderr=0.1, n=25)})


@pytest.fixture
def adapter(tmp_path) -> Path:
    """A local folder with a file in a subfolder."""
    folder = tmp_path / "scratch" / "adapter"
    (folder / "inner").mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "inner" / "weights").write_bytes(bytes(range(256)) * 100)
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------- roots


def test_paths_and_file_urls_are_plain_paths(tmp_path):
    assert storage.root("runs") == Path("runs")
    assert storage.root(f"file://{tmp_path}") == tmp_path
    assert storage.root(tmp_path) is not None and storage.is_local(storage.root(tmp_path))


def test_store_is_no_local_path_and_passes_root_unchanged(s3):
    root = storage.root(f"{s3}/runs")
    assert not storage.is_local(root)
    assert storage.root(root) is root
    assert str(root / "a" / "b.json") == f"{s3}/runs/a/b.json"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("abc://x/runs", "abc:// is not supported"),
        ("abc://id:secret@x/runs", "come from the environment"),
        ("s3://", "names no bucket"),
        ("s3://id:secret@bucket/runs", "come from the environment"),
    ],
)
def test_bad_root_is_one_line_without_secrets(text, says):
    with pytest.raises(InputError, match=says) as refused:
        storage.root(text)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(("scheme", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs")])
def test_missing_package_is_named_by_its_extra(scheme, package, extra):
    code = f"import sys; sys.modules[{package!r}] = None; from trials.ledger import storage; storage.root('{scheme}://bucket/runs')"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1].endswith(f"a package is missing: pip install 'slimsweep[{extra}]'")


def test_unreachable_store_or_bucket_is_an_os_error_with_the_path(s3, monkeypatch):
    import s3fs

    with pytest.raises(OSError) as refused:
        storage.write_text(storage.root("s3://no-such-bucket/runs/a"), "")
    assert refused.value.filename == "s3://no-such-bucket/runs/a"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError) as refused:
        storage.read_bytes(storage.root(f"{s3}/runs/a"))
    assert refused.value.filename == f"{s3}/runs/a"
    assert "127.0.0.1:9" in str(refused.value)


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"AWS_ACCESS_KEY_ID": None}, "Unable to locate credentials"),
        ({"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found"),
        ({"AWS_ENDPOINT_URL": "nowhere"}, "Invalid endpoint: nowhere"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}, "Could not connect to the endpoint"),
        ({}, "bucket does not exist"),
    ],
)
@pytest.mark.parametrize("name", ["run", "plan"])
def test_unusable_store_is_one_line_before_anything_starts(s3, monkeypatch, command, parts, write, name, variables, says):
    import s3fs

    for variable, value in variables.items():
        monkeypatch.delenv(variable) if value is None else monkeypatch.setenv(variable, value)
    s3fs.S3FileSystem.clear_instance_cache()
    ran = command(name, write(parts), "--storage", "s3://no-such-bucket/runs")
    assert ran.returncode == 2
    assert ran.stderr.startswith(("storage: ", "s3://"))
    assert says in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert "Errno" not in ran.stderr
    assert ran.stdout == ""


class _Refusing(BaseHTTPRequestHandler):
    """Answers every request as S3 does where the key has no rights."""

    protocol_version = "HTTP/1.1"

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _refuse

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is its own."""


def test_check_of_a_store_reports_missing_rights_and_leaves_no_trace(s3, monkeypatch):
    import s3fs

    place = storage.root(f"{s3}/runs")
    storage.check_store(place)
    assert storage.names(storage.root(s3)) == []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(InputError, match=r"Access Denied") as refused:
        storage.check_store(storage.root("s3://theirs/runs"))
    server.shutdown()
    assert "\n" not in str(refused.value)


def test_silent_store_is_one_line(s3, monkeypatch):
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(storage, "_ANSWERS", 0.5)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match=r"did not answer within 0\.5 seconds"):
            storage.check_store(storage.root(f"{s3}/runs"))


@pytest.mark.parametrize("scheme", ["memory", "http", "https", "ftp", "hdfs", "abfs", "ssh", "dbfs", "foo"])
@pytest.mark.parametrize("name", ["run", "plan", "submit"])
def test_unsupported_scheme_is_refused_with_the_supported_ones(command, parts, write, scheme, name):
    address = ["--address", "http://127.0.0.1:9"] if name == "submit" else []
    ran = command(name, write(parts), "--storage", f"{scheme}://host/runs", *address)
    assert ran.returncode == 2
    assert ran.stderr == (
        f"storage: {scheme}://host/runs: {scheme}:// is not supported; a path, file://, s3:// or gs:// is right\n"
    )


def test_written_text_is_read_back_and_replaced(place):
    for text in ("old", "new ☃"):
        storage.write_text(place / "a" / "kept.txt", text)
        assert storage.read_text(place / "a" / "kept.txt") == text
    assert storage.names(place / "a") == ["kept.txt"]
    assert storage.names(place) == ["a"]
    assert storage.names(place / "nothing") == []
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(place / "a" / "other.txt")


def test_failed_write_leaves_the_old_file_only(place):
    storage.write_text(place / "kept.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        storage.write_text(place / "kept.txt", "\ud800")
    assert storage.read_text(place / "kept.txt") == "old"
    assert storage.names(place) == ["kept.txt"]


def test_writes_of_another_process_are_visible_at_once(place):
    storage.write_text(place / "mine", "")
    assert storage.names(place) == ["mine"]
    process = multiprocessing.get_context("spawn").Process(target=storage.write_text, args=(place / "theirs", "x"))
    process.start()
    process.join(60)
    assert storage.names(place) == ["mine", "theirs"]
    assert (place / "theirs").exists()


def test_folders_are_found_by_a_file_directly_in_them(place):
    for name in ("b/record.json", "a/record.json", "a/adapter/record.json", "c/partial/record.json", "record.json"):
        storage.write_text(place / name, "")
    assert storage.folders_with(place, "record.json") == ["a", "b"]
    assert storage.folders_with(place / "nothing", "record.json") == []


def test_files_and_folders_are_renamed_and_removed(place):
    storage.write_text(place / "a" / "one", "1")
    storage.rename(place / "a" / "one", place / "a" / "two")
    assert storage.names(place / "a") == ["two"]
    assert storage.read_text(place / "a" / "two") == "1"
    storage.remove(place / "a")
    storage.remove(place / "a")
    storage.remove(place / "a" / "two")
    assert storage.names(place) == []


# ---------------------------------------------------------------------- creation


@pytest.mark.parametrize("where", ["folder", "folder without links", "s3"])
def test_exactly_one_of_many_processes_creates_a_file(where, request, tmp_path):
    place = storage.root(tmp_path if where != "s3" else request.getfixturevalue("s3"))
    context, rounds, names = multiprocessing.get_context("spawn"), 20, ["a", "b", "c"]
    start, won = context.Barrier(len(names)), context.Queue()
    links = where != "folder without links"
    workers = [context.Process(target=create_all, args=(start, place, name, rounds, links, won)) for name in names]
    for worker in workers:
        worker.start()
    wins, ended = [], 0
    while ended < len(names):
        found = won.get(timeout=100)
        ended += found is None
        wins += [found] if found else []
    for worker in workers:
        worker.join(60)
    assert sorted(number for number, _ in wins) == list(range(rounds))
    for number, name in wins:
        assert storage.read_text(place / str(number)) == name


def test_store_without_exclusive_creation_is_detected(s3, monkeypatch):
    import s3fs

    pipe = s3fs.S3FileSystem._pipe_file

    async def obedient(self, path, data, mode="overwrite", **more):
        return await pipe(self, path, data, mode="overwrite", **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", obedient)
    with pytest.raises(InputError, match="ignores If-None-Match"):
        storage.create(storage.root(f"{s3}/lease"), "x")


# ---------------------------------------------------------------------- folders


def test_uploaded_folder_replaces_the_old_one_and_comes_back(place, adapter, tmp_path):
    storage.write_text(place / "KEY" / "adapter" / "stale", "")
    files = tree(adapter)
    storage.upload(adapter, place / "KEY" / "adapter")
    assert not adapter.exists()
    storage.download(place / "KEY" / "adapter", tmp_path / "back")
    assert tree(tmp_path / "back") == files
    assert "stale" not in storage.names(place / "KEY" / "adapter")


def test_interrupted_upload_is_no_folder(place, adapter, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    if storage.is_local(place):
        monkeypatch.setattr(Path, "rename", full)
    else:
        monkeypatch.setattr(storage, "write_json", full)
    with pytest.raises(OSError, match="full"):
        storage.upload(adapter, place / "KEY" / "adapter")
    with pytest.raises(FileNotFoundError):
        storage.download(place / "KEY" / "adapter", tmp_path / "back")


# ---------------------------------------------------------------------- the ledger


def test_record_is_written_to_any_root_with_adapter_and_documents(place, record, adapter, tmp_path):
    ledger, files = Ledger(place), tree(adapter)
    documents = pd.DataFrame({"role": ["math"], "task": ["gsm"], "doc_hash": ["h"], "score": [1.0]})
    ledger.write(record, documents, [adapter])
    assert Ledger(str(place)).read(record.key) == record
    assert ledger.documents(record.key, ["score"]).equals(documents[["score"]])
    assert list(ledger) == [record.key]
    assert ledger.read("0" * 16) is None
    storage.download(ledger.folder(record.key) / "adapter", tmp_path / "back")
    assert tree(tmp_path / "back") == files


def test_home_folder_and_variables_are_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    assert storage.root("~/runs") == Path("/home/me/runs")
    assert storage.root("~") == Path("/home/me")
    assert storage.root("$SCRATCH/runs") == storage.root("${SCRATCH}/runs") == Path("/scratch/me/runs")
    assert storage.root("file://$SCRATCH/runs") == Path("/scratch/me/runs")
    assert str(storage.root("s3://bucket$SCRATCH")) == "s3://bucket/scratch/me"


@pytest.mark.parametrize("text", ["[v2]", "50%", "x%41y", "q?a=b", "{a,b}", "a #x", "a$", "5$ each", "./~", "a~", "Ünï/数据"])
def test_other_characters_are_literal(text):
    assert storage.root(f"{text}/runs") == Path(f"{text}/runs")


@pytest.mark.parametrize(
    "text", ["$NOWHERE/runs", "${NOWHERE}", "~nobody-of-this-name/runs", "file://$NOWHERE", "s3://$NOWHERE/x"]
)
def test_unset_variable_is_refused(monkeypatch, text):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(InputError, match=r"is not set|nobody's home folder"):
        storage.root(text)


def test_path_object_is_not_expanded(monkeypatch):
    monkeypatch.delenv("b", raising=False)
    assert storage.root(Path("/data/a$b/runs")) == Path("/data/a$b/runs")


@pytest.mark.parametrize("name", ["[v2]", "50%", "x%41y", "q?a=b", "{a,b}", "#x", "a b", "Ünï"])
def test_sqlite_url_names_the_file(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    optuna.create_study(storage=optuna.storages.RDBStorage(storage.sqlite_url(folder / "study.db")))
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    assert list(tmp_path.iterdir()) == [folder]
