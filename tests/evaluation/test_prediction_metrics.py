"""Metrics against scikit-image and lpips, and the conventions that peers differ in."""

import builtins
import pickle
import sys
from pathlib import Path

import lpips
import numpy as np
import pytest
import torch
from skimage import metrics as skimage_metrics
from torch import nn

from stremn.errors import MissingExtraError, StremnError
from stremn.evaluation.prediction.metrics import (
    ALEXNET_VARIABLE,
    METRICS,
    Lpips,
    lpips_metrics,
    mae,
    mse,
    psnr,
    read_alexnet,
    read_heads,
    ssim,
    ssim_range2,
    ssim_uint8,
    structural_similarity,
)


def pair(b=2, t=3, c=1, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(b, t, c, size, size, generator=generator)
    x = (y + 0.2 * torch.randn(y.shape, generator=generator)).clamp(0, 1)
    return x, y


def reference_ssim(x, y, data_range, convert=lambda f: f.numpy()):
    b, t = x.shape[:2]
    out = torch.empty(b, t)
    for i in range(b):
        for j in range(t):
            value = skimage_metrics.structural_similarity(
                convert(x[i, j]), convert(y[i, j]), data_range=data_range, channel_axis=0
            )
            out[i, j] = float(value)
    return out


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_equals_scikit_image_by_each_convention(channels):
    x, y = pair(c=channels)
    torch.testing.assert_close(ssim(x, y), reference_ssim(x, y, 1.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(ssim_range2(x, y), reference_ssim(x, y, 2.0), atol=1e-5, rtol=0)
    bytes_ = reference_ssim(x, y, 255, lambda f: (f * 255).numpy().astype(np.uint8))
    torch.testing.assert_close(ssim_uint8(x, y), bytes_, atol=1e-5, rtol=0)


def test_conventions_of_ssim_differ_on_the_same_frames():
    x, y = (0.1 * frames for frames in pair())
    assert float((ssim_range2(x, y) - ssim(x, y)).mean()) > 0.05


def test_psnr_equals_scikit_image_and_is_bounded_for_equal_frames():
    x, y = pair(c=3)
    for i in range(2):
        expected = skimage_metrics.peak_signal_noise_ratio(
            y[i, 1].numpy(), x[i, 1].numpy(), data_range=1.0
        )
        assert float(psnr(x, y)[i, 1]) == pytest.approx(expected, abs=1e-3)
    assert float(psnr(y, y).max()) == 100.0


def test_mse_and_mae_sum_over_channels_and_pixels():
    y = torch.zeros(1, 2, 3, 4, 4)
    x = y.clone()
    x[:, 1] = 0.5
    assert mse(x, y).tolist() == [[0.0, 3 * 16 * 0.25]]
    assert mae(x, y).tolist() == [[0.0, 3 * 16 * 0.5]]


def test_every_metric_gives_one_number_a_frame_and_tells_its_convention():
    x, y = pair(b=2, t=3)
    for name, metric in METRICS.items():
        values = metric.compute(x, y)
        assert values.shape == (2, 3)
        assert metric.name == name
        assert len(metric.convention) > 10
        better, worse = metric.compute(y, y).mean(), values.mean()
        assert (better > worse) == metric.higher_is_better


def test_ssim_refuses_frames_smaller_than_its_window():
    x = torch.zeros(1, 1, 1, 6, 6)
    with pytest.raises(StremnError, match="at least 7x7 pixels, got 6x6"):
        structural_similarity(x, x, 1.0)


def random_network(seed=0):
    """AlexNet convolutions and heads of small random numbers."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(64, 3, 11), (192, 64, 5), (384, 192, 3), (256, 384, 3), (256, 256, 3)]
    layers = [
        (torch.randn(o, i, k, k, generator=generator) * (2 / (i * k * k)) ** 0.5, torch.zeros(o))
        for o, i, k in shapes
    ]
    heads = [torch.rand(o, generator=generator) for o, _, _ in shapes]
    return layers, heads


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lpips_equals_the_published_package_with_the_same_weights():
    layers, heads = random_network()
    reference = lpips.LPIPS(net="alex", pnet_rand=True, pretrained=False, verbose=False).eval()
    convolutions = [m for m in reference.net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for module, (weight, bias) in zip(convolutions, layers, strict=True):
            module.weight.copy_(weight)
            module.bias.copy_(bias)
        for lin, head in zip(reference.lins, heads, strict=True):
            lin.model[1].weight.copy_(head.view(1, -1, 1, 1))
    x, y = (2 * f.flatten(0, 1) - 1 for f in pair(c=3, size=64))
    torch.testing.assert_close(
        Lpips(layers, heads)(x, y), reference(x, y).flatten(), rtol=1e-4, atol=1e-6
    )


def test_frames_too_small_for_lpips_are_named():
    network = Lpips(*random_network())
    assert network(torch.zeros(1, 3, 31, 31), torch.ones(1, 3, 31, 31)).shape == (1,)
    with pytest.raises(StremnError, match="at least 31x31 pixels, got 40x30"):
        network(torch.zeros(1, 3, 30, 40), torch.zeros(1, 3, 30, 40))


def test_alexnet_is_read_from_torchvision_files_and_from_plain_arrays(tmp_path):
    layers, _ = random_network()
    state = {}
    for index, (weight, bias) in zip((0, 3, 6, 8, 10), layers, strict=True):
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": bias}
    torch.save(state, tmp_path / "alexnet.pth")
    arrays = {
        f"Conv_{i}": {"kernel": w.permute(2, 3, 1, 0).numpy(), "bias": b.numpy()}
        for i, (w, b) in enumerate(layers)
    }
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps({"AlexNet_0": arrays}))
    for name in ("alexnet.pth", "alexnet.ckpt"):
        for (weight, bias), (expected, zeros) in zip(
            read_alexnet(tmp_path / name), layers, strict=True
        ):
            assert torch.equal(weight, expected)
            assert torch.equal(bias, zeros)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"AlexNet_0": print}))
    with pytest.raises(StremnError, match=r"builtins\.print is not allowed"):
        read_alexnet(path)


def test_lpips_without_its_package_or_weights_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.delenv(ALEXNET_VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(StremnError, match="set the environment variable STREMN_ALEXNET"):
        lpips_metrics()
    with pytest.raises(StremnError, match=r"no AlexNet weights at .*none\.pth"):
        lpips_metrics(tmp_path / "none.pth")
    monkeypatch.setitem(sys.modules, "lpips", None)
    monkeypatch.setattr("stremn.evaluation.prediction.metrics.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"stremn\[study\]"):
        lpips_metrics()


def test_lpips_heads_that_are_missing_or_unreadable_are_named(tmp_path):
    path = tmp_path / "alex.pth"
    channels = (64, 192, 384, 256, 256)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1) for i, c in enumerate(channels)}
    torch.save(heads, path)
    assert [head.shape for head in read_heads(path)] == [(c,) for c in channels]
    torch.save(heads | {"lin2.model.1.weight": torch.rand(1, 1, 1, 1)}, path)
    with pytest.raises(StremnError, match=r"for \[64, 192, 1, 256, 256\] channels"):
        read_heads(path)
    del heads["lin3.model.1.weight"]
    torch.save(heads, path)
    with pytest.raises(StremnError, match=r"lacks lin3\.model\.1\.weight; .*force-reinstall lpips"):
        read_heads(path)
    path.write_bytes(b"no weights")
    with pytest.raises(StremnError, match=r"alex\.pth cannot be read .*force-reinstall lpips"):
        read_heads(path)


WRONG = [
    ([torch.zeros(3)], "holds no tensors by name, but list"),
    ({"lin0.model.1.weight": "words"}, r"more than tensors by name: lin0\.model\.1\.weight"),
    ({1: torch.zeros(3)}, "more than tensors by name: 1"),
    ({"a": torch.tensor([1.0, torch.nan])}, "not finite in a"),
    ({"a": torch.empty(3, device="meta")}, "not dense or of an unknown type: a"),
    ({"a": torch.ones(3).to(torch.float8_e4m3fn)}, "not dense or of an unknown type: a"),
    ({"a": Path("x")}, "cannot be read"),  # not made: only tensors and plain containers are
]


@pytest.mark.parametrize(("content", "message"), WRONG)
@pytest.mark.parametrize("read", [read_heads, read_alexnet])
def test_files_that_hold_anything_but_tensors_by_name_are_refused(tmp_path, read, content, message):
    torch.save(content, tmp_path / "alex.pth")
    with pytest.raises(StremnError, match=message):
        read(tmp_path / "alex.pth")


class RunsCode:
    """What a malicious file holds: unpickled in full, it would run a command."""

    def __reduce__(self):
        return exec, ("import builtins; builtins.code_has_run = True",)


@pytest.mark.parametrize("name", ["alex.pth", "alex.pkl"])
def test_code_in_a_file_of_weights_does_not_run(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save({"a": RunsCode()}, path)
    else:
        path.write_bytes(pickle.dumps({"AlexNet_0": RunsCode()}))
    with pytest.raises(StremnError, match="read"):
        read_alexnet(path)
    assert not hasattr(builtins, "code_has_run")


def test_arrays_that_are_not_finite_are_refused(tmp_path):
    layers, _ = random_network()
    arrays = {
        f"Conv_{i}": {"kernel": w.permute(2, 3, 1, 0).numpy(), "bias": b.numpy() * np.nan}
        for i, (w, b) in enumerate(layers)
    }
    (tmp_path / "alex.pkl").write_bytes(pickle.dumps({"AlexNet_0": arrays}))
    with pytest.raises(StremnError, match="numbers that are not finite"):
        read_alexnet(tmp_path / "alex.pkl")


def test_alexnet_weights_of_another_network_are_refused(tmp_path):
    layers, _ = random_network()
    state = {}
    for index, (weight, bias) in zip((0, 3, 6, 8, 10), layers, strict=True):
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": bias}
    state["features.8.weight"] = torch.rand(256, 384, 1, 1)
    torch.save(state, tmp_path / "alexnet.pth")
    with pytest.raises(StremnError, match=r"\(256, 384, 1, 1\).*AlexNet's are"):
        read_alexnet(tmp_path / "alexnet.pth")


def test_lpips_metrics_differ_by_range_and_repeat_grey(tmp_path, monkeypatch):
    layers, _ = random_network()
    state = {}
    for index, (weight, bias) in zip((0, 3, 6, 8, 10), layers, strict=True):
        state |= {f"features.{index}.weight": weight, f"features.{index}.bias": bias}
    torch.save(state, tmp_path / "alexnet.pth")
    monkeypatch.setenv(ALEXNET_VARIABLE, str(tmp_path / "alexnet.pth"))
    metrics = lpips_metrics()
    x, y = pair(b=1, t=2, size=64)
    values = {name: metric.compute(x, y) for name, metric in metrics.items()}
    assert values["lpips"].shape == (1, 2)
    assert not torch.allclose(values["lpips"], values["lpips_01"], rtol=0.01)
    rgb = metrics["lpips"].compute(x.expand(-1, -1, 3, -1, -1), y.expand(-1, -1, 3, -1, -1))
    torch.testing.assert_close(values["lpips"], rgb)
    assert float(metrics["lpips"].compute(y, y).abs().max()) == 0
