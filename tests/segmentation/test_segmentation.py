"""Objects as entries, soft aggregation, tracks, builders."""

import tracemalloc

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import oracles
from stremn.media.masks import label_map
from stremn.memory.policies import Oldest
from stremn.memory.reading import read
from stremn.networks.model import STReMN
from stremn.networks.presets import PRESETS, SegmentationConfig, build_model, frozen_parameters
from stremn.networks.windows import Window, whole
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.aggregation import (
    ABSENT,
    aggregate,
    aggregate_fast,
    given_up,
    likeliest,
    object_masks,
    one_hot,
    scatter,
    upsampled,
    with_given,
    with_label_map,
)
from stremn.segmentation.tracks import Track
from tiny_model import tiny_backbone, tiny_config, tiny_model

SIZE = (32, 48)


def chances(objects: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Logits "2 o 3 4" with the extremes among them."""
    logits = torch.randn(2, objects, 3, 4, dtype=dtype) * 4
    logits[0, 0, 0, :] = torch.tensor([-90.0, 90.0, 0.0, 17.0], dtype=dtype)
    return logits


@pytest.mark.parametrize("objects", [1, 2, 5])
@pytest.mark.parametrize("merge", ["aggregate", "shares"])
def test_merging_is_stms_soft_aggregation(objects: int, merge: str) -> None:
    logits = chances(objects)
    found = aggregate(logits).exp() if merge == "aggregate" else aggregate_fast(logits)
    for video in range(2):
        for place in np.ndindex(3, 4):
            each = logits[video, :, place[0], place[1]].sigmoid().tolist()
            expected = oracles.aggregate(each)
            pixel = found[video, :, place[0], place[1]].tolist()
            np.testing.assert_allclose(pixel, expected, atol=1e-6)
            # In logarithms too: where the loss lives, and where the bounds show.
            np.testing.assert_allclose(np.log(pixel), np.log(expected), atol=2e-3)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))


def test_merging_in_float32_is_the_same() -> None:
    logits = chances(3)
    exact = aggregate(logits).exp()
    for found in (aggregate(logits.float()).exp(), aggregate_fast(logits.float())):
        np.testing.assert_allclose(found.numpy(), exact.numpy(), atol=2e-6)


def test_merging_is_differentiable_and_finite_at_the_extremes() -> None:
    inside = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(aggregate, (inside,))
    extreme = chances(3, torch.float32).requires_grad_()
    aggregate(extreme).sum().backward()
    assert extreme.grad is not None
    assert extreme.grad.isfinite().all()


def test_an_absent_object_has_no_share_and_takes_none() -> None:
    logits = chances(3)
    logits[:, 1] = ABSENT
    with_absent = aggregate(logits).exp()
    assert float(with_absent[:, 2].max()) == 0
    without = aggregate(logits[:, [0, 2]]).exp()
    torch.testing.assert_close(with_absent[:, [0, 1, 3]], without)


def test_merging_leaves_its_input_alone() -> None:
    for objects in (1, 3):
        logits = chances(objects)
        before = logits.clone()
        aggregate_fast(logits)
        assert torch.equal(logits, before)


def test_order_of_objects_does_not_matter() -> None:
    logits, order = chances(4), [2, 0, 3, 1]
    moved = aggregate(logits[:, order])
    expected = aggregate(logits)[:, [0, *(i + 1 for i in order)]]
    torch.testing.assert_close(moved, expected)


# ---------------------------------------------------------------------------------- entries


def given_track(model: STReMN, video: list[int], label: list[int], videos: int):  # type: ignore[no-untyped-def]
    """A track whose entries have seen one frame of their video; the query of a second one."""
    objects = max(label)
    track = Track.empty(model, torch.tensor(video), torch.tensor(label), 3, SIZE)
    first = model.encode_query(torch.rand(videos, 3, *SIZE))
    masks = torch.rand(videos, objects + 1, *SIZE).softmax(1)
    track, _ = track.memorize(model, first, masks, frame=0, policy=Oldest(), pin=True)
    return track, model.encode_query(torch.rand(videos, 3, *SIZE))


def test_scatter_puts_entries_at_their_video_and_label(model: STReMN) -> None:
    track, _ = given_track(model, [1, 0, 1], [2, 1, 1], 2)
    logits = torch.arange(3.0).reshape(3, 1, 1).expand(3, 2, 2)
    dense = scatter(logits, track.video, track.label, 2, 2)
    assert dense[:, :, 0, 0].tolist() == [[1, ABSENT], [2, 0]]


def test_masks_of_an_entry_are_its_own_and_the_union_of_the_others(model: STReMN) -> None:
    track, _ = given_track(model, [1, 0, 1], [2, 1, 1], 2)
    probabilities = torch.rand(2, 3, *SIZE).softmax(1)
    masks = object_masks(probabilities, track.video, track.label)
    torch.testing.assert_close(masks[0, 0], probabilities[1, 2])
    torch.testing.assert_close(masks[0, 1], probabilities[1, 1])
    torch.testing.assert_close(masks[1, 0], probabilities[0, 1])
    torch.testing.assert_close(masks[1, 1], probabilities[0, 2])


def test_videos_of_a_batch_do_not_see_each_other(model: STReMN) -> None:
    with torch.no_grad():
        track, query = given_track(model, [0, 0, 1], [1, 2, 1], 2)
        both = track.recall(model, query, 2, 2)
        first = track.select(torch.tensor([0, 1]))
        alone = first.recall(model, query.take(torch.tensor([0])), 1, 2)
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-4)


def test_a_session_merges_as_training_does(model: STReMN) -> None:
    with torch.no_grad():
        for label in ([1], [1, 2, 3]):
            track, query = given_track(model, [0] * len(label), label, 1)
            merged = track.recall(model, query, 1, len(label)).exp()
            torch.testing.assert_close(track.segment(model, query), merged, rtol=0, atol=2e-6)


def test_an_entry_is_read_in_its_window_alone(model: STReMN) -> None:
    windows = [Window(0, 2, 1, 3), Window(0, 1, 0, 2)]
    with torch.no_grad():
        track, query = given_track(model, [0, 0], [1, 2], 1)
        found = track.logits(model, query, windows)[:, 0]
        hints = model.hints(track.state, query, track.video)
        everywhere = model.recall(track.state, query.take(track.video), hints)[:, 0]
        whole_frame = track.logits(model, query, [whole((2, 3))] * 2)[:, 0]
        state = track.state.entry(1)
        read_within = read(state, query.within(windows[1]).key)
        read_all = read(state, query.key)
    torch.testing.assert_close(whole_frame, everywhere, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(read_within, read_all[:, 0:1, 0:2], rtol=1e-5, atol=1e-6)
    inside = torch.zeros(2, 8, 12, dtype=torch.bool)
    inside[0, :, 4:], inside[1, :4, :8] = True, True
    assert (found[~inside] == found.min()).all()
    assert found[inside].min() > found.min()
    assert track.segment(model, query, windows)[0, 1, :, 0].max() < 1e-6


def test_a_given_mask_is_taken_for_the_truth() -> None:
    shares = torch.rand(2, 4, 3, 5, dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    truth = one_hot(torch.randint(0, 4, (2, 3, 5)), 3)[:, 1:].double()
    truth[0, 0, 0, :2] = 0.25  # soft at an outline
    given = torch.tensor([[True, False, True], [False, False, False]])
    found = with_given(shares, truth, given)
    assert torch.equal(found[1], shares[1])  # nothing given there
    for y, x in np.ndindex(3, 5):
        old, true = shares[0, :, y, x].tolist(), truth[0, :, y, x].tolist()
        left = 1 - true[0] - true[2]  # the second object's mask is not looked at
        expected = [(old[0] + old[1] + old[3]) * left, true[0], old[2] * left, true[2]]
        np.testing.assert_allclose(found[0, :, y, x].tolist(), expected, atol=1e-12)


def test_many_given_masks_take_no_more_room_than_one() -> None:
    """At the video's size 24 layers would take 96 MB."""
    labels = np.repeat(np.arange(1000)[:, None] // 40, 1000, 1)
    given, size = label_map(labels), WorkingSize.of(1000, 1000, 64)
    blank = torch.ones(1, 1, *size.padded)
    tracemalloc.start()
    found = with_label_map(blank, given, given.ids, size)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3e7
    middles = found[0, :, :, 32].argmax(0)[torch.arange(25) * 64 // 25 + 1]
    assert middles.tolist() == list(range(25))


def test_objects_in_windows_are_memorized_as_in_the_whole_frame(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The tiny network sees two positions far, so with edges of two nothing may differ."""
    monkeypatch.setattr("stremn.networks.windows.EDGE", 2)
    model = tiny_model().double()
    query = model.encode_query(torch.rand(1, 3, 256, 256, dtype=torch.float64))
    labels = torch.zeros(1, 256, 256, dtype=torch.int64)
    labels[0, :40, 50:70], labels[0, 200:210, 180:200] = 1, 2
    track = Track.empty(model, torch.tensor([0, 0]), torch.tensor([1, 2]), 2, (256, 256))
    masks = object_masks(one_hot(labels, 2).double() * 0.9, track.video, track.label)
    windows = [Window(0, 8, 0, 10), Window(8, 16, 6, 16)]
    with torch.no_grad():
        each = query.take(track.video)
        found = model.encode_memory_within(each, masks, 3, windows)
        expected = model.encode_memory(each, masks, 3)
        without = model.encode_memory(each, masks * 0, 3)
    for one, other, far in zip(found.maps, expected.maps, without.maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        assert (other - far).abs().max() > 0.1  # masks are seen
    torch.testing.assert_close(found.evidence, expected.evidence)
    assert found.frame == 3
    assert found.query_key is each.key


def test_memorizing_in_windows_goes_through_the_same_write(model: STReMN) -> None:
    windows = [whole((2, 3))] * 2
    with torch.no_grad():
        track, query = given_track(model, [0, 0], [1, 2], 1)
        shares = track.segment(model, query)
        settings = {"frame": 1, "policy": Oldest()}
        one, choice = track.memorize(model, query, shares, **settings)
        other, same = track.memorize(model, query, shares, **settings, windows=windows)
    assert torch.equal(choice.replace, same.replace)
    for name, tensor in one.state.tensors().items():
        torch.testing.assert_close(other.state.tensors()[name], tensor, rtol=1e-4, atol=1e-4)


def test_a_lost_object_is_looked_for_everywhere(model: STReMN, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    track, query = given_track(model, [0, 0], [1, 2], 1)
    asked = []

    def answers(track, model, query, entry, window, hints):  # type: ignore[no-untyped-def]
        asked.append((entry, window))
        rows, columns = window.at(4)
        logits = torch.full((2, 8, 12), -5.0)
        logits[0, :, :2] = 5.0
        if window == whole((2, 3)):
            logits[1, :, 10:] = 5.0
        return logits[entry : entry + 1, rows, columns]

    monkeypatch.setattr(Track, "_within", answers)
    previous = np.zeros(SIZE, np.int32)
    previous[:4, :4], previous[-2:, -2:] = 1, 2
    monkeypatch.setattr("stremn.segmentation.tracks.CONTEXT", 0)
    shares, where = track.search(model, query, previous, 0.1)
    near = [Window(0, 2, 0, 2), Window(0, 2, 2, 3)]
    assert asked == [(0, near[0]), (1, near[1]), (1, whole((2, 3)))]
    assert np.array_equal(np.unique(where[:, -8:-2]), [2])
    assert np.array_equal(where, shares[0].argmax(0).numpy())


def test_an_object_in_its_window_is_read_once(model: STReMN) -> None:
    track, query = given_track(model, [0], [1], 1)
    previous = np.zeros(SIZE, np.int32)  # absent: may be anywhere
    with torch.no_grad():
        found, where = track.search(model, query, previous, 0.5)
        expected = track.segment(model, query)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert np.array_equal(where, expected[0].argmax(0).numpy())


def test_pixels_that_are_given_up_go_to_the_background() -> None:
    found = torch.rand(1, 3, 4, 5).softmax(1)
    layers = likeliest(found[0])
    assert np.array_equal(layers, found[0].argmax(0).numpy())
    where = np.zeros((4, 5), bool)
    where[1:3, 2:] = True
    after = given_up(found, layers, where)
    torch.testing.assert_close(after.sum(1), torch.ones(1, 4, 5))
    assert torch.equal(after[:, :, ~where], found[:, :, ~where])
    expected = oracles.given_up(found[0].numpy(), layers, where)
    np.testing.assert_allclose(after[0].numpy(), expected, rtol=1e-6)


def test_logits_are_brought_to_the_frames_size(model: STReMN) -> None:
    with torch.no_grad():
        track, query = given_track(model, [0, 0], [1, 2], 1)
        assert upsampled(track.logits(model, query), query.frames).shape == (2, *SIZE)


def test_tracks_are_joined_and_selected(model: STReMN) -> None:
    track, _ = given_track(model, [0, 0, 1], [1, 2, 1], 2)
    parts = [track.select(torch.tensor([i])) for i in range(3)]
    again = parts[0].join(parts[1]).join(parts[2])
    assert again.video.tolist() == [0, 0, 1]
    assert again.label.tolist() == [1, 2, 1]
    assert torch.equal(again.state.keys, track.state.keys)


def test_label_maps_become_layers_and_void_none() -> None:
    labels = torch.tensor([[[0, 1], [2, 255]]])
    layers = one_hot(labels, 2)
    assert layers[0, :, 0, 0].tolist() == [1, 0, 0]
    assert layers[0, :, 0, 1].tolist() == [0, 1, 0]
    assert layers[0, :, 1, 0].tolist() == [0, 0, 1]
    assert layers[0, :, 1, 1].tolist() == [0, 0, 0]


# ---------------------------------------------------------------------------------- builders


def test_the_papers_preset_has_the_papers_numbers() -> None:
    """Section 4.1.1 and STM: ResNet-50 with GroupNorm, keys 128, values 512, decoder 256."""
    config = PRESETS["resnet50"]
    assert config.backbone == "resnet50_gn"
    assert config.memory_encoder == "full"
    assert (config.key, config.value, config.decoder) == (128, 512, (256, 256, 256))
    assert config.tau == 1


def test_the_small_preset_is_small() -> None:
    model = build_model(PRESETS["small"])
    assert sum(weight.numel() for weight in model.parameters()) < 5e6
    assert set(model.policies) == {"learned", "evidence"}


@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("encoder", ["full", "shared-stem"])
@pytest.mark.parametrize("separable", [True, False])
def test_every_combination_of_parts_runs(skips: bool, encoder: str, separable: bool) -> None:
    model = tiny_model(skips=skips, memory_encoder=encoder, separable=separable)
    with torch.no_grad():
        track, query = given_track(model, [0, 0], [1, 2], 1)
        assert track.recall(model, query, 1, 2).shape == (1, 3, *SIZE)


def test_an_impossible_configuration_is_refused() -> None:
    for wrong in ({"key": 0}, {"tau": 0.0}, {"memory_encoder": "none"}, {"keys": 3}):
        with pytest.raises(ValidationError):
            SegmentationConfig(**wrong)


def test_what_a_cpu_training_leaves_alone_is_the_stem_and_depthwise_weights() -> None:
    model = build_model(PRESETS["small"])
    frozen = set(frozen_parameters(model))
    names = dict(model.named_parameters())
    assert frozen
    assert frozen <= set(names)
    for name in frozen:
        assert name.startswith("query_encoder.backbone.stem.") or names[name].shape[1] == 1
    for name in names:
        if name.startswith(("decoder.", "query_key.", "update_key.", "memory_value.")):
            assert name not in frozen


def test_a_backbone_of_ones_own_can_be_given() -> None:
    model = build_model(tiny_config(), tiny_backbone())
    assert model.query_encoder.channels == (8, 12, 16)
