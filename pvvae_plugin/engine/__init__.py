from .distributed import SubmoduleDistributedDataParallel, init_cpu_process_group
from .hooks import (
    CostEstimateHook,
    FiniteLossHook,
    FrozenBackboneHook,
    LatentStatisticsHook,
    StartCheckHook,
    TrainedWeightsEMAHook,
)
from .loops import ClipTrainLoop
from .optim import AutocastOptimWrapper, SubmoduleOptimWrapperConstructor

__all__ = [
    'AutocastOptimWrapper',
    'ClipTrainLoop',
    'CostEstimateHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'LatentStatisticsHook',
    'StartCheckHook',
    'SubmoduleDistributedDataParallel',
    'SubmoduleOptimWrapperConstructor',
    'TrainedWeightsEMAHook',
    'init_cpu_process_group',
]
