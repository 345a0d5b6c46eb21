import json

import numpy as np
import pytest
from PIL import Image

from stremn.data.readers.layouts import (
    read_davis,
    read_folders,
    read_long_time_video,
    read_lvos,
    read_mose,
    read_youtube_vos,
)
from stremn.data.readers.sequences import label_ids, read_binary, read_indices
from stremn.errors import StremnError
from tiny_vos import (
    SIZE,
    davis,
    names_of,
    square_labels,
    write_frame,
    write_labels,
    write_sequence,
    youtube_vos,
)


def test_davis_2017(tmp_path):
    data = read_davis(davis(tmp_path, {"dogs": [1, 2], "cat": [1]}), "val")
    assert [s.name for s in data] == ["dogs", "cat"]
    dogs = data["dogs"]
    assert len(dogs) == 6
    assert dogs.objects == {1: 0, 2: 0}
    assert dogs.frame(3).shape == (*SIZE, 3)
    assert np.array_equal(dogs.label(3), square_labels(3, [1, 2]))
    assert dogs.frame_name(3) == "00003"
    for sequence in data:
        sequence.check()


def test_davis_2016_is_one_object(tmp_path):
    data = read_davis(davis(tmp_path, {"dogs": [3, 255]}, year=2016), "val", 2016)
    assert data["dogs"].objects == {1: 0}
    assert data["dogs"].label(0).max() == 1
    assert (data["dogs"].label(0) > 0).sum() == 160


def test_davis_2016_release_lists_files(tmp_path):
    davis(tmp_path, {"dogs": [1]}, year=2016, split="other")
    lists = tmp_path / "ImageSets" / "480p"
    lists.mkdir()
    lines = [f"/JPEGImages/480p/dogs/{n}.jpg /Annotations/480p/dogs/{n}.png" for n in names_of(6)]
    (lists / "val.txt").write_text("\n".join(lines))
    assert [s.name for s in read_davis(tmp_path, "val", 2016)] == ["dogs"]


def test_davis_test_dev_has_one_mask(tmp_path):
    root = davis(tmp_path, {"dogs": [1]}, split="test-dev", annotated=["00000"])
    data = read_davis(root, "test-dev")
    assert data["dogs"].label(1) is None
    assert not data["dogs"].annotated(1)
    assert data.submission == "davis"


def test_davis_errors(tmp_path):
    root = tmp_path / "DAVIS"
    with pytest.raises(StremnError, match=r"no folder .*JPEGImages/480p\. Expected this layout:\n"):
        read_davis(root)
    davis(root, {"dogs": [1]})
    with pytest.raises(StremnError, match=r"no split file .*ImageSets/2017/train\.txt"):
        read_davis(root, "train")
    with pytest.raises(StremnError, match=r"no split file .*ImageSets/2016/train\.txt"):
        read_davis(root, "train", 2016)
    split = root / "ImageSets/2017/val.txt"
    split.write_text("dogs\na\nb\nc\nd\n")
    with pytest.raises(StremnError, match=r"4 sequences named by .*: a, b, c and 1 more"):
        read_davis(root)
    split.write_text("dogs\n")
    frames, labels = (root / kind / "480p" / "dogs" for kind in ("JPEGImages", "Annotations"))
    (labels / "00002.png").unlink()
    with pytest.raises(StremnError, match=r"dogs: 1 frames have no mask: 00002\."):
        read_davis(root)
    write_labels(labels / "00002.png", square_labels(2, [1]))
    (frames / "00002.jpg").unlink()
    with pytest.raises(StremnError, match=r"dogs: 1 masks in .* have no frame: 00002"):
        read_davis(root)
    (labels / "00002.png").unlink()
    with pytest.raises(StremnError, match="dogs: 1 frames are missing: 00002"):
        read_davis(root)
    split.write_text("\n")
    with pytest.raises(StremnError, match="is empty"):
        read_davis(root)
    split.write_text("dogs\n")
    write_frame(frames / "00002.jpg")
    write_labels(labels / "00002.png", square_labels(2, [1]))
    data = read_davis(root)
    with pytest.raises(StremnError, match=r"no sequence 'cow'.* It has dogs"):
        data["cow"]


def test_sizes_and_given_masks_are_checked(tmp_path):
    root = davis(tmp_path, {"dogs": [1], "cat": []})
    data = read_davis(root)
    with pytest.raises(StremnError, match="cat: the first mask shows no object"):
        data["cat"].check()
    write_labels(root / "Annotations/480p/dogs/00004.png", np.ones((10, 12), np.uint8))
    with pytest.raises(StremnError, match=r"are 56x40 but 1 files are not: dogs/00004.png .*12x10"):
        data["dogs"].check()


def test_youtube_vos(tmp_path):
    data = read_youtube_vos(youtube_vos(tmp_path))
    video = data["abc"]
    assert [video.frame_name(i) for i in range(len(video))] == names_of(6, step=5)
    assert video.objects == {1: 0, 2: 2}
    assert video.categories == {1: "cat", 2: "yak"}
    assert data.group(video, 1) == "seen"
    assert data.group(video, 2) == "unseen"
    assert data.frames == "6-fps frames"


def test_youtube_vos_all_frames(tmp_path):
    data = read_youtube_vos(youtube_vos(tmp_path), all_frames=True)
    video = data["abc"]
    assert len(video) == 26
    assert video.objects == {1: 0, 2: 10}
    assert video.submitted == frozenset(names_of(6, step=5))
    assert data.frames == "every frame"


def test_youtube_vos_errors(tmp_path):
    root = youtube_vos(tmp_path)
    with pytest.raises(StremnError, match=r"no folder .*test/JPEGImages"):
        read_youtube_vos(root, "test")
    (root / "valid/JPEGImages/abc/00026.jpg").touch()
    with pytest.raises(StremnError, match=r"lacks 1 frames that .* has: 00026"):
        read_youtube_vos(root, all_frames=True)
    (root / "valid/Annotations/abc/00010.png").unlink()
    with pytest.raises(StremnError, match=r"object 2 is given in frame 00010, .* 00010\.png"):
        read_youtube_vos(root)
    for text in ("[]", '{"videos": {"abc": {}}}', '{"videos": {"abc": []}}', "{"):
        (root / "valid/meta.json").write_text(text)
        with pytest.raises(StremnError, match=r'not a YouTube-VOS meta file.*a table "objects"'):
            read_youtube_vos(root)
    (root / "valid/meta.json").unlink()
    with pytest.raises(StremnError, match=r"no file .*meta\.json"):
        read_youtube_vos(root)


@pytest.mark.parametrize("inside", [True, False])
def test_lvos_and_mose(tmp_path, inside):
    valid = tmp_path / "valid"
    names = names_of(12, width=8)
    write_sequence(valid / "JPEGImages/v", valid / "Annotations/v", names, [1], names[::5])
    write_labels(valid / "Annotations/v" / f"{names[5]}.png", square_labels(5, [1, 2]))
    root = tmp_path if inside else valid
    assert read_lvos(root)["v"].objects == {1: 0, 2: 5}
    assert read_mose(root)["v"].objects == {1: 0, 2: 5}
    assert read_lvos(root)["v"].counts(3, 1)


def test_lvos_meta_gives_frame_ranges_and_groups(tmp_path):
    valid = tmp_path / "valid"
    names = [f"{i:08d}" for i in range(1, 15)]
    for v in ("v", "w"):
        write_sequence(valid / "JPEGImages" / v, valid / "Annotations" / v, names, [1])
    objects = {"1": {"frame_range": {"start": "1", "end": "11", "frame_nums": 2}}}
    meta = {"videos": {v: {"objects": objects} for v in ("v", "w")}}
    (valid / "meta.json").write_text(json.dumps(meta))
    (valid / "unseen_videos.txt").write_text("w\n")
    data = read_lvos(tmp_path)
    video = data["v"]
    assert video.objects == {1: 0}
    assert [i for i in range(14) if video.counts(i, 1)] == [0, 5]
    assert [data.group(s, 1) for s in data] == ["seen", "unseen"]


def test_long_time_video_is_sparse(tmp_path):
    names = names_of(8)
    folders = tmp_path / "JPEGImages/rat", tmp_path / "Annotations/rat"
    write_sequence(*folders, names, [1, 2], ["00000", "00003", "00007"])
    data = read_long_time_video(tmp_path)
    assert [i for i in range(8) if data["rat"].annotated(i)] == [0, 3, 7]
    assert data.name == "Long-Time Video"


@pytest.mark.parametrize("nested", [True, False])
def test_plain_folders_take_any_names(tmp_path, nested):
    frames = tmp_path / ("seq/JPEGImages" if nested else "JPEGImages/seq")
    labels = tmp_path / ("seq/Annotations" if nested else "Annotations/seq")
    for index, name in enumerate(["img_9", "img_10", "img_11"]):
        write_frame(frames / f"{name}.png", index)
        write_labels(labels / f"{name}.png", square_labels(index, [1] if index == 0 else [1, 5]))
    sequence = read_folders(tmp_path)["seq"]
    assert [sequence.frame_name(i) for i in range(3)] == ["img_9", "img_10", "img_11"]
    assert sequence.objects == {1: 0}
    assert read_folders(tmp_path, late_objects=True)["seq"].objects == {1: 0, 5: 1}


def test_hidden_files_are_no_frames(tmp_path):
    root = davis(tmp_path, {"dogs": [1]})
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "png")):
        (root / folder / "480p/dogs" / f"._00000.{suffix}").write_bytes(b"left by another system")
    dogs = read_davis(root)["dogs"]
    assert len(dogs) == 6
    dogs.check()


def test_plain_folder_errors(tmp_path):
    with pytest.raises(StremnError, match=r"There is no folder .*absent"):
        read_folders(tmp_path / "absent")
    with pytest.raises(StremnError, match="neither a folder JPEGImages nor"):
        read_folders(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(StremnError, match=r"no folder .*Annotations"):
        read_folders(tmp_path)
    (tmp_path / "Annotations/a").mkdir(parents=True)
    with pytest.raises(StremnError, match="holds no sequence folders"):
        read_folders(tmp_path)
    (tmp_path / "JPEGImages/a").mkdir()
    with pytest.raises(StremnError, match=r"a: .* holds no frames"):
        read_folders(tmp_path)
    write_frame(tmp_path / "JPEGImages/a/0.jpg")
    with pytest.raises(StremnError, match="a: there is no mask at all"):
        read_folders(tmp_path)
    split = tmp_path / "split.txt"
    split.write_text("a\nz\n")
    with pytest.raises(StremnError, match=r"1 sequences named by split file .*: z\."):
        read_folders(tmp_path, split)


def test_a_damaged_frame_is_named(tmp_path):
    root = davis(tmp_path, {"dogs": [1]})
    path = root / "JPEGImages/480p/dogs/00003.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    dogs = read_davis(root)["dogs"]
    dogs.check()  # headers alone do not show it
    with pytest.raises(StremnError, match=r"00003\.jpg cannot be read"):
        dogs.frame(3)


def test_turned_photos_fit_upright_masks(tmp_path):
    frames, labels = tmp_path / "JPEGImages/s", tmp_path / "Annotations/s"
    frames.mkdir(parents=True)
    lying = Image.fromarray(np.zeros((*SIZE[::-1], 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    lying.save(frames / "0.jpg", exif=exif)
    write_labels(labels / "0.png", square_labels(0, [1]))
    sequence = read_folders(tmp_path)["s"]
    sequence.check()
    assert sequence.size() == SIZE[::-1]
    assert sequence.frame(0).shape[:2] == sequence.label(0).shape


def test_youtube_vos_without_frame_lists(tmp_path):
    root = youtube_vos(tmp_path)
    meta = {"videos": {"abc": {"objects": {"1": {"category": "cat"}, "2": {"category": "yak"}}}}}
    (root / "valid/meta.json").write_text(json.dumps(meta))
    assert read_youtube_vos(root)["abc"].objects == {1: 0, 2: 2}


def test_label_files_of_every_kind(tmp_path):
    labels = square_labels(0, [1, 255])
    write_labels(tmp_path / "p.png", labels)
    Image.fromarray(labels).save(tmp_path / "l.png")
    Image.fromarray(labels.astype(np.uint16) * 2).save(tmp_path / "wide.png")
    Image.fromarray(labels == 1).save(tmp_path / "bit.png")
    assert np.array_equal(read_indices(tmp_path / "p.png"), labels)
    assert np.array_equal(read_indices(tmp_path / "l.png"), labels)
    assert label_ids(read_indices(tmp_path / "p.png")) == [1]
    assert label_ids(read_indices(tmp_path / "wide.png")) == [2, 510]
    assert label_ids(read_indices(tmp_path / "bit.png")) == [1]


def test_bad_files_are_named(tmp_path):
    write_frame(tmp_path / "rgb.png")
    with pytest.raises(StremnError, match=r"rgb\.png holds colors \(mode RGB\), not ids"):
        read_indices(tmp_path / "rgb.png")
    write_labels(tmp_path / "p.png", square_labels(0, [1]))
    (tmp_path / "short.png").write_bytes((tmp_path / "p.png").read_bytes()[:-40])
    with pytest.raises(StremnError, match=r"short\.png cannot be read as a label map"):
        read_indices(tmp_path / "short.png")


@pytest.mark.parametrize(("suffix", "options"), [("jpg", {}), ("webp", {"quality": 90})])
def test_a_lossy_label_map_is_refused(tmp_path, suffix, options):
    Image.fromarray(square_labels(0, [1, 2])).save(tmp_path / f"m.{suffix}", **options)
    (tmp_path / f"m.{suffix}").rename(tmp_path / "m.png")
    for read in (read_indices, read_binary):
        with pytest.raises(StremnError, match=r"m\.png is a lossy file .*must be .* PNG"):
            read(tmp_path / "m.png")


@pytest.mark.parametrize("read", [read_folders, read_mose])
def test_label_maps_that_are_no_png_are_named(tmp_path, read):
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "walk").mkdir(parents=True)
        write_frame(tmp_path / kind / "walk" / "0.jpg")
    with pytest.raises(StremnError, match=r"walk: .*1 images, such as 0\.jpg, but no PNG"):
        read(tmp_path)


def test_real_davis(real_data):
    root = real_data / "davis"
    data = read_davis(root, "dev", 2016)
    assert len(data) == 8
    assert data["blackswan"].frame(0).shape == (480, 854, 3)
    assert data["blackswan"].objects == {1: 0}
    data["blackswan"].check()
    assert sum(len(s) for s in read_davis(root, "train", 2016)) == 2079


def test_all_sequences_with_missing_files_are_named_together(tmp_path):
    root = tmp_path / "davis"
    davis(root, {"cats": [1], "dogs": [1], "owls": [1]})
    (root / "Annotations/480p/cats/00002.png").unlink()
    (root / "JPEGImages/480p/owls/00003.jpg").unlink()
    message = r"(?s)2 sequences cannot be used:.*cats: 1 frames have no mask: 00002.*owls: 1 masks"
    with pytest.raises(StremnError, match=message):
        read_davis(root)
