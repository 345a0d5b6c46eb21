"""Files of handwritten digits that were cut off or damaged."""

import gzip
import struct

import numpy as np
import pytest

from stremn.data.readers.digits import read_digits
from stremn.errors import StremnError

DIGITS = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)


def damaged(content, how):
    middle = len(content) // 2
    return {
        "cut off": content[:middle],
        "empty": b"",
        "no archive": b"<html>404</html>" * 20,
        "changed inside": content[:middle] + bytes(40) + content[middle + 40 :],
        "changed at the start": bytes([255]) * 8 + content[8:],
        "changed at the end": content[:-8] + bytes([7]) * 8,
    }[how]


DAMAGES = [
    "cut off", "empty", "no archive", "changed inside", "changed at the start", "changed at the end"
]  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte.gz", "digits_train_10k.npz"])
def test_a_damaged_archive_of_digits_is_to_be_downloaded_again(tmp_path, name, how):
    path = tmp_path / name
    if path.suffix == ".gz":
        header = struct.pack(">IIII", 2051, *DIGITS.shape)
        path.write_bytes(gzip.compress(header + DIGITS.tobytes()))
    else:
        np.savez_compressed(path, images=DIGITS)
    split = "test" if path.suffix == ".gz" else "val"
    assert read_digits(tmp_path, split).shape[1:] == (28, 28)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(StremnError, match=r"not an MNIST image file.*download it again") as found:
        read_digits(tmp_path, split)
    assert str(path) in str(found.value)


@pytest.mark.parametrize(
    "arrays", [{"labels": np.zeros(3)}, {"images": np.zeros((3, 32, 32))}, {"images": np.zeros(3)}]
)
def test_an_archive_without_digits_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "digits_train_10k.npz", **arrays)
    with pytest.raises(StremnError, match="is not an MNIST image file"):
        read_digits(tmp_path, "train")
