from .check_hook import StartCheckHook
from .checkpoint_hook import AtomicCheckpointHook
from .cost_hook import CostEstimateHook
from .ema_hook import TrainedWeightsEMAHook
from .finite_loss_hook import FiniteLossHook
from .frozen_backbone_hook import FrozenBackboneHook
from .generation_visualization_hook import GenerationVisualizationHook
from .latent_statistics_hook import LatentStatisticsHook
from .prediction_visualization_hook import PredictionVisualizationHook
from .run_record_hook import RunRecordHook
from .skipped_clips_hook import SkippedClipsHook
from .training_health_hook import TrainingHealthHook

__all__ = [
    'AtomicCheckpointHook',
    'CostEstimateHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'GenerationVisualizationHook',
    'LatentStatisticsHook',
    'PredictionVisualizationHook',
    'RunRecordHook',
    'SkippedClipsHook',
    'StartCheckHook',
    'TrainedWeightsEMAHook',
    'TrainingHealthHook',
]
