import pytest

from dareu.metrics import _seconds
from dareu.metrics._seconds import Seconds


def test_what_is_timed_within_counts_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 4.5, 5.5, 10.0, 20.0, 20.25])
    monkeypatch.setattr(_seconds.time, "perf_counter", lambda: next(clock))
    seconds = Seconds()
    with seconds.of("rouge"):  # 0 to 10
        with seconds.of("answers"):  # 1 to 4
            pass
        with seconds.of("answers"):  # 4.5 to 5.5
            pass
    with pytest.raises(KeyError), seconds.of("rouge"):
        raise KeyError
    assert seconds.found == {"answers": 4.0, "rouge": 6.25}
