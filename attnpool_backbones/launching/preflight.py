"""Everything that is checked between the flags and the Runner, in one list.

A new check is a function that takes a :class:`RunPlan` and raises a :class:`UserError`. It changes
nothing, and joins :data:`CHECKS` below.
"""

from collections.abc import Callable

from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from attnpool_backbones.command_line import UserError
from attnpool_backbones.config_types import find_type, type_name
from attnpool_backbones.datasets.config_paths import require_data
from attnpool_backbones.launching.checkpoint_check import require_checkpoint
from attnpool_backbones.launching.data_check import require_annotations
from attnpool_backbones.launching.devices import is_first_of_machine, require_launcher
from attnpool_backbones.launching.loaders import missing_settings
from attnpool_backbones.launching.pretrained_files import require_pretrained
from attnpool_backbones.launching.run_plan import RunPlan
from attnpool_backbones.launching.targets import require_target_file, require_target_folder

__all__ = ['CHECKS', 'DATA_CHECKS', 'TARGET_CHECKS', 'check_everything']

LAYER_DECAYS = ('LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor')
"""Those of mmdet and mmseg, which find layers by the names that a few backbones give them."""
KNOWN_LAYERS = ('ConvNeXt', 'BEiT', 'MAE')
"""Parts of the names of these backbones; mmdet's knows the first."""


def launcher(plan: RunPlan) -> None:
    """The processes were started in a way that works on this machine."""
    require_launcher(plan.cfg)


def data(plan: RunPlan) -> None:
    """Every file and folder of data is there."""
    require_data(plan.cfg, plan.splits)


def pretrained(plan: RunPlan) -> None:
    """The weights that ``init_cfg`` names are there."""
    if plan.starts:
        require_pretrained(plan.cfg)


def checkpoint(plan: RunPlan) -> None:
    """``load_from`` is there, whole and safe."""
    if plan.cfg.get('load_from'):
        require_checkpoint(plan.cfg.load_from, plan.checkpoint_option)
        _ = plan.stored_shapes  # reads it


def settings(plan: RunPlan) -> None:
    """Dataloaders, loops and evaluators are there together."""
    missing_settings(plan.cfg, plan.splits)


def layer_decay(plan: RunPlan) -> None:
    """Learning rates that fall from layer to layer are asked for where the layers are known."""
    constructor = (plan.cfg.get('optim_wrapper') or {}).get('constructor')
    kind = type_name(constructor)
    backbone = type_name((plan.cfg.get('model') or {}).get('backbone'))
    is_known = any(name in backbone for name in KNOWN_LAYERS)
    if plan.starts and kind in LAYER_DECAYS and backbone and not is_known:
        scope = plan.cfg.get('default_scope')
        with OPTIM_WRAPPER_CONSTRUCTORS.switch_scope_and_registry(scope) as registry:
            found = find_type(constructor, registry)
        if not getattr(found, '__module__', '').startswith(('mmdet.', 'mmseg.')):
            return  # somebody else's of that name
        raise UserError(
            f'optim_wrapper.constructor={kind!r} does not know the layers of {backbone}; use '
            "constructor='attnpool_backbones.LayerDecayOptimWrapperConstructor' with "
            'paramwise_cfg=dict(decay_rate=...), which asks the backbone'
        )


def annotations(plan: RunPlan) -> None:
    """The annotations can be trained on and scored, and all files agree about the classes."""
    # parsing takes time and memory; the launcher ends the others
    if is_first_of_machine(plan.cfg.launcher):
        plan.notes += require_annotations(plan.cfg, plan.splits, plan.max_bad)


def targets(plan: RunPlan) -> None:
    """What the run writes can be written."""
    for option, file in plan.files.items():
        require_target_file(option, file)
    for option, folder in plan.folders.items():
        require_target_folder(option, folder)


CHECKS: tuple[Callable[[RunPlan], None], ...] = (
    launcher,
    settings,
    data,
    pretrained,
    checkpoint,
    layer_decay,
)
"""What leaves no trace; all of them are asked, so that one message names all that is wrong."""

DATA_CHECKS: tuple[Callable[[RunPlan], None], ...] = (annotations,)
"""What reads whole files; asked only if all of them are there."""

TARGET_CHECKS: tuple[Callable[[RunPlan], None], ...] = (targets,)
"""What makes the folders it tries; asked only if nothing else is wrong."""


def check_everything(plan: RunPlan) -> None:
    """Checks a run before anything of it is built.

    Args:
        plan: The run.

    Raises:
        UserError: With all that is wrong.
    """
    for checks in (CHECKS, DATA_CHECKS, TARGET_CHECKS):
        errors = []
        for check in checks:
            try:
                check(plan)
            except UserError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise UserError('\n\n'.join(map(str, errors)))
