"""Appendix B: each of Eq 6-12 against loops, gradients, and fusion inside model and training."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from memories import KEY, UPDATE, VALUE, empty, remember, templates
from stremn.data.readers.layouts import read_davis
from stremn.errors import StremnError
from stremn.memory.fusion import (
    Fusion,
    FusionConfig,
    align,
    build_fusion,
    every_other,
    least_similar,
    most_similar,
    stored,
)
from stremn.memory.policies import Newest, Oldest, Spread
from stremn.memory.similarity import similarity
from stremn.memory.writing import write
from stremn.networks.presets import SegmentationConfig
from stremn.networks.pretrained import Pretrained
from stremn.segmentation.sessions import SegmentationSession
from stremn.study.fusion_table import fusion_rows, fusion_weights
from stremn.study.suites import short_suite
from stremn.study.table_report import to_markdown
from stremn.study.tables import run_table
from stremn.training.optimization import parameter_groups
from stremn.training.segmentation.model import first_model, model_config
from stremn.training.segmentation.rollout import ClipLoss, rollout
from stremn.training.segmentation.task import TASK
from tiny_model import square_clips, tiny_model
from tiny_vos import davis

CHANNELS = KEY + VALUE + UPDATE


@pytest.fixture
def fusion():
    """A module in float64 whose gates are neither open nor shut."""
    return build_fusion(FusionConfig(hidden=4, scale="none"), CHANNELS).double()


def maps(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# The equations, as loops over numbers ----------------------------------------------------------


def loop_align(to, source, scale):
    """Eq 7: every position of `to` takes the mean of `source`, weighted by the softmax."""
    h, w, c = to.shape
    result = np.zeros((h, w, c))
    for i in range(h):
        for j in range(w):
            weights = {}
            for y in range(h):
                for x in range(w):
                    product = sum(float(to[i, j, n]) * float(source[y, x, n]) for n in range(c))
                    weights[y, x] = math.exp(scale * product)
            total = sum(weights.values())
            for place, weight in weights.items():
                result[i, j] += weight / total * source[place]
    return result


def loop_cnn(net, one, other):
    """Two maps side by side through a 1x1 convolution, a ramp, and a 3x3 convolution."""
    both = np.concatenate([one, other], axis=-1)
    h, w, _ = both.shape
    narrow, widen = net.narrow.weight.detach().numpy(), net.widen.weight.detach().numpy()
    first, second = net.narrow.bias.detach().numpy(), net.widen.bias.detach().numpy()
    hidden = np.maximum(both @ narrow[:, :, 0, 0].T + first, 0)
    result = np.tile(second, (h, w, 1))
    for i in range(h):
        for j in range(w):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    y, x = i + dy, j + dx
                    if 0 <= y < h and 0 <= x < w:
                        result[i, j] += widen[:, :, dy + 1, dx + 1] @ hidden[y, x]
    return result


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loop_fuse(fusion, deleted, target, scale=1.0):
    """Eq 6-12 one after the other."""
    aligned = loop_align(deleted, target, scale)  # Eq 6
    r = sigmoid(loop_cnn(fusion.reset, deleted, aligned))  # Eq 8
    passed = r * deleted  # Eq 9
    aligned = loop_align(target, passed, scale)  # Eq 10
    z = sigmoid(loop_cnn(fusion.update, aligned, target))  # Eq 11
    return (1 - z) * target + z * np.tanh(loop_cnn(fusion.candidate, aligned, target))  # Eq 12


@pytest.mark.parametrize(("scale", "factor"), [("none", 1.0), ("sqrt", 1 / math.sqrt(5))])
def test_alignment_is_eq_7(scale, factor):
    to, source = maps(1, 2, 2, 3, 5), maps(2, 2, 2, 3, 5)
    expected = [loop_align(a, b, factor) for a, b in zip(to.numpy(), source.numpy(), strict=True)]
    np.testing.assert_allclose(align(to, source, scale), expected, rtol=1e-12)


def test_aligned_pixels_come_from_the_source():
    """With products that leave no doubt, each position takes the pixel that looks like it."""
    source = 30 * torch.eye(6, dtype=torch.float64).reshape(1, 2, 3, 6)
    moved = source.flip(2)
    torch.testing.assert_close(align(moved, source), moved)


def test_gates_are_eq_8_and_11(fusion):
    one, other = maps(3, 1, 2, 3, CHANNELS), maps(4, 1, 2, 3, CHANNELS)
    for net in (fusion.reset, fusion.update, fusion.candidate):
        expected = loop_cnn(net, one[0].numpy(), other[0].numpy())
        np.testing.assert_allclose(net(one, other)[0].detach(), expected, rtol=1e-10)


def test_fusing_is_eq_6_to_12(fusion):
    deleted, target = maps(5, 2, 2, 3, CHANNELS), maps(6, 2, 2, 3, CHANNELS)
    pairs = zip(deleted.numpy(), target.numpy(), strict=True)
    expected = [loop_fuse(fusion, a, b) for a, b in pairs]
    np.testing.assert_allclose(fusion.fuse(deleted, target).detach(), expected, rtol=1e-10)


def test_a_shut_gate_changes_nothing_and_an_open_one_replaces(fusion):
    deleted, target = maps(5, 1, 2, 3, CHANNELS), maps(6, 1, 2, 3, CHANNELS)
    torch.nn.init.zeros_(fusion.update.widen.weight)
    torch.nn.init.constant_(fusion.update.widen.bias, -80.0)
    torch.testing.assert_close(fusion.fuse(deleted, target), target)
    torch.nn.init.constant_(fusion.update.widen.bias, 80.0)
    assert fusion.fuse(deleted, target).abs().max() <= 1  # tanh alone


def test_gradients_are_those_of_finite_differences():
    small = Fusion(3, 2, least_similar, "none").double()
    deleted = maps(7, 1, 2, 2, 3).requires_grad_()
    target = maps(8, 1, 2, 2, 3).requires_grad_()
    weights = dict(small.named_parameters())

    def fused(one, other, *values):
        named = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(_Fuse(small), _under("fusion", named), (one, other))

    assert torch.autograd.gradcheck(fused, (deleted, target, *weights.values()))


class _Fuse(torch.nn.Module):
    """Calls `fuse`, so that weights can be given as arguments."""

    def __init__(self, fusion):
        super().__init__()
        self.fusion = fusion

    def forward(self, deleted, target):
        return self.fusion.fuse(deleted, target)


def _under(prefix, named):
    return {f"{prefix}.{name}": value for name, value in named.items()}


# Which template is fused into which --------------------------------------------------------------


def evicted_slot(state, slot):
    return torch.nn.functional.one_hot(torch.tensor([slot]), state.slots).bool()


def test_targets_are_told_by_eq_1():
    state = remember(Spread(), slots=5, frames=9)
    evicted = evicted_slot(state, 3)
    alike = similarity(state.update_keys[:, 3], state.update_keys)[0]
    others = [1, 2, 4]  # 0 is pinned, 3 gives way
    assert least_similar(state, evicted).nonzero().tolist() == [
        [0, min(others, key=lambda i: alike[i])]
    ]
    assert most_similar(state, evicted).nonzero().tolist() == [
        [0, max(others, key=lambda i: alike[i])]
    ]
    assert every_other(state, evicted).tolist() == [[False, True, True, False, True]]


@pytest.mark.parametrize("target", [least_similar, most_similar, every_other])
def test_nothing_is_fused_where_nothing_gives_way(target):
    state = remember(Spread(), slots=4, frames=6, batch=2)
    evicted = torch.zeros(2, 4, dtype=torch.bool)
    assert not target(state, evicted).any()


# Writing -------------------------------------------------------------------------------------


def test_a_write_fuses_before_it_overwrites(fusion):
    state = _remember(fusion, slots=4, frames=4)
    new = templates(5, 1, dtype=torch.float64)[4]
    plain, choice = write(state, new, Oldest(), pin=False)
    after, same = fusion(state, new, Oldest())
    assert choice.replace.tolist() == same.replace.tolist() == [[0, 1, 0, 0]]
    before, written = stored(state)[0].numpy(), stored(after)[0].detach().numpy()
    [[_, j]] = least_similar(state, choice.replace > 0.5).nonzero().tolist()
    np.testing.assert_allclose(written[j], loop_fuse(fusion, before[1], before[j]), rtol=1e-9)
    unchanged = [i for i in range(4) if i != j]
    assert torch.equal(stored(after)[:, unchanged], stored(plain)[:, unchanged])
    assert torch.equal(after.written_at, plain.written_at)


def test_a_corrected_frame_gives_nothing_away(fusion):
    """Its earlier template may have a wrong mask."""
    state = _remember(fusion, slots=4, frames=6)
    better = templates(6, seed=1, dtype=torch.float64)[5]
    plain, choice = write(state, better, Oldest(), pin=True)
    after, _ = fusion(state, better, Oldest(), pin=True)
    assert (state.written_at[choice.replace > 0.5] == 5).all()
    assert torch.equal(stored(after), stored(plain))


def test_while_slots_are_empty_it_is_the_plain_write(fusion):
    ours, plain = empty(4, dtype=torch.float64), empty(4, dtype=torch.float64)
    for template in templates(4, dtype=torch.float64):
        ours, _ = fusion(ours, template, Oldest(), pin=template.frame == 0)
        plain, _ = write(plain, template, Oldest(), pin=template.frame == 0)
    assert torch.equal(stored(ours), stored(plain))


def test_pinned_templates_stay_as_they_were_given(fusion):
    state = _remember(fusion, slots=3, frames=9)
    first = templates(1, dtype=torch.float64)[0]
    assert torch.equal(state.keys[:, 0], first.key)
    assert torch.equal(state.values[:, 0], first.value)


def test_two_slots_leave_nobody_to_learn(fusion):
    ours = _remember(fusion, slots=2, frames=6)
    plain = _remember(write, slots=2, frames=6)
    assert torch.equal(stored(ours), stored(plain))


def test_entries_do_not_see_each_other(fusion):
    together = _remember(fusion, slots=3, frames=7, batch=3)
    alone = _remember(fusion, slots=3, frames=7, batch=1)
    torch.testing.assert_close(stored(together)[:1], stored(alone))


def test_a_memory_that_grows_gives_nothing_away(fusion):
    state = replace(empty(2, dtype=torch.float64), growth=2)
    for template in templates(7, dtype=torch.float64):
        state, _ = fusion(state, template, Newest())
    assert state.written_at.tolist() == [[0, 1, 2, 3, 4, 5, 6, -1]]
    assert torch.equal(state.keys[:, 3], templates(7, dtype=torch.float64)[3].key)


def _remember(write, slots, frames, batch=1):
    state = empty(slots, batch, dtype=torch.float64)
    for template in templates(frames, batch, dtype=torch.float64):
        state, _ = write(state, template, Oldest(), pin=template.frame == 0)
    return state


# In the model, in training, in sessions ---------------------------------------------------------


def fused_model():
    config = FusionConfig(hidden=4)
    plain = Pretrained(tiny_model(), _config())
    return plain, plain.with_fusion(config)


def _config():
    return SegmentationConfig(key=6, value=10, update_key=5)


def test_a_module_is_put_in_and_taken_out_again():
    plain, fused = fused_model()
    assert isinstance(fused.model.write, Fusion)
    assert fused.config.fusion == FusionConfig(hidden=4)
    assert plain.model.write is write
    again = fused.with_fusion(None)
    assert again.model.write is write
    assert again.config == plain.config
    weights = plain.model.state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in again.model.state_dict().items())


def test_training_reaches_every_weight_of_the_module():
    _, fused = fused_model()
    loss = ClipLoss(memory_slots=3, policy=Oldest(), dice=0.5)
    loss(fused.model.train(), square_clips([[0], [0]], frames=7), 0.0).loss.backward()
    gradients = {n: p.grad for n, p in fused.model.named_parameters() if n.startswith("write.")}
    assert len(gradients) == 12
    assert all(g is not None and g.abs().sum() > 0 for g in gradients.values())


def test_training_changes_what_is_segmented():
    plain, fused = fused_model()
    clips = square_clips([[0]], frames=7)
    with torch.no_grad():
        ours = rollout(fused.model, clips, memory_slots=3, policy=Oldest()).log_probabilities
        theirs = rollout(plain.model, clips, memory_slots=3, policy=Oldest()).log_probabilities
    assert torch.equal(ours[2], theirs[2])  # three writes: nothing gave way so far
    assert not torch.equal(ours[-1], theirs[-1])


def test_sessions_fuse_too():
    plain, fused = fused_model()
    frames = square_clips([[0]], frames=7)
    results = []
    for model in (plain.model, fused.model):
        options = {"precision": "float32", "memory_slots": 3, "policy": "oldest", "size": 64}
        session = SegmentationSession(model, device="cpu", reach=None, **options)
        for t in range(7):
            mask = frames.labels[0, 0].numpy() if t == 0 else None
            result = session.step(frames.frames[0, t].permute(1, 2, 0).numpy(), mask)
        results.append(result)
    held = [result.memory.objects[0].frames for result in results]
    assert held[0] == held[1] == (0, 5, 6)
    assert not np.array_equal(results[0].layer_probabilities, results[1].layer_probabilities)


# Table 6 -----------------------------------------------------------------------------------------


def test_table_6_runs_the_same_weights_with_and_without(tmp_path):
    _, fused = fused_model()
    weights = fusion_weights("mine", fused, 64, device="cpu")
    without, with_fusion = fusion_rows("oldest", memory_slots=3)
    plain, other = (weights.make_session(weights.run(row, 0)) for row in (without, with_fusion))
    assert plain.policy_name == other.policy_name == "oldest"
    assert plain.model.write is write
    assert isinstance(other.model.write, Fusion)
    data = read_davis(davis(tmp_path / "D", {"cat": [1]}, count=7), "val", 2017)
    rows, suites = (without, with_fusion), [short_suite(data)]
    table = run_table("6", rows, suites, [weights], tmp_path / "out", reference="oldest")
    assert table.reference == "without fusion"
    assert "| with fusion |" in to_markdown(table)


def test_table_6_wants_a_model_with_fusion():
    plain, _ = fused_model()
    with pytest.raises(StremnError, match="'mine' has no fusion module"):
        fusion_weights("mine", plain)


def test_the_recipe_adds_the_module_to_a_model_without_and_trains_it_alone():
    recipe = TASK.read(Path(__file__).parents[2] / "recipes" / "small-fusion.toml")
    config = model_config(recipe.model)
    assert config.fusion == FusionConfig()
    start = recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": "small"})})
    model = first_model(start, config, None)
    assert isinstance(model.write, Fusion)
    trained = {p for group in parameter_groups(model, recipe.train) for p in group["params"]}
    assert trained == set(model.write.parameters())
