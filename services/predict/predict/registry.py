"""The models that serve, the ones that were refused, and how the one set becomes the next.

A look at the source loads what is new or changed, in a few threads, while everything goes on
serving. A version that loads and predicts its example takes its place at once; requests that are
in the queue of the one before end there. One that does not is put into quarantine with the
reason: what it should have replaced serves on, and it is tried again when its files change. Where
only a change of the card can be seen, a file that did not fit it is tried again after a while too.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from chassis.clock import Clock
from chassis.logs import get_logger
from predict.metrics import PredictMetrics
from predict.model import Loaded, Model, load
from predict.runtimes import Limits, LoadError
from predict.sources import Found, Source, SourceError

_log = get_logger("predict.registry")

_RETRY_SECONDS = 10.0
_MAX_RETRY_SECONDS = 300.0
_HALF_COPIED = frozenset({"checksum", "missing"})

_NUMBER_OR_WORD = re.compile(r"\d+|[A-Za-z]+")
_BEFORE_RELEASE = ("snapshot", "dev", "alpha", "beta", "pre", "preview", "rc")


class UnknownModelError(Exception):
    """There is no such model or version; the text names those that there are."""


class UnavailableModelError(Exception):
    """The model exists, and no file of it could be loaded; the text says why."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that was refused. `serving`: an older file of the same version serves on."""

    where: str
    mark: str
    name: str
    version: str
    reason: str
    detail: str
    since: datetime
    serving: bool


@dataclass(frozen=True, slots=True)
class _Retry:
    """When a file is fetched again though its card is the same, on the monotonic clock."""

    at: float
    wait: float


@dataclass(slots=True)
class Changes:
    """What one look has changed, by `<name>/<version>` or path."""

    loaded: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


class Registry:
    """The one table of models of a process; read on the event loop, without locks."""

    def __init__(
        self,
        source: Source,
        *,
        make: Callable[[Loaded], Model],
        limits: Limits,
        executor: Executor,
        at_once: int,
        metrics: PredictMetrics,
        clock: Clock,
        default: str,
    ) -> None:
        self._source = source
        self._make = make
        self._limits = limits
        self._executor = executor
        self._metrics = metrics
        self._clock = clock
        self._default = default
        self._looking = asyncio.Lock()
        self._few = asyncio.Semaphore(at_once)
        self._marks: dict[str, str] = {}
        """What was tried last of each place, whatever came of it."""
        self._retries: dict[str, _Retry] = {}
        self._models: dict[str, dict[str, Model]] = {}
        self._refused: dict[str, Quarantined] = {}
        self.generation = 0
        """Grows with every change of what serves."""

    @property
    def models(self) -> Mapping[str, Mapping[str, Model]]:
        """What serves: name -> version -> model, the newest version last."""
        return self._models

    @property
    def quarantine(self) -> list[Quarantined]:
        """What was refused, by place."""
        return [self._refused[where] for where in sorted(self._refused)]

    @property
    def default(self) -> str | None:
        """The model of a request that names none, if there is one."""
        if self._default in self._models:
            return self._default
        return next(iter(self._models)) if len(self._models) == 1 else None

    def newest(self, name: str) -> Model | None:
        """Return the newest version of a model that serves."""
        return next(reversed(self._models.get(name, {}).values()), None)

    def serves(self, model: Model) -> bool:
        """Say whether this very model is in the table."""
        return self._models.get(model.card.name, {}).get(model.card.version) is model

    def find(self, name: str | None = None, version: str | None = None) -> Model:
        """Return a model; without a version its newest, without a name the default one.

        Raises:
            UnknownModelError: there is none.
            UnavailableModelError: there is one, and it was refused.
        """
        name = name or self.default or self._default
        versions = self._models.get(name, {})
        model = versions.get(version) if version else self.newest(name)
        if model is not None:
            return model
        for refused in self._refused.values():
            if refused.name == name and version in {None, "", refused.version}:
                raise UnavailableModelError(
                    f"{refused.where} is in quarantine ({refused.reason}): {refused.detail}"
                )
        if versions:
            raise UnknownModelError(
                f"{name} has no version {str(version)[:40]}; there are {', '.join(versions)}"
            )
        known = ", ".join(self._models) or "none"
        raise UnknownModelError(f"There is no model {name[:70]}; there are: {known}")

    async def look(self, *, eager: bool = False) -> Changes:
        """Bring the table up to date with the source; looks never overlap.

        An `eager` look waits for no retry's time.

        Raises:
            SourceError: the source cannot be read; nothing changes then.
        """
        async with self._looking:
            try:
                found = await self._source.look()
            except SourceError as error:
                self._metrics.scan_failures.inc()
                _log.error("models.unreadable", detail=str(error))
                raise
            changes = Changes()
            await asyncio.gather(*(self._take(each, changes, eager=eager) for each in found))
            self._remove_what_is_gone(found, changes)
            self._metrics.loaded.set(sum(map(len, self._models.values())))
            self._metrics.quarantined.set(len(self._refused))
            return changes

    async def _take(self, found: Found, changes: Changes, *, eager: bool) -> None:
        where = found.where
        if found.refused is not None:
            known = self._refused.get(where)
            if known is not None and known.mark == self._marks.get(where):
                del self._marks[where]  # its own reason is hidden now: to be tried anew after
            self._refuse(found, found.refused, changes)
            return
        if not self._is_due(found, eager=eager):
            return
        loaded = await self._load(found)
        if isinstance(loaded, Loaded):
            self._marks[where] = found.mark
            self._serve(found, self._make(loaded))
            changes.loaded.append(where)
            return
        if loaded.reason == "unreadable":  # of the place, not of the file: it may just pass
            self._marks.pop(where, None)
        else:
            self._marks[where] = found.mark
        if found.of_card and loaded.reason in _HALF_COPIED:
            self._try_later(where)
        self._refuse(found, loaded, changes)

    def _is_due(self, found: Found, *, eager: bool) -> bool:
        """Say whether there is something to try: another mark, or a retry whose time has come."""
        where = found.where
        if self._marks.get(where) != found.mark:
            self._retries.pop(where, None)
            return True
        known = self._refused.get(where)
        if known is not None and known.mark != found.mark:
            del self._refused[where]  # it could not be read for a while; nothing changed
        retry = self._retries.get(where)
        return retry is not None and (eager or retry.at <= self._clock.monotonic())

    async def _load(self, found: Found) -> Loaded | LoadError:
        assert found.read is not None
        try:
            async with self._few:  # each holds a whole file in memory
                card, content = await found.read()
                loop = asyncio.get_running_loop()
                place = (found.name, found.version)
                return await loop.run_in_executor(
                    self._executor, load, card, content, place, self._limits
                )
        except LoadError as error:
            return error
        except Exception as error:  # noqa: BLE001  (one model must not stop the others)
            return LoadError("format", f"{type(error).__name__}: {error}")

    def _try_later(self, where: str) -> None:
        """Note when to fetch a file again; each time it waits twice as long."""
        before = self._retries.get(where)
        wait = min(before.wait * 2, _MAX_RETRY_SECONDS) if before else _RETRY_SECONDS
        self._retries[where] = _Retry(self._clock.monotonic() + wait, wait)

    def _serve(self, found: Found, model: Model) -> None:
        before = self._models.get(found.name, {}).get(found.version)
        if before is not None:
            before.metrics.no_drift()
        versions = {**self._models.get(found.name, {}), found.version: model}
        ordered = {key: versions[key] for key in sorted(versions, key=_natural)}
        # One assignment on the event loop: a request sees the old table or the new one.
        self._models = dict(sorted({**self._models, found.name: ordered}.items()))
        self._refused.pop(found.where, None)
        self._retries.pop(found.where, None)
        self.generation += 1
        _log.info(
            "model.loaded",
            model=found.name,
            model_version=found.version,
            sha256=model.card.sha256[:12],
        )

    def _refuse(self, found: Found, error: LoadError, changes: Changes) -> None:
        serving = found.version in self._models.get(found.name, {})
        before = self._refused.get(found.where)
        if before is not None and (before.mark, before.detail) == (found.mark, error.detail):
            return
        self._refused[found.where] = Quarantined(
            where=found.where,
            mark=found.mark,
            name=found.name,
            version=found.version,
            reason=error.reason,
            detail=error.detail,
            since=self._clock.now(),
            serving=serving,
        )
        self._metrics.load_failures.labels(error.reason).inc()
        changes.refused.append(found.where)
        _log.error(
            "model.refused",
            where=found.where,
            reason=error.reason,
            detail=error.detail,
            old_one_serves=serving,
        )

    def _remove_what_is_gone(self, found: list[Found], changes: Changes) -> None:
        places = {each.where for each in found}
        known: tuple[dict[str, Any], ...] = (self._refused, self._marks, self._retries)
        for table in known:
            for where in [where for where in table if where not in places]:
                del table[where]
        serving = [(name, version) for name, held in self._models.items() for version in held]
        for name, version in serving:
            if (where := f"{name}/{version}") in places:
                continue
            left = {key: each for key, each in self._models[name].items() if key != version}
            others = {key: each for key, each in self._models.items() if key != name}
            self._models = dict(sorted({**others, **({name: left} if left else {})}.items()))
            self.generation += 1
            self._metrics.forget(name, version)
            changes.removed.append(where)
            _log.info("model.removed", model=name, model_version=version)


def _natural(version: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return the key that sorts 2 before 10, and 2-rc1 before 2."""
    parts = [_rank(part) for part in _NUMBER_OR_WORD.findall(version)]
    return [*parts, (0, 0, "")], version


def _rank(part: str) -> tuple[int, int, str]:
    if part.isdecimal():
        return 2, int(part), ""
    if (word := part.lower()) in _BEFORE_RELEASE:
        return -1, _BEFORE_RELEASE.index(word), ""
    return 1, 0, part
