"""What puts a stock algorithm on the rollout engine and guards its updates."""

from typing import Any

import torch as th

from sb3_pg_ext.common.engine import RolloutEngine
from sb3_pg_ext.common.numerics import NonFiniteError


class FastUpdate(RolloutEngine):
    """A stock ``train()`` whose optimiser makes no step along a gradient that is not finite."""

    def _update(self) -> None:
        spoilt = 0

        def skip_if_not_finite(optimizer: th.optim.Optimizer, args: Any, kwargs: Any) -> None:
            nonlocal spoilt
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            if not bool(th.stack(th._foreach_norm(gradients)).sum().isfinite()):
                # Without gradients the step changes neither parameters nor the optimiser's state.
                optimizer.zero_grad(set_to_none=True)
                spoilt += 1

        hook = self.policy.optimizer.register_step_pre_hook(skip_if_not_finite)
        try:
            super()._update()
        finally:
            hook.remove()
        if spoilt:
            problem = NonFiniteError(f"{spoilt} of this update's gradients not finite")
            self._skip_update(problem, consequence="no step made along them")
        else:
            self._keep_update()
