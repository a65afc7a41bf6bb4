"""Writing flags as local files.

A flag is written to a temporary file in its directory and renamed, so a reader sees the former record or the new
one. Every step goes through one descriptor of the directory and follows no link. A group of flags shares its syncs:
all temporary files, one sync of their content, all renames, one sync of the directory. A single flag is written
without a sync (`write_flag`), and made to survive a power cut together with others (`sync_flags`).

A rule says what may not be replaced (`keep`; `flag_publishing` has those in use). Against a rival that acts between
look and rename, the new flag is put in place by a hard link, which never replaces, and a stale flag is held
(`flag_rivals`), taken away under a private name and looked at again; so a writer that was frozen there cannot change a
result that counts.

A flag can be read by its owner alone, and by the directory's group where that shares it on purpose
(`is_shared_with_group`). Where root writes it into somebody's directory, it becomes that somebody's: a client must be
able to read what a worker with more rights has written for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from overnight import failpoints
from overnight.errors import BadSeal, Unreachable
from overnight.flag_rivals import held, replaceable

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
SHARED_FILE_MODE = 0o640
FEW_FLAGS = 8
_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
Before = Sequence[Sequence[int]]
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one flag of a group: in place, or `kept` (a valid one stood there), or `error`; or it is `void`,
    not put in place because one that it was computed from was not."""

    kept: bool = False
    void: bool = False
    error: OSError | BadSeal | None = None


#: (descriptor of the directory, file name) -> what becomes of a new flag where one stands; None: it replaces that one.
Keep = Callable[[int, str], Written | None]


def write_flags(
    directory: Path | str, flags: Sequence[tuple[str, bytes]], *, keep: Keep | None = None, before: Before = ()
) -> list[Written]:
    """Write a group of flags, given as (file name, content), and return what became of each; raises what `keep` does.

    Without `keep` the last writer wins; with it, that says whether the flag that stands there must stay. `before` are,
    for each flag, those earlier ones of the group that it was computed from. What was written survives a power cut.
    """
    try:
        group = _Group(_open_directory(directory))
    except OSError as error:
        return [Written(error=error) for _ in flags]
    try:
        return group.write(flags, keep, before)
    finally:
        os.close(group.directory)


def write_flag(directory: Path | str, name: str, data: bytes, *, keep: Keep | None = None) -> OSError | BadSeal | None:
    """Write one flag, and return why it could not be. No sync is waited for. `keep` as in `write_flags`."""
    try:
        descriptor = _open_directory(directory)
    except OSError as error:
        return error
    try:
        return _Group(descriptor).replace(name, data, keep)
    finally:
        os.close(descriptor)


def sync_flags(directory: Path | str, names: Sequence[str]) -> OSError | None:
    """Wait until flags that were written survive a power cut, and return why that cannot be said."""
    try:
        group = _Group(os.open(directory, _DIRECTORY))
    except FileNotFoundError:
        return None
    except OSError as error:
        return error
    try:
        return group.sync(names)
    finally:
        os.close(group.directory)


def is_shared_with_group(mode: int) -> bool:
    """Tell whether a directory of this mode is meant for its group, which may look into it and do more than others."""
    may_look, may_more = mode & 0o050 == 0o050, mode & (stat.S_ISGID | stat.S_IWGRP) or not mode & stat.S_IRWXO
    return bool(may_look and may_more and not mode & stat.S_IWOTH)


def _open_directory(directory: Path | str) -> int:
    try:
        return os.open(directory, _DIRECTORY)
    except FileNotFoundError:
        os.makedirs(directory, DIRECTORY_MODE, exist_ok=True)  # noqa: PTH103 - the argument may be text
        return os.open(directory, _DIRECTORY)


class _Group:
    """The steps of writing a group of flags into one open directory."""

    def __init__(self, directory: int) -> None:
        self.directory = directory
        facts = os.fstat(directory)
        is_shared = is_shared_with_group(facts.st_mode)
        is_foreign = os.geteuid() == 0 and facts.st_uid != 0
        self._mode = SHARED_FILE_MODE if is_shared else FILE_MODE
        self._owner = facts.st_uid if is_foreign else -1
        self._group_owner = facts.st_gid if is_foreign or is_shared else -1

    def write(self, flags: Sequence[tuple[str, bytes]], keep: Keep | None, before: Before) -> list[Written]:
        """Write all temporary files, sync them, put each in place, sync the directory."""
        outcomes: list[Written | None] = [None] * len(flags)
        temporary: dict[int, str] = {}
        try:
            for index, (name, data) in enumerate(flags):
                outcomes[index] = self._write_temporary(temporary, index, name, data)
            self._sync_content(temporary, outcomes)
            for index in list(temporary):
                used = [outcomes[earlier] for earlier in (before[index] if before else ())]
                is_void = any(one is not None and (one.kept or one.void) for one in used)
                place = flags[index][0]
                outcomes[index] = Written(void=True) if is_void else self._put_in_place(temporary[index], place, keep)
        finally:
            self._remove(temporary.values())
        self._sync_directory(outcomes)
        return [outcome or Written() for outcome in outcomes]

    def replace(self, name: str, data: bytes, keep: Keep | None) -> OSError | BadSeal | None:
        """Put one flag in place without a sync; return why that could not be done."""
        path = _temporary_name(name)
        try:
            self._write_new(path, data)
        except OSError as error:
            written = Written(error=error)
        else:
            written = self._put_in_place(path, name, keep)
        if keep is not None or written.error is not None:
            self._remove([path])
        return written.error

    def sync(self, names: Sequence[str]) -> OSError | None:
        """Sync flags that are in place, and the directory; return the first error."""
        if len(names) >= FEW_FLAGS and _syncfs(self.directory):
            return None
        try:
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # removed since then
                    self._sync_file(name)
            os.fsync(self.directory)
        except OSError as error:
            return error
        return None

    def _write_temporary(self, temporary: dict[int, str], index: int, name: str, data: bytes) -> Written | None:
        temporary[index] = path = _temporary_name(name)
        try:
            self._write_new(path, data)
        except OSError as error:
            self._remove([temporary.pop(index)])
            return Written(error=error)
        return None

    def _write_new(self, path: str, data: bytes) -> None:
        descriptor = os.open(path, _WRITE_NEW, self._mode, dir_fd=self.directory)
        try:
            if self._owner != -1 or self._group_owner != -1:
                with contextlib.suppress(OSError):  # a file server that does not know this root; a group of others
                    os.fchown(descriptor, self._owner, self._group_owner)
            failpoints.reach("flags.mid_temp_write")
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)

    def _sync_content(self, temporary: dict[int, str], outcomes: list[Written | None]) -> None:
        if len(temporary) >= FEW_FLAGS and _syncfs(self.directory):
            return
        for index, path in list(temporary.items()):
            try:
                self._sync_file(path)
            except OSError as error:
                outcomes[index] = Written(error=error)
                self._remove([temporary.pop(index)])

    def _sync_file(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _sync_directory(self, outcomes: list[Written | None]) -> None:
        try:
            failpoints.reach("flags.after_rename")
            os.fsync(self.directory)
        except OSError as error:
            for index, outcome in enumerate(outcomes):
                if outcome is None or outcome.error is None:
                    outcomes[index] = Written(error=error)

    def _put_in_place(self, path: str, name: str, keep: Keep | None) -> Written:
        try:
            failpoints.reach("flags.after_fsync")
            if keep is None:
                self._rename(path, name)
                return Written()
            return self._put_unless_kept(path, name, keep)
        except Unreachable:
            raise  # the rule's server is away, which says nothing of the directory
        except (OSError, BadSeal) as error:
            return Written(error=error)

    def _rename(self, path: str, name: str) -> None:
        replaceable(name, self.directory)
        os.rename(path, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def _put_unless_kept(self, path: str, name: str, keep: Keep) -> Written:
        while not self._link(path, name):
            with held(name, self.directory) as judged:
                if judged is not None:
                    stays = keep(self.directory, name)
                    if stays is not None:
                        return stays
                    self._take_away(name, judged)
        return Written()

    def _link(self, path: str, name: str) -> bool:
        """Put the file in place unless one is there; without hard links, by look and rename."""
        try:
            os.link(path, name, src_dir_fd=self.directory, dst_dir_fd=self.directory, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if replaceable(name, self.directory) is not None:
                return False
            os.rename(path, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        return True

    def _take_away(self, name: str, judged: os.stat_result) -> None:
        """Remove the flag that was judged stale; one that a rival put there since then goes back."""
        taken = _temporary_name(name)
        try:
            os.rename(name, taken, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        except FileNotFoundError:
            return
        facts = os.stat(taken, dir_fd=self.directory, follow_symlinks=False)
        if (facts.st_dev, facts.st_ino) != (judged.st_dev, judged.st_ino):
            with contextlib.suppress(FileExistsError):
                os.link(taken, name, src_dir_fd=self.directory, dst_dir_fd=self.directory, follow_symlinks=False)
        self._remove([taken])

    def _remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):  # renamed into place, or the directory is out of reach
                os.unlink(path, dir_fd=self.directory)


def _temporary_name(name: str) -> str:
    return f"{name}.{secrets.token_hex(8)}.tmp"


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _syncfs(descriptor: int) -> bool:
    """Write back the file system of a descriptor; False where that is not possible or failed."""
    try:
        return bool(ctypes.CDLL(None).syncfs(descriptor) == 0)
    except (OSError, AttributeError):
        return False
