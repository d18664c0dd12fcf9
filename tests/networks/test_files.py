"""Network files: everything comes back, and nothing else is read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save, save_file
from safetensors.torch import save_file as save_tensors

from impasto import ImpastoError, Network
from impasto.networks import files
from impasto.pictures import images
from tests.networks.conftest import random_network


def test_a_file_says_everything(tmp_path: Path) -> None:
    network = random_network()
    path = files.write(network, tmp_path / "a.safetensors")
    read = files.read(path)
    assert read.description == network.description
    assert read.description["format"] == files.FORMAT
    assert all(np.array_equal(read.weights[name], each) for name, each in network.weights.items())
    assert read.styles[0].picture.size[0] == files.THUMBNAIL
    assert read.licence == "CC0"


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    from tests.conftest import noticed

    path = tmp_path / "a.safetensors"
    path.write_bytes(b"mine")
    with noticed("a-2.safetensors was written instead"):
        written = Network(random_network()).save(path)
    assert path.read_bytes() == b"mine"
    assert files.read(written).styles


def _altered(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
    about = random_network().description
    weights = dict(random_network().weights)
    change(about, weights)
    save_file(weights, path, {"impasto": json.dumps(about)})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda about, _: about.update(format=2), "has format 2, and this impasto reads format 1"),
        (lambda about, _: about.pop("format"), "damaged description"),
        (lambda about, _: about.update(styles=3), "damaged description"),
        (lambda about, _: about.update(styles=[]), "damaged description"),
        (lambda about, _: about.update(unknown=3), "damaged description"),
        (lambda about, _: about.update(licence=5), "fields have other types"),
        (lambda about, _: about["styles"][0].update(name=["a"]), "fields have other types"),
        (lambda about, _: about["styles"][0].update(training=3), "fields have other types"),
        (lambda about, _: about["styles"][0].update(name="style1"), "two styles have one name"),
        (lambda about, _: about["architecture"].update(edge=4), "describes no network"),
        (lambda about, _: about["architecture"].update(edge=5), "does not hold the weights"),
        (lambda about, _: about.update(styles=about["styles"][1:]), "does not hold the weights"),
        (lambda _, weights: weights.pop("down2.weight"), r"\(down2.weight\)"),
        (lambda _, weights: weights.update(more=np.zeros(3, np.float32)), r"\(more\)"),
        (lambda _, weights: weights["down2.weight"].fill(np.nan), "weights that are no numbers"),
        (
            lambda _, weights: weights.update({"up1.shift": weights["up1.shift"].astype(float)}),
            r"\(up1.shift\)",
        ),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: Any, match: str) -> None:
    path = tmp_path / "a.safetensors"
    _altered(path, change)
    with pytest.raises(ImpastoError, match=match) as caught:
        files.read(path)
    assert "\n" not in str(caught.value)


def test_a_description_that_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"x": np.zeros(3, np.float32)}, {"impasto": "[" * 100_000}))
    with pytest.raises(ImpastoError, match="damaged description"):
        files.read(path)


@pytest.mark.parametrize("name", ["", "..", "a/../../b", "a\nb"])
def test_names_that_could_be_no_files(name: str, tmp_path: Path) -> None:
    network = random_network()
    styles = (dataclasses.replace(network.styles[0], name=name), *network.styles[1:])
    path = tmp_path / "a.safetensors"
    files.write(dataclasses.replace(network, styles=styles), path)
    with pytest.raises(ImpastoError, match="a style has no name for a file"):
        files.read(path)


def test_a_thumbnail_that_is_no_picture() -> None:
    style = dataclasses.replace(random_network().styles[0], thumbnail="bm9uZQ==")
    with pytest.raises(ImpastoError, match="thumbnail of style0 is damaged"):
        style.picture.load()


def test_what_is_no_network(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ImpastoError, match=r"there is no network .*samples"):
        files.read(path)
    path.write_bytes(save({"x": np.zeros(3, np.float32)}))
    with pytest.raises(ImpastoError, match="is no network of impasto"):
        files.read(path)
    files.write(random_network(), path, force=True)
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ImpastoError, match="damaged or cut short"):
            files.read(path)
    half = {"x": torch.zeros(3, dtype=torch.bfloat16)}
    save_tensors(half, path)
    with pytest.raises(ImpastoError, match="is no network of impasto"):
        files.read(path)
    path.write_bytes(b"\x80\x04K\x01." * 30)  # a pickle
    with pytest.raises(ImpastoError, match="damaged or cut short"):
        files.read(path)


def test_a_style_that_is_not_there() -> None:
    network = Network(random_network())
    with pytest.raises(ImpastoError, match="did you mean 'style1'"):
        network.shares("stile1")
    with pytest.raises(ImpastoError, match="name one of: style0, style1, style2"):
        network.shares(None)
    with pytest.raises(ImpastoError, match="no style has a share above 0"):
        network.shares({"style0": 0})
    with pytest.raises(ImpastoError, match="share of style0 is -1"):
        network.shares({"style0": -1})
    for wrong in (["style0", "style1"], 5, {"style0": "much"}, [("style0", 1, 2)]):
        with pytest.raises(ImpastoError, match="is no style; give a name"):
            network.shares(wrong)  # type: ignore[arg-type]
    assert network.shares({"style0": 1, "style2": 3}).tolist() == [0.25, 0, 0.75]
    pairs = [("style0", 1.0), ("style0", 2.0), ("style1", 1.0)]
    assert network.shares(pairs).tolist() == [0.75, 0.25, 0]


def test_two_paintings_of_one_name() -> None:
    with pytest.raises(ImpastoError, match="two styles would be called wave"):
        files.named(["a/wave.jpg", "b/wave.png"])
    with pytest.raises(ImpastoError, match="two styles would be called style1"):
        files.named(["style1.jpg"], random_network())
    unnamed = [images.read(Image.new("RGB", (8, 8))).name] * 2
    assert files.named(unnamed, random_network()) == ["style 4", "style 5"]
    with pytest.raises(ImpastoError, match="Network is neither"):
        files.read(Network(random_network()))  # type: ignore[arg-type]


def test_the_bundled_network() -> None:
    file = files.read("samples")
    names = {"cafe_terrace_at_night", "church_at_auvers", "composition_viii", "great_wave"}
    assert {style.name for style in file.styles} == names | {"night_cafe"}
    assert file.licence
    assert files.located("samples").stat().st_size < 8e6
    assert load_file(files.located("samples")).keys() == file.weights.keys()
    for style in file.styles:
        assert style.training["steps"] > 0
        assert len(style.sha256) == 64
