"""Applying a network: batches, sizes, tiles, colours, and other programs that run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image

from impasto import Architecture, ImpastoError, Network, export
from impasto.networks import graph
from impasto.networks.architecture import IMAGES
from impasto.networks.export import compared
from impasto.networks.tiling import Sweeps
from impasto.networks.transform import Transformer
from impasto.pictures import colours, images
from tests.conftest import noticed
from tests.networks.conftest import TINY, random_network

NETWORK = Network(random_network())


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).random(shape, np.float32)


def test_the_kind_that_was_given_comes_back(picture: Image.Image) -> None:
    array = np.stack([np.asarray(picture).transpose(2, 0, 1)] * 2)
    painted = NETWORK(array, "style1")
    assert painted.shape == array.shape
    assert painted.dtype == np.uint8
    floats = NETWORK(array.astype(np.float32) / 255, "style1")
    assert floats.dtype == np.float32
    assert np.abs(floats * 255 - painted).max() <= 0.51
    tensor = NETWORK(torch.from_numpy(array).float() / 255, "style1")
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), floats)
    image = NETWORK(picture, "style1")
    assert np.array_equal(np.asarray(image).transpose(2, 0, 1), painted[0])
    wide = picture.resize((120, 50))
    several = NETWORK([picture, wide, picture], "style1")
    assert [each.size for each in several] == [picture.size, wide.size, picture.size]
    assert several[0] == several[2] == image


def test_transparency_is_kept(picture: Image.Image) -> None:
    alpha = Image.linear_gradient("L").resize(picture.size)
    picture.putalpha(alpha)
    assert NETWORK(picture, "style0").getchannel("A") == alpha


@pytest.mark.parametrize(
    "given",
    [
        np.zeros((3, 8, 8)),
        np.zeros((1, 4, 8, 8)),
        np.zeros((0, 3, 8, 8)),
        np.zeros((1, 3, 8, 8), np.int64),
        np.zeros((1, 3, 8, 8), np.uint16),
        3,
        "a.jpg",
        ["a.jpg"],
        [np.zeros((1, 3, 8, 8))],
    ],
)
def test_what_cannot_be_painted(given: Any) -> None:
    with pytest.raises(ImpastoError, match=r"give|open") as caught:
        NETWORK(given, "style0")
    assert "\n" not in str(caught.value)


def test_pil_images_are_read_as_files_are(picture: Image.Image) -> None:
    """Upright, in 8 bits, with transparency, whatever their mode."""
    sideways = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned back by 90 degrees
    sideways.info["exif"] = exif.tobytes()
    sideways._exif = exif
    assert NETWORK(sideways, "style0").size == picture.size
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert NETWORK(deep, "style0").tobytes() == NETWORK(grey, "style0").tobytes()
    palette = picture.convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    assert NETWORK(palette, "style0").mode == "RGBA"


def test_arrays_of_other_precision_and_tensors_with_gradients(picture: Image.Image) -> None:
    array = np.asarray(picture, np.float64).transpose(2, 0, 1)[None] / 255
    assert NETWORK(array, "style0").dtype == np.float64
    tensor = torch.from_numpy(array).bfloat16().requires_grad_()
    painted = NETWORK(tensor, "style0")
    assert painted.dtype == torch.bfloat16
    assert not painted.requires_grad
    whole = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1)[None].copy())
    assert NETWORK(whole, "style0").dtype == torch.uint8


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 3), st.integers(0, 99))
def test_onnx_is_torch(height: int, width: int, count: int, seed: int) -> None:
    file = random_network(seed=seed)
    whole = Transformer(file.transformer, 3)
    whole.take({name: torch.from_numpy(each) for name, each in file.weights.items()})
    batch = noise(count, 3, height, width)
    shares = np.random.default_rng(seed).dirichlet(np.ones(3), count).astype(np.float32)
    with torch.no_grad():
        theirs = whole(torch.from_numpy(batch), torch.from_numpy(shares)).numpy()
    ours = Network(file).run({IMAGES: batch, graph.SHARES: shares})
    assert np.abs(ours - theirs).max() < 1e-3


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([8, 24, 40, 64]),
    st.sampled_from([0, 2e4, 1e5, 1e9]),
    st.sampled_from(
        [
            Architecture((4, 6, 8), (0, 1, 1), 3),
            Architecture((3, 4, 5, 6), (1, 0, 1, 2), 5),
            Architecture((4, 4), (0, 1), 9),
        ]
    ),
)
def test_tiles_are_the_whole(
    height: int, width: int, tile: int, most: float, architecture: Architecture
) -> None:
    network = Network(random_network(2, architecture))
    image, shares = noise(3, height, width), np.array([0.3, 0.7], np.float32)
    whole = network.run({IMAGES: image[None], graph.SHARES: shares[None]})[0]
    sweeps = Sweeps(network.file, shares, network.sessions.start, most, tile)
    assert np.abs(sweeps.repaint(image) - whole).max() < 1e-3


def test_pictures_that_do_not_fit_are_painted_in_tiles(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.networks.network.LIBRARIES", 0)
    small = Network(random_network(), memory="200k")
    begun: list[Sweeps] = []
    repaint = Sweeps.repaint

    def watched(sweeps: Sweeps, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        begun.append(sweeps)
        return repaint(sweeps, image)

    monkeypatch.setattr(Sweeps, "repaint", watched)
    pixels = np.asarray(picture, np.int16)
    tiles, whole = (np.asarray(n(picture, "style0"), np.int16) for n in (small, NETWORK))
    assert len(begun) == 1
    assert np.abs(tiles - whole).max() <= 1
    assert np.abs(tiles - pixels).max() > 50


def test_memory_that_cannot_be_kept(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ImpastoError, match=r"96 x 72 pixels cannot be painted in 100M.* allow 528M"
    ):
        Network(random_network(), memory="100M")(picture, "style0")
    network = Network(random_network())
    for error in (MemoryError(), RuntimeError("std::bad_alloc")):
        monkeypatch.setattr(network, "_painted", Mock(side_effect=error))
        with pytest.raises(
            ImpastoError, match="does not fit into memory; allow less, for smaller tiles"
        ):
            network(picture, "style0")
    monkeypatch.setattr(network, "_painted", Mock(side_effect=RuntimeError("something else")))
    with pytest.raises(RuntimeError, match="something else"):
        network(picture, "style0")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_auto_paints_on_the_cpu_if_nothing_else_starts(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with onnxruntime-gpu where no driver is installed; its list says what was built in."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        built_in = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: built_in)
        with noticed("the CPU paints instead"):
            assert np.array_equal(
                Network(random_network())(picture, "style0"), NETWORK(picture, "style0")
            )
        with pytest.raises(ImpastoError, match="cannot start on 'cuda'"):
            Network(random_network(), device="cuda")(picture, "style0")


def test_strength_goes_from_the_photo_to_the_picture(picture: Image.Image) -> None:
    assert NETWORK(picture, "style0", strength=0).tobytes() == picture.tobytes()
    photo, all_painted, half = (
        np.asarray(each, np.int16)
        for each in (picture, NETWORK(picture, "style0"), NETWORK(picture, "style0", strength=0.5))
    )
    assert np.abs(half - (photo + all_painted) / 2).max() <= 1
    with pytest.raises(ImpastoError, match="strength is 2; give a number from 0 to 1"):
        NETWORK(picture, "style0", strength=2)


def test_the_photos_colours_are_kept_both_ways(picture: Image.Image) -> None:
    photo = images.to_tensor(picture)
    plain = images.to_tensor(NETWORK(picture, "style0"))
    grey = images.to_tensor(NETWORK(picture, "style0", keep_colors=True))
    expected = colours.with_luminance(photo, colours.luminance(plain))
    assert (grey - expected).abs().max() < 3 / 255
    matched = images.to_tensor(NETWORK(picture, "style0", keep_colors="histogram"))
    assert (matched - colours.match_colours(plain, photo)).abs().max() < 3 / 255


def test_styles_mix(picture: Image.Image) -> None:
    first, mixed, second = (
        np.asarray(NETWORK(picture, style), np.int16)
        for style in ("style0", {"style0": 1, "style1": 1}, "style1")
    )
    assert np.abs(first - mixed).mean() > 3
    assert np.abs(second - mixed).mean() > 3
    assert NETWORK(picture, [("style1", 2), ("style0", 0)]) == NETWORK(picture, "style1")


def test_export_for_other_programs(tmp_path: Path, picture: Image.Image) -> None:
    path = export(NETWORK, tmp_path / "net.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [each.name for each in model.graph.input] == ["images", "shares"]
    assert [each.version for each in model.opset_import] == [graph.OPSET]
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about == {"styles": '["style0", "style1", "style2"]', "licence": "CC0"}
    batch = np.stack([np.asarray(picture).transpose(2, 0, 1)] * 2).astype(np.float32) / 255
    shares = np.array([[0, 1, 0], [0.5, 0.5, 0]], np.float32)
    session = onnxruntime.InferenceSession(path)
    (pictures,) = session.run(["pictures"], {"images": batch, "shares": shares})
    expected = [NETWORK(batch[:1], "style1")[0], NETWORK(batch[1:], {"style0": 1, "style1": 1})[0]]
    assert np.abs(pictures - expected).max() < 1e-5
    assert compared(NETWORK) < 1e-3


def test_export_as_a_state_dict(tmp_path: Path) -> None:
    path = export(NETWORK, tmp_path / "net.pt")
    loaded = Transformer(TINY, 3)
    loaded.load_state_dict(torch.load(path, weights_only=True))
    photo, shares = torch.from_numpy(noise(1, 3, 40, 56)), torch.eye(3)[[1]]
    with torch.no_grad():
        painted = loaded(photo, shares).numpy()
    assert np.abs(painted - NETWORK(photo.numpy(), "style1")).max() < 1e-5
    with pytest.raises(ImpastoError, match=r"end it with \.onnx"):
        export(NETWORK, tmp_path / "net.tflite")


def test_a_graph_that_differs_is_not_written(tmp_path: Path) -> None:
    class Broken(Network):
        def run(self, inputs: Any) -> Any:
            return NETWORK.run(inputs) + np.float32(0.01)

    with pytest.raises(ImpastoError, match=r"differs from torch by 0\.01"):
        export(Broken(random_network()), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())


def test_a_device_that_is_not_there() -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        assert Network(random_network(), device="cuda").device == "cuda"
    else:
        with pytest.raises(ImpastoError, match="install onnxruntime-gpu"):
            Network(random_network(), device="cuda")


def test_painting_needs_no_torch(tmp_path: Path, picture: Image.Image) -> None:
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(tmp_path / "photo.png")
    path = NETWORK.save(tmp_path / "a.safetensors")
    program = """
import sys
from impasto.apps.cli.main import main
assert main(sys.argv[1:]) == 0
assert "torch" not in sys.modules, "torch was imported"
"""
    words = ["apply", str(tmp_path / "photo.png"), "--network", str(path), "--style", "style0"]
    words += ["--keep-colors", "histogram", "-o", str(tmp_path / "b.png"), "--size", "64"]
    subprocess.run([sys.executable, "-c", program, *words], check=True)


def test_onnx_runtime_is_told_to_report_to_nobody() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import impasto, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"},
    )
    assert told.stdout.strip() == "1"
