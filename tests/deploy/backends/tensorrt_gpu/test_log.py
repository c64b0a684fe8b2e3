"""The shared logger: who hears what, what is kept of verbose messages, and warnings that are shown once."""

import threading
import warnings
from types import SimpleNamespace

import pytest

from deploy.backends.tensorrt_gpu import log
from deploy.backends.tensorrt_gpu.log import Message, listen, logger


@pytest.fixture
def library(monkeypatch):
    """A library of which no warning was shown yet."""
    monkeypatch.setattr(log, "_told", set())
    return SimpleNamespace(ILogger=type("ILogger", (), {}))


def everything(message):
    return True


def test_everybody_shares_one_logger_and_hears_while_listening(library):
    other = SimpleNamespace(ILogger=type("ILogger", (), {}))
    assert logger(library) is logger(library)
    assert logger(library) is not logger(other)
    said = []
    with listen(library, everything, tell=said.append) as outer:
        logger(library).log(1, "one")
        with listen(library, everything) as inner:
            logger(library).log(4, "two")
            logger(other).log(0, "elsewhere")
        logger(library).log(2, "three")
    logger(library).log(2, "nobody hears")
    assert outer == [(1, "one"), (4, "two"), (2, "three")]
    assert inner == [Message(4, "two")]
    assert outer.as_text() == "[E] one\n[V] two\n[W] three\n"
    assert said == ["TensorRT: three"]


def test_of_verbose_messages_the_latest_are_kept_and_those_that_are_wanted(library):
    wanted = lambda message: message.severity < 4 or message.text.startswith("Layers:")  # noqa: E731
    with listen(library, wanted, latest=3) as messages:
        for number in range(1000):
            logger(library).log(4, f"tactic {number}")
            if number in (10, 997):
                logger(library).log(3, f"info {number}")
        logger(library).log(4, "Layers: conv")
    assert messages == [(3, "info 10"), (3, "info 997"), (4, "Layers: conv")]
    assert len(messages._others) == 3  # no more in memory, however long the build
    assert messages.as_text() == (
        "(997 earlier verbose messages left out)\n[I] info 10\n[V] tactic 997\n[I] info 997\n"
        "[V] tactic 998\n[V] tactic 999\n[V] Layers: conv\n"
    )


def test_at_run_time_only_what_is_serious_is_kept(library):
    with listen(library) as messages:
        for severity in (0, 1, 3, 4):
            logger(library).log(severity, str(severity))
    assert messages == [(0, "0"), (1, "1")]


def test_each_warning_is_shown_once_whatever_its_numbers(library):
    def run(text):
        with listen(library):
            logger(library).log(2, text)

    with pytest.warns(
        RuntimeWarning, match=r"^TensorRT: Using an engine plan file across different models"
    ) as caught:
        run("Using an engine plan file across different models\nof devices is not recommended (GPU 5).")
    assert "\n" not in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run("Using an engine plan file across different models\nof devices is not recommended (GPU 7).")
    with pytest.warns(RuntimeWarning, match="another"):
        run("another")


def test_warnings_without_end_are_cut(library):
    said = []
    with listen(library, tell=said.append):
        for number in range(3 * log.MOST_WARNINGS):
            logger(library).log(2, "x" * number)
    assert len(said) == log.MOST_WARNINGS


def test_messages_of_many_threads(library):
    def work():
        for _ in range(500):
            logger(library).log(1, "error")
            logger(library).log(4, "verbose")

    threads = [threading.Thread(target=work) for _ in range(4)]
    with listen(library, latest=10) as messages:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(messages) == 2000
    assert messages.as_text().count("verbose\n") == 10
