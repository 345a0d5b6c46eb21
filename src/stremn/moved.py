"""Import paths and names of earlier versions: each still works, and warns with the new one."""

import sys
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from operator import attrgetter
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

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
    "stremn.evaluation.prompting.scores": "stremn.evaluation.prompting.evaluation",
    "stremn.evaluation.segmentation.runs": "stremn.evaluation.segmentation.run_description",
    "stremn.evaluation.segmentation.scores": "stremn.evaluation.segmentation.results",
    "stremn.prediction.evaluation": "stremn.evaluation.prediction.evaluation",
    "stremn.prediction.metrics": "stremn.evaluation.prediction.metrics",
    "stremn.study.evaluation": "stremn.evaluation.segmentation.evaluation",
    "stremn.study.metrics": "stremn.evaluation.segmentation.metrics",
    "stremn.training.adaptation": "stremn.training.segmentation.adaptation",
    "stremn.training.prediction.recipe_format": "stremn.training.prediction.recipe",
    "stremn.training.prediction.recipes": "stremn.training.prediction.task",
    "stremn.training.prompting.loss": "stremn.training.prompting.losses",
    "stremn.training.prompting.recipes": "stremn.training.prompting.task",
    "stremn.training.prompting.samples": "stremn.training.prompting.data",
    "stremn.training.segmentation.recipe_data": "stremn.training.segmentation.data",
    "stremn.training.segmentation.recipe_format": "stremn.training.segmentation.recipe",
    "stremn.training.segmentation.recipe_model": "stremn.training.segmentation.model",
    "stremn.training.segmentation.recipes": "stremn.training.segmentation.task",
}

MOVED_NAMES = {
    "stremn.prediction.model": {
        "build_model": "stremn.prediction.building:build_predictor",
        "build_predictor": "stremn.prediction.building:build_predictor",
        "build_recurrence": "stremn.prediction.building:build_recurrence",
        "Forecaster": "stremn.prediction.rollouts:Forecaster",
    },
    "stremn.prediction.config": {
        "PRESETS": "stremn.prediction.config:PREDICTOR_PRESETS",
    },
    "stremn.data.readers.problems": {
        "Problem": "stremn.data.readers.problems:DataProblem",
    },
    "stremn.training.segmentation.cost": {
        "Cost": "stremn.training.segmentation.cost:TrainingCost",
    },
    "stremn.training.segmentation.rollout": {
        "Rollout": "stremn.training.segmentation.rollout:ClipRollout",
    },
    "stremn.evaluation.prediction.evaluation": {
        "evaluate_prediction": "stremn.evaluation.prediction.report:evaluate_prediction",
        "paired_table": "stremn.evaluation.prediction.report:paired_table",
        "plot_curves": "stremn.evaluation.prediction.report:plot_curves",
        "table": "stremn.evaluation.prediction.report:table",
        "write_report": "stremn.evaluation.prediction.report:write_report",
        "Scores": "stremn.evaluation.prediction.evaluation:PredictionScores",
    },
    "stremn.segmentation.pipeline": {
        "Summary": "stremn.segmentation.pipeline:RunSummary",
    },
    "stremn.evaluation.segmentation.run_description": {
        "Session": "stremn.evaluation.segmentation.run_description:Segmenter",
    },
    "stremn.prompting.planes": {
        "Prompt": "stremn.prompting.planes:MaskPrompt",
    },
    "stremn.networks.pretrained": {
        "SHIPPED": "stremn.networks.pretrained:SHIPPED_FILES",
    },
    "stremn.memory.operations": {
        "CheckedPolicy": "stremn.memory.choices:CheckedPolicy",
        "Choice": "stremn.memory.choices:Choice",
        "EQUATION_5": "stremn.memory.matching:EQUATION_5",
        "EVIDENCE": "stremn.memory.state:EVIDENCE",
        "Matching": "stremn.memory.matching:Matching",
        "MemoryState": "stremn.memory.state:MemoryState",
        "NEVER": "stremn.memory.state:NEVER",
        "REFERENCE": "stremn.memory.matching:REFERENCE",
        "ROWS": "stremn.memory.reading:ROWS",
        "Scale": "stremn.memory.matching:Scale",
        "Similarity": "stremn.memory.matching:Similarity",
        "Template": "stremn.memory.state:Template",
        "UpdatePolicy": "stremn.memory.choices:UpdatePolicy",
        "Write": "stremn.memory.writing:Write",
        "affinity": "stremn.memory.reading:affinity",
        "blocks": "stremn.memory.reading:blocks",
        "check_memory": "stremn.memory.damage:check_memory",
        "checked": "stremn.memory.choices:checked",
        "comparable_keys": "stremn.memory.reading:comparable_keys",
        "comparable_query": "stremn.memory.reading:comparable_query",
        "concat": "stremn.memory.state:concat",
        "open_slots": "stremn.memory.choices:open_slots",
        "read": "stremn.memory.reading:read",
        "sharpness": "stremn.memory.reading:sharpness",
        "write": "stremn.memory.writing:write",
    },
    "stremn.memory.policies": {
        "FEATURES": "stremn.memory.slot_features:FEATURES",
        "attention_mass": "stremn.memory.slot_features:attention_mass",
        "bare": "stremn.memory.slot_features:bare",
        "draw": "stremn.memory.paper_policies:draw",
        "gumbel_choice": "stremn.memory.learned_policies:gumbel_choice",
        "highest": "stremn.memory.choices:highest",
        "largest": "stremn.memory.similarity:largest",
        "precise": "stremn.memory.choices:precise",
        "similarity": "stremn.memory.similarity:similarity",
        "slot_features": "stremn.memory.slot_features:slot_features",
        "slot_shares": "stremn.memory.slot_features:slot_shares",
        "time_gap": "stremn.memory.slot_features:time_gap",
    },
    "stremn.networks.presets": {
        "SHIPPED_REACH": "stremn.networks.defaults:SHIPPED.reach",
        "SHIPPED_SIZE": "stremn.networks.defaults:SHIPPED.size",
        "Usual": "stremn.networks.defaults:SessionDefaults",
    },
    "stremn.segmentation": {
        "PRESETS": "stremn.networks.presets:PRESETS",
        "SHIPPED_REACH": "stremn.networks.defaults:SHIPPED.reach",
        "SHIPPED_SIZE": "stremn.networks.defaults:SHIPPED.size",
        "SegmentationConfig": "stremn.networks.presets:SegmentationConfig",
        "Track": "stremn.segmentation.tracks:Track",
        "aggregate": "stremn.segmentation.aggregation:aggregate",
        "build_model": "stremn.networks.presets:build_model",
        "memorize": "stremn.segmentation.earlier:memorize",
        "segment": "stremn.segmentation.earlier:segment",
        "start": "stremn.segmentation.earlier:start",
    },
    "stremn.segmentation.sessions": {
        "SHIPPED_POLICY": "stremn.networks.defaults:SHIPPED.policy",
        "check_options": "stremn.segmentation.session_options:check_options",
    },
    "stremn.training.prediction.recipe": {
        "clips_of": "stremn.training.prediction.data:clips_of",
        "first_model": "stremn.training.prediction.model:first_model",
        "read_recipe": "stremn.training.prediction.task:TASK.read",
    },
    "stremn.training.prediction.rollout": {
        "collate": "stremn.training.prediction.data:collate",
    },
    "stremn.training.prediction.task": {
        "read_recipe": "stremn.training.prediction.task:TASK.read",
        "run_recipe": "stremn.training.prediction.task:TASK.run",
        "train": "stremn.training.tasks:train",
    },
    "stremn.training.prompting.task": {
        "run_recipe": "stremn.training.prompting.task:TASK.run",
        "train": "stremn.training.tasks:train",
    },
    "stremn.training.segmentation.recipe": {
        "read_recipe": "stremn.training.segmentation.task:TASK.read",
    },
    "stremn.training.segmentation.task": {
        "read_recipe": "stremn.training.segmentation.task:TASK.read",
        "run_recipe": "stremn.training.segmentation.task:TASK.run",
        "train": "stremn.training.tasks:train",
    },
}
"""Old module and name -> new place, as "module:attribute"."""

RENAMED_KEYS = {
    "anew": "reinit",
    "kin": "same_class",
    "rival": "distractor",
    "short_side": "size",
    "slots": "memory_slots",
    "twin": "lookalike",
}
"""Keys of recipes that earlier versions had under other names."""

NAMED_BY_USERS = ("stills", "videos", "sources", "policy", "lr_multipliers")
"""Tables of recipes whose keys are names that users choose, or of rules: none is renamed."""

RENAMED_FACTS = {**RENAMED_KEYS, "resolution": "size"}
"""The same of files that a run wrote: protocols, checkpoints, settings, exported models."""


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


def with_current_keys(
    section: Mapping[str, Any], where: str, known: Container[str] | None = None
) -> dict[str, Any]:
    """Return a section of a recipe with the keys of earlier versions renamed.

    Each renamed key warns; `where` names the section. A key that stands beside its new name stays,
    and so does one whose new name is not `known`.
    """
    result = dict(section)
    for old, new in RENAMED_KEYS.items():
        if old in result and new not in result and (known is None or new in known):
            text = f"The key {old!r} in {where} is called {new!r} now."
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            result[new] = result.pop(old)
    return result


def with_current_requests(requests: Iterable[str]) -> list[str]:
    """Return requests such as "stages.0.slots=4" with the keys of earlier versions renamed.

    Each renamed key warns.
    """
    result = []
    for request in requests:
        dotted, separator, value = request.partition("=")
        *path, key = dotted.strip().split(".")
        named = path and path[-1] in NAMED_BY_USERS
        where = ".".join(path) or "the recipe"
        current = {key: value} if named else with_current_keys({key: value}, where)
        result.append(".".join([*path, *current]) + separator + value)
    return result


def with_current_facts(value: Any) -> Any:
    """Return JSON values that a run stored, with the keys of earlier versions renamed at any depth.

    Nothing warns: nobody edits these files. A key that stands beside its new name stays.
    """
    if isinstance(value, Mapping):
        return {
            _current(key, value): _with_current_entries(entry)
            if key in NAMED_BY_USERS
            else with_current_facts(entry)
            for key, entry in value.items()
        }
    if isinstance(value, list | tuple):
        return [with_current_facts(entry) for entry in value]
    return value


def _current(key: str, beside: Container[str]) -> str:
    new = RENAMED_FACTS.get(key, key)
    return key if new in beside else new


def _with_current_entries(value: Any) -> Any:
    """Return a table whose own keys are kept, and those below renamed."""
    if not isinstance(value, Mapping):
        return with_current_facts(value)
    return {name: with_current_facts(entry) for name, entry in value.items()}


def warn_of(owner: str, old: str, new: str) -> None:
    """Warn that what `owner` called `old` in earlier versions is called `new` now."""
    text = f"{old!r} of {owner} is called {new!r} now."
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def earlier_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take arguments under earlier names (old="new"), and warn."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        owner = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def call(*args: P.args, **values: P.kwargs) -> R:
            for old in names.keys() & values.keys():
                if names[old] in values:
                    raise TypeError(f"{owner} got {names[old]!r} twice: {old!r} is its old name")
                warn_of(owner, old, names[old])
                values[names[old]] = values.pop(old)
            return function(*args, **values)

        return call

    return decorate


def earlier_fields(**names: str) -> Callable[[type[T]], type[T]]:
    """Let a dataclass take and show its fields under earlier names (old="new"), and warn."""

    def decorate(kind: type[T]) -> type[T]:
        def get(self: T, name: str) -> Any:
            if name not in names:
                raise AttributeError(f"{kind.__name__!r} object has no attribute {name!r}")
            warn_of(kind.__name__, name, names[name])
            return getattr(self, names[name])

        made: Any = kind
        made.__init__ = earlier_arguments(**names)(made.__init__)
        made.__getattr__ = get  # for what is not there
        return kind

    return decorate


def moved_names(module: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for `module` that finds the names it had, and warns."""

    def find(name: str) -> Any:
        if name not in MOVED_NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, attribute = MOVED_NAMES[module][name].partition(":")
        text = f"{module}.{name} has moved: it is {home}.{attribute} now."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return attrgetter(attribute)(import_module(home))

    return find
