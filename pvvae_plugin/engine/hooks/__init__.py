from .check_hook import StartCheckHook
from .cost_hook import CostEstimateHook
from .ema_hook import TrainedWeightsEMAHook

__all__ = ['CostEstimateHook', 'StartCheckHook', 'TrainedWeightsEMAHook']
