"""Linear layers that read the same input, in one matrix product while completions are decoded.

With a few columns a product's time is mostly that of the call and of reading the weights. Decoding a token in bfloat16
with LoRA would take 21 products in each layer of a Llama model: W, A and B for seven linear layers. Here W of the
layers that read the same input, and the A of their adapters, stand one below the other in one matrix, and their B on
the diagonal of a second one:

    [W_q; W_k; W_v; A_q; A_k; A_v] x = [y; a],      y + diag(s B_q, s B_k, s B_v) a.

That leaves eight products. The frozen weights are moved next to each other once, so there is no second copy of them.
"""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from rlvr_kit.engine.adapters import active_lora, adapted_layers


def stacked_weights(weights: list[Tensor], spare: int) -> Tensor:
    """Return weights (out_i, in) one below the other as one matrix, with ``spare`` rows of any content at its end.

    The weights are moved, unless they already lie so: afterwards each of them is a part of that matrix. Those that are
    trained are copied instead, because an optimizer (DeepSpeed's) may hold on to the place where they lie.

    Example:
        >>> first, second = torch.ones(2, 3), torch.zeros(1, 3)
        >>> whole = stacked_weights([first, second], spare=0)
        >>> second.fill_(5) is second and whole.tolist()
        [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [5.0, 5.0, 5.0]]
    """
    first, width = weights[0], weights[0].shape[1]
    rows = sum(map(len, weights)) + spare
    end, behind_another = first.data_ptr(), True
    for weight in weights:
        behind_another &= weight.is_contiguous() and weight.data_ptr() == end
        end += weight.nbytes
    # Where this function has moved them before it says so itself: what lies behind a weight may be another weight.
    address, reserved = getattr(first, "moved_to", (None, 0))
    if behind_another and first.data_ptr() == address and rows <= reserved:
        return first.detach().as_strided((rows, width), (width, 1))
    with torch.inference_mode(False):  # what is made in inference mode cannot be trained with
        whole, start = torch.empty(rows, width, dtype=first.dtype, device=first.device), 0
        for weight in weights:
            place = whole[start : start + len(weight)]
            place.copy_(weight.detach())
            start += len(weight)
            if not weight.requires_grad:
                weight.data = place
    first.moved_to = whole.data_ptr(), rows
    return whole


class StackedLayers:
    """Calls linear layers, plain or with plain LoRA, on x (in, R) and returns their outputs in one (sum of out, R).

    Without LoRA, float32 layers stay apart: their products are too long for the number of calls to matter, and the
    weights into which LoRA was merged for a while (adapters.py) need not be moved. So do layers that are trained.
    """

    def __init__(self, layers: list[Any]) -> None:
        bases = [getattr(layer, "base_layer", layer) for layer in layers]
        self.weights: list[Tensor] = [base.weight for base in bases]
        self.bias = None if bases[0].bias is None else torch.cat([base.bias for base in bases])[:, None]
        self.b: Tensor | None = None
        *starts, self.rows = accumulate(map(len, self.weights), initial=0)
        lora = [
            (start, *each)
            for start, layer in zip(starts, layers, strict=True)
            if adapted_layers(layer)
            for each in active_lora(layer)
        ]
        trained = any(each.requires_grad for each in self.weights)
        if (trained or self.weights[0].dtype == torch.float32) and not lora:
            return
        spare = sum(len(a) for _, a, _, _ in lora)
        whole = stacked_weights(self.weights, spare)
        if lora:  # rounded once to the format of the products: A, and B with the scaling
            whole[self.rows : self.rows + spare] = torch.cat([a for _, a, _, _ in lora])
            self.b, column = whole.new_zeros(self.rows, spare), 0
            for start, a, b, scaling in lora:
                self.b[start : start + len(b), column : column + len(a)] = b * scaling
                column += len(a)
        self.weights = [whole]

    def __call__(self, x: Tensor) -> Tensor:
        if self.b is None:
            output = torch.cat([weight @ x for weight in self.weights])
        else:
            product = self.weights[0] @ x
            output = product[: self.rows].addmm_(self.b, product[self.rows :])
        return output if self.bias is None else output.add_(self.bias)
