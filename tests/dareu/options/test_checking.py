import os

import pytest

from dareu.options.checking import check_recipe


def test_a_check_leaves_the_environment_as_it_was_and_touches_no_other_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DAREU_CHANGED", "before")
    monkeypatch.delenv("DAREU_SET", raising=False)
    before = dict(os.environ)
    touched = []

    def noting(method: str) -> None:
        plain = getattr(type(os.environ), method)
        monkeypatch.setattr(
            type(os.environ), method, lambda self, name, *value: touched.append(name) or plain(self, name, *value)
        )

    noting("__setitem__")
    noting("__delitem__")
    env = {"DAREU_CHANGED": "after", "DAREU_SET": "after"}
    training = {"method": "npo", "model_name_or_path": "-", "output_dir": "-", "use_cpu": True, "torch_compile": True}
    check_recipe("unlearn", {**training, "env": env}, {}, {})
    assert dict(os.environ) == before
    assert {"DAREU_CHANGED", "DAREU_SET"} <= set(touched)
    assert {name for name in touched if not name.startswith("ACCELERATE_")} == set(env)


@pytest.mark.parametrize(("option", "value"), [("train_on", "nobody"), ("background_share", 1.0)])
def test_options_of_finetune_are_refused_before_a_benchmark_starts_it(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{option} is {value!r}: give"):
        check_recipe("finetune", {"output_dir": "-", option: value}, {}, {})
