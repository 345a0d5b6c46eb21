import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stremn.core.checkpoints import (
    Checkpoint,
    optimizer_tensors,
    read_checkpoint,
    read_tensors,
    restore_optimizer,
    under,
    write_atomically,
    write_checkpoint,
    write_tensors,
)
from stremn.errors import StremnError


def test_round_trip_keeps_tensors_types_and_facts(tmp_path: Path) -> None:
    weight = torch.randn(2, 3)
    tensors = {
        "a.tied": weight,
        "a.same": weight,  # shares memory, as tied weights do
        "a.turned": weight.t(),
        "b": torch.tensor([1, 2], dtype=torch.int64),
        "c": torch.tensor(2.5, dtype=torch.bfloat16),
    }
    facts = {"step": 3, "best": None, "recipe": {"stages": [{"slots": [2, 3]}], "ä": "ö"}}
    write_checkpoint(tmp_path / "deep" / "x.safetensors", Checkpoint(tensors, facts))
    found = read_checkpoint(tmp_path / "deep" / "x.safetensors")
    assert found.facts == facts
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype
    assert set(under(found.tensors, "a")) == {"tied", "same", "turned"}


def test_equal_tensors_and_facts_make_equal_files(tmp_path: Path) -> None:
    """The library orders the header at random."""
    tensors = {"b": torch.ones(3, dtype=torch.float16), "a": torch.arange(4.0)}
    header = {name: "ä" for name in "zyxwvutsrqponml"}
    for name in "12345":
        write_tensors(tmp_path / name, tensors, header)
    assert len({(tmp_path / name).read_bytes() for name in "12345"}) == 1
    found, read = read_tensors(tmp_path / "1", "file")
    assert found == header
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_text("old")

    def half(file: Path) -> None:
        assert file.suffix == ".safetensors"
        assert file.parent == tmp_path  # a move within one file system is atomic
        file.write_text("ne", encoding="utf-8")
        assert path.read_text() == "old"
        raise OSError("disk full")

    with pytest.raises(StremnError, match=r"x\.safetensors could not be written: disk full"):
        write_atomically(path, half)
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_text() == "old"
    write_atomically(path, lambda file: file.write_text("new") and None)
    assert path.read_text() == "new"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"There is no checkpoint .*missing\.safetensors"):
        read_checkpoint(tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 50)
    with pytest.raises(StremnError, match=r"broken\.safetensors is damaged or not a checkpoint"):
        read_checkpoint(tmp_path / "broken.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(StremnError, match=r"not a training checkpoint.*start from them instead"):
        read_checkpoint(tmp_path / "weights.safetensors")
    header = {"stremn_checkpoint": json.dumps({"version": 99})}
    save_file({"a": torch.zeros(1)}, tmp_path / "later.safetensors", metadata=header)
    with pytest.raises(StremnError, match=r"its format is 99, expected 1\. Resume it"):
        read_checkpoint(tmp_path / "later.safetensors")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_optimizer_goes_on_as_if_nothing_had_happened(kind: type[torch.optim.Adam]) -> None:
    def model_and_optimizer() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 3)).to(
            memory_format=torch.channels_last
        )
        model[1].bias.requires_grad_(False)  # has no moments
        return model, kind([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        x = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = model_and_optimizer()
    for seed in range(3):
        step(model, optimizer, seed)
    saved = {name: t.clone() for name, t in model.state_dict().items()}
    moments = {n: t.clone() for n, t in optimizer_tensors(optimizer, model, "o").items()}
    assert "o.exp_avg.0.weight" in moments
    step(model, optimizer, 3)

    other, fresh = model_and_optimizer()
    other.load_state_dict(saved)
    plain = {name: t.contiguous() for name, t in under(moments, "o").items()}
    restore_optimizer(fresh, other, plain)
    weight = other[0].weight
    assert fresh.state[weight]["exp_avg"].stride() == weight.stride()  # as fast as before
    step(other, fresh, 3)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
