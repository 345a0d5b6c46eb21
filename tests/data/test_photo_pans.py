"""Pans over photos: the way, what returns, the splits, bad input."""

import cv2
import numpy as np
import pytest
import torch

from stremn.data.readers.frame_clips import check_disjoint
from stremn.data.readers.photo_pans import PhotoPans, photo_pans
from stremn.data.readers.prediction_sets import ClipsSection, open_clips
from stremn.errors import StremnError

OBSERVED, FUTURE, SIZE = 7, 5, 32


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(40):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 256, (90, 120, 3), np.uint8))
    return folder


def clips(photos, split="train", length=12):
    data = ClipsSection(kind="photo-pans", path=str(photos), size=SIZE, channels=3)
    return open_clips(data, split, observed=OBSERVED, future=FUTURE, length=length)


def test_the_camera_comes_back_the_way_it_went(photos):
    pans = clips(photos)
    for index in range(len(pans)):
        clip = pans[index]
        assert clip.shape == (OBSERVED + FUTURE, 3, SIZE, SIZE)
        torch.testing.assert_close(clip, clip.flip(0))
        assert (clip[0] != clip[1]).any()
        torch.testing.assert_close(clip, pans[index])


def test_what_returns_is_what_the_last_observed_frame_does_not_show(photos):
    pans = clips(photos)
    for index in range(len(pans)):
        clip, returned = pans[index], pans.returned(index, OBSERVED)
        assert returned.shape == (FUTURE, SIZE, SIZE)
        shares = returned.float().mean((1, 2))
        assert (shares.diff() > 0).all()  # more at every step of the way back
        axis = 0 if bool((returned[-1] == returned[-1][:, :1]).all()) else 1
        lines = clip[OBSERVED - 1].movedim(1 + axis, 0).flatten(1)
        for frame, mask in zip(clip[OBSERVED:], returned, strict=True):
            along = mask[:, 0] if axis == 0 else mask[0]
            for line, new in zip(frame.movedim(1 + axis, 0).flatten(1), along, strict=True):
                assert bool((lines == line).all(1).any()) != bool(new)


def test_splits_share_no_photo(photos):
    check_disjoint({split: clips(photos, split) for split in ("train", "val", "test")})


def test_bad_folders_are_refused(tmp_path, photos):
    with pytest.raises(StremnError, match=r"is not a folder; a folder of photos was expected"):
        photo_pans(tmp_path / "none", "train", 8, 16, length=1, seed=0)
    with pytest.raises(StremnError, match=r"has no photos for the split 'train'\. Put photos into"):
        photo_pans(tmp_path, "train", 8, 16, length=1, seed=0)
    with pytest.raises(StremnError, match=r"There are no photos to pan over"):
        PhotoPans([], 8, 16, length=1, seed=0)
    for number in range(9):
        (tmp_path / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(StremnError, match=r"cannot be read as an image"):
        photo_pans(tmp_path, "train", 8, 16, length=1, seed=0)[0]
    with pytest.raises(IndexError, match="clip 12 of 12"):
        clips(photos)[12]
