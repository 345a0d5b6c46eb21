"""Weights by name, file, folder or hub id: rebuilt from the file alone, strictly."""

import copy
import json
from pathlib import Path

import cv2
import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from skimage import data

from hub_cache import put
from stremn.core.weights import read_weights, save_weights
from stremn.errors import MissingExtraError, StremnError
from stremn.memory.fusion import FusionConfig
from stremn.memory.policies import Oldest
from stremn.networks.backbones import build_backbone
from stremn.networks.imagenet import (
    PACKAGES,
    _copy_by_position,
    _packaged_tensors,
    packaged_backbone,
)
from stremn.networks.presets import SegmentationConfig, build_model
from stremn.networks.pretrained import FILE, SHIPPED_FILES, Pretrained, find_weights, load_model
from stremn.segmentation.sessions import SegmentationSession
from stremn.segmentation.tracks import Track

SIZE = (32, 32)


@pytest.fixture(scope="module")
def small() -> Pretrained:
    """A real, small backbone of timm: a weights file names its backbone."""
    config = SegmentationConfig(
        backbone="test_efficientnet",
        memory_encoder="shared-stem",
        key=4,
        value=6,
        update_key=3,
        decoder=(6, 6, 6),
        skips=True,
        separable=True,
        rates=(1,),
        scale="none",
        tau=0.5,
    )
    torch.manual_seed(1)
    return Pretrained(build_model(config).eval(), config)


def answer(model: torch.nn.Module) -> torch.Tensor:
    """What the model makes of two frames."""
    generator = torch.Generator().manual_seed(5)
    frames = torch.rand(2, 3, *SIZE, generator=generator)
    with torch.no_grad():
        one = torch.tensor([0])
        track = Track.empty(model, one, one + 1, 2, SIZE)  # type: ignore[arg-type]
        query = model.encode_query(frames[:1])
        masks = torch.rand(1, 2, *SIZE, generator=generator).softmax(1)
        track, _ = track.memorize(model, query, masks, frame=0, policy=Oldest(), pin=True)  # type: ignore[arg-type]
        return track.recall(model, model.encode_query(frames[1:]), 1, 1)  # type: ignore[arg-type]


def test_a_model_is_rebuilt_from_its_file_alone(small: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    small.save(path)
    again = load_model(path)
    assert again.config == small.config
    assert again.model.matching.scale == "none"
    assert not again.model.training
    assert torch.equal(answer(again.model), answer(small.model))


def test_a_folder_is_what_save_pretrained_wrote(small: Pretrained, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path / "folder")
    assert (tmp_path / "folder" / FILE).is_file()
    again = Pretrained.from_pretrained(tmp_path / "folder")
    assert torch.equal(answer(again.model), answer(small.model))
    assert torch.equal(answer(load_model(str(tmp_path / "folder")).model), answer(small.model))


def test_the_file_says_what_it_is(small: Pretrained, tmp_path: Path) -> None:
    small.save(tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        header = file.metadata()
    assert header["stremn_task"] == "segmentation"
    assert json.loads(header["config"])["backbone"] == "test_efficientnet"


def test_shipped_weights_load() -> None:
    for name in SHIPPED_FILES:
        assert find_weights(name).is_file()
        loaded = load_model(name)
        assert loaded.config.backbone == "tf_efficientnet_lite0"
        assert all(x.isfinite().all() for x in loaded.model.state_dict().values())


def test_a_preset_without_weights_says_so() -> None:
    with pytest.raises(StremnError, match="No weights come with the preset 'resnet50': train"):
        load_model("resnet50")


def test_a_name_that_leads_nowhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    for name in ("smal", "someone/nothing", "not a name at all"):
        with pytest.raises(StremnError, match=f"There is no model '{name}': not a preset with"):
            load_model(name)


def test_a_revision_of_the_hub_is_loaded(
    small: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = "a" * 40, "b" * 40
    small.save_pretrained(tmp_path / "old")
    small.with_fusion(FusionConfig()).save_pretrained(tmp_path / "new")
    put(tmp_path / "hub", "someone/model", old, tmp_path / "old", "v1")
    put(tmp_path / "hub", "someone/model", new, tmp_path / "new", "main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert load_model("someone/model").config.fusion is not None
    for revision in ("v1", old):
        assert load_model(f"someone/model@{revision}").config.fusion is None
    with pytest.raises(StremnError, match=r"There is no model 'someone/model@v2'.* its revision"):
        load_model("someone/model@v2")
    with pytest.raises(StremnError, match="is a commit, tag or branch"):
        load_model("someone/model@../../main")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"There is no weights file .*none\.safetensors"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(StremnError, match=r"There is no weights file .*model\.safetensors"):
        load_model(tmp_path)


def test_damaged_and_foreign_files_are_told_apart(small: Pretrained, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    small.save(good)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-100])
    with pytest.raises(StremnError, match=r"cut.safetensors is damaged .* download it again"):
        load_model(cut)
    pickled = tmp_path / "pickle.pth"
    torch.save({"x": torch.zeros(1)}, pickled)
    with pytest.raises(StremnError, match=r"of PyTorch, .* stremn convert .*pickle.safetensors\.$"):
        load_model(pickled)
    pickled.write_bytes(b"neither")
    with pytest.raises(StremnError, match="is damaged or not a weights file"):
        load_model(pickled)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(StremnError, match=r"holds no model of stremn; expected one for segment"):
        load_model(tmp_path / "other.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "sam2_video"}')
    with pytest.raises(StremnError, match=r"of transformers \(sam2_video\), expected one of this"):
        load_model(tmp_path)
    save_weights(torch.nn.Linear(1, 1), "prediction", "{}", tmp_path / "task.safetensors")
    with pytest.raises(StremnError, match="holds a model for prediction; expected one for segm"):
        read_weights(tmp_path / "task.safetensors", "segmentation")


def test_loading_is_strict(small: Pretrained, tmp_path: Path) -> None:
    config = small.config.model_dump_json()
    for change, message in (
        ({"key": 5}, "does not fit the model it describes: .* has the shape"),
        ({"skips": False}, "does not fit the model it describes: .* has the shape"),
    ):
        wrong = json.dumps(json.loads(config) | change)
        path = tmp_path / "wrong.safetensors"
        save_weights(small.model, "segmentation", wrong, path)
        with pytest.raises(StremnError, match=message):
            load_model(path)


def test_an_unknown_key_in_a_files_configuration_is_refused(
    small: Pretrained, tmp_path: Path
) -> None:
    later = json.dumps(json.loads(small.config.model_dump_json()) | {"wings": 2})
    path = tmp_path / "later.safetensors"
    save_weights(small.model, "segmentation", later, path)
    with pytest.raises(StremnError, match="wings"):
        load_model(path)


@pytest.mark.parametrize("part", ["fusion", "summary"])
def test_a_part_that_is_added_runs_in_the_type_of_the_rest(small: Pretrained, part: str) -> None:
    plain = Pretrained(copy.deepcopy(small.model).double(), small.config)
    added = plain.with_fusion(FusionConfig()) if part == "fusion" else plain.with_summary()
    state, video = added.model.empty_state(1, 2, SIZE), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        for t in range(4):
            query = added.model.encode_query(torch.rand(1, 3, *SIZE, dtype=torch.float64))
            masks = torch.rand(1, 2, *SIZE, dtype=torch.float64)
            state, _ = added.model.memorize(state, query, masks, frame=t, policy=Oldest())
            found = added.model.recall(state, query, added.model.hints(state, query, video))
    assert found.dtype == torch.float64
    assert all(x.dtype == torch.float32 for x in small.model.parameters())


def test_a_summary_is_refused_for_a_network_that_cannot_be_saved_with_one() -> None:
    config = SegmentationConfig(
        family="stm", backbone="test_resnet", key=4, value=6, update_key=0, decoder=(6, 6, 6)
    )
    published = Pretrained(build_model(config), config)
    with pytest.raises(StremnError, match=r"No summary can be added: .* 'stremn', got 'stm'"):
        published.with_summary()


def test_from_pretrained_takes_a_source_alone(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="from_pretrained does not take revision"):
        Pretrained.from_pretrained(tmp_path, revision="main")


# ------------------------------------------------------------------ ImageNet weights in packages


def test_backbones_without_a_package_are_refused() -> None:
    with pytest.raises(StremnError, match="No package carries ImageNet weights for 'resnet18'"):
        packaged_backbone("resnet18")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PACKAGES, "tf_efficientnet_lite0", "nowhere_lite0_model")
    with pytest.raises(MissingExtraError, match=r"'nowhere-lite0-model'.*stremn\[train\]"):
        packaged_backbone("tf_efficientnet_lite0")


def test_packaged_weights_are_real_features() -> None:
    backbone, random = packaged_backbone("tf_efficientnet_lite0"), None
    random = build_backbone("tf_efficientnet_lite0")
    assert backbone.channels == random.channels
    ours, theirs = backbone.state_dict(), random.state_dict()
    assert list(ours) == list(theirs)
    first = ours["stem.conv_stem.weight"]
    assert not torch.allclose(first, theirs["stem.conv_stem.weight"])
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 64, 64)).stride16.isfinite().all()


def test_copied_by_position_the_network_still_knows_a_cat() -> None:
    """Tensors of one shape in another order would pass every check of shapes, and not this."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    _copy_by_position(model, _packaged_tensors(PACKAGES["tf_efficientnet_lite0"]))
    picture = cv2.resize(data.chelsea()[:, 75:375], (224, 224), interpolation=cv2.INTER_AREA)
    frame = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        likeliest = int(model(frame).argmax())
    assert likeliest in {281, 282, 285}  # ImageNet's tabby, tiger cat and Egyptian cat


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "should hold one file of weights .*got 0. Install a-model again"),
        ({"a.pth": b"no weights"}, "a.pth of a_model cannot be read"),
    ],
)
def test_a_damaged_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes], message: str
) -> None:
    (tmp_path / "models").mkdir()
    for name, content in files.items():
        (tmp_path / "models" / name).write_bytes(content)
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(StremnError, match=message):
        _packaged_tensors("a_model")


def test_tensors_are_copied_in_order_and_checked() -> None:
    ours, theirs = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    renamed = {f"other.{name}": x for name, x in theirs.state_dict().items()}
    _copy_by_position(ours, renamed)
    assert torch.equal(ours.weight, theirs.weight)
    with pytest.raises(StremnError, match="do not have this backbone's tensors"):
        _copy_by_position(ours, dict(reversed(renamed.items())))
    with pytest.raises(StremnError, match="do not have this backbone's tensors"):
        _copy_by_position(ours, {name: x.long() for name, x in renamed.items()})


def test_a_session_opens_on_a_model_that_is_loaded_already() -> None:
    loaded = load_model("small")
    session = SegmentationSession.from_pretrained(loaded, device="cpu", precision="float32")
    named = SegmentationSession.from_pretrained("small", device="cpu", precision="float32")
    assert session.model is loaded.model
    assert (session.policy_name, session.size, session.reach) == (
        named.policy_name, named.size, named.reach
    )  # fmt: skip


def test_a_saved_session_goes_on_with_a_model_that_is_loaded_already(tmp_path: Path) -> None:
    loaded = load_model("small")
    session = SegmentationSession.from_pretrained(loaded, device="cpu", precision="float32")
    session.save(tmp_path / "state.safetensors")
    again = SegmentationSession.load(tmp_path / "state.safetensors", loaded, device="cpu")
    assert again.model is loaded.model
