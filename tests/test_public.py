"""What the package exports, and that asking for it is cheap."""

import importlib
import pkgutil
import subprocess
import sys
from operator import attrgetter

import pytest

import stremn
from stremn import moved
from stremn.evaluation.segmentation.run_description import RunDescription


def test_every_exported_name_is_there_and_sorted() -> None:
    for name in stremn.__all__:
        assert getattr(stremn, name) is not None
    constants = [name for name in stremn.__all__ if name.isupper()]
    classes = [name for name in stremn.__all__ if name[0].isupper() and not name.isupper()]
    functions = [name for name in stremn.__all__ if name[0].islower()]
    assert stremn.__all__ == sorted(constants) + sorted(classes) + sorted(functions)
    assert set(stremn._HOMES) == set(stremn.__all__)


def test_every_exported_name_is_the_one_of_its_home() -> None:
    for name, home in stremn._HOMES.items():
        assert getattr(stremn, name) is getattr(importlib.import_module(home), name)


@pytest.mark.parametrize("old", sorted(moved.MOVED))
def test_a_module_that_has_moved_is_found_under_its_old_path(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {moved.MOVED[old]}"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(moved.MOVED[old])


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in moved.MOVED_NAMES.items() for name in names]
)
def test_a_name_that_has_moved_is_found_in_its_old_module(module: str, name: str) -> None:
    home, _, attribute = moved.MOVED_NAMES[module][name].partition(":")
    with pytest.warns(DeprecationWarning, match=f"it is {home}.{attribute} now"):
        found = getattr(importlib.import_module(module), name)
    assert found == attrgetter(attribute)(importlib.import_module(home))


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stremn' has no attribute 'Segmentation'"):
        _ = stremn.Segmentation


def test_every_module_can_be_imported_by_itself() -> None:
    names = [m.name for m in pkgutil.walk_packages(stremn.__path__, "stremn.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, stremn; stremn.__version__;"
        "heavy = {'torch', 'timm', 'cv2', 'numpy', 'av', 'pydantic'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fields_and_arguments_of_earlier_versions_still_work() -> None:
    with pytest.warns(DeprecationWarning, match="of RunDescription is called") as told:
        run = RunDescription("small", "oldest", slots=3, resolution=96)  # type: ignore[call-arg]
    assert {str(warning.message).split()[0] for warning in told} == {"'slots'", "'resolution'"}
    assert run == RunDescription("small", "oldest", memory_slots=3, size=96)
    with pytest.warns(DeprecationWarning, match="'slots' of RunDescription .* 'memory_slots' now"):
        assert run.slots == 3  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="got 'size' twice: 'resolution' is its old name"):
        RunDescription("small", "oldest", resolution=96, size=96)  # type: ignore[call-arg]
    with pytest.raises(AttributeError, match="'RunDescription' object has no attribute 'places'"):
        _ = run.places  # type: ignore[attr-defined]
    assert (run.to_json()["memory_slots"], run.to_json()["size"]) == (3, 96)

    @moved.earlier_arguments(old="new")
    def double(new: int) -> int:
        return 2 * new

    with pytest.warns(DeprecationWarning, match="'old' of .*double is called 'new' now"):
        assert double(old=2) == double(2) == 4  # type: ignore[call-arg]
