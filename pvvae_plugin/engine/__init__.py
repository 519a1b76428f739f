from .checkpoint import allow_checkpoint_globals, resolve_checkpoint
from .distributed import SubmoduleDistributedDataParallel, init_cpu_process_group
from .hooks import CostEstimateHook, StartCheckHook, TrainedWeightsEMAHook
from .loops import ClipTrainLoop
from .optim import AutocastOptimWrapper, SubmoduleOptimWrapperConstructor

__all__ = [
    'AutocastOptimWrapper',
    'ClipTrainLoop',
    'CostEstimateHook',
    'StartCheckHook',
    'SubmoduleDistributedDataParallel',
    'SubmoduleOptimWrapperConstructor',
    'TrainedWeightsEMAHook',
    'allow_checkpoint_globals',
    'init_cpu_process_group',
    'resolve_checkpoint',
]
