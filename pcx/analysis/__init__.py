"""Looking into predictive coding networks: energies, theory of linear ones, scores, plots."""

from ._draw import draw as draw
from ._energies import energy_ratios as energy_ratios
from ._energies import energy_shares as energy_shares
from ._energies import layer_energies as layer_energies
from ._hessian import condition_number as condition_number
from ._hessian import state_hessian as state_hessian
from ._linear import LinearNetwork as LinearNetwork
from ._ood import energy_score as energy_score
from ._ood import roc_auc as roc_auc
from ._ood import roc_curve as roc_curve
from ._ood import softmax_score as softmax_score
from ._plots import plot_energies as plot_energies
from ._plots import plot_scores as plot_scores
from ._regime import Regime as Regime
from ._regime import regime as regime
from ._watch import WatchRegime as WatchRegime
