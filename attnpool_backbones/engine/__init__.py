"""What a Runner runs: hooks, loops, optimizer wrappers, strategies."""

from attnpool_backbones.checkpoints.door import open_door
from attnpool_backbones.engine.accuracy_metric import TopAccuracy
from attnpool_backbones.engine.amp_optim_wrapper import CPUAmpOptimWrapper
from attnpool_backbones.engine.bad_data_hook import SkipBadDataHook
from attnpool_backbones.engine.checkpoint_hook import SafeCheckpointHook
from attnpool_backbones.engine.class_token_memory_hook import ClassTokenMemoryHook
from attnpool_backbones.engine.compile_hook import CompileBackboneHook
from attnpool_backbones.engine.early_stopping_hook import ResumableEarlyStoppingHook
from attnpool_backbones.engine.epoch_loop import ResumableEpochBasedTrainLoop
from attnpool_backbones.engine.input_limits_hook import InputLimitsHook
from attnpool_backbones.engine.invalid_loss_hook import InvalidLossHook
from attnpool_backbones.engine.iter_loop import ResumableIterBasedTrainLoop
from attnpool_backbones.engine.keep_memory_hook import KeepMemoryHook
from attnpool_backbones.engine.layer_decay import LayerDecayOptimWrapperConstructor
from attnpool_backbones.engine.load_guard_hook import LoadGuardHook
from attnpool_backbones.engine.predictions import LabelMapWriter, PredictionPictureHook
from attnpool_backbones.engine.progress_hook import ProgressHook
from attnpool_backbones.engine.random_state_hook import RandomStateHook
from attnpool_backbones.engine.resume_check_hook import ResumeCheckHook
from attnpool_backbones.engine.sharded_strategy import ShardedStrategy
from attnpool_backbones.engine.shared_buffers_hook import SharedBuffersHook
from attnpool_backbones.engine.tta_model import build_instance_tta_model, build_semantic_tta_model
from attnpool_backbones.engine.work_folder_hook import WorkFolderHook

# For runs of foreign models too, which have nothing of this package but its hooks.
open_door()

__all__ = [
    'CPUAmpOptimWrapper',
    'ClassTokenMemoryHook',
    'CompileBackboneHook',
    'InputLimitsHook',
    'InvalidLossHook',
    'KeepMemoryHook',
    'LabelMapWriter',
    'LayerDecayOptimWrapperConstructor',
    'LoadGuardHook',
    'PredictionPictureHook',
    'ProgressHook',
    'RandomStateHook',
    'ResumableEarlyStoppingHook',
    'ResumableEpochBasedTrainLoop',
    'ResumableIterBasedTrainLoop',
    'ResumeCheckHook',
    'SafeCheckpointHook',
    'SharedBuffersHook',
    'ShardedStrategy',
    'SkipBadDataHook',
    'TopAccuracy',
    'WorkFolderHook',
    'build_instance_tta_model',
    'build_semantic_tta_model',
]
