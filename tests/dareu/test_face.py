"""What `import dareu` gives, and what it costs."""

import subprocess
import sys

import pytest

import dareu


def test_every_name_of_the_face_is_there_and_is_its_rooms():
    for name in dareu.__all__:
        found = getattr(dareu, name)
        (room,) = [room for room, names in dareu._ROOMS.items() if name in names]
        assert found is getattr(sys.modules[f"dareu.{room}"], name)
    assert set(dareu.__all__) <= set(dir(dareu)) and 12 <= len(dareu.__all__) <= 16


def test_a_name_that_it_does_not_have():
    with pytest.raises(AttributeError, match="no attribute 'forget_everything'"):
        dareu.forget_everything  # noqa: B018


def test_importing_it_loads_nothing_heavy():
    code = "import sys, dareu; print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
