"""Captions that a command encodes before it needs the memory: into a text store, or into memory; see ``texts``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import NetworkOptions, TextStoreOptions
from ..errors import ConfigError, DMPError, StoppedError
from .console import Printer

if TYPE_CHECKING:
    import torch

    from ..backbones import Backbone, CaptionTable
    from ..runtime import StopRequest, World
    from ..texts import TextStore

_SMALL = "clip"  # the one kind of text encoders that is small beside its backbone
_MOST_HELD = 50_000  # captions whose encodings memory is never large enough for
_UNSAID = object()
_ELSEWHERE = "Name a folder with --text-store-dir, set DMP_HOME to one, or do without by --no-text-store."


class Captions:
    """How the captions of one command are encoded: as they are needed, or all of them first, into a store."""

    def __init__(
        self,
        options: TextStoreOptions,
        *,
        device: torch.device,
        world: World,
        printer: Printer,
        by_default: bool = False,
        earlier: Any = _UNSAID,
        hint: str = "--text-store keeps them on disk",
    ) -> None:
        """Nothing is encoded yet.

        Args:
            by_default: whether large encoders get a store unasked.
            earlier: the precision of an earlier part of the same work, None where it had no store; it is gone on with
                unless another one is asked for.
            hint: what to do where memory cannot keep so many captions.
        """
        self._hint = hint
        self.options, self.device, self.world, self.printer = options, device, world, printer
        self._by_default, self._earlier = by_default, earlier
        self.dtype: str | None = None  # of the store; None: there is none
        self._early: tuple[Path, int | None, CaptionTable] | None = None

    def encode_early(
        self, network: NetworkOptions, peeked: Backbone | None, captions: Iterable[str], *, holds: bool = False
    ) -> None:
        """Encode before the backbone's weights are read, where its place tells where the text encoders are.

        ``peeked`` is the backbone without its weights; ``holds``: see :meth:`hold`. The encoders have left memory
        afterwards.

        Raises:
            ConfigError: the store is one of other encoders.
            DMPError: it cannot be written, or the disk has no room for it.
        """
        from ..backbones import load_text, peek_text, recall_text, text_kind_of

        if peeked is None or not peeked.takes_text:
            return
        folder = peek_text(network.name or "", network.checkpoint, network.text)
        if folder is None or not folder.exists():
            return
        has_store = self._choose(folder) is not None
        if not has_store and not (holds and text_kind_of(folder) != _SMALL and self.options.asked is not False):
            return
        find = recall_text if has_store else load_text
        table = find(folder, length=peeked.text_length, device=self.device)
        if has_store:
            self._fill(table, captions, peeked)
        else:
            self._hold(table, captions)
        self._early = (folder, peeked.text_length, table)

    def give(self, backbone: Backbone) -> None:
        """Give ``backbone``, which was loaded since, what is encoded already, and choose how the rest will be.

        Raises:
            ConfigError: a store is asked for, and the backbone reads no text.
        """
        if not backbone.takes_text:
            if self.options.asked:
                raise ConfigError("--text-store is for a backbone that reads text; this one reads none")
            return
        if backbone.text_folder is None:
            return  # the first caption says that there are no encoders
        if self._early is not None and self._early[:2] == (backbone.text_folder, backbone.text_length):
            backbone.take_captions(self._early[2])
        else:
            self._early = None
            self._choose(backbone.text_folder)

    def encode(self, backbone: Backbone, captions: Iterable[str]) -> None:
        """Encode into the store what was not encoded before the weights were read. Raises as :meth:`encode_early`."""
        if self.dtype is not None and self._early is None:
            self._fill(backbone.captions, captions, backbone)

    def hold(self, backbone: Backbone, captions: Iterable[str]) -> None:
        """The same, and without a store into memory, where large encoders have so few captions that it holds them."""
        self.encode(backbone, captions)
        if self.dtype is None and self._early is None and self.options.asked is not False:
            self._hold(backbone.captions, captions)

    def _hold(self, table: CaptionTable, captions: Iterable[str]) -> None:
        if table.encoder.record.kind == _SMALL:
            return
        wanted: dict[str, None] = {}
        for caption in captions:
            wanted[caption] = None
            if len(wanted) == _MOST_HELD:
                break
        if len(wanted) < _MOST_HELD and table.hold(wanted):
            table.release()
        else:
            more = " or more" if len(wanted) == _MOST_HELD else ""
            self.printer.note(
                f"{len(wanted):,}{more} captions are more than memory keeps encoded, so that the text encoders stay in "
                "it; " + self._hint
            )

    @property
    def told(self) -> dict[str, Any]:
        """What a record says of the store; nothing where there is none and has been none."""
        return {} if self.dtype is None and self._earlier in (None, _UNSAID) else {"text_store": self.dtype}

    def _choose(self, folder: Path) -> str | None:
        """The precision of the store for the encoders in ``folder``; None: there is to be none."""
        from ..backbones import text_kind_of

        options = self.options
        if options.asked is None and self._earlier is not _UNSAID:
            self.dtype = self._earlier
        elif options.asked or (options.asked is None and self._by_default and text_kind_of(folder) != _SMALL):
            before = self._earlier if isinstance(self._earlier, str) else None
            self.dtype = options.text_dtype or before or "bf16"
        return self.dtype

    def _fill(self, table: CaptionTable, captions: Iterable[str], backbone: Backbone) -> None:
        """Fill the store of the table's encoders, and let them leave memory."""
        from ..texts import TextStore, default_text_folder, describe_texts

        how: dict[str, Any] = {"dtype": self.dtype, "reads_mask": backbone.reads_mask}
        record = describe_texts(table.encoder, **how)
        try:
            store = TextStore(self.options.text_store_dir or default_text_folder(record), record)
        except DMPError as error:  # this user has no home
            raise DMPError(error.message, hint=_ELSEWHERE) from error
        store.check()
        store.refresh()
        wanted = list(dict.fromkeys(("", *captions)))
        missing = store.missing(wanted)
        where = f"text store {store.path}, {record.dtype}"
        if missing:
            self.printer.note(f"encoding {len(missing):,} captions into the {where}, once for all runs")
            self._encode(store, table, wanted)
        else:
            self.printer.note(f"{where}: all {len(wanted):,} captions are there")
        table.store = store
        table.release()

    def _encode(self, store: TextStore, table: CaptionTable, wanted: list[str]) -> None:
        from ..runtime import StopRequest
        from ..storage import can_write
        from ..texts import encode_missing

        if not can_write(store.path):
            raise _unwritable(store, "this user may not, or the disk is read-only")
        try:
            store.claim()
        except OSError as error:  # of a lock
            raise _unwritable(store, error.strerror or str(error)) from error
        done = len(wanted) - len(store.missing(wanted))
        with (
            StopRequest(speaks=self.world.is_first) as request,
            self.printer.progress("encode captions", len(wanted), done=done) as advance,
        ):
            for number in encode_missing(store, wanted, table.encoder, stop=_stop_between(request)):
                advance(number, "")


def _stop_between(request: StopRequest) -> Callable[[], None]:
    """What to call between two captions: it raises StoppedError once the user has asked for the end."""
    from ..runtime import Foresight

    kept = "what is encoded is kept, except the captions of the file at hand"
    request.foretell(lambda: Foresight(f"ending after the caption at hand; {kept}", "end at once"))

    def stop() -> None:
        if request.number is not None:
            raise StoppedError(
                f"stopped while encoding captions; {kept}; run the command again to go on",
                signal_number=request.number,
            )

    return stop


def _unwritable(store: TextStore, reason: str) -> DMPError:
    return DMPError(
        f"the text store in {store.path} cannot be written: {reason}",
        hint=_ELSEWHERE,
    )
