"""Reading a sentence from its bytes."""

from jaxtyping import Float, UInt8
from torch import Tensor, nn


class ByteGRU(nn.Module):
    """Zero-padded UTF-8 bytes (b, length) -> (b, dim): a gated recurrent net's state at each sentence's last byte."""

    def __init__(self, dim: int, width: int = 64):
        super().__init__()
        self.bytes = nn.Embedding(256, width, padding_idx=0)
        self.gru = nn.GRU(width, dim, batch_first=True)

    def forward(self, text: UInt8[Tensor, "b length"]) -> Float[Tensor, "b dim"]:
        states, _ = self.gru(self.bytes(text.int()))
        # Padding follows the sentence, so the state at its last byte has not seen any. An empty sentence reads one padding byte.
        last = (text != 0).sum(1).clamp(min=1) - 1
        return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))[:, 0]
