"""Task log files and which records reach them (BEHAVIOUR N, R14)."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from overnight import logging as task_logging
from overnight.invoke import attempt
from overnight.logging import FsspecHandler, configure_task_logging, ensure_log_dir, task_log
from overnight.naming import file_name
from overnight.output_capture import OutputCapture
from tests.support import tasks

logger = logging.getLogger("some.library")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


class TestEnsureLogDir:
    def test_makes_the_given_directory_with_its_parents_and_returns_it_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """N1."""
        monkeypatch.chdir(tmp_path)
        made = ensure_log_dir(task_log_dir="a/b", other="ignored")
        assert made == str(tmp_path / "a" / "b")
        assert Path(made).is_dir()

    def test_falls_back_to_task_log_in_the_current_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """N1."""
        monkeypatch.chdir(tmp_path)
        assert ensure_log_dir(task_log_dir=None) == str(tmp_path / ".task-log")

    def test_leaves_a_url_as_it_is_and_makes_it(self) -> None:
        """N1."""
        assert ensure_log_dir(task_log_dir="memory://logs/deep") == "memory://logs/deep"
        assert fsspec.filesystem("memory").isdir("/logs/deep")

    def test_may_be_called_by_many_processes_at_once(self, tmp_path: Path) -> None:
        """R14, N1."""
        code = "import sys; from overnight.logging import ensure_log_dir; ensure_log_dir(task_log_dir=sys.argv[1])"
        command = [sys.executable, "-c", code, str(tmp_path / "x" / "y" / "z")]
        started = [subprocess.Popen(command) for _ in range(32)]
        assert [process.wait() for process in started] == [0] * 32

    def test_makes_a_directory_that_a_file_url_names(self, tmp_path: Path) -> None:
        """N1."""
        url = f"file://{tmp_path}/deep/logs"
        assert ensure_log_dir(task_log_dir=url) == url
        assert (tmp_path / "deep" / "logs").is_dir()

    @pytest.mark.parametrize("wanted", ["file/logs", "nosuchstore://bucket/logs"])
    def test_that_cannot_be_made_is_an_os_error_that_names_it(
        self, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """N1, B2: an unknown store as well."""
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("", encoding="utf-8")
        with pytest.raises(OSError, match=wanted):
            ensure_log_dir(task_log_dir=wanted)


class TestConfigureTaskLogging:
    def test_without_a_directory_discards_everything(self) -> None:
        """N2."""
        assert isinstance(configure_task_logging(None, "a", 0), logging.NullHandler)

    @pytest.mark.parametrize(("verbosity", "level"), [(None, 30), (-1, 30), (0, 30), (1, 20), (2, 10), (3, 5), (9, 5)])
    def test_translates_verbosity_into_a_level(self, tmp_path: Path, verbosity: int | None, level: int) -> None:
        """N2."""
        handler = configure_task_logging(str(tmp_path), "a", verbosity)
        assert handler.level == level
        handler.close()

    @pytest.mark.parametrize("name", ["a", "a b", "part_1.0123", "é"])
    def test_uses_a_safe_name_as_given(self, tmp_path: Path, name: str) -> None:
        """N2."""
        configure_task_logging(str(tmp_path), name, 0).close()
        assert [path.name for path in tmp_path.iterdir()] == [f"log_{name}.log"]

    @pytest.mark.parametrize("name", ["a/b", "..", "../up", "a\nb", "x" * 201, "s3://bucket"])
    def test_turns_an_unsafe_name_into_its_file_name(self, tmp_path: Path, name: str) -> None:
        """N2, I4."""
        configure_task_logging(str(tmp_path), name, 0).close()
        assert [path.name for path in tmp_path.iterdir()] == [f"log_{file_name(name)}.log"]

    def test_looks_the_handler_class_up_when_called(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """N2."""

        class Other(FsspecHandler):
            pass

        monkeypatch.setattr(task_logging, "FsspecHandler", Other)
        handler = configure_task_logging(str(tmp_path), "a", 0)
        assert type(handler) is Other
        handler.close()

    @pytest.mark.parametrize("directory", ["{}", "{}/", "file://{}", "file://{}/"])
    def test_names_the_file_below_the_directory_however_that_is_written(self, directory: str, tmp_path: Path) -> None:
        """N2, N3."""
        configure_task_logging(directory.format(tmp_path), "a", 0).close()
        assert [path.name for path in tmp_path.iterdir()] == ["log_a.log"]

    def test_writes_at_the_root_of_a_store(self) -> None:
        """N2, N3."""
        handler = configure_task_logging("memory://", "at-the-root", 0)
        handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, "here", (), None))
        handler.close()
        assert fsspec.filesystem("memory").cat("/log_at-the-root.log").endswith(b" lib WARNING here\n")

    def test_the_finest_level_has_a_name(self, tmp_path: Path) -> None:
        """N2: and a verbosity lets its own level through, and nothing finer."""
        for verbosity, kept in ((0, ["WARNING"]), (1, ["INFO", "WARNING"]), (3, ["TRACE", "DEBUG", "INFO", "WARNING"])):
            with task_log(f"v{verbosity}", str(tmp_path), verbosity):
                for level in (1, 5, 10, 20, 30):
                    logger.log(level, "text")
            lines = read(tmp_path / f"log_v{verbosity}.log").splitlines()[1:]
            assert [line.split()[-2] for line in lines] == kept

    def test_lines_begin_with_the_id_on_one_line_and_no_template(self, tmp_path: Path) -> None:
        """N2, I7."""
        handler = configure_task_logging(str(tmp_path), "50%s\nx", 0)
        handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, "hello %s", ("you",), None))
        handler.close()
        (path,) = tmp_path.iterdir()
        assert read(path).startswith("50%s\\x0ax: ")
        assert read(path).endswith(" lib WARNING hello you\n")


class TestFsspecHandler:
    @pytest.mark.parametrize("where", ["path", "url"])
    def test_appends_and_may_be_closed_twice(self, tmp_path: Path, where: str) -> None:
        """N3."""
        place = str(tmp_path / "x.log") if where == "path" else "memory://handler/x.log"
        if where == "url":
            fsspec.filesystem("memory").makedirs("/handler", exist_ok=True)
        for text in ("one", "two"):
            handler = FsspecHandler(place)
            handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, text, (), None))
            handler.close()
            handler.close()
        with fsspec.open(place, "rt") as file:
            assert file.read() == "one\ntwo\n"

    @pytest.mark.parametrize("refusal", [NotImplementedError, ValueError])
    def test_carries_former_content_over_where_the_store_cannot_append(self, refusal: type[Exception]) -> None:
        """N3."""

        class WritesWhole(MemoryFileSystem):  # type: ignore[misc] # the library has no types
            protocol = f"writeswhole{refusal.__name__.lower()}"
            cachable = False

            def _open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
                if "a" in mode:
                    raise refusal("no appending")
                return super()._open(path, mode, *args, **kwargs)

        fsspec.register_implementation(WritesWhole.protocol, WritesWhole, clobber=True)
        place = f"{WritesWhole.protocol}://x.log"
        for text in ("one", "two é", "three"):
            handler = FsspecHandler(place)
            handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, text, (), None))
            handler.close()
        with fsspec.open(place, "rb") as file:
            assert file.read().decode() == "one\ntwo é\nthree\n"

    def test_that_cannot_write_raises_nothing_to_whoever_logs(self, capsys: pytest.CaptureFixture[str]) -> None:
        """N3: a full disk, when writing and when closing."""
        handler = FsspecHandler("/dev/full")
        handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, "x" * 100_000, (), None))
        handler.close()
        handler.close()
        assert "No space left on device" in capsys.readouterr().err

    def test_writes_what_is_no_text_as_escapes(self, tmp_path: Path) -> None:
        """N3, I7."""
        handler = FsspecHandler(str(tmp_path / "x.log"))
        handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, "half \udcff", (), None))
        handler.close()
        assert read(tmp_path / "x.log") == "half \\udcff\n"

    def test_in_a_missing_directory_is_an_os_error(self, tmp_path: Path) -> None:
        """N3: the directory is there already."""
        with pytest.raises(FileNotFoundError):
            FsspecHandler(str(tmp_path / "missing" / "x.log"))

    def test_writes_nothing_after_it_was_closed(self, tmp_path: Path) -> None:
        """N3."""
        handler = FsspecHandler(str(tmp_path / "x.log"))
        handler.close()
        handler.handle(logging.LogRecord("lib", logging.WARNING, "", 0, "late", (), None))
        assert read(tmp_path / "x.log") == ""


class TestTaskLog:
    def test_takes_records_of_its_context_only(self, tmp_path: Path) -> None:
        """N4."""
        with task_log("a", str(tmp_path)):
            logger.warning("inside")
        logger.warning("outside")
        assert "inside" in read(tmp_path / "log_a.log")
        assert "outside" not in read(tmp_path / "log_a.log")

    def test_keeps_tasks_in_threads_apart(self, tmp_path: Path) -> None:
        """N4."""
        together = threading.Barrier(4)

        def work(name: str) -> None:
            with task_log(name, str(tmp_path)):
                together.wait()
                logger.warning("record of %s", name)
                together.wait()

        names = ["a", "b", "c", "d"]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, names))
        for name in names:
            text = read(tmp_path / f"log_{name}.log")
            assert [other for other in names if f"record of {other}" in text] == [name]

    def test_takes_the_records_of_threads_that_the_task_starts_and_of_no_older_one(self, tmp_path: Path) -> None:
        """N4."""
        begin, logged = threading.Event(), threading.Event()

        def older() -> None:
            begin.wait()
            logger.warning("older thread")
            logged.set()

        thread = threading.Thread(target=older)
        thread.start()
        with task_log("a", str(tmp_path)):
            begin.set()
            logged.wait()
            newer = threading.Thread(target=logger.warning, args=["newer thread"])
            newer.start()
            newer.join()
        thread.join()
        text = read(tmp_path / "log_a.log")
        assert "newer thread" in text
        assert "older thread" not in text

    def test_lowers_levels_as_far_as_asked_and_restores_them(self, tmp_path: Path) -> None:
        """N4."""
        root = logging.getLogger()
        before, handlers = root.level, list(root.handlers)
        with task_log("a", str(tmp_path), 2):
            logger.debug("fine detail")
            logger.log(5, "trace")
        assert (root.level, root.handlers) == (before, handlers)
        assert "DEBUG fine detail" in read(tmp_path / "log_a.log")
        assert "trace" not in read(tmp_path / "log_a.log")

    def test_that_cannot_be_written_fails_nothing_and_is_reported_once(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """N3."""
        missing = tmp_path / "missing"
        for _ in range(2):
            with task_log("a", str(missing)):
                logger.warning("lost")
        reports = [record for record in caplog.records if record.name == "overnight.task_log"]
        assert len(reports) == 1
        assert str(missing) in reports[0].getMessage()

    def test_whose_records_cannot_be_told_fails_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """N3: the test runner's own handlers, which raise, are out of the way."""
        monkeypatch.setattr(logging.getLogger(), "handlers", [])

        class Unprintable:
            def __str__(self) -> str:
                raise RuntimeError("cannot be told")

        def work() -> str:
            logger.warning("%d", "no number")
            logger.warning("%s", Unprintable())
            logger.warning("after all that")
            return "done"

        outcome = attempt("a", work, [], {}, log_dir=str(tmp_path))
        assert (outcome.ok, outcome.value) == (True, "done")
        assert "after all that" in read(tmp_path / "log_a.log")
        assert capsys.readouterr().err.count("--- Logging error ---") == 2

    def test_whose_captured_output_is_lost_fails_nothing(self, tmp_path: Path) -> None:
        """N3: as where a task closes descriptors that are not its own."""
        code = (
            "import logging, os, sys\n"
            "from overnight.invoke import attempt\n"
            "from overnight.output_capture import OutputCapture\n"
            "capture = OutputCapture().__enter__()\n"
            "def work():\n"
            "    os.close(capture._file)\n"
            "    logging.getLogger('x').warning('words')\n"
            "    return 'done'\n"
            "outcome = attempt('a', work, [], {}, log_dir=sys.argv[1], capture=capture)\n"
            "os.write(capture._former[0], repr((outcome.ok, outcome.value)).encode())\n"
            "os._exit(0)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "(True, 'done')"

    def test_each_attempt_begins_with_a_line_that_names_it(self, tmp_path: Path) -> None:
        """N3, I7."""
        for number in (1, 2):
            with task_log("a\nb", str(tmp_path), run_id="r7", attempt=number):
                logger.warning("words")
        (path,) = tmp_path.iterdir()
        lines = read(path).splitlines()
        expected = r"---- a\\x0ab run r7 attempt {} \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}"
        assert [bool(re.fullmatch(expected.format(number), lines[at])) for number, at in ((1, 0), (2, 2))] == [
            True,
            True,
        ]
        assert len(lines) == 4

    def test_of_an_attempt_names_its_begin_however_late_it_is_written(self, tmp_path: Path) -> None:
        """N3."""
        before = time.time()
        with task_log("a", str(tmp_path)) as log:
            assert before <= log.started <= time.time()
            log.started = 1_000_000_000.0
            logger.warning("words")
        with task_log("b", str(tmp_path), started=1_000_000_000.0) as log:
            log.write("words")
        for name in "ab":
            separator = read(tmp_path / f"log_{name}.log").splitlines()[0]
            told = datetime.strptime(separator.partition(" attempt 1 ")[2], "%Y-%m-%d %H:%M:%S %z")
            assert told.timestamp() == 1_000_000_000

    def test_may_lie_at_a_url(self) -> None:
        """N3."""
        fsspec.filesystem("memory").makedirs("/tasklogs", exist_ok=True)
        with task_log("a", "memory://tasklogs"):
            logger.warning("far away")
        assert b"far away" in fsspec.filesystem("memory").cat("/tasklogs/log_a.log")


def speak_twice(log_dir: str) -> None:
    """Run two attempts that use every way of output, then print."""

    def speak(name: str) -> None:
        print(f"python {name}")
        sys.stderr.write(f"stderr {name}\n")
        os.write(1, f"native {name}\n".encode())
        subprocess.run(["echo", f"program {name}"], check=True)
        logger.warning("record %s", name)

    with OutputCapture() as capture:
        for name in ("a", "b"):
            attempt(name, speak, [name], {}, log_dir=log_dir, capture=capture)
    print("after")


class TestCapturedOutput:
    def test_of_python_native_code_and_child_programs_goes_to_the_log_of_its_attempt(self, tmp_path: Path) -> None:
        """N5, PP4: in a process of its own, whose streams are not the test runner's."""
        code = f"from tests.unit.test_logging import speak_twice; speak_twice({str(tmp_path)!r})"
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("after\n", "")
        for name, other in (("a", "b"), ("b", "a")):
            text = read(tmp_path / f"log_{name}.log")
            for kind in ("python", "stderr", "native", "program", "record"):
                assert f"{kind} {name}" in text
            assert f"python {other}" not in text
            assert text.index("native") < text.index("record")

    def test_of_a_silent_task_makes_no_log(self, tmp_path: Path) -> None:
        with OutputCapture() as capture:
            attempt("a", tasks.give, [1], {}, log_dir=str(tmp_path), capture=capture)
        assert list(tmp_path.iterdir()) == []

    def test_without_a_log_goes_where_it_went_before(self, capfd: pytest.CaptureFixture[str]) -> None:
        with OutputCapture() as capture:
            attempt("a", os.write, [1, b"words\n"], {}, capture=capture)
        assert capfd.readouterr().err == "words\n"

    def test_of_a_process_that_died_is_left_to_whoever_gave_the_file(self, tmp_path: Path) -> None:
        """N5."""
        with (tmp_path / "output").open("a+b", buffering=0) as file, OutputCapture(file.fileno()):
            os.write(2, b"last words\n")
        assert (tmp_path / "output").read_bytes() == b"last words\n"
