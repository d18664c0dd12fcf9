"""What may be set, and what is said of what may not."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch

from impasto import PRESETS, ImpastoError, ReconstructSettings, Settings, TextureSettings
from impasto.settings import choose, parse_memory, shares_of


@pytest.mark.parametrize(
    ("setting", "value", "match"),
    [
        ("size", 0, "size is 0; give a whole number from 1 to 65535 or 'full'"),
        ("size", -5, "size is -5"),
        ("size", 3.5, "size is 3.5"),
        ("size", "big", "size is 'big'"),
        ("strength", 1.5, "strength is 1.5; give a number from 0 to 1"),
        ("strength", -0.1, "strength is -0.1"),
        ("strength", math.nan, "strength is nan"),
        ("detail", 1.5, "detail is 1.5; give a number from 0 to 1"),
        ("margin", 3, "margin is 3; give True or False"),
        ("strength", "much", "strength is much"),
        ("steps", -1, "steps is -1; give a whole number of at least 0"),
        ("steps", True, "steps is True"),
        ("optimizer", "bfgs", "did you mean 'lbfgs'"),
        ("pooling", "mean", "there are: avg, max"),
        ("tv", -1.0, "tv is -1.0; give a number of at least 0"),
        ("tv", math.inf, "tv is inf"),
        ("style_scale", 0.0, "style_scale is 0.0"),
        ("style_scale", math.nan, "style_scale is nan"),
        ("size", 10**400, "give a whole number from 1 to 65535"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**64, "seed is 18446744073709551616"),
        ("restart", 1, "restart is 1; give a whole number of at least 2"),
        ("scaling", "raw", "no scaling 'raw'"),
        ("style_layers", {}, "name at least one"),
        ("style_layers", 3, "3 is no list of layers"),
        ("style_layers", [("relu1_1", 1, 2)], "a layer has one share"),
        ("style_layers", {"relu1_1": 0.0}, "name at least one"),
        ("style_layers", {"relu1_1": -1.0}, "share of layer relu1_1 is -1.0"),
        ("preset", "gaty", "no preset 'gaty'; did you mean 'gatys'"),
        ("sise", 3, "no setting 'sise'; did you mean 'size'"),
    ],
)
def test_bad_values_get_one_clear_sentence(setting: str, value: Any, match: str) -> None:
    choices = {setting: value}
    with pytest.raises(ImpastoError) as caught:
        choose(Settings, None, choices, choices.pop("preset", None))
    assert match in str(caught.value)


def test_presets_are_the_published_ones() -> None:
    gatys = choose(Settings, preset="gatys")
    assert gatys.style_layers == "first"
    assert gatys.content_weight / gatys.total_style_weight == pytest.approx(1e-3)
    assert gatys.scaling == "gatys"
    lecture = choose(Settings, preset="lecture")
    assert lecture.style_layers == "second"
    # summed: the weight of all five layers together is five
    assert (lecture.content_weight, lecture.total_style_weight) == (0.1, 5.0)
    assert (lecture.evaluations, lecture.restart, lecture.init) == (200, 20, "noise")
    assert choose(Settings, None, {"init": "photo"}, "lecture").init == "photo"
    assert set(PRESETS) == {"gatys", "lecture"}


def test_defaults() -> None:
    settings = choose(Settings)
    assert settings == Settings()
    assert (settings.size, settings.pooling, settings.optimizer) == (512, None, "lbfgs")
    assert (settings.init, settings.content_layer) == ("photo", None)
    assert shares_of("relu2_1") == {"relu2_1": 1.0}
    assert Settings(init=Path("a.png")).init == Path("a.png")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("2G", 2 * 1024**3),
        ("800M", 800 * 1024**2),
        ("1.5 GiB", 3 * 1024**3 // 2),
        ("64kb", 65536),
        ("1T", 1024**4),
        ("12345", 12345),
        (4096, 4096),
    ],
)
def test_amounts_of_memory(text: int | str, amount: int) -> None:
    assert parse_memory(text) == amount
    assert Settings(memory=text).memory == text


@pytest.mark.parametrize("text", ["", "much", "2X", "-1G", "1..5G", "G", True])
def test_what_is_no_amount_of_memory(text: Any) -> None:
    with pytest.raises(ImpastoError, match="give an amount such as 2G"):
        Settings(memory=text)


def test_levels() -> None:
    assert Settings(levels=3).levels == 3
    with pytest.raises(ImpastoError, match="levels is 0; give a whole number from 1 to 16"):
        Settings(levels=0)
    assert PRESETS["gatys"]["levels"] == PRESETS["lecture"]["levels"] == 1


def test_numbers_may_be_those_of_numpy_and_torch() -> None:
    numbers: dict[str, Any] = {
        "strength": np.float32(0.5),
        "steps": np.int64(3),
        "size": np.uint16(64),
        "seed": torch.tensor(7),
        "tv": np.array(2.0),
        "memory": np.int64(4096),
        "style_layers": MappingProxyType({"relu1_1": np.float16(2)}),
    }
    chosen = Settings(**numbers)
    plain = Settings(
        strength=0.5, steps=3, size=64, seed=7, tv=2.0, memory=4096, style_layers={"relu1_1": 2.0}
    )
    assert chosen == plain
    assert json.dumps(asdict(chosen)) == json.dumps(asdict(plain))  # a checkpoint holds them
    sides: Any = np.array([64, 32])
    assert list(TextureSettings(size=sides).size) == [64, 32]
    pairs: Any = [("relu1_1", np.float32(0.5)), "relu2_1"]
    assert shares_of(Settings(style_layers=pairs).style_layers or ()) == {
        "relu1_1": 0.5,
        "relu2_1": 1,
    }
    assert ReconstructSettings(layers={"relu1_1": np.float64(2)}).layers == {"relu1_1": 2.0}
    for value in (np.float64(1.5), np.bool_(True), np.array([0.5, 0.6]), torch.tensor(2.0)):
        with pytest.raises(ImpastoError, match="give a number from 0 to 1"):
            Settings(strength=value)  # type: ignore[arg-type]
    with pytest.raises(ImpastoError, match="give a whole number"):
        Settings(steps=np.float64(3.0))  # type: ignore[arg-type]
