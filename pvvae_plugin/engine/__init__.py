from .distributed import SubmoduleDistributedDataParallel, init_cpu_process_group
from .generation_loop import GenerationLoop
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
    'GenerationLoop',
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
