from .check_hook import StartCheckHook
from .cost_hook import CostEstimateHook
from .ema_hook import TrainedWeightsEMAHook
from .finite_loss_hook import FiniteLossHook
from .frozen_backbone_hook import FrozenBackboneHook
from .latent_statistics_hook import LatentStatisticsHook

__all__ = [
    'CostEstimateHook',
    'FiniteLossHook',
    'FrozenBackboneHook',
    'LatentStatisticsHook',
    'StartCheckHook',
    'TrainedWeightsEMAHook',
]
