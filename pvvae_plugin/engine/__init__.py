from .clip_train_loop import ClipTrainLoop
from .distributed import SubmoduleDistributedDataParallel, init_cpu_process_group
from .fsdp import GeneratorFSDPStrategy
from .generation_loop import GenerationLoop
from .hooks import (
    AtomicCheckpointHook,
    CostEstimateHook,
    FiniteLossHook,
    FrozenBackboneHook,
    GenerationVisualizationHook,
    LatentStatisticsHook,
    PredictionVisualizationHook,
    RunRecordHook,
    SkippedClipsHook,
    StartCheckHook,
    TrainedWeightsEMAHook,
    TrainingHealthHook,
)
from .log_text import ShortLogProcessor
from .optim import AutocastOptimWrapper, SubmoduleOptimWrapperConstructor
from .runner import build_runner

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'ClipTrainLoop',
    'GenerationLoop',
    'GenerationVisualizationHook',
    'PredictionVisualizationHook',
    'GeneratorFSDPStrategy',
    'CostEstimateHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'LatentStatisticsHook',
    'RunRecordHook',
    'ShortLogProcessor',
    'SkippedClipsHook',
    'StartCheckHook',
    'SubmoduleDistributedDataParallel',
    'SubmoduleOptimWrapperConstructor',
    'TrainedWeightsEMAHook',
    'TrainingHealthHook',
    'build_runner',
    'init_cpu_process_group',
]
