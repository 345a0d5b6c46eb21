"""Clips for prediction: laws of motion, official layouts on tiny folders, disjoint splits."""

import gzip
import pickle
import shutil
import struct

import av
import cv2
import numpy as np
import pytest
import torch

from stremn.data.readers.digits import (
    FlyingDigits,
    bounce,
    distorted,
    hidden_digit,
    moving_digits,
    read_digits,
)
from stremn.data.readers.frame_clips import (
    SPLITS,
    Span,
    SpanClips,
    check_disjoint,
    read_frames,
    video_folder,
)
from stremn.data.readers.human import HUMAN_SUBJECTS, HumanWalking
from stremn.data.readers.kth import KTH_PERSONS, kth, kth_sequences
from stremn.data.readers.prediction_sets import ClipsSection, open_clips
from stremn.errors import StremnError


def some_digits(count=6, seed=0):
    rng = np.random.default_rng(seed)
    digits = np.zeros((count, 28, 28), np.uint8)
    digits[:, 6:22, 6:22] = rng.integers(60, 256, (count, 16, 16))
    return digits


def write_idx(path, images):
    content = struct.pack(">IIII", 2051, *images.shape) + images.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_video(path, frames, size=(160, 120)):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for value in frames:
            picture = np.full((size[1], size[0], 3), value, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


# --- digits


def test_a_point_bounces_inside_its_room_at_constant_speed():
    rng = np.random.default_rng(0)
    for _ in range(20):
        way = bounce(rng, 50, 0.1)
        assert way.min() >= 0
        assert way.max() <= 1
        steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
        inside = ((way[1:] > 0) & (way[1:] < 1) & (way[:-1] > 0) & (way[:-1] < 1)).all(1)
        np.testing.assert_allclose(steps[inside], 0.1, atol=1e-12)
        assert inside.any()
        assert not inside.all()


def test_moving_digits_repeat_by_index_and_differ_between_indices_and_seeds():
    clips = moving_digits(some_digits(), 4, frames=5)
    assert clips[1].shape == (5, 1, 64, 64)
    assert clips[1].dtype == torch.uint8
    assert torch.equal(clips[1], moving_digits(some_digits(), 4, frames=5)[1])
    assert not torch.equal(clips[1], clips[2])
    assert not torch.equal(clips[1], moving_digits(some_digits(), 4, frames=5, seed=1)[1])
    assert len(list(clips)) == 4


def test_one_moving_digit_is_the_digit_itself_in_every_frame():
    digits = some_digits(1)
    clip = moving_digits(digits, 1, frames=20, count=1)[0]
    for frame in clip[:, 0].numpy():
        rows, columns = np.nonzero(frame)
        top, left = rows.min() - 6, columns.min() - 6
        np.testing.assert_array_equal(frame[top : top + 28, left : left + 28], digits[0])
        assert frame.sum() == digits[0].sum()


def test_overlapping_digits_show_the_brighter():
    digits = np.full((1, 28, 28), 200, np.uint8)
    clip = moving_digits(digits, 1, frames=30, size=40)[0]
    assert set(clip.unique().tolist()) == {0, 200}


def test_the_hidden_digit_goes_and_returns():
    task = hidden_digit(some_digits(), 8, visible=4, hidden=6, returned=3)
    light = torch.stack([clip.float().mean((1, 2, 3)) for clip in task])  # clips t
    mean = light.mean(0)
    assert task[0].shape == (13, 1, 32, 32)
    assert mean[4:9].max() < 0.8 * mean[:4].min()  # away: only one digit and a small marker
    assert mean[10:].min() > 1.2 * mean[4:9].max()


def test_the_hidden_digit_cannot_be_told_from_the_frames_of_its_absence():
    black = np.zeros((1, 28, 28), np.uint8)  # the steady digit is black: only the shy one shows
    bright = hidden_digit(np.full((1, 28, 28), 255, np.uint8), 1, visible=3, hidden=5)
    nothing = hidden_digit(black, 1, visible=3, hidden=5)
    away, truth = nothing[0][3:8], bright[0]
    assert (away.amax((1, 2, 3)) == torch.tensor([110, 110, 110, 110, 255])).all()
    assert (away > 0).sum((1, 2, 3)).tolist() == [16] * 5
    # The marker is in the middle of where the digit would be.
    row, column = (int(x) for x in torch.nonzero(away[-1, 0])[0])
    assert bool((truth[7, 0, row : row + 4, column : column + 4] == 255).all())


@pytest.mark.parametrize(("alone", "least", "most"), [(0.0, 0, 0), (0.5, 20, 44), (1.0, 64, 64)])
def test_a_share_of_the_hidden_digits_is_alone(alone, least, most):
    bright = np.full((1, 28, 28), 255, np.uint8)
    task = hidden_digit(bright, 64, visible=1, hidden=1, returned=1, alone=alone)
    away = torch.stack([clip[1] for clip in task])
    assert least <= int(((away > 0).sum((1, 2, 3)) == 16).sum()) <= most  # the marker's pixels


def test_only_training_clips_are_alone(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", some_digits(20))
    data = ClipsSection(kind="hidden-digit", path=str(tmp_path), size=32, side=14, alone=1.0)
    for split, alone in (("train", True), ("val", False)):
        clips = open_clips(data, split, observed=14, future=1, length=8)
        lit = torch.stack([(clip[2:13] > 0).sum((1, 2, 3)) for clip in clips])
        assert bool((lit == 16).all()) == alone


class _Drawn(np.random.Generator):
    """A generator whose numbers are all the given share of the way from low to high."""

    def __init__(self, share):
        super().__init__(np.random.PCG64(0))
        self.share = share

    def uniform(self, low, high, size=None):
        value = low + self.share * (high - low)
        return value if size is None else np.full(size, value)


def _cross():
    digit = np.zeros((28, 28), np.uint8)
    digit[13:15, 4:24] = digit[4:24, 13:15] = 255
    return digit


def test_a_distortion_of_no_strength_changes_nothing():
    for digit in some_digits():
        np.testing.assert_array_equal(distorted(digit, 0.0, np.random.default_rng(0)), digit)
        np.testing.assert_array_equal(distorted(digit, 1.0, _Drawn(0.5)), digit)


def test_a_distortion_turns_shears_stretches_and_moves_about_the_middle():
    """The warp is the affine map of the docstring, here of the far end of its range."""
    turn, shear, stretch, move = np.pi / 6, 0.4, 1.3, 2.0
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = matrix @ np.array([[stretch, shear], [0, stretch]])
    found = distorted(_cross(), 1.0, _Drawn(1.0))
    for x, y in [(13.5, 13.5), (9.5, 13.5), (13.5, 17.5)]:  # points of the cross
        to = matrix @ (np.array([x, y]) - 13.5) + 13.5 + move
        column, row = to.round().astype(int)
        assert found[row, column] > 200
    assert found[13, 4] < 50  # where the cross was before


def test_distorted_digits_differ_and_stay_as_large():
    flying = FlyingDigits(_cross()[None], 32, 14, 0.1, distortion=1.0)
    one, two = flying.pick(np.random.default_rng(1), 2)
    assert one.shape == (14, 14)
    assert np.abs(one.astype(int) - two).max() > 50
    plain = FlyingDigits(_cross()[None], 32, 14, 0.1)
    np.testing.assert_array_equal(*plain.pick(np.random.default_rng(1), 2))


def test_only_training_digits_are_distorted(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte", some_digits(20))
    data = ClipsSection(kind="hidden-digit", path=str(tmp_path), size=32, side=14)
    bent = data.model_copy(update={"distortion": 1.0})
    for split, same in (("train", False), ("val", True)):
        one, two = (open_clips(d, split, observed=14, future=1, length=1)[0] for d in (data, bent))
        assert torch.equal(one, two) == same


def test_digit_splits_share_no_digit(tmp_path):
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", some_digits(20))
    write_idx(tmp_path / "t10k-images-idx3-ubyte", some_digits(7, seed=1))
    digits = {split: read_digits(tmp_path, split) for split in SPLITS}
    assert [len(digits[split]) for split in SPLITS] == [18, 2, 7]
    check_disjoint({split: moving_digits(digits[split], 1) for split in SPLITS})


def test_digits_sorted_by_class_are_all_in_training_and_in_validation(tmp_path):
    by_class = np.repeat(np.arange(10, dtype=np.uint8), 20)
    write_idx(tmp_path / "train-images-idx3-ubyte", np.tile(by_class[:, None, None], (1, 28, 28)))
    for split, each in (("train", 18), ("val", 2)):
        classes = read_digits(tmp_path, split)[:, 0, 0]
        assert np.bincount(classes, minlength=10).tolist() == [each] * 10


def test_shared_digits_are_found():
    digits = some_digits(4)
    with pytest.raises(StremnError, match="'train' and 'test' share 1 origins"):
        check_disjoint({"train": moving_digits(digits, 1), "test": moving_digits(digits[3:], 1)})


def test_real_digit_splits_share_no_digit(real_data):
    root = real_data / "prediction" / "mnist"
    digits = {split: read_digits(root, split) for split in SPLITS}
    assert [len(digits[split]) for split in SPLITS] == [9000, 1000, 10000]
    check_disjoint({split: moving_digits(digits[split], 1) for split in SPLITS})


def test_missing_or_broken_digit_files_are_named(tmp_path):
    with pytest.raises(StremnError, match=r"expected t10k-images-idx3-ubyte\.gz or"):
        read_digits(tmp_path, "test")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"x" * 100)
    with pytest.raises(StremnError, match="not an MNIST image file: magic number"):
        read_digits(tmp_path, "test")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(b"x")
    with pytest.raises(StremnError, match="it has only 1 bytes"):
        read_digits(tmp_path, "test")


@pytest.mark.parametrize("kind", [moving_digits, hidden_digit])
def test_a_digit_must_fit_its_square(kind):
    with pytest.raises(StremnError, match="digit of 30 pixels does not fit a square of 20"):
        kind(some_digits(), 1, size=20, side=30)


# --- KTH

LISTING = """The number of frames in each sequence
This file lists sub-sequences.

person01_boxing_d1\t\tframes\t1-10, 11-30
person01_jogging_d1\t\tframes\t1-12
person15_boxing_d1\t\tframes\t1-8
person17_boxing_d1\t\tframes\t2-9
person18_boxing_d1\t\t*missing*
"""


@pytest.fixture
def kth_root(tmp_path):
    (tmp_path / "00sequences.txt").write_text(LISTING)
    ramp = [4 * i for i in range(30)]
    write_video(tmp_path / "boxing" / "person01_boxing_d1_uncomp.avi", ramp)
    write_video(tmp_path / "person01_jogging_d1_uncomp.avi", ramp[:12])
    write_video(tmp_path / "person15_boxing_d1_uncomp.avi", ramp[:8])
    write_video(tmp_path / "person17_boxing_d1_uncomp.avi", ramp[:9])
    return tmp_path


def test_kth_listing_is_read(kth_root):
    sequences = kth_sequences(kth_root / "00sequences.txt")
    assert sequences["person01_boxing_d1"] == ((1, 10), (11, 30))
    assert set(sequences) == {f"person{x}_d1" for x in ("01_boxing", "01_jogging", "15_boxing",
                                                         "17_boxing")}  # fmt: skip


def test_kth_clips_walk_back_from_the_end_of_each_range(kth_root):
    clips = kth(kth_root, "train", frames=6, size=16)
    by_video = {}
    for span in clips.spans:
        by_video.setdefault(span.video.stem, []).append(span.start)
    assert by_video == {
        # 1-10 gives 5-10 (from 0: 4); 11-30 gives 25-30, 19-24, 13-18.
        "person01_boxing_d1_uncomp": [4, 24, 18, 12],
        # jogging advances by 3: 7-12, 4-9, 1-6.
        "person01_jogging_d1_uncomp": [6, 3, 0],
    }


def test_kth_frames_are_the_right_ones_in_grey(kth_root):
    clip = kth(kth_root, "train", frames=6, size=16)[1]
    assert clip.shape == (6, 1, 16, 16)
    np.testing.assert_allclose(clip.float().mean((1, 2, 3)), [4 * i for i in range(24, 30)], atol=6)


def test_kth_splits_are_by_person_and_disjoint(kth_root):
    parts = {split: kth(kth_root, split, frames=6, size=16) for split in SPLITS}
    assert [parts[split].origins() for split in SPLITS] == [
        {"person 01"},
        {"person 15"},
        {"person 17"},
    ]
    check_disjoint(parts)
    persons = [set(KTH_PERSONS[split]) for split in SPLITS]
    assert set.union(*persons) == set(range(1, 26))
    assert sum(map(len, persons)) == 25
    with pytest.raises(StremnError, match=r"share 1 origins, for example person 01"):
        check_disjoint({"a": parts["train"], "b": kth(kth_root, "test", 6, 16, persons=[1, 17])})


def test_kth_in_the_wrong_layout_is_named(tmp_path, kth_root):
    (tmp_path / "empty").mkdir()
    with pytest.raises(StremnError, match=r"00sequences\.txt is missing"):
        kth(tmp_path / "empty", "train")
    (tmp_path / "empty" / "00sequences.txt").write_text("nothing here")
    with pytest.raises(StremnError, match="lists no sequences"):
        kth(tmp_path / "empty", "train")
    with pytest.raises(StremnError, match="no KTH clips of 30 frames for persons 17"):
        kth(kth_root, "test", frames=30)


def test_a_video_shorter_than_its_listing_is_named(kth_root):
    clips = SpanClips([Span(kth_root / "person17_boxing_d1_uncomp.avi", 5, 10)], 16, 1)
    with pytest.raises(StremnError, match="has 9 frames, but a clip needs frame 14"):
        clips[0]


# --- Human3.6M


def write_walk(root, subject, scenario, numbers, camera="54138969"):
    root.mkdir(exist_ok=True)
    for number in numbers:
        image = np.zeros((40, 48, 3), np.uint8)
        image[10:30, 12:36] = (0, 0, number % 250)  # the middle half, red (BGR on disk)
        cv2.imwrite(str(root / f"{subject}_{scenario}.{camera}_{number:06d}.jpg"), image)


@pytest.mark.parametrize("kind", ["moving", "hidden", "kth"])
def test_clips_can_go_to_a_process_that_shares_nothing(kind, kth_root):
    digits = np.random.default_rng(0).integers(0, 256, (4, 28, 28), dtype=np.uint8)
    clips = {
        "moving": lambda: moving_digits(digits, 3),
        "hidden": lambda: hidden_digit(digits, 3),
        "kth": lambda: kth(kth_root, "train", 5, 16),
    }[kind]()
    first = clips[0]
    assert torch.equal(pickle.loads(pickle.dumps(clips))[0], first)  # as macOS hands them over


def test_human_walking_takes_every_second_image_without_gaps(tmp_path):
    write_walk(tmp_path, "S1", "Walking", range(1, 150, 5))  # 30 images
    write_walk(tmp_path, "S1", "WalkDog", range(1, 150, 5))
    write_walk(tmp_path, "S9", "Walking_1", [*range(1, 60, 5), *range(101, 160, 5)])  # a gap
    train = HumanWalking(tmp_path, "train", frames=4, size=16)
    numbers = [[int(p.stem[-6:]) for p in clip] for clip in train.clips]
    assert numbers == [[1, 11, 21, 31], [51, 61, 71, 81], [101, 111, 121, 131]]
    test = HumanWalking(tmp_path, "test", frames=4, size=16)
    numbers = [[int(p.stem[-6:]) for p in clip] for clip in test.clips]
    assert numbers == [[1, 11, 21, 31], [26, 36, 46, 56], [116, 126, 136, 146]]


def test_human_walking_cuts_the_middle_half_and_gives_rgb(tmp_path):
    write_walk(tmp_path, "S9", "Walking", range(200, 300, 5))
    cut = HumanWalking(tmp_path, "test", frames=2, size=16)[0]
    assert cut.shape == (2, 3, 16, 16)
    assert cut[0, 0, 1:-1, 1:-1].float().mean() == pytest.approx(200, abs=8)
    assert cut[:, 1:, 1:-1, 1:-1].float().mean() < 10
    whole = HumanWalking(tmp_path, "test", frames=2, size=16, crop="none")[0]
    assert whole[0, 0].float().mean() == pytest.approx(50, abs=8)


def test_human_splits_are_by_subject_and_disjoint(tmp_path):
    for subject in ("S1", "S8", "S11"):
        write_walk(tmp_path, subject, "Walking", range(1, 60, 5))
    parts = {split: HumanWalking(tmp_path, split, frames=2, size=8) for split in SPLITS}
    check_disjoint(parts)
    assert [set(parts[split].origins()) for split in SPLITS] == [{"S1"}, {"S8"}, {"S11"}]
    assert len({s for split in SPLITS for s in HUMAN_SUBJECTS[split]}) == 7


def test_human_in_the_wrong_layout_is_named(tmp_path):
    with pytest.raises(StremnError, match=r"files like S11_Walking\.54138969_000471\.jpg"):
        HumanWalking(tmp_path, "test")


# --- folders


def test_a_folder_of_videos_is_split_by_name_and_every_clip_is_whole(tmp_path):
    for index in range(25):
        write_video(tmp_path / f"clip{index:02d}.mp4", range(0, 70, 10), size=(32, 32))
    parts = {s: video_folder(tmp_path, s, frames=3, size=16, channels=3) for s in SPLITS}
    check_disjoint(parts)
    assert sum(len(part.origins()) for part in parts.values()) == 25
    assert len(parts["train"].origins()) > 12
    for part in parts.values():
        assert len(part) == 2 * len(part.origins())  # 7 frames: two clips of 3
        assert part[0].shape == (3, 3, 16, 16)
    strided = video_folder(tmp_path, "train", frames=3, size=16, channels=1, stride=3)
    assert strided[0][:, 0].float().mean((1, 2)).tolist() == pytest.approx([0, 30, 60], abs=6)


def test_subfolders_named_like_splits_are_the_splits(tmp_path):
    for split in SPLITS:
        folder = tmp_path / split / "walk"
        folder.mkdir(parents=True)
        for index in range(4):
            cv2.imwrite(str(folder / f"{index}.png"), np.full((9, 12), 50 * index, np.uint8))
    clips = video_folder(tmp_path, "val", frames=4, size=8, channels=1)
    assert clips.origins() == {str(tmp_path / "val" / "walk")}
    assert clips[0].float().mean((1, 2, 3)).tolist() == [0, 50, 100, 150]
    shutil.rmtree(tmp_path / "train")  # who only scores has no use for it
    alone = video_folder(tmp_path, "test", frames=4, size=8, channels=1)
    assert alone.origins() == {str(tmp_path / "test" / "walk")}
    with pytest.raises(StremnError, match=r"no videos for the split 'train'.*subfolder"):
        video_folder(tmp_path, "train", frames=4, size=8, channels=1)


def test_a_video_too_long_to_be_held_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "train" / "walk"
    folder.mkdir(parents=True)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), np.full((8, 8), index, np.uint8))
    clips = video_folder(tmp_path, "train", frames=3, size=8, channels=1)
    monkeypatch.setattr("stremn.data.readers.frame_clips.KEPT_BYTES", 5 * 8 * 8)
    with pytest.raises(StremnError, match=r"walk has more than the 5 frames of 8x8 that are held"):
        clips[0]
    monkeypatch.setattr("stremn.data.readers.frame_clips.KEPT_BYTES", 6 * 8 * 8)
    assert clips[1][:, 0, 0, 0].tolist() == [3, 4, 5]


def test_images_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for index in (2, 10, 1):
        cv2.imwrite(str(tmp_path / f"frame{index}.tiff"), np.full((8, 8), index, np.uint8))
    (tmp_path / ".frame0.png").write_bytes(b"left by a file browser")
    assert [int(frame[0, 0, 0]) for frame in read_frames(tmp_path, 1)] == [1, 2, 10]


def test_bad_folders_and_frames_are_named(tmp_path):
    with pytest.raises(StremnError, match="is not a folder"):
        video_folder(tmp_path / "none", "train", 3, 8, 1)
    with pytest.raises(StremnError, match="no videos for the split 'train'"):
        video_folder(tmp_path, "train", 3, 8, 1)
    folder = tmp_path / "train" / "a"
    for split in SPLITS:
        (tmp_path / split).mkdir()
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((8, 8), np.uint8))
    cv2.imwrite(str(folder / "1.png"), np.zeros((8, 9), np.uint8))
    with pytest.raises(StremnError, match=r"No video in .* has the 3 frames"):
        video_folder(tmp_path, "train", 3, 8, 1)
    with pytest.raises(StremnError, match="differ in size: the first is 8x8, frame 1 is 9x8"):
        list(read_frames(folder, 1))
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(StremnError, match=r"1\.png cannot be read as an image"):
        list(read_frames(folder, 3))
    with pytest.raises(StremnError, match="There is no video at"):
        list(read_frames(tmp_path / "none.mp4", 1))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(StremnError, match="cannot be decoded as a video"):
        list(read_frames(tmp_path / "bad.mp4", 1))
    with pytest.raises(StremnError, match=r"1 channel .grey. or 3"):
        SpanClips([], 8, 2)
