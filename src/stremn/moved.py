"""Import paths of earlier versions: each still works, and warns with the new one."""

import sys
import warnings
from collections.abc import Iterable
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "stremn.backbones": "stremn.networks.backbones",
    "stremn.conversion": "stremn.networks.conversion",
    "stremn.decoders": "stremn.networks.decoders",
    "stremn.encoders": "stremn.networks.encoders",
    "stremn.export": "stremn.segmentation.export",
    "stremn.fusion": "stremn.memory.fusion",
    "stremn.model": "stremn.networks.model",
    "stremn.multiscale": "stremn.segmentation.multiscale",
    "stremn.pipeline": "stremn.segmentation.pipeline",
    "stremn.policies": "stremn.memory.policies",
    "stremn.postprocess": "stremn.segmentation.postprocess",
    "stremn.pretrained": "stremn.networks.pretrained",
    "stremn.published": "stremn.networks.published",
    "stremn.reports": "stremn.segmentation.reports",
    "stremn.sessions": "stremn.segmentation.sessions",
    "stremn.prediction.evaluation": "stremn.evaluation.prediction.evaluation",
    "stremn.prediction.metrics": "stremn.evaluation.prediction.metrics",
    "stremn.study.evaluation": "stremn.evaluation.segmentation.evaluation",
    "stremn.study.metrics": "stremn.evaluation.segmentation.metrics",
    "stremn.training.adaptation": "stremn.training.segmentation.adaptation",
}


class MovedModules(MetaPathFinder, Loader):
    """Find a module under its old path."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a path that has moved, None for any other."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave the creation to Python: `exec_module` replaces what it makes."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module of the new path in the place of the old one, and warn."""
        old = module.__name__
        warnings.warn(
            f"{old} has moved to {MOVED[old]}: import it from there.",
            DeprecationWarning,
            stacklevel=2,
        )
        sys.modules[old] = import_module(MOVED[old])


def install() -> None:
    """Let Python ask here for modules that it finds nowhere else."""
    sys.meta_path.append(MovedModules())
