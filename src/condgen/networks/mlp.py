"""Dense nets on flattened samples."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.layers import SLOPE

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "leaky": nn.LeakyReLU}


class MLP(nn.Module):
    """Samples (b, ...) and conditions -> (b, out): flattened, joined with the embedded conditions, then dense layers.

    Args:
        n_in: numbers in a flattened sample.
        hidden: widths of the hidden layers; () is one affine map.
        out: shape of one output.
        schema: conditions that are joined to the input; {} for none.
        embed_dim: features of each condition.
        activation: a key of ACTIVATIONS.
        norm: batch norm behind each hidden layer's affine map.
    """

    def __init__(
        self,
        n_in: int,
        hidden: tuple[int, ...],
        out: tuple[int, ...],
        schema: Schema,
        embed_dim: int = 32,
        activation: str = "relu",
        norm: bool = False,
    ):
        super().__init__()
        self.embed, self.out = SchemaEmbedding(schema, embed_dim), tuple(out)
        widths, layers = [n_in + self.embed.out, *hidden], []
        for a, b in zip(widths, widths[1:], strict=False):
            norms = [nn.BatchNorm1d(b)] if norm else []
            layers += [nn.Linear(a, b), *norms, nn.LeakyReLU(SLOPE) if activation == "leaky" else ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], math.prod(out)))

    def hidden(self, x: Float[Tensor, "b ..."], c: Values) -> list[Tensor]:
        """The hidden layers' activations, in order."""
        h, found = self.embed(c, x.flatten(1)), []
        for layer in list(self.layers)[:-1]:
            h = layer(h)
            if isinstance(layer, tuple(ACTIVATIONS.values())):
                found.append(h)
        return found

    def forward(self, x: Float[Tensor, "b ..."], c: Values) -> Tensor:
        return self.layers(self.embed(c, x.flatten(1))).unflatten(1, self.out)
