"""Training (`pxt`): the trainer, its callbacks, the history of a run, checkpoints, schedules,
metrics."""

from ..data import batches as batches
from ._callbacks import Callback as Callback
from ._callbacks import EarlyStopping as EarlyStopping
from ._callbacks import LearningRate as LearningRate
from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import load_checkpoint as load_checkpoint
from ._checkpoint import save_checkpoint as save_checkpoint
from ._divergence import Diverged as Diverged
from ._group import Member as Member
from ._history import History as History
from ._loggers import CSVLogger as CSVLogger
from ._loggers import Logger as Logger
from ._loggers import MLflow as MLflow
from ._loggers import TensorBoard as TensorBoard
from ._loggers import WandB as WandB
from ._metrics import accuracy as accuracy
from ._metrics import squared_error as squared_error
from ._metrics import top_k_accuracy as top_k_accuracy
from ._population import Population as Population
from ._population import Result as Result
from ._progress import Progress as Progress
from ._schedules import learning_rate as learning_rate
from ._schedules import set_learning_rate as set_learning_rate
from ._schedules import total_steps as total_steps
from ._schedules import warmup_cosine as warmup_cosine
from ._trainable import Trainable as Trainable
from ._trainer import Trainer as Trainer
