"""The checkpoints of an unfinished trial in `LEDGER/KEY/partial/`, from which the next attempt resumes.

training.json              the newest state of the training, and the name of the file with its tensors
documents.ROLE.json        for an evaluated role, the name of the file with its documents
*.safetensors, *.parquet   the files that these two name
adapter/, adapter-N/       the trained adapter, and the adapter after N rows, until the record takes them
damaged.*                  a .json that could not be used
"""

import copy
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import safetensors

from trials.errors import writing
from trials.ledger import storage

T = TypeVar("T")
Tensors = Mapping[str, Any]  # torch.Tensor; torch is imported where there are tensors, so that the ledger stays light
Origin = Mapping[str, Any]  # JSON values: the key, base, versions and device that a checkpoint was made with
_DEPTH = 3  # names below the storage root: ledger, KEY, partial


class Saved(NamedTuple):
    state: dict[str, Any]
    tensors: Tensors


class CheckpointStore:
    """The checkpoints of one trial, each bound to its origin: a checkpoint of another origin is never returned.

    `set_aside` has a line for each unusable checkpoint. Every method raises StorageFailed where the storage cannot be read or
    written.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.origin: Origin = {}
        self.set_aside: list[str] = []
        self._scratch: list[Path] = []  # shared by the bound copies
        with writing(folder):
            if storage.is_link(folder) or (storage.is_local(folder) and folder.is_file()):  # never written to or cleared
                aside = storage.set_aside(folder)
                self.set_aside.append(f"{folder.name}: no folder of the trial's own, kept as {aside.name}")

    def bound(self, **origin: Any) -> "CheckpointStore":
        """A store of the same folder whose checkpoints also depend on `origin`."""
        other = copy.copy(self)
        other.origin = {**self.origin, **origin}
        return other

    def save(self, state: Mapping[str, Any], tensors: Tensors) -> None:
        """Replaces the training's state, whose values are JSON."""
        with writing(self.folder):
            self._put("training", state, serialized(tensors), "safetensors")

    def load(self, read: Callable[[Saved], T]) -> T | None:
        """The training's state, converted by `read`; None where this origin has no whole one, or `read` fails on it."""
        import safetensors.torch

        def opened(state: dict[str, Any], content: bytes) -> T:
            return read(Saved(state, {name: tensor.clone() for name, tensor in safetensors.torch.load(content).items()}))

        with writing(self.folder):
            return self._get("training", opened)

    def save_documents(self, name: str, state: Mapping[str, Any], documents: pd.DataFrame) -> None:
        """Saves evaluated documents under a name. The values of `state` are JSON."""
        with writing(self.folder):
            self._put(f"documents.{name}", state, documents.to_parquet(index=False), "parquet")

    def load_documents(self, name: str) -> tuple[dict[str, Any], pd.DataFrame] | None:
        """The state and the documents under a name; None where this origin has no whole ones."""
        with writing(self.folder):
            return self._get(f"documents.{name}", lambda state, content: (state, pd.read_parquet(io.BytesIO(content))))

    def save_adapter(self, write: Callable[[Path], None], name: str = "adapter") -> Path:
        """Lets `write` fill a folder and returns it. The folder is local, and exists only when it is whole."""
        with writing(self.folder), self._anchored(self.local) as folder:
            path, unfinished = folder / name, folder / f".{name}"
            storage.remove(path)
            storage.remove(unfinished)
            write(unfinished)
            storage.rename(unfinished, path)
        return self.local / name

    @property
    def local(self) -> Path:
        """The folder in which adapters wait for the record: the store's own, or a temporary one for a remote storage."""
        if storage.is_local(self.folder):
            return self.folder
        if not self._scratch:
            self._scratch.append(Path(tempfile.mkdtemp(prefix="slimsweep-adapter-")))
        return self._scratch[0]

    def leave(self) -> None:
        """Removes the temporary folder and keeps the checkpoints."""
        for folder in self._scratch:
            storage.remove(folder)

    def remove(self) -> None:
        with writing(self.folder):
            storage.remove(self.folder)

    @contextmanager
    def _anchored(self, folder: Path) -> Iterator[Path]:
        """The folder to write to, safe from somebody who replaces it by a link while the trial runs."""
        if folder != self.folder:
            yield folder
            return
        with storage.anchored(folder, _DEPTH) as anchored:
            yield anchored

    def _put(self, name: str, state: Mapping[str, Any], content: bytes, kind: str) -> None:
        file = f"{name}-{hashlib.sha256(content).hexdigest()[:16]}.{kind}"
        sealed = {"file": file, "origin": self.origin, "state": state}
        text = json.dumps({**sealed, "sha256": _seal(sealed, content)}, allow_nan=False)
        with self._anchored(self.folder) as folder:
            for damaged in (folder / file, folder / f"{name}.json"):
                if storage.is_local(damaged) and damaged.is_dir():
                    storage.remove(damaged)
            storage.replace_file(folder / file, lambda path: path.write_bytes(content))
            # last and atomic, with a checksum of everything: so the checkpoint counts as a whole or not at all
            storage.write_text(folder / f"{name}.json", text)
            for other in storage.names(folder):  # older checkpoints, and partial files after a kill
                if other != file and other.startswith((f"{name}-", f".{name}")):
                    storage.remove(folder / other)

    def _get(self, name: str, read: Callable[[dict[str, Any], bytes], T]) -> T | None:
        """State and content, converted by `read`; an unusable checkpoint is set aside."""
        path = self.folder / f"{name}.json"
        try:
            return read(*self._opened(storage.read_bytes(path)))
        except FileNotFoundError:
            return None
        except storage.NotAFile as error:
            reason = str(error.strerror)
        except _Unusable as error:
            reason = str(error)
        except (ValueError, TypeError, KeyError, AttributeError, LookupError, safetensors.SafetensorError) as error:
            reason = f"it holds something else ({' '.join(f'{type(error).__name__}: {error}'.split())[:120]})"
        damaged = path.with_name(f"damaged.{path.name}")
        storage.remove(damaged)
        storage.rename(path, damaged)
        self.set_aside.append(f"{path.name}: {reason}")
        return None

    def _opened(self, text: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            sealed = json.loads(text)  # JSON, never pickle: others may be able to write to the storage
            if sealed.keys() != {"file", "origin", "state", "sha256"}:
                raise _Unusable("it is not whole")
            content = storage.read_bytes(self.folder / Path(sealed["file"]).name)
            if sealed.pop("sha256") != _seal(sealed, content):
                raise _Unusable("its checksum is wrong")
        except FileNotFoundError:
            raise _Unusable("the file that it names is missing") from None
        except storage.NotAFile as error:
            raise _Unusable(f"the file that it names is {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise _Unusable("it is not whole") from None
        wanted = json.loads(json.dumps(self.origin))
        if other := sorted(name for name in {*sealed["origin"], *wanted} if sealed["origin"].get(name) != wanted.get(name)):
            raise _Unusable(f"it was made with another {', '.join(other)}")
        return sealed["state"], content


class _Unusable(Exception):
    """Not whole, or of another origin."""


def serialized(tensors: Tensors) -> bytes:
    """The bytes of a safetensors file; equal tensors give equal bytes."""
    import safetensors.torch

    return safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _seal(sealed: Mapping[str, Any], content: bytes) -> str:
    digest = hashlib.sha256(json.dumps(sealed, sort_keys=True).encode())
    digest.update(content)
    return digest.hexdigest()
