from .distributed import SubmoduleDistributedDataParallel, init_cpu_process_group
from .fsdp import GeneratorFSDPStrategy, build_runner
from .generation_loop import GenerationLoop
from .hooks import (
    AtomicCheckpointHook,
    CostEstimateHook,
    FiniteLossHook,
    FrozenBackboneHook,
    LatentStatisticsHook,
    RunRecordHook,
    SkippedClipsHook,
    StartCheckHook,
    TrainedWeightsEMAHook,
    TrainingHealthHook,
)
from .loops import ClipTrainLoop
from .optim import AutocastOptimWrapper, SubmoduleOptimWrapperConstructor

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'ClipTrainLoop',
    'GenerationLoop',
    'GeneratorFSDPStrategy',
    'CostEstimateHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'LatentStatisticsHook',
    'RunRecordHook',
    'SkippedClipsHook',
    'StartCheckHook',
    'SubmoduleDistributedDataParallel',
    'SubmoduleOptimWrapperConstructor',
    'TrainedWeightsEMAHook',
    'TrainingHealthHook',
    'build_runner',
    'init_cpu_process_group',
]
