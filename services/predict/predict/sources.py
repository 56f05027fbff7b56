"""Where models are: `<name>/<version>/{model.json, model.onnx | model.skops}`.

Below a directory, or below the address of an `index.json` that lists them. A source says what
there is and reads it; it judges no model. Whatever is read is bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urljoin, urlsplit
from urllib.request import url2pathname

import httpx2
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from predict.card import NAME, VERSION
from predict.model import read_card
from predict.runtimes import LoadError
from predict.settings import Settings

CARD = "model.json"
FILES = ("model.onnx", "model.skops")
MAX_CARD_BYTES = 1_048_576
_CARDS_AT_ONCE = 8
_PICKLES = frozenset({".pkl", ".pickle", ".joblib"})
_NO_PICKLE = (
    "a pickle (joblib files are pickles) runs code of whoever wrote it when it is loaded;"
    " export the model to ONNX, or save it with skops"
)


class SourceError(Exception):
    """What there is cannot be read; the text is one line."""


@dataclass(frozen=True, slots=True)
class Found:
    """A place where a model is, or something that is refused for what it is.

    `read` returns the card and the model's file. `mark` changes whenever they may have changed;
    unless it is `of_card`, and tells nothing about the model's file. Something that is no version
    of a model, such as a stray pickle, has no name.
    """

    where: str
    mark: str
    name: str = ""
    version: str = ""
    refused: LoadError | None = None
    of_card: bool = False
    read: Callable[[], Awaitable[tuple[bytes, bytes]]] | None = None


class Source(Protocol):
    """A place of models."""

    async def look(self) -> list[Found]:
        """Return what is there now.

        Raises:
            SourceError: it cannot be told.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; nothing is read afterwards."""
        ...


def source_of(settings: Settings) -> Source:
    """Return the source that the settings name."""
    if settings.models_are_remote:
        return IndexSource(settings)
    root = Path(settings.models) if settings.models else Path(__file__).parent / "models"
    return DirectorySource(root, settings.max_models, settings.max_model_bytes)


class DirectorySource:
    """A directory. Hidden files and what has another name than those of models is passed over."""

    def __init__(self, root: Path, max_models: int, max_bytes: int) -> None:
        self._root = root
        self._max_models = max_models
        self._max_bytes = max_bytes

    async def look(self) -> list[Found]:
        """Return the versions, the pickles, and folders with a name that cannot be served."""
        return await asyncio.to_thread(self._look)

    async def close(self) -> None:
        """Do nothing: files are open while they are read."""

    def _look(self) -> list[Found]:
        try:
            names = _entries(self._root)
        except OSError as error:
            raise SourceError(f"{self._root}: {error.strerror or error}") from None
        found = [each for name in names for each in _guarded(name.name, self._of_name(name))]
        models = [number for number, each in enumerate(found) if each.refused is None]
        for number in models[self._max_models :]:
            refused = LoadError("limit", f"there are more than {self._max_models} models")
            found[number] = replace(found[number], refused=refused)
        return found

    def _of_name(self, folder: Path) -> Iterator[Found]:
        if not folder.is_dir():
            yield from _pickle(folder, folder.name)
            return
        for version in _entries(folder):
            where = f"{folder.name}/{version.name}"
            if version.is_dir():
                yield from _guarded(where, self._of_version(where, version))
            else:
                yield from _pickle(version, where)

    def _of_version(self, where: str, folder: Path) -> Iterator[Found]:
        inside = _entries(folder)
        for file in inside:
            yield from _pickle(file, f"{where}/{file.name}")
        yield self._version(where, folder, inside)

    def _version(self, where: str, folder: Path, inside: list[Path]) -> Found:
        mark = " ".join(_mark(file) for file in inside if file.name in {CARD, *FILES})
        name, version = where.split("/")
        if not re.match(NAME, name) or not re.match(VERSION, version):
            detail = "a model is named with a-z, 0-9 and -, a version with letters, digits, . _ -"
            return Found(where, mark, refused=LoadError("name", detail))

        async def read() -> tuple[bytes, bytes]:
            return await asyncio.to_thread(self._read, folder)

        return Found(where, mark, name, version, read=read)

    def _read(self, folder: Path) -> tuple[bytes, bytes]:
        card = _read_file(folder / CARD, MAX_CARD_BYTES)
        return card, _read_file(folder / read_card(card).file, self._max_bytes)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _guarded(where: str, found: Iterator[Found]) -> Iterator[Found]:
    """Make a folder that cannot be read one that is refused; one that has just gone is nothing."""
    try:
        yield from found
    except FileNotFoundError:
        return
    except OSError as error:
        name, _, version = where.partition("/")
        refused = LoadError("unreadable", f"the folder: {error.strerror or error}")
        yield Found(where, "", name, version, refused=refused)


def _mark(file: Path) -> str:
    try:
        found = file.stat()
    except OSError:
        return f"{file.name}:gone"
    return f"{file.name}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}"


def _pickle(file: Path, where: str) -> Iterator[Found]:
    if file.suffix.lower() in _PICKLES:
        yield Found(where, _mark(file), refused=LoadError("pickle", _NO_PICKLE))


def _read_file(file: Path, limit: int) -> bytes:
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode):  # a named pipe would never end
            raise LoadError("unreadable", f"{file.name} is no regular file")
        _bound(found.st_size, file.name, limit)
        with file.open("rb") as stream:
            content = stream.read(limit + 1)
    except FileNotFoundError:
        raise LoadError("missing", f"{file.name} is not there") from None
    except OSError as error:
        raise LoadError("unreadable", f"{file.name}: {error.strerror or error}") from None
    _bound(len(content), file.name, limit)  # it may have grown meanwhile
    return content


def _bound(size: int, name: str, limit: int) -> None:
    if size > limit:
        raise LoadError("size", f"{name} has more than {limit} bytes")


class _Index(BaseModel):
    """The document of an index: the places of models, as `<name>/<version>`, relative to it."""

    model_config = ConfigDict(extra="ignore")

    models: list[str] = Field(max_length=10_000)


class IndexSource:
    """An `index.json` at a URL: `{"models": ["<name>/<version>", ...]}`.

    Each entry is a folder beside the index. At every look the index and the cards are read, a few
    at once; a model's file only when its card has changed, and its checksum must be the card's.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = settings.models
        self._max_models = settings.max_models
        self._max_bytes = settings.max_model_bytes
        self._seconds = settings.fetch_seconds
        # One for all: each loads the certificates anew, which holds the event loop.
        self._client = httpx2.AsyncClient(trust_env=False, follow_redirects=False)
        self._cards = asyncio.Semaphore(_CARDS_AT_ONCE)
        self._late = 0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def look(self) -> list[Found]:
        """Return the models that the index lists."""
        self._late = 0
        try:
            text = await self._fetch(self._url, MAX_CARD_BYTES)
            index = _Index.model_validate_json(text)
        except LoadError as error:
            raise SourceError(f"the index: {error.detail}") from None
        except ValidationError:
            raise SourceError("the index is not of the shape that docs/models.md tells") from None
        places = list(dict.fromkeys(index.models))
        found = (
            self._found(place, within=number < self._max_models)
            for number, place in enumerate(places)
        )
        return list(await asyncio.gather(*found))

    async def _found(self, where: str, *, within: bool) -> Found:
        name, _, version = where.partition("/")
        shown = where[:100]
        if _is_pickle(where):
            return Found(shown, "", refused=LoadError("pickle", _NO_PICKLE))
        if not re.match(NAME, name) or not re.match(VERSION, version):
            return Found(shown, "", refused=LoadError("name", "not of the form <name>/<version>"))
        if not within:
            detail = f"there are more than {self._max_models} models"
            return Found(where, "", name, version, refused=LoadError("limit", detail))
        base = urljoin(self._url, f"{where}/")
        try:
            card = await self._card(urljoin(base, CARD))
        except LoadError as error:
            return Found(where, "", name, version, refused=error)

        async def read() -> tuple[bytes, bytes]:
            file = read_card(card).file
            return card, await self._fetch(urljoin(base, file), self._max_bytes)

        mark = hashlib.sha256(card).hexdigest()
        return Found(where, mark, name, version, of_card=True, read=read)

    async def _card(self, url: str) -> bytes:
        async with self._cards:
            if self._late >= _CARDS_AT_ONCE:  # else a slow host would hold a look for ever
                raise LoadError("unreadable", f"{CARD}: not asked for, as others came too late")
            return await self._fetch(url, MAX_CARD_BYTES)

    async def _fetch(self, url: str, limit: int) -> bytes:
        parts = urlsplit(url)
        name = parts.path.rpartition("/")[2]
        if parts.scheme == "file":
            return await asyncio.to_thread(_read_file, Path(url2pathname(parts.path)), limit)
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._client.stream("GET", url) as answer,
            ):
                if answer.status_code in {404, 410}:
                    raise LoadError("missing", f"{name} is not there")
                if not answer.is_success:
                    raise LoadError("unreadable", f"{name}: status {answer.status_code}")
                content = bytearray()
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    _bound(len(content), name, limit)
                return bytes(content)
        except (TimeoutError, httpx2.HTTPError) as error:
            self._late += isinstance(error, (TimeoutError, httpx2.TimeoutException))
            raise LoadError("unreadable", f"{name}: {type(error).__name__}") from None


def _is_pickle(where: str) -> bool:
    return Path(where).suffix.lower() in _PICKLES
